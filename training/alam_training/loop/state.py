"""What a training is at a moment, and its file: weights, their average, the optimiser's moments,
the step, the losses not yet logged.

The file is replaced at once and lies on the disk before the old one goes, so that a process killed
or a machine cut off at any moment leaves a whole state behind. It is the same for one process, DDP
and FSDP: tensors are put together before they are written.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, distributed, nn

from alam_core.errors import UserError
from alam_core.files import replacing_file
from alam_training.loop.parallel import fill, part, whole

STATE_FILE = "state.safetensors"

# What may change between a run and its continuation without changing what is computed, but for
# rounding.
FREE_FIELDS = ("resume", "max_minutes", "save_every", "eval_every", "log_every", "cpu", "sharded")


class Average:
    """Exponential moving average of a model's parameters; a young one follows them closely."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.count = decay, 0
        self.tensors = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the parameters as they are now."""
        decay = min(self.decay, (1 + self.count) / (10 + self.count)) if self.count else 0.0
        currents = [part(parameter) for parameter in model.parameters()]
        averages = [part(tensor) for tensor in self.tensors.values()]
        if self.count == 0:
            torch._foreach_copy_(averages, currents)
        else:
            torch._foreach_lerp_(averages, currents, 1 - decay)
        self.count += 1


@dataclass
class TrainState:
    """The state of a run. ``model`` is the bare one, without DDP around it; its parameters may be
    sharded.

    sums: sums of the terms over the ``counted`` steps since the last entry of the log, of this
    rank's share; ``average_sums`` makes them those of all.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: Average | None
    step: int = 0
    counted: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)

    def evaluated(self) -> dict[str, Tensor]:
        """The state dict, on every rank, that is evaluated and exported: with averaged parameters
        where there is an average.
        """
        averages = self.average.tensors if self.average else {}
        parameters = dict(self.model.named_parameters())
        instead = {
            id(parameters[name]): tensor for name, tensor in averages.items()
        }  # by identity: a tied weight has several names
        return {
            name: whole(instead.get(id(tensor), tensor.detach()))
            for name, tensor in self.model.state_dict(keep_vars=True).items()
        }

    def average_sums(self) -> dict[str, float]:
        """Mean of each term over steps and ranks; all ranks must call this together."""
        if self.sums and distributed.is_initialized():
            sums = torch.stack(list(self.sums.values()))
            distributed.all_reduce(sums)
            self.sums = dict(zip(self.sums, sums / distributed.get_world_size(), strict=True))
        return {name: float(value) / self.counted for name, value in self.sums.items()}

    def save(self, path: Path, identity: dict[str, Any], main: bool) -> None:
        """Write the state durably; all ranks must call this together, ``main`` writes. Raises
        UserError where it cannot be written.
        """
        tensors = {}
        for name, tensor in self._tensors().items():
            full = whole(tensor.detach())
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
                    safetensors.torch.save_file(
                        tensors, temporary, metadata={"run": json.dumps(run)}
                    )
            except (OSError, SafetensorError) as error:
                raise UserError(
                    f"cannot write '{path}' ({error}): make room; what was saved there before is still whole"
                ) from None

    def load(self, path: Path, identity: dict[str, Any]) -> None:
        """Go to the state in ``path``; all ranks must call this together. Raises UserError for a
        broken file or one of another run.
        """
        try:
            with safe_open(path, "pt") as file:
                run = json.loads(file.metadata()["run"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
                before, self.step, self.counted, averaged = (
                    run[key] for key in ("identity", "step", "counted", "averaged")
                )
        except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
            raise UserError(
                f"'{path}' cannot be read ({error}): delete it or give --loop.resume false to start anew"
            ) from None
        _same_run(path, before, json.loads(json.dumps(identity)))
        self._make_room(tensors)
        if self.average:
            self.average.count = averaged
        own = self._tensors()
        differing = sorted(own.keys() ^ tensors.keys())
        if differing:
            raise UserError(
                f"'{path}' does not fit the model (only in one: {differing[0]}): --loop.resume false starts anew"
            )
        for name, tensor in own.items():
            try:
                fill(tensor, tensors[name])
            except ValueError as error:
                raise UserError(
                    f"'{path}' does not fit the model ({name}: {error}): --loop.resume false starts anew"
                ) from None

    def _make_room(self, tensors: dict[str, Tensor]) -> None:
        """Zeros for the moments and sums of ``tensors``, which a new run has not yet."""
        parameters = dict(self.model.named_parameters())
        device = next(iter(parameters.values())).device
        for name, tensor in tensors.items():
            kind, rest = name.split(".", 1)
            if kind == "sums":
                self.sums[rest] = torch.zeros_like(tensor, device=device)
            elif (
                kind == "optimizer"
                and (parameter := parameters.get(rest.rsplit(".", 1)[0])) is not None
            ):
                count = (
                    tensor.ndim == 0 and parameter.ndim > 0
                )  # of steps; the others have the parameter's shape
                self.optimizer.state[parameter][rest.rsplit(".", 1)[1]] = (
                    torch.zeros(()) if count else torch.zeros_like(parameter.detach())
                )

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.average:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.tensors.items()}
        for name, parameter in self.model.named_parameters():
            tensors |= {
                f"optimizer.{name}.{moment}": tensor
                for moment, tensor in self.optimizer.state.get(parameter, {}).items()
            }
        return tensors | {f"sums.{name}": value for name, value in self.sums.items()}


def _same_run(path: Path, before: Any, now: Any) -> None:
    before, now = _flat(before), _flat(now)
    differing = [
        name
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and name.split(".")[-1] not in FREE_FIELDS
    ]
    if differing:
        what = ", ".join(
            f"{name} was {before.get(name)} and is now {now.get(name)}" for name in differing
        )
        raise UserError(
            f"'{path.parent}' holds a different run ({what}): choose another run folder, or --loop.resume false to start anew"
        )


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        name: value
        for key, part in values.items()
        for name, value in _flat(part, f"{prefix}.{key}" if prefix else key).items()
    }
