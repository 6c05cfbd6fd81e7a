"""The small backbone: trains in minutes to hours and acts in real time on two CPU cores.

Letters as in ``alam_core.policy.backbone``.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from alam_core.policy.backbone import Backbone, Context, layer_indices
from alam_core.policy.small.config import SmallConfig
from alam_core.policy.small.expert import ActionExpert
from alam_core.policy.small.text import WORDS, TextEncoder
from alam_core.policy.small.timm_vision import TimmVision
from alam_core.policy.small.vision import ViewEncoder


class Embed(nn.Linear):
    """A linear input head. It ignores the flow time, which adaLN injects in every block."""

    def forward(self, x: Tensor, tau: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class SmallBackbone(Backbone):
    """The context consists of image tokens (by default from one encoder per view), a state token
    and an instruction token; an action expert reads it by cross-attention.
    """

    def __init__(
        self,
        config: SmallConfig,
        views: Sequence[str],
        image_size: int,
        state_dim: int,
        horizon: int,
        modalities: int,
        stateless: bool = False,
    ) -> None:
        """image_size: px, a multiple of ``vision.STRIDE``. horizon: steps of the longest chunk.
        modalities: M. stateless: see ``ModelConfig``.
        """
        super().__init__()
        self.width = width = config.width
        self.depth = config.layers
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
        if stateless:
            self.no_state = nn.Parameter(0.5 * torch.randn(width))
        self.norm = nn.LayerNorm(width)
        self.expert = ActionExpert(width, config.layers, config.heads, config.mlp_width, width)
        self.position = nn.Parameter(0.5 * torch.randn(horizon, modalities, width))

    def load_pretrained(self) -> str:
        return self.timm.load_pretrained() if self.timm is not None and self.pretrained else ""

    def encode(
        self,
        images: Mapping[str, Tensor],
        state: Tensor,
        words: Tensor,
        known: Tensor | None = None,
    ) -> Context:
        """See ``Backbone``. With our own image encoders, C = 2 + views * (4 + (S / 16)^2)."""
        text = self.text(words)
        own = self.state(state)
        if known is not None:
            own = torch.where(known[:, None], own, self.no_state.to(own.dtype))
        tokens = [own[:, None], text[:, None]]
        if self.timm is None:
            tokens += [self.cameras[view](images[view], text) for view in self.views]
        else:
            tokens += [self.timm(images[view], number) for number, view in enumerate(self.views)]
        return Context(self.expert.context_keys(self.norm(torch.cat(tokens, dim=1))))

    def denoise_with_hidden(
        self,
        tokens: Tensor,
        tau: Tensor,
        context: Context,
        mask: Tensor,
        layers: Sequence[int],
    ) -> tuple[Tensor, list[Tensor]]:
        steps = tokens.unflatten(1, (-1, self.position.shape[1]))  # (N, H, M, d)
        steps = steps + self.position[: steps.shape[1]]
        out, hidden = self.expert.with_hidden(
            steps, tau, context.keys, mask, layer_indices(layers, self.depth)
        )
        return out.flatten(1, 2), [state.flatten(1, 2) for state in hidden]

    def input_head(self, width: int) -> nn.Module:
        return Embed(width, self.width)

    def output_head(self, width: int) -> nn.Module:
        head = nn.Linear(self.width, width)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head
