"""Statistics of the whole batch when it is spread over several processes (ranks). In a single
process nothing here does anything.

Ranks hold equal shares. Only while gradients are recorded, that is in training, do they wait for
one another: evaluation, under ``torch.no_grad``, may run on one of them alone.
"""

from typing import Any

import torch
from torch import Tensor, distributed


def spread() -> bool:
    """Whether the batch at hand is one rank's share of it."""
    return (
        torch.is_grad_enabled()
        and distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def mean_over_ranks(value: Tensor) -> Tensor:
    """Mean of each rank's ``value``, of any shape, the same on all ranks.

    Gradients flow to every rank: if ranks' losses are averaged, as DDP and FSDP do it by their
    gradients, then each share of the batch gets the gradient it would have in the undivided batch.
    """
    return _MeanOverRanks.apply(value) if spread() else value


def gather_rows(share: Tensor) -> Tensor:
    """Rows (B, ...) of all ranks as (ranks * B, ...), without gradients, in the order that
    ``rows[rank::ranks]`` dealt them out from.
    """
    shares = [torch.empty_like(share) for _ in range(distributed.get_world_size())]
    distributed.all_gather(shares, share.detach().contiguous())
    return torch.stack(shares, dim=1).flatten(0, 1)


class _MeanOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.detach().clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total / distributed.get_world_size()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _MeanOverRanks.forward(ctx, gradients[0])
