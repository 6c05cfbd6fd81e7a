"""An inverse dynamics model: which actions lead from one frame to a later one, and the state at the
first. It labels video without actions.

Letters: B batch, H steps between the two frames, V views, S image side in px, A action width,
state_dim state width, d width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alam_core.errors import UserError
from alam_core.policy.small.vision import STRIDE, ViewEncoder


@dataclass
class InverseDynamicsConfig:
    """An inverse dynamics model.

    Args:
        image_size: side of the square images, in px.
        horizon: steps H between the two frames.
        width: width of the image tokens and of the hidden layers.
        keypoints: number of keypoints of each kind per view.
    """

    image_size: int = 64
    horizon: int = 8
    width: int = 128
    keypoints: int = 16

    def __post_init__(self) -> None:
        if self.image_size < STRIDE or self.image_size % STRIDE:
            raise UserError(
                f"model.image_size is {self.image_size}: it must be a multiple of {STRIDE}"
            )
        if min(self.horizon, self.width, self.keypoints) < 1:
            raise UserError("model.horizon, width and keypoints must be at least 1")


class InverseDynamics(nn.Module):
    """Both frames of each view are encoded by the small policy's image encoder; an MLP reads the
    tokens of both and their difference.
    """

    def __init__(
        self, config: InverseDynamicsConfig, views: Sequence[str], state_dim: int, action_dim: int
    ) -> None:
        super().__init__()
        self.config, self.views = config, tuple(views)
        width = config.width
        channels = [32, 64, 128, 128]
        self.cameras = nn.ModuleDict(
            {
                view: ViewEncoder(config.image_size, channels, config.keypoints, width, 1)
                for view in views
            }
        )
        self.state_dim, self.shape = state_dim, (config.horizon, action_dim)
        numbers = 5 * width * len(self.views)  # four keypoint tokens and the mean of the patches
        self.norm = nn.LayerNorm(numbers)
        self.actions = _mlp(3 * numbers, width, config.horizon * action_dim)
        self.state = _mlp(numbers, width, state_dim)

    def forward(
        self, start: Mapping[str, Tensor], end: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Images at the start and H steps later, view -> (B, 3, S, S) uint8 -> the normalised
        actions between, (B, H, A), and the normalised state at the start, (B, state_dim).
        """
        first, last = self._features(start), self._features(end)
        read = torch.cat([first, last, last - first], dim=1)
        return self.actions(read).unflatten(1, self.shape), self.state(first)

    def _features(self, images: Mapping[str, Tensor]) -> Tensor:
        parts = []
        for view in self.views:
            image = images[view].float() / 127.5 - 1.0
            tokens = self.cameras[view](image, image.new_zeros(len(image), 1))  # (B, ., d)
            parts += [tokens[:, :4].flatten(1), tokens[:, 4:].mean(1)]
        return self.norm(torch.cat(parts, dim=1))


def _mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, outputs))
