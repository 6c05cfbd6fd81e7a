"""The action expert: a Transformer over the interleaved sequence, with cross-attention to the
context.

Letters as in ``alam_core.policy.backbone``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from alam_core.attention import attention
from alam_core.policy.generation import time_embedding

KeyValue = tuple[Tensor, Tensor]
SHORTEST = 0.02  # shortest period of the time embedding, in flow time


class ExpertBlock(nn.Module):
    """Masked self-attention, cross-attention to the context, and an MLP; the flow time shifts,
    scales and gates each of them (adaLN).
    """

    def __init__(self, width: int, heads: int, mlp_width: int, context_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 9 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        with torch.no_grad():  # initially: shift 0, scale 1, gate 1
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
        """Keys and values of the context (B, C, d_c), computed once per observation: (B, h, C, c)
        each.
        """
        key, value = self.key_value(context).chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def forward(self, x: Tensor, time: Tensor, mask: Tensor, context: KeyValue) -> Tensor:
        """x (N, H, M, d), time embedding (N, 1 or H, 1 or M, d), mask (L, L) bool, context of B
        observations -> (N, H, M, d).
        """
        shifts = self.modulation(time).chunk(9, dim=-1)
        count, batch = x.shape[0], context[0].shape[0]

        h = torch.addcmul(shifts[0], self.norm(x), 1.0 + shifts[1]).flatten(1, 2)
        query, key, value = (self._split(part) for part in self.qkv(h).chunk(3, dim=-1))
        h = attention(query, key, value, mask).transpose(1, 2).flatten(2)
        x = torch.addcmul(x, shifts[2], self.self_out(h).view_as(x))

        h = torch.addcmul(shifts[3], self.norm(x), 1.0 + shifts[4])
        # The sequences of one observation are one row of queries.
        query = self._split(self.query(h).reshape(batch, -1, h.shape[-1]))
        h = attention(query, *context).transpose(1, 2).reshape(count, -1, h.shape[-1])
        x = torch.addcmul(x, shifts[5], self.cross_out(h).view_as(x))

        h = torch.addcmul(shifts[6], self.norm(x), 1.0 + shifts[7])
        return torch.addcmul(x, shifts[8], self.mlp(h))


class ActionExpert(nn.Module):
    """A stack of ``ExpertBlock`` and a final norm."""

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
        """Keys and values (B, h, C, c) of the context (B, C, d_c) for every block, shared by all
        denoising steps.
        """
        return [block.context_keys(context) for block in self.blocks]  # type: ignore[operator]

    def forward(self, tokens: Tensor, tau: Tensor, context: list[KeyValue], mask: Tensor) -> Tensor:
        """tokens (N, H, M, d), tau (N, 1 or H, 1 or M), mask (L, L) bool, True where the row's
        token may attend to the column's -> (N, H, M, d).
        """
        return self.with_hidden(tokens, tau, context, mask, ())[0]

    def with_hidden(
        self,
        tokens: Tensor,
        tau: Tensor,
        context: list[KeyValue],
        mask: Tensor,
        layers: Sequence[int],
    ) -> tuple[Tensor, list[Tensor]]:
        """``forward``, and the outputs of the blocks ``layers``, from 0, (N, H, M, d) each."""
        time = self.time_mlp(time_embedding(tau, self.width, SHORTEST).to(tokens.dtype))
        hidden = {}
        for number, (block, keys) in enumerate(zip(self.blocks, context, strict=True)):
            tokens = block(tokens, time, mask, keys)
            if number in layers:
                hidden[number] = tokens
        return self.norm(tokens), [hidden[layer] for layer in layers]
