"""The action expert: a transformer over the interleaved sequence, looking at the context.

Letters as in ``alam_core.policy.backbone``.
"""

import torch
from torch import Tensor, nn

from alam_core.attention import attention
from alam_core.policy.generation import time_embedding

KeyValue = tuple[Tensor, Tensor]
SHORTEST = 0.02  # period of the time embedding


class ExpertBlock(nn.Module):
    """Masked self-attention, cross-attention to the context, MLP; each modulated by the time
    (adaLN: shift, scale, gate).
    """

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
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_width), nn.GELU(approximate="tanh"), nn.Linear(mlp_width, width)
        )

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (., heads, L, d / heads)

    def context_keys(self, context: Tensor) -> KeyValue:
        """Keys and values of the context (B, C, d_c), to be computed once: each (B, heads, C, d /
        heads).
        """
        key, value = self.key_value(context).chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def forward(self, x: Tensor, time: Tensor, mask: Tensor, context: KeyValue) -> Tensor:
        """x (N, H, M, d), time (N, 1 or H, 1 or M, d), mask (L, L) bool, context of B entries ->
        (N, H, M, d).
        """
        shifts = self.modulation(time).chunk(9, dim=-1)
        count, batch = x.shape[0], context[0].shape[0]

        h = torch.addcmul(shifts[0], self.norm(x), 1.0 + shifts[1]).flatten(1, 2)
        query, key, value = (self._split(part) for part in self.qkv(h).chunk(3, dim=-1))
        h = attention(query, key, value, mask).transpose(1, 2).flatten(2)
        x = torch.addcmul(x, shifts[2], self.self_out(h).view_as(x))

        h = torch.addcmul(shifts[3], self.norm(x), 1.0 + shifts[4])
        query = self._split(
            self.query(h).reshape(batch, -1, h.shape[-1])
        )  # draws of one context side by side
        h = attention(query, *context).transpose(1, 2).reshape(count, -1, h.shape[-1])
        x = torch.addcmul(x, shifts[5], self.cross_out(h).view_as(x))

        h = torch.addcmul(shifts[6], self.norm(x), 1.0 + shifts[7])
        return torch.addcmul(x, shifts[8], self.mlp(h))


class ActionExpert(nn.Module):
    """Blocks with a final norm; tokens in, tokens out."""

    def __init__(
        self, width: int, layers: int, heads: int, mlp_width: int, context_width: int
    ) -> None:
        super().__init__()
        self.width = width
        self.time_mlp = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.blocks = nn.ModuleList(
            ExpertBlock(width, heads, mlp_width, context_width) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def context_keys(self, context: Tensor) -> list[KeyValue]:
        """Keys and values (B, h, C, c) of the context (B, C, d_c) for every block; reused over all
        denoising steps.
        """
        return [block.context_keys(context) for block in self.blocks]  # type: ignore[operator]

    def forward(self, tokens: Tensor, tau: Tensor, context: list[KeyValue], mask: Tensor) -> Tensor:
        """tokens (N, H, M, d), tau (N, 1 or H, 1 or M), mask (L, L) bool, True where the row may
        look at the column -> (N, H, M, d).
        """
        time = self.time_mlp(time_embedding(tau, self.width, SHORTEST).to(tokens.dtype))
        for block, keys in zip(self.blocks, context, strict=True):
            tokens = block(tokens, time, mask, keys)
        return self.norm(tokens)
