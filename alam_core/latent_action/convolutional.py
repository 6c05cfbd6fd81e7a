"""Convolutional networks of stage 1: an encoder whose transitions are exact by construction and
show small motions, and a decoder.

Letters: B batch, K latent tokens, D numbers per token, S image side in px, P keypoints of one
resolution.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alam_core.latent_action.config import ENCODER_NETWORKS, TransitionConfig
from alam_core.latent_action.encoder import PotentialDifference

STRIDE = 16  # of the coarsest features
PATCH = 4  # px; the decoder predicts patches of this side


class Conv(nn.Sequential):
    """A convolution, a group norm and SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2),
            nn.GroupNorm(8, outputs),
            nn.SiLU(),
        )


def grid(size: int) -> Tensor:
    """Centres of ``size`` pixels in [-1, 1]."""
    return (torch.arange(size) + 0.5) / size * 2.0 - 1.0


class SoftArgmax(nn.Module):
    """Features (B, channels, size, size) -> positions of P keypoints, (B, 2 P): row and column in
    [-1, 1], the means of learned heat maps, which are finer than the features' resolution.
    """

    def __init__(self, channels: int, keypoints: int, size: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(channels, keypoints, 1)
        self.places: Tensor
        places = torch.stack(torch.meshgrid(grid(size), grid(size), indexing="ij"), -1)
        self.register_buffer("places", places.flatten(0, 1), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        heat = self.maps(features).float().flatten(2).softmax(-1)  # (B, P, size * size)
        return (heat @ self.places).flatten(1)


@ENCODER_NETWORKS.register("keypoints")
class KeypointEncoder(PotentialDifference):
    """z = f(j) - f(i), so that reversal and composition are exact. f of a single frame consists of
    the positions of keypoints, at strides of 4 and 8 px, and of a linear code of the whole frame.

    A change of a position is a motion in the image, and positions are not rounded to pixels.
    """

    def __init__(self, config: TransitionConfig) -> None:
        super().__init__()
        self.config = config
        size, points = config.image_size, config.keypoints
        self.by2 = Conv(3, 32, 5, 2)
        self.by4 = Conv(32, 64, 3, 2)
        self.by8 = Conv(64, 96, 3, 2)
        self.by16 = Conv(96, 128, 3, 2)
        self.fine = SoftArgmax(64 + 3, points, size // 4)
        self.coarse = SoftArgmax(96, points, size // 8)
        rest = config.latent_tokens * config.latent_dim - coordinates(config)
        self.code = nn.Linear(128 * (size // STRIDE) ** 2, rest)

    def potential(self, images: Tensor) -> Tensor:
        """f of single frames (B, 3, S, S) -> (B, K, D), float32. The first ``coordinates`` of its
        numbers are positions.
        """
        images = self.config.input_gain * (images - 0.5)
        quarter = self.by4(self.by2(images))
        eighth = self.by8(quarter)
        coloured = torch.cat([quarter, F.avg_pool2d(images, 4).to(quarter.dtype)], dim=1)
        code = self.code(self.by16(eighth).flatten(1)).float()
        numbers = torch.cat([self.fine(coloured), self.coarse(eighth), code], dim=1)
        return numbers.unflatten(1, (self.config.latent_tokens, self.config.latent_dim))


def coordinates(config: TransitionConfig) -> int:
    """Numbers of a keypoint encoder's f that are positions: row and column, at two strides."""
    return 4 * config.keypoints if config.encoder == "keypoints" else 0


class ConvolutionalDecoder(nn.Module):
    """Predicts the change of the source frame, in patches of 4 px, from its features; z and f of
    the source scale and shift their channels. It also sees where the keypoints are and where they
    go, as maps of Gaussians. An untrained model copies the source.
    """

    def __init__(self, config: TransitionConfig) -> None:
        super().__init__()
        self.config = config
        self.positions = coordinates(config)
        maps = 16 if self.positions else 0
        self.by2 = Conv(3, 24, 5, 2)
        self.by4 = Conv(24, 48, 3, 2)
        self.by8 = Conv(48, 64, 3, 2)
        numbers = config.latent_tokens * config.latent_dim
        self.condition = nn.Sequential(
            nn.Linear(2 * numbers, 256), nn.SiLU(), nn.Linear(256, 2 * (64 + 48))
        )
        self.coarse = nn.ModuleList([Conv(64, 64), Conv(64, 64)])
        self.fine = nn.ModuleList([Conv(64 + 48 + maps, 48), Conv(48, 48)])
        self.mix = nn.Conv2d(self.positions, maps, 1) if maps else None
        self.pixels = nn.Conv2d(48, 3 * PATCH**2, 1)
        nn.init.zeros_(self.pixels.weight)
        assert self.pixels.bias is not None
        nn.init.zeros_(self.pixels.bias)
        self.rows: Tensor
        self.register_buffer("rows", grid(config.image_size // PATCH), persistent=False)

    def forward(self, source: Tensor, z: Tensor, potential: Tensor | None = None) -> Tensor:
        """source (B, 3, S, S) in [0, 1], z (B, K, D), f of the source (B, K, D) or None ->
        predicted target (B, 3, S, S), not clamped to [0, 1].
        """
        z = z.flatten(1)
        start = torch.zeros_like(z) if potential is None else potential.flatten(1)
        quarter = self.by4(self.by2(self.config.input_gain * (source - 0.5)))
        coarse = self.coarse[0](self.by8(quarter))
        condition = self.condition(torch.cat([start, 4.0 * z], dim=1))[:, :, None, None]
        scale, shift, fine_scale, fine_shift = condition.split([64, 64, 48, 48], dim=1)
        coarse = self.coarse[1](torch.addcmul(shift, coarse, 1.0 + scale))
        parts = [F.interpolate(coarse, scale_factor=2.0, mode="nearest"), quarter]
        if self.mix is not None:
            before, after = (self._maps(f[:, : self.positions]) for f in (start, start + z))
            parts.append(self.mix(torch.cat([before, after - before], dim=1)))
        fine = self.fine[0](torch.cat(parts, dim=1))
        fine = self.fine[1](torch.addcmul(fine_shift, fine, 1.0 + fine_scale))
        return source + F.pixel_shuffle(self.pixels(fine), PATCH)

    def _maps(self, positions: Tensor) -> Tensor:
        """Positions (B, 4 P) -> Gaussians around them, (B, 2 P, S / 4, S / 4)."""
        width = 2.0 / len(self.rows)  # one pixel of the map
        places = positions.float().unflatten(1, (-1, 2))[..., None]  # (B, 2 P, 2, 1)
        bells = torch.exp(-0.5 * ((self.rows - places) / width).square())  # (B, 2 P, 2, S / 4)
        return bells[:, :, 0, :, None] * bells[:, :, 1, None, :]
