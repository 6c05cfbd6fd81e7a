"""A model on several processes (ranks): replicated on each (DDP) or sharded across them (FSDP). A
single process needs neither.

Both average the gradients over the ranks. With DDP each rank holds the whole model. With FSDP each
rank holds a shard of the weights, the gradients and the optimiser's moments; the weights of a block
are gathered while it computes.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from alam_core.errors import UserError


def parallelise(model: nn.Module, state: PartialState, sharded: bool) -> nn.Module:
    """The module to call instead of ``model``, which is already on this rank's device. FSDP changes
    ``model`` in place.
    """
    if state.num_processes == 1:
        return model
    device = next(model.parameters()).device
    if not sharded:
        return DistributedDataParallel(
            model, device_ids=[device] if device.type == "cuda" else None
        )
    mesh = init_device_mesh(device.type, (state.num_processes,))
    for block in _blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def shutdown_ranks(state: PartialState, code: int) -> int:
    """The last call of a script: wait for the other ranks, leave the process group, end with exit
    code ``code``.

    With several processes this ends the process itself: FSDP keeps the group's threads alive after
    the group is destroyed, and a thread that frees a tensor while the interpreter shuts down aborts
    the process. Nothing may be left to write.
    """
    if state.num_processes > 1:
        state.wait_for_everyone()
        state.destroy_process_group()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def without_sync(model: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """Context of a backward pass that adds to the local gradients only; a later one averages them
    over the ranks.
    """
    return (
        model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext()
    )


def full_tensor(tensor: Tensor) -> Tensor:
    """The full tensor on every rank, gathered if it is sharded; all ranks must call this
    together.
    """
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_shard(tensor: Tensor) -> Tensor:
    """This rank's shard of a tensor, sharing its memory; the tensor itself if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def copy_into(tensor: Tensor, values: Tensor) -> None:
    """Copy the full ``values`` into ``tensor``, or their shard where it is sharded; all ranks must
    call this together. Raises ValueError for another shape.
    """
    if tensor.shape != values.shape:
        raise ValueError(
            f"its shape is {tuple(values.shape)} in the file and {tuple(tensor.shape)} in the model"
        )
    values = values.to(tensor.device, tensor.dtype)
    tensor.copy_(
        distribute_tensor(values, tensor.device_mesh, tensor.placements)
        if isinstance(tensor, DTensor)
        else values
    )


def reason_to_stop(device: torch.device, interrupted: bool, out_of_time: bool) -> str:
    """Returns "interrupted", "time" or "" (go on training), the same on all ranks: a signal to one
    rank stops all of them. All ranks must call this together.
    """
    signals, timeouts = _count_ranks([interrupted, out_of_time], device)
    return "interrupted" if signals else "time" if timeouts else ""


def all_see_state(process: PartialState, device: torch.device, state: Path) -> bool:
    """Whether the file ``state`` exists; all ranks must call this together. Raises UserError if
    only some of them see it.
    """
    (seen,) = _count_ranks([state.is_file()], device)
    if 0 < seen < process.num_processes:
        raise UserError(
            f"{seen} of {process.num_processes} processes see the state in '{state.parent}': put "
            "the run folder on a file system that all machines share"
        )
    return seen > 0


def _count_ranks(flags: list[bool], device: torch.device) -> list[int]:
    """The number of ranks on which each flag is set."""
    if not distributed.is_initialized():
        return [int(flag) for flag in flags]
    counts = torch.tensor([int(flag) for flag in flags], device=device)
    distributed.all_reduce(counts)
    return counts.tolist()


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The Transformer blocks: members of the outermost module lists whose members are all of one
    class and have submodules.
    """
    found: list[nn.Module] = []
    for child in model.children():
        members = list(child.children())
        alike = len({type(member) for member in members}) == 1 and all(
            any(member.children()) for member in members
        )
        is_list = isinstance(child, nn.ModuleList | nn.Sequential)
        found += members if alike and is_list else _blocks(child)
    return found
