"""The small backbone: trains in minutes to hours and acts in real time on two CPU cores.

Letters as in ``alam_core.policy.backbone``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from alam_core.errors import UserError
from alam_core.policy.backbone import Backbone, Context
from alam_core.policy.small.expert import ActionExpert
from alam_core.policy.small.text import WORDS, TextEncoder
from alam_core.policy.small.timm_vision import TimmVision
from alam_core.policy.small.vision import ViewEncoder


@dataclass
class SmallConfig:
    """The size of a small backbone.

    Args:
        width: of all transformer tokens.
        layers: of the action expert.
        heads: of every attention.
        mlp_width: hidden width of the expert's MLPs.
        vision: "keypoints", our own encoder for each view, or the name of an image model of timm,
            one for all views.
        pretrained: begin training with timm's pretrained weights where they are or can be fetched;
            else from scratch.
        channels: of the four strided convolutions of a view's own encoder.
        keypoints: soft-argmax keypoints a view, and as many again that follow the instruction.
        text: "words", learned from scratch, or the name of a published sentence encoder, which
            stays frozen: a folder, or a name on the model hub such as
            sentence-transformers/all-MiniLM-L6-v2, which set-up installs.
        text_width: numbers of a sentence encoder's vectors.
        vocabulary: ids that words are hashed into.
        max_words: longest instruction, in words, or in tokens of a sentence encoder.
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
                f"model.small.vocabulary is {self.vocabulary}: it must be at least 2, padding takes one"
            )
        if self.width % self.heads or self.width % 2:
            raise UserError(
                f"model.small.width is {self.width}: it must be even and a multiple of model.small.heads, {self.heads}"
            )
        if len(self.channels) != 4 or min(self.channels) < 1:
            raise UserError(
                f"model.small.channels is {self.channels}: give four numbers, one for each convolution"
            )


class Embed(nn.Linear):
    """A linear input head: the small backbone learns of the time in every block instead."""

    def forward(self, x: Tensor, tau: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class SmallBackbone(Backbone):
    """A convolutional encoder a view, a state token and an instruction token; an expert that looks
    at them by cross-attention.
    """

    def __init__(
        self,
        config: SmallConfig,
        views: Sequence[str],
        image_size: int,
        state_dim: int,
        horizon: int,
        modalities: int,
    ) -> None:
        """image_size: px, a multiple of ``vision.STRIDE``. horizon: of the longest chunk."""
        super().__init__()
        self.width = width = config.width
        self.views, self.pretrained = tuple(views), config.pretrained
        self.text = (
            TextEncoder(config.vocabulary, config.max_words, width, config.heads)
            if config.text == WORDS
            else nn.Sequential(nn.Linear(config.text_width, width), nn.LayerNorm(width))
        )
        self.timm: TimmVision | None = None
        self.cameras = nn.ModuleDict()
        if config.vision == "keypoints":
            self.cameras.update(
                {
                    view: ViewEncoder(image_size, config.channels, config.keypoints, width, width)
                    for view in views
                }
            )
        else:
            self.timm = TimmVision(config.vision, image_size, width, len(self.views))
        self.state = nn.Sequential(
            nn.Linear(state_dim, width), nn.GELU(approximate="tanh"), nn.Linear(width, width)
        )
        self.norm = nn.LayerNorm(width)
        self.expert = ActionExpert(width, config.layers, config.heads, config.mlp_width, width)
        self.position = nn.Parameter(0.5 * torch.randn(horizon, modalities, width))

    def load_pretrained(self) -> str:
        return self.timm.load_pretrained() if self.timm is not None and self.pretrained else ""

    def encode(self, images: Mapping[str, Tensor], state: Tensor, words: Tensor) -> Context:
        """See ``Backbone``; C = 2 + views * (4 + (S / 16)^2) with our own encoders."""
        text = self.text(words)
        tokens = [self.state(state)[:, None], text[:, None]]
        if self.timm is None:
            tokens += [self.cameras[view](images[view], text) for view in self.views]
        else:
            tokens += [self.timm(images[view], number) for number, view in enumerate(self.views)]
        return Context(self.expert.context_keys(self.norm(torch.cat(tokens, dim=1))))

    def denoise(self, tokens: Tensor, tau: Tensor, context: Context, mask: Tensor) -> Tensor:
        steps = tokens.unflatten(1, (-1, self.position.shape[1]))  # (N, H, M, d)
        return self.expert(
            steps + self.position[: steps.shape[1]], tau, context.keys, mask
        ).flatten(1, 2)

    def input_head(self, width: int) -> nn.Module:
        return Embed(width, self.width)

    def output_head(self, width: int) -> nn.Module:
        head = nn.Linear(self.width, width)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head
