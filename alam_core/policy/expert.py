"""The action expert: a transformer over the interleaved sequence that predicts velocities, looking at the context.

Letters: B batch, N = B * draws sequences, L tokens, C context tokens, d width. Several draws of (tau, noise) may share one context:
sequences i * draws .. (i + 1) * draws - 1 belong to context i.
"""

import math

import torch
from torch import Tensor, nn

from alam_core.attention import attention

KeyValue = tuple[Tensor, Tensor]


def time_embedding(tau: Tensor, width: int) -> Tensor:
    """Sines and cosines of tau (N,) with periods from 0.02 to 4, (N, width)."""
    period = torch.exp(torch.linspace(math.log(0.02), math.log(4.0), width // 2, device=tau.device))
    phase = tau.float()[:, None] * (2.0 * math.pi / period)[None, :]
    return torch.cat([phase.sin(), phase.cos()], dim=-1)


class ExpertBlock(nn.Module):
    """Masked self-attention, cross-attention to the context, MLP; each modulated by the time (adaLN: shift, scale, gate)."""

    def __init__(self, width: int, heads: int, mlp_width: int, context_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 9 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        with torch.no_grad():  # at the start: no shift, no scale, open gates
            self.modulation.bias.view(3, 3, width)[:, 2] = 1.0
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.self_out = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(context_width, 2 * width)
        self.cross_out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_width), nn.GELU(approximate="tanh"), nn.Linear(mlp_width, width))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (., heads, L, d / heads)

    def context_keys(self, context: Tensor) -> KeyValue:
        """Keys and values of the context (B, C, d_c), to be computed once: each (B, heads, C, d / heads)."""
        key, value = self.key_value(context).chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def forward(self, x: Tensor, time: Tensor, mask: Tensor, context: KeyValue) -> Tensor:
        """x (N, L, d), time (N, d), mask (L, L) bool, context of B entries with N a multiple of B -> (N, L, d)."""
        shifts = self.modulation(time)[:, None].chunk(9, dim=-1)
        count, length, _ = x.shape
        batch = context[0].shape[0]

        h = torch.addcmul(shifts[0], self.norm(x), 1.0 + shifts[1])
        query, key, value = (self._split(part) for part in self.qkv(h).chunk(3, dim=-1))
        h = attention(query, key, value, mask)
        x = torch.addcmul(x, shifts[2], self.self_out(h.transpose(1, 2).flatten(2)))

        h = torch.addcmul(shifts[3], self.norm(x), 1.0 + shifts[4])
        query = self._split(self.query(h).reshape(batch, -1, h.shape[-1]))  # draws of one context side by side
        h = attention(query, *context).transpose(1, 2).reshape(count, length, -1)
        x = torch.addcmul(x, shifts[5], self.cross_out(h))

        h = torch.addcmul(shifts[6], self.norm(x), 1.0 + shifts[7])
        return torch.addcmul(x, shifts[8], self.mlp(h))


class ActionExpert(nn.Module):
    """Blocks with a final norm; tokens in, tokens out. ``mask`` (L, L) bool says who may look at whom."""

    def __init__(self, width: int, layers: int, heads: int, mlp_width: int, context_width: int, mask: Tensor) -> None:
        super().__init__()
        self.width = width
        self.time_mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(ExpertBlock(width, heads, mlp_width, context_width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.mask: Tensor
        self.register_buffer("mask", mask, persistent=False)

    def context_keys(self, context: Tensor) -> list[KeyValue]:
        """The context's keys and values for every block; reused over all Euler steps."""
        return [block.context_keys(context) for block in self.blocks]  # type: ignore[operator]

    def forward(self, tokens: Tensor, tau: Tensor, context: list[KeyValue]) -> Tensor:
        """tokens (N, L, d), tau (N,) -> (N, L, d)."""
        time = self.time_mlp(time_embedding(tau, self.width).to(tokens.dtype))
        for block, keys in zip(self.blocks, context, strict=True):
            tokens = block(tokens, time, self.mask, keys)
        return self.norm(tokens)
