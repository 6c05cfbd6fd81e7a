"""Statistics over the whole batch when several processes (ranks) share it.

Each rank has an equal share of the batch. Ranks communicate only while gradients are recorded, that
is, during training; an evaluation under ``torch.no_grad`` may run on one rank alone. In a single
process every function is the identity.
"""

from typing import Any

import torch
from torch import Tensor, distributed


def is_distributed() -> bool:
    """Whether this process trains on one rank's share of the batch."""
    return (
        torch.is_grad_enabled()
        and distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def mean_over_ranks(value: Tensor) -> Tensor:
    """Mean over the ranks of ``value``, of any shape; every rank gets the same result.

    Gradients flow back to every rank. DDP and FSDP average the ranks' gradients; each sample then
    gets the gradient that it would have in one process with the whole batch.
    """
    return _MeanOverRanks.apply(value) if is_distributed() else value


def gather_rows(share: Tensor) -> Tensor:
    """Rows (B, ...) of all ranks as (ranks * B, ...), without gradients.

    The order is that of the undivided batch, of which each rank has ``rows[rank::ranks]``.
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
