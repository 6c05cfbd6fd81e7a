"""The size of a pi0 backbone. Importing this loads no network code."""

from dataclasses import dataclass, fields

from alam_core.errors import UserError


@dataclass
class Pi0Config:
    """The size of a pi0 backbone; the defaults are those of the published ``pi0_base`` weights.

    Args:
        patch_size: px, side of the square patches.
        vision_width: of the vision transformer's tokens.
        vision_layers: of the vision transformer.
        vision_heads: of its attentions.
        vision_mlp_width: hidden width of its MLPs.
        text_width: of the language model's tokens.
        text_mlp_width: hidden width of its MLPs.
        expert_width: of the action expert's tokens.
        expert_mlp_width: hidden width of its MLPs.
        layers: of the language model and of the expert.
        heads: of queries, in both.
        kv_heads: of keys and values, in both.
        head_dim: numbers a head, in both.
        vocabulary: word ids.
        max_words: longest instruction, in tokens.
        state_width: states are padded to so many numbers.
        action_width: actions and latents are padded to so many numbers; wider ones are left as they
            are.
        gradient_checkpointing: in training, compute each layer again on the way back instead of
            keeping it: less memory, more time.
    """

    patch_size: int = 14
    vision_width: int = 1152
    vision_layers: int = 27
    vision_heads: int = 16
    vision_mlp_width: int = 4304
    text_width: int = 2048
    text_mlp_width: int = 16384
    expert_width: int = 1024
    expert_mlp_width: int = 4096
    layers: int = 18
    heads: int = 8
    kv_heads: int = 1
    head_dim: int = 256
    vocabulary: int = 257152
    max_words: int = 48
    state_width: int = 32
    action_width: int = 32
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        for entry in fields(self):
            if entry.name != "gradient_checkpointing" and getattr(self, entry.name) < 1:
                raise UserError(
                    f"model.pi0.{entry.name} is {getattr(self, entry.name)}: it must be at least 1"
                )
        multiples = {"vision_width": "vision_heads", "heads": "kv_heads"}
        for name, divisor in multiples.items():
            if getattr(self, name) % getattr(self, divisor):
                raise UserError(
                    f"model.pi0.{name} is {getattr(self, name)}: it must be a multiple of model.pi0.{divisor}, {getattr(self, divisor)}"
                )
        for name in ("head_dim", "expert_width"):
            if getattr(self, name) % 2:
                raise UserError(
                    f"model.pi0.{name} is {getattr(self, name)}: it must be even, for pairs of a sine and a cosine"
                )
