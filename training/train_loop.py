"""The training loop that pretrain.py and finetune.py share, on top of accelerate (CPU, one GPU, or DDP under ``accelerate launch``).

The number of optimiser steps done is the only clock. The batch, every random draw and the learning rate are functions of
(seed, step), so a state file with weights, EMA, optimiser moments and the step is all that an exact resume needs.
"""

import dataclasses
import json
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter

from alam_core.errors import UserError

Batch = Any
STATE_FILE = "state.safetensors"


@dataclass
class OptimConfig:
    """AdamW with linear warm-up, cosine decay, gradient clipping and an average of the weights.

    Args:
        lr: peak learning rate.
        weight_decay: applied to matrices only, not to biases, norms and other vectors.
        beta1: AdamW's first moment decay.
        beta2: AdamW's second moment decay.
        warmup_steps: steps over which the rate rises from 0 to lr.
        final_lr_ratio: the rate at the last step as a share of lr.
        clip_norm: largest gradient norm; 0 does not clip.
        ema_decay: decay of the averaged weights that are evaluated and exported; 0 keeps no average.
    """

    lr: float = 1e-4
    weight_decay: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    warmup_steps: int = 200
    final_lr_ratio: float = 0.02
    clip_norm: float = 1.0
    ema_decay: float = 0.99


