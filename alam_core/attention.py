"""Scaled dot-product attention that is fast on GPUs and CPUs alike.

Letters: B batch, h heads, L queries, M keys, c numbers a head.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """query (B, h, L, c), key and value (B, h, M, c) -> (B, h, L, c).

    mask: bool, to (B, h, L, M) when broadcast, True where the row may look at the column.

    On the CPU the products are spelled out: torch's fused kernel takes several times as long for
    sequences this short, backwards and in bfloat16 above all.
    """
    if query.is_cuda:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):  # softmax in the precision of its input
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) @ value
