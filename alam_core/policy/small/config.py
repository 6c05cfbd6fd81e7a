"""The size of a small backbone."""

from dataclasses import dataclass, field

from alam_core.errors import UserError
from alam_core.policy.small.text import WORDS


@dataclass
class SmallConfig:
    """The size of a small backbone.

    Args:
        width: width of all Transformer tokens.
        layers: layers of the action expert.
        heads: heads of every attention.
        mlp_width: hidden width of the expert's MLPs.
        vision: "keypoints", our own encoder for each view, or the name of an image model of timm,
            which all views share.
        pretrained: start training from timm's pretrained weights if they can be loaded or
            downloaded, otherwise from random weights.
        channels: channels of the four strided convolutions of our own encoder.
        keypoints: number of soft-argmax keypoints per view with learned queries; the same number of
            keypoints again has queries that depend on the instruction.
        text: "words", learned from scratch, or a published sentence encoder, which stays frozen: a
            folder, or a name on the model hub such as sentence-transformers/all-MiniLM-L6-v2
            (``make setup`` installs this one).
        text_width: width of a sentence encoder's vectors.
        vocabulary: number of ids that words are hashed into.
        max_words: length of the longest instruction, in words, or in tokens of a sentence encoder.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    mlp_width: int = 256
    vision: str = "keypoints"
    pretrained: bool = True
    channels: list[int] = field(default_factory=lambda: [32, 64, 128, 128])
    keypoints: int = 16
    text: str = WORDS
    text_width: int = 384
    vocabulary: int = 2048
    max_words: int = 24

    def __post_init__(self) -> None:
        for name in (
            "width",
            "layers",
            "heads",
            "mlp_width",
            "keypoints",
            "text_width",
            "max_words",
        ):
            if getattr(self, name) < 1:
                raise UserError(
                    f"model.small.{name} is {getattr(self, name)}: it must be at least 1"
                )
        if self.vocabulary < 2:
            raise UserError(
                f"model.small.vocabulary is {self.vocabulary}: it must be at least 2, as one id is "
                "padding"
            )
        if self.width % self.heads or self.width % 2:
            raise UserError(
                f"model.small.width is {self.width}: it must be even and a multiple of "
                f"model.small.heads, {self.heads}"
            )
        if len(self.channels) != 4 or min(self.channels) < 1:
            raise UserError(
                f"model.small.channels is {self.channels}: give four numbers, one for each "
                "convolution"
            )
