"""The size of a pi0 backbone. Importing this does not import transformers."""

from dataclasses import dataclass, fields

from alam_core.errors import UserError


@dataclass
class Pi0Config:
    """The size of a pi0 backbone; the defaults are those of the published ``pi0_base`` weights.

    Args:
        patch_size: side of the square image patches, in px.
        vision_width: width of the vision Transformer's tokens.
        vision_layers: layers of the vision Transformer.
        vision_heads: attention heads of the vision Transformer.
        vision_mlp_width: hidden width of the vision Transformer's MLPs.
        text_width: width of the language model's tokens.
        text_mlp_width: hidden width of the language model's MLPs.
        expert_width: width of the action expert's tokens.
        expert_mlp_width: hidden width of the action expert's MLPs.
        layers: layers of the language model, and of the expert.
        heads: query heads of both.
        kv_heads: key and value heads of both.
        head_dim: numbers per head of both.
        vocabulary: number of token ids.
        max_words: length of the longest instruction, in tokens.
        state_width: states are padded with zeros to this width.
        action_width: actions and latents are padded with zeros to this width; if they are wider,
            they are not changed.
        gradient_checkpointing: in training, recompute each layer's activations in the backward pass
            instead of storing them: less memory, more time.
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
                    f"model.pi0.{name} is {getattr(self, name)}: it must be a multiple of "
                    f"model.pi0.{divisor}, {getattr(self, divisor)}"
                )
        for name in ("head_dim", "expert_width"):
            if getattr(self, name) % 2:
                raise UserError(
                    f"model.pi0.{name} is {getattr(self, name)}: it must be even, for pairs of a "
                    "sine and a cosine"
                )