@dataclass
class LoopConfig:
    """How long to train and what to keep on the way.

    Args:
        steps: optimiser steps of the whole run.
        seed: of every random draw.
        optim: the optimiser.
        mixed_precision: "no" or "bf16" (fp32 master weights).
        cpu: stay on the CPU even where a GPU is.
        resume: go on from the run folder's state where there is one; false starts anew.
        max_minutes: stop and save after this wall time, to be resumed later; 0 has no limit. The schedule follows the steps, not the time.
        save_every: steps between saves of the state.
        eval_every: steps between evaluations.
        log_every: steps between TensorBoard entries.
    """

    steps: int = 10_000
    seed: int = 0
    optim: OptimConfig = field(default_factory=OptimConfig)
    mixed_precision: str = "no"
    cpu: bool = False
    resume: bool = True
    max_minutes: float = 0.0
    save_every: int = 500
    eval_every: int = 500
    log_every: int = 20

    def __post_init__(self) -> None:
        for name in ("steps", "save_every", "eval_every", "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"loop.{name} is {getattr(self, name)}: it must be at least 1")
        if self.mixed_precision not in ("no", "bf16"):
            raise UserError(f"loop.mixed_precision is '{self.mixed_precision}': choose no or bf16")


# What may change between a run and its continuation without changing what is computed.
FREE_FIELDS = ("resume", "max_minutes", "save_every", "eval_every", "log_every", "cpu")


@dataclass
class TrainResult:
    """model: the trained weights (their average where ema_decay > 0), in eval mode, unwrapped, on the training device.
    step: optimiser steps done. stopped: "" when all steps are done, else "interrupted" or "time".
    main: whether this process is the one that writes files (rank 0)."""

    model: nn.Module
    step: int
    stopped: str
    main: bool


def command_line() -> str:
    """What a person types in the project's root to start this process again."""
    return shlex.join(["python", *(os.path.relpath(part) if os.path.isabs(part) else part for part in sys.argv)])


def step_rng(seed: int, step: int, *stream: int) -> np.random.Generator:
    """Numpy generator that depends on (seed, step, stream) only; give different streams (rank, purpose) different numbers."""
    return np.random.default_rng([seed, step, *stream])


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Rate of optimiser step ``step`` (0-based) out of ``steps``: linear warm-up to lr, cosine to final_lr_ratio * lr."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, steps - 1 - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return config.lr * (config.final_lr_ratio + (1 - config.final_lr_ratio) * cosine)


def train(
    model: nn.Module,
    batch_at: Callable[[int, int, int], Batch],
    losses: Callable[[nn.Module, Batch], dict[str, Tensor]],
    folder: str | Path,
    config: LoopConfig,
    evaluate: Callable[[nn.Module, int], dict[str, float]] | None = None,
    identity: dict[str, Any] | None = None,
) -> TrainResult:
    """Train ``model`` to ``config.steps`` optimiser steps, or until interrupted or out of time; the state is saved in each case.

    batch_at(step, rank, ranks): this rank's share of the batch of that step, as tensors in any nest of dict, list and tuple.
        A pure function of its arguments; it runs in a thread ahead of time, so it must not use torch's global generator.
    losses(model, batch): scalars, ``"total"`` is minimised and all are logged. It must call ``model(...)`` itself, once, so that
        DDP and autocast take part; torch's global generator is seeded from (seed, step, rank) just before.
    evaluate(model, step): figures to log every eval_every steps and at the end; model is the averaged one, in eval mode.
    identity: what else defines the run (the script's whole config as a dict); a state of a different run is refused.

    Raises UserError when the state in ``folder`` belongs to a different run or is broken, when the loss is not finite, and where
    the folder cannot be made.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the run folder '{folder}' ({error.strerror}): choose another --run") from None
    AcceleratorState._reset_state()  # else a second run in one process could not have another precision
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=config.cpu)
    rank, ranks, main = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    identity = {"run": identity or {}, "loop": dataclasses.asdict(config), "ranks": ranks}

    torch.manual_seed(config.seed)
    model = model.to(accelerator.device)
    average = AveragedModel(model, multi_avg_fn=_ema_update(config.optim.ema_decay)) if config.optim.ema_decay > 0 else None
    optimizer = _optimizer(model, config.optim)
    bare = model
    model, wrapped = accelerator.prepare(model, optimizer)
    step = 0
    state_path = folder / STATE_FILE
    if config.resume and state_path.is_file():
        step = _load_state(state_path, bare, average, optimizer, identity)
    writer = SummaryWriter(str(folder), purge_step=step) if main else None

    def check() -> None:
        if not all(math.isfinite(value) for value in sums.values()):
            raise UserError(f"the loss is not finite at step {step}: try a smaller --loop.optim.lr; '{folder}' keeps step {saved}")

    def save() -> None:
        check()
        accelerator.wait_for_everyone()
        if main:
            _save_state(state_path, bare, average, optimizer, step, identity)

    def evaluated() -> nn.Module:
        return (average.module if average is not None else bare).eval()

    def run_evaluation() -> None:
        if evaluate is not None and main:
            with torch.no_grad():
                figures = evaluate(evaluated(), step)
            for name, value in figures.items():
                writer.add_scalar(f"eval/{name}", value, step)  # type: ignore[union-attr]
            bar.note(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
        bare.train()

    started = time.monotonic()
    stopped, saved, counted = "", step, 0
    sums: dict[str, Any] = {}
    bare.train()
    with (
        _Signals() as signals,
        _Bar(config.steps, step, shown=main) as bar,
        _Prefetch(batch_at, step, config.steps, rank, ranks) as batches,
    ):
        if step:
            bar.note(f"going on from step {step} of '{folder}'")
        for batch in batches:
            late = 0 < config.max_minutes * 60 < time.monotonic() - started
            stopped = _agreed(accelerator, signals.caught, late)
            if stopped:
                break
            torch.manual_seed(int(step_rng(config.seed, step, rank, 1).integers(2**62)))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config.optim, step, config.steps)
            terms = losses(model, _to_device(batch, accelerator.device))
            accelerator.backward(terms["total"])
            if config.optim.clip_norm > 0:
                terms = {**terms, "grad_norm": accelerator.clip_grad_norm_(model.parameters(), config.optim.clip_norm)}
            wrapped.step()
            wrapped.zero_grad()
            if average is not None:
                average.update_parameters(bare)
            step += 1
            sums = {name: sums.get(name, 0.0) + value.detach() for name, value in terms.items()}
            counted += 1
            bar.advance()
            if step % config.log_every == 0 or step == config.steps:
                check()
                means = {name: float(value) / counted for name, value in sums.items()}
                bar.show(means["total"])
                if writer is not None:
                    for name, value in means.items():
                        writer.add_scalar(f"train/{name}", value, step)
                    writer.add_scalar("train/lr", optimizer.param_groups[0]["lr"], step)
                sums, counted = {}, 0
            if step % config.eval_every == 0 and step < config.steps:
                run_evaluation()
            if step % config.save_every == 0 and step < config.steps:
                save()
                saved = step
        if saved != step or not state_path.is_file():
            save()
        if not stopped:
            run_evaluation()
    if writer is not None:
        writer.close()
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # only now: it takes the mixed precision out of ``bare``
    return TrainResult(evaluated(), step, stopped, main)


def _optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2))


def _ema_update(decay: float) -> Callable[[Any, Any, Any], None]:
    @torch.no_grad()
    def update(averages: list[Tensor], currents: list[Tensor], count: Tensor | int) -> None:
        now = min(decay, (1 + int(count)) / (10 + int(count)))  # a young average follows closely
        torch._foreach_lerp_(averages, currents, 1 - now)

    return update


def _save_state(
    path: Path, model: nn.Module, average: AveragedModel | None, optimizer: torch.optim.Optimizer, step: int, identity: dict[str, Any]
) -> None:
    """One file, replaced atomically: tensors, and the step and the identity in its metadata."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    temporary = path.with_suffix(".tmp")
    safetensors.torch.save_file(tensors, temporary, metadata={"run": json.dumps({"step": step, "identity": identity})})
    os.replace(temporary, path)


def _load_state(
    path: Path, model: nn.Module, average: AveragedModel | None, optimizer: torch.optim.Optimizer, identity: dict[str, Any]
) -> int:
    try:
        with safe_open(path, "pt") as file:
            run = json.loads(file.metadata()["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, TypeError, KeyError) as error:
        raise UserError(f"'{path}' cannot be read ({error}): delete it or give --loop.resume false to start anew") from None
    before, now = _flat(run["identity"]), _flat(json.loads(json.dumps(identity)))
    differing = [
        name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name) and name.split(".")[-1] not in FREE_FIELDS
    ]
    if differing:
        what = ", ".join(f"{name} was {before.get(name)} and is now {now.get(name)}" for name in differing)
        raise UserError(f"'{path.parent}' holds a different run ({what}): choose another run folder, or --loop.resume false to start anew")

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    try:
        model.load_state_dict(part("model."), strict=True)
        if average is not None:
            average.load_state_dict(part("average."), strict=True)
        content = optimizer.state_dict()
        content["state"] = {}
        for name, tensor in part("optimizer.").items():
            index, moment = name.split(".", 1)
            content["state"].setdefault(int(index), {})[moment] = tensor
        optimizer.load_state_dict(content)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"'{path}' does not fit the model: {' '.join(str(error).split())}; --loop.resume false starts anew") from None
    return int(run["step"])


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    return {name: value for key, part in values.items() for name, value in _flat(part, f"{prefix}.{key}" if prefix else key).items()}


def _to_device(batch: Batch, device: torch.device) -> Batch:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: _to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(_to_device(value, device) for value in batch)
    return batch


def _agreed(accelerator: Accelerator, caught: bool, late: bool) -> str:
    """Why to stop now, the same on all ranks; a signal to any of them stops all."""
    flags = torch.tensor([float(caught), float(late)], device=accelerator.device)
    if accelerator.num_processes > 1:
        flags = accelerator.reduce(flags, "sum")
    return "interrupted" if flags[0] > 0 else "time" if flags[1] > 0 else ""


class _Prefetch:
    """Batches of the steps from ``first`` on, made in order by one thread, two ahead."""

    def __init__(self, batch_at: Callable[[int, int, int], Batch], first: int, steps: int, rank: int, ranks: int) -> None:
        self._make, self._steps = (lambda step: batch_at(step, rank, ranks)), range(first, steps)
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Iterator[Batch]:
        waiting: list[Future[Batch]] = [self._pool.submit(self._make, step) for step in self._steps[:2]]
        for ahead in [*self._steps[2:], *([None] * len(waiting))]:
            batch = waiting.pop(0).result()
            if ahead is not None:
                waiting.append(self._pool.submit(self._make, ahead))
            yield batch

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


class _Signals:
    """Notes the first SIGINT or SIGTERM; a second one acts as usual."""

    def __init__(self) -> None:
        self.caught = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        except ValueError:  # not in the main thread: nobody signals us
            self._before = {}
        return self

    def _note(self, *_: object) -> None:
        self.caught = True
        self.__exit__()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _Bar:
    """Progress on a terminal as a bar, elsewhere as a line every ten seconds."""

    def __init__(self, steps: int, first: int, shown: bool) -> None:
        self._console = Console(quiet=not shown)
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("loss {task.fields[loss]:.4f}"))
        columns += (TextColumn("{task.fields[rate]:.2f} steps/s"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # type: ignore[assignment]
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._progress.add_task("train", total=steps, completed=first, loss=float("nan"), rate=0.0)
        self._first, self._steps, self._step, self._started = first, steps, first, time.monotonic()
        self._said = self._started

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self) -> None:
        self._step += 1
        self._progress.advance(self._task)

    def show(self, loss: float) -> None:
        now = time.monotonic()
        rate = (self._step - self._first) / (now - self._started)
        self._progress.update(self._task, loss=loss, rate=rate)
        if not self._console.is_terminal and (now - self._said > 10 or self._step == self._steps):
            left = (self._steps - self._step) / rate
            self.note(f"step {self._step}/{self._steps}  loss {loss:.4f}  {rate:.2f} steps/s  {left:.0f} s left")
            self._said = now

    def note(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)
