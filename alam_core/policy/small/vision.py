"""The small backbone's own image encoder: one convolutional network per view, conditioned on the
instruction and trained from scratch.

Letters: B batch, S image size in px, d token width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 16  # image px per patch token


class FilmConv(nn.Module):
    """A strided convolution; the instruction scales and shifts its channels (FiLM)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, condition: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(outputs)
        self.film = nn.Linear(condition, 2 * outputs)
        nn.init.normal_(self.film.weight, std=0.02)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        # The norm is over the channels of each pixel.
        x = self.norm(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.silu(torch.addcmul(shift, x, 1.0 + scale))


class Keypoints(nn.Module):
    """Soft-argmaxes of heat maps: positions in the image, more precise than the maps' resolution.

    Half of the heat maps have learned queries, for objects such as plate and fingers; the queries
    of the other half depend on the instruction.
    """

    def __init__(self, size: int, channels: int, count: int, width: int, condition: int) -> None:
        super().__init__()
        self.fixed_query = nn.Parameter(torch.randn(count, channels) / channels**0.5)
        self.named_query = nn.Linear(condition, count * channels)
        self.tokens = nn.ModuleList(nn.Linear(2 * count, width) for _ in range(2))
        rows = (torch.arange(size) + 0.5) / size * 2.0 - 1.0
        self.grid: Tensor
        self.register_buffer(
            "grid",
            torch.stack(torch.meshgrid(rows, rows, indexing="ij"), -1).view(-1, 2),
            persistent=False,
        )

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """features (B, channels, size, size), condition (B, d_c) -> (B, 2, d): a token for each
        half, which embeds its positions in [-1, 1]^2.
        """
        pixels = features.flatten(2)
        queries = (
            self.fixed_query,
            self.named_query(condition).unflatten(1, self.fixed_query.shape),
        )
        points = [
            ((query @ pixels).float().softmax(-1) @ self.grid).flatten(1) for query in queries
        ]  # (B, 2 * count)
        return torch.stack([token(p) for token, p in zip(self.tokens, points, strict=True)], dim=1)


class ViewEncoder(nn.Module):
    """Images (B, 3, S, S) of one view -> (B, 4 + (S / 16)^2, d): two keypoint tokens at stride 4,
    two at stride 8, and patch tokens.
    """

    def __init__(
        self, size: int, channels: Sequence[int], keypoints: int, width: int, condition: int
    ) -> None:
        super().__init__()
        kernels = (5, 3, 3, 3)
        inputs = (3, *channels[:-1])
        self.blocks = nn.ModuleList(
            FilmConv(i, o, k, 2, condition)
            for i, o, k in zip(inputs, channels, kernels, strict=True)
        )
        self.fine = Keypoints(size // 4, channels[1] + 3, keypoints, width, condition)
        self.coarse = Keypoints(size // 8, channels[2], keypoints, width, condition)
        self.patch_token = nn.Linear(channels[3], width)
        self.position = nn.Parameter(0.5 * torch.randn((size // STRIDE) ** 2, width))

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        x = image.to(memory_format=torch.channels_last)
        quarter = self.blocks[1](self.blocks[0](x, condition), condition)
        eighth = self.blocks[2](quarter, condition)
        sixteenth = self.blocks[3](eighth, condition)
        colour = F.avg_pool2d(image, 4).to(quarter.dtype)
        patches = self.patch_token(sixteenth.flatten(2).transpose(1, 2)) + self.position
        fine = self.fine(torch.cat([quarter, colour], dim=1), condition)
        return torch.cat([fine, self.coarse(eighth, condition), patches], dim=1)
