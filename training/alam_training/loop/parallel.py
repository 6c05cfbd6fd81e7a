"""A model on several processes: copied to each (DDP) or cut up among them (FSDP). One process needs
neither.

Both average the gradients of the ranks. DDP: each rank holds everything. FSDP: each rank holds its
part of the weights, the gradients and the optimiser's moments, and a block's weights are gathered
while it computes.
"""

import contextlib
import os
import sys
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel


def parallelise(model: nn.Module, state: PartialState, sharded: bool) -> nn.Module:
    """What to call in place of ``model``, which is on this rank's device already. Sharding changes
    the model itself, in place.
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


def take_leave(state: PartialState, code: int) -> int:
    """The last call of a script: wait for the other ranks, part from them, end with exit code
    ``code``.

    With several processes it ends the process itself, as nothing is left to write: FSDP keeps the
    group's threads alive after the group is destroyed, and one that lets go of a tensor while the
    interpreter shuts down aborts the process.
    """
    if state.num_processes > 1:
        state.wait_for_everyone()
        state.destroy_process_group()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The Transformer blocks: members of the outermost lists of modules of one class that have
    modules themselves.
    """
    found: list[nn.Module] = []
    for child in model.children():
        members = list(child.children())
        alike = len({type(member) for member in members}) == 1 and all(
            any(member.children()) for member in members
        )
        found += (
            members
            if alike and isinstance(child, nn.ModuleList | nn.Sequential)
            else _blocks(child)
        )
    return found


def local_sum(model: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """Context of a backward pass whose gradients are only added up, to be averaged over the ranks
    with a later one's.
    """
    return (
        model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext()
    )


def whole(tensor: Tensor) -> Tensor:
    """The full tensor on every rank, from a part on each; all ranks must call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def fill(tensor: Tensor, values: Tensor) -> None:
    """Copy full ``values`` into ``tensor``, or this rank's part of them; all ranks must call this
    together. Raises ValueError for another shape.
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
