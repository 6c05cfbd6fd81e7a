"""Scaled dot-product attention that is fast on both GPUs and CPUs.

Letters: B batch, h heads, L queries, M keys, c size of a head.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """query (B, h, L, c), key and value (B, h, M, c) -> (B, h, L, c).

    mask: bool, broadcast to (B, h, L, M), True where the row may attend to the column.

    On the CPU this is plain matrix products: for sequences this short torch's fused kernel takes
    several times as long, mostly in the backward pass and in bfloat16.
    """
    if query.is_cuda:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):  # softmax in the inputs' precision
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) @ value
