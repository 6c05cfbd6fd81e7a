"""Building blocks of encoder and decoder: patches, position embeddings, and Transformer blocks with
attention in space and between two frames.

Letters: B batch, F frames, L tokens of a frame, N = n * n patches of a frame, P numbers per patch,
d width, h heads, S image side, p patch side.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from alam_core.attention import attention


def patchify(images: Tensor, side: int) -> Tensor:
    """(B, 3, S, S) -> (B, N, P), row by row; a patch's numbers are p rows, p columns, 3 channels.

    If S is not a multiple of p, the last row and column of pixels are repeated up to the next
    multiple.
    """
    missing = -images.shape[-1] % side
    if missing:
        images = functional.pad(images, (0, missing, 0, missing), mode="replicate")
    tiles = images.unfold(2, side, side).unfold(3, side, side)  # (B, 3, n, n, p, p)
    return tiles.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, side: int, size: int) -> Tensor:
    """The inverse of ``patchify``, padding removed: (B, N, P) -> (B, 3, S, S), S = ``size``."""
    count = math.isqrt(patches.shape[1])
    tiles = patches.unflatten(2, (side, side, 3)).unflatten(1, (count, count))  # (B, n, n, p, p, 3)
    return tiles.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), 3, count * side, count * side)[
        :, :, :size, :size
    ]


def positions(tokens: int, width: int) -> Tensor:
    """Sinusoidal position embeddings (L, d): sines in even columns, cosines in odd ones.

    Wavelengths are from 2 pi to 20000 pi tokens.
    """
    angles = torch.arange(tokens)[:, None] * torch.exp(
        torch.arange(0, width, 2) * (-math.log(10_000.0) / width)
    )
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class TokenEmbedding(nn.Module):
    """A linear map to the width, plus position embeddings: (B, L, P) -> (B, L, d). With ``normed``,
    there are layer norms before and after the linear map.
    """

    def __init__(self, inputs: int, width: int, tokens: int, normed: bool) -> None:
        super().__init__()
        linear = nn.Linear(inputs, width)
        self.project = (
            nn.Sequential(nn.LayerNorm(inputs), linear, nn.LayerNorm(width))
            if normed
            else nn.Sequential(linear)
        )
        self.position: Tensor
        self.register_buffer("position", positions(tokens, width), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.project(tokens) + self.position


class SpatialAttention(nn.Module):
    """Multi-head attention among the tokens of one frame; with ``keep``, only the first ``keep``
    tokens are queries.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, keep: int | None = None) -> Tensor:
        """(B, L, d) -> (B, keep or L, d)."""
        q, k, v = (
            layer(part).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, h, L, d / h)
            for layer, part in (
                (self.query, tokens[:, :keep]),
                (self.key, tokens),
                (self.value, tokens),
            )
        )
        return self.out(attention(q, k, v).transpose(1, 2).flatten(2))


class TemporalAttention(nn.Module):
    """Causal attention in time: each token attends to the same token of the source frame and of its
    own frame.

    With two keys the softmax is a sigmoid: in each head, a target token receives v_source +
    sigmoid(q (k_target - k_source) / sqrt(d / h)) (v_target - v_source). A source token attends
    only to itself and receives v_source.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, source: Tensor, target: Tensor, source_rows: Tensor) -> tuple[Tensor, Tensor]:
        """source (F, L, d), target (B, L, d), source_rows (B,): index in ``source`` of each
        target's source frame -> the outputs for source and target, of the same shapes.
        """
        values = self.value(source)
        if not len(target):
            return self.out(values), target
        value, key = values[source_rows], self.key(source)[source_rows]  # (B, L, d)
        score = (
            (self.query(target) * (self.key(target) - key))
            .unflatten(2, (self.heads, -1))
            .sum(-1, keepdim=True)
        )  # (B, L, h, 1)
        gate = torch.sigmoid(score * (self.heads / target.shape[2]) ** 0.5)
        change = (self.value(target) - value).unflatten(2, (self.heads, -1))
        return self.out(values), self.out(value + (gate * change).flatten(2))


def feed_forward(width: int) -> nn.Sequential:
    """A Transformer's MLP, (..., d) -> (..., d), with a hidden layer four times as wide."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class SpatialBlock(nn.Module):
    """Attention in space and a feed-forward network, each after a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.spatial, self.spatial_norm = SpatialAttention(width, heads), nn.LayerNorm(width)
        self.mlp, self.mlp_norm = feed_forward(width), nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, d) -> (B, L, d)."""
        tokens = tokens + self.spatial(self.spatial_norm(tokens))
        return tokens + self.mlp(self.mlp_norm(tokens))


class SpatioTemporalBlock(nn.Module):
    """Attention in space, attention in time, a feed-forward network, each after a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.spatial, self.spatial_norm = SpatialAttention(width, heads), nn.LayerNorm(width)
        self.temporal, self.temporal_norm = TemporalAttention(width, heads), nn.LayerNorm(width)
        self.mlp, self.mlp_norm = feed_forward(width), nn.LayerNorm(width)

    def forward(
        self, source: Tensor, target: Tensor, source_rows: Tensor, keep: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """source (F, L, d), target (B, L, d), source_rows (B,) as in ``TemporalAttention`` ->
        source and target, only the first ``keep`` tokens of each if given.
        """
        frames = len(source)
        both = torch.cat([source, target])
        both = both[:, :keep] + self.spatial(self.spatial_norm(both), keep)
        normed = self.temporal_norm(both)
        both = both + torch.cat(self.temporal(normed[:frames], normed[frames:], source_rows))
        both = both + self.mlp(self.mlp_norm(both))
        return both[:frames], both[frames:]
