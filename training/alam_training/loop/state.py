"""The state of a training run and its file: weights, their moving average, the optimiser's moments,
the step, the losses not yet logged.

The file is written next to the old one, flushed to the disk and then put in its place, so that a
process that is killed or a machine that loses power leaves a complete state behind. It is the same
for one process, DDP and FSDP: sharded tensors are gathered before they are written.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, distributed, nn

from alam_core.checkpoints import save_tensors
from alam_core.errors import UserError, reason
from alam_core.files import replacing_file
from alam_training.loop.config import MAY_CHANGE
from alam_training.loop.parallel import copy_into, full_tensor, local_shard
from alam_training.settings import check_same_settings

STATE_FILE = "state.safetensors"


class WeightAverage:
    """Exponential moving average (EMA) of a model's parameters. Its decay grows with the number of
    updates up to ``decay``, so that the average follows the parameters closely at first.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.count = decay, 0
        self.tensors = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the current parameters."""
        decay = min(self.decay, (1 + self.count) / (10 + self.count)) if self.count else 0.0
        currents = [local_shard(parameter) for parameter in model.parameters()]
        averages = [local_shard(tensor) for tensor in self.tensors.values()]
        if self.count == 0:
            torch._foreach_copy_(averages, currents)
        else:
            torch._foreach_lerp_(averages, currents, 1 - decay)
        self.count += 1


@dataclass
class TrainState:
    """The state of a run. ``model`` is the module without the DDP wrapper; its parameters may
    be sharded.

    sums: this rank's losses summed over the ``counted`` steps since the last TensorBoard entry.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    step: int = 0
    counted: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)

    def exported(self) -> dict[str, Tensor]:
        """The state dict that is evaluated and exported, on every rank: with averaged parameters if
        there is an average. All ranks must call this together.
        """
        averages = self.average.tensors if self.average else {}
        parameters = dict(self.model.named_parameters())
        # By identity, because a tied weight has several names.
        replaced = {id(parameters[name]): tensor for name, tensor in averages.items()}
        return {
            name: full_tensor(replaced.get(id(tensor), tensor.detach()))
            for name, tensor in self.model.state_dict(keep_vars=True).items()
        }

    def add_losses(self, losses: dict[str, Tensor]) -> None:
        """Count one step's losses for the next TensorBoard entry."""
        self.counted += 1
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in losses.items()}

    def clear_losses(self) -> None:
        """Start a new sum after a TensorBoard entry."""
        self.sums, self.counted = {}, 0

    def mean_losses(self) -> dict[str, float]:
        """Mean of each loss over the counted steps and all ranks; all ranks must call this
        together.
        """
        if self.sums and distributed.is_initialized():
            sums = torch.stack(list(self.sums.values()))
            distributed.all_reduce(sums)
            self.sums = dict(zip(self.sums, sums / distributed.get_world_size(), strict=True))
        return {name: float(value) / self.counted for name, value in self.sums.items()}

    def save(self, path: Path, identity: dict[str, Any], main: bool) -> None:
        """Write the state to the disk; all ranks must call this together, the ``main`` one writes.
        Raises UserError if the file cannot be written.
        """
        tensors = {}
        for name, tensor in self._tensors().items():
            full = full_tensor(tensor.detach())
            if main:
                tensors[name] = full.to("cpu", copy=True).contiguous()
        if main:
            run = {
                "step": self.step,
                "counted": self.counted,
                "averaged": self.average.count if self.average else 0,
                "identity": identity,
            }
            try:
                with replacing_file(path) as temporary:
                    save_tensors(tensors, temporary, {"run": json.dumps(run)})
            except OSError as error:
                before = "; the state saved there before is intact, and the same command resumes it"
                raise UserError(
                    f"cannot write '{path}': {reason(error)}{before if path.exists() else ''}"
                ) from None

    def load(self, path: Path, identity: dict[str, Any]) -> None:
        """Continue from the state in ``path``; all ranks must call this together. Raises UserError
        for a broken file and for the state of a different run.
        """
        try:
            with safe_open(path, "pt") as file:
                run = json.loads(file.metadata()["run"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                before, self.step, self.counted, averaged = (
                    run[key] for key in ("identity", "step", "counted", "averaged")
                )
        except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
            raise UserError(
                f"'{path}' cannot be read ({error}): delete it, or start over with "
                "--loop.resume false"
            ) from None
        check_same_settings(
            before,
            identity,
            f"'{path.parent}' was trained with",
            "choose another run folder, or start over with --loop.resume false",
            MAY_CHANGE,
        )
        self._allocate(tensors)
        if self.average:
            self.average.count = averaged
        own = self._tensors()
        differing = sorted(own.keys() ^ tensors.keys())
        if differing:
            raise UserError(
                f"'{path}' does not fit the model ({differing[0]} is in only one of them): start "
                "over with --loop.resume false"
            )
        for name, tensor in own.items():
            try:
                copy_into(tensor, tensors[name])
            except ValueError as error:
                raise UserError(
                    f"'{path}' does not fit the model ({name}: {error}): start over with "
                    "--loop.resume false"
                ) from None

    def _allocate(self, tensors: dict[str, Tensor]) -> None:
        """Create the optimiser moments and loss sums that ``tensors`` contains; a new run has
        none.
        """
        parameters = dict(self.model.named_parameters())
        device = next(iter(parameters.values())).device
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "sums":
                self.sums[rest] = torch.zeros_like(tensor, device=device)
            elif (
                kind == "optimizer"
                and (parameter := parameters.get(rest.rsplit(".", 1)[0])) is not None
            ):
                # Counts of steps are scalars; the other moments have the parameter's shape.
                is_count = tensor.ndim == 0 and parameter.ndim > 0
                self.optimizer.state[parameter][rest.rsplit(".", 1)[1]] = (
                    torch.zeros(()) if is_count else torch.zeros_like(parameter.detach())
                )

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors of the state file: model.*, average.*, optimizer.*.<moment> and sums.*."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.average:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.tensors.items()}
        for name, parameter in self.model.named_parameters():
            tensors |= {
                f"optimizer.{name}.{moment}": tensor
                for moment, tensor in self.optimizer.state.get(parameter, {}).items()
            }
        return tensors | {f"sums.{name}": value for name, value in self.sums.items()}
