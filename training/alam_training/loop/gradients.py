"""Gradient accumulation: the gradients of a batch, computed one micro-batch after the other."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from alam_training.loop.config import LoopConfig
from alam_training.loop.parallel import without_sync
from alam_training.loop.seeds import step_rng

Batch = Any  # tensors in any nesting of dict, list and tuple
Losses = Callable[[nn.Module, Batch], dict[str, Tensor]]
Shard = Callable[[Batch, int, int], Batch]


def shard_rows(batch: Batch, index: int, count: int) -> Batch:
    """Rows index, index + count, ... of each tensor in ``batch``: shard ``index`` of ``count``."""
    return map_tensors(lambda tensor: tensor[index::count], batch)


def map_tensors(change: Callable[[Tensor], Tensor], batch: Batch) -> Batch:
    """``batch`` with ``change`` applied to each of its tensors."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, dict):
        return {key: map_tensors(change, value) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(map_tensors(change, value) for value in batch)
    return batch


def map_together(combine: Callable[[list[Tensor]], Tensor], batches: list[Batch]) -> Batch:
    """One batch with the structure of ``batches``, each tensor combined from theirs."""
    first = batches[0]
    if isinstance(first, Tensor):
        return combine(batches)
    if isinstance(first, dict):
        return {key: map_together(combine, [batch[key] for batch in batches]) for key in first}
    return type(first)(map_together(combine, list(values)) for values in zip(*batches, strict=True))


def accumulate_gradients(
    wrapped: nn.Module,
    model: nn.Module,
    losses: Losses,
    batch: Batch,
    shard: Shard,
    config: LoopConfig,
    position: tuple[int, int, int],
) -> dict[str, Tensor]:
    """Add the gradients of this rank's ``batch`` to the parameters of ``model`` and return its
    losses, means over the micro-batches.

    wrapped: ``model`` inside DDP or FSDP, which is what ``losses`` calls. shard(batch, index,
    count): micro-batch ``index`` of ``count``. position: step, rank, number of ranks; torch's
    global generator is seeded from them and from the micro-batch's index.
    """
    step, rank, ranks = position
    count, device = config.accumulate, next(model.parameters()).device
    buffers = [buffer.clone() for buffer in model.buffers()] if count > 1 else []
    sums: dict[str, Tensor] = {}
    for index in range(count):
        rng = step_rng(config.seed, step, rank + index * ranks, 1)
        torch.manual_seed(int(rng.integers(2**62)))
        micro_batch = map_tensors(
            lambda tensor: tensor.to(device, non_blocking=True),
            shard(batch, index, count) if count > 1 else batch,
        )
        last = index == count - 1
        bf16 = config.mixed_precision == "bf16"
        with contextlib.nullcontext() if last else without_sync(wrapped):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                values = losses(wrapped, micro_batch)
            (values["total"] / count).backward()
        if not last:  # only the last micro-batch updates the buffers
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value.detach().float() / count
    return sums
