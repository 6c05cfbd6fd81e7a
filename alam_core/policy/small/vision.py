"""The small backbone's eyes: a convolutional encoder a view, modulated by the instruction, trained
from scratch.

Letters: B batch, S image size in px, d token width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 16  # px of the picture to a patch token


class FilmConv(nn.Module):
    """A strided convolution whose channels the instruction scales and shifts (FiLM)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, condition: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(outputs)
        self.film = nn.Linear(condition, 2 * outputs)
        nn.init.normal_(self.film.weight, std=0.02)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        x = self.norm(self.conv(x).permute(0, 2, 3, 1)).permute(
            0, 3, 1, 2
        )  # over channels, at each pixel
        return F.silu(torch.addcmul(shift, x, 1.0 + scale))


class Keypoints(nn.Module):
    """Soft-argmaxes of heat maps: where in the picture something is, finer than a pixel of the map.

    Half of the heat maps look for learned features (the plate, the fingers), the other half for
    what the instruction names.
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
        """features (B, channels, size, size), condition (B, d_c) -> tokens of mean positions in
        [-1, 1]^2, (B, 2, d).
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
    """One camera: images (B, 3, S, S) to two tokens of keypoints at stride 4 and two at stride 8,
    and (S / 16)^2 patch tokens.
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
