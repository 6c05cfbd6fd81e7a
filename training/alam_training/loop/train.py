"""The training loop that pretrain.py and finetune.py share: one process, or several under
``accelerate launch`` (DDP or FSDP).

The number of optimiser steps done is the only clock. The batch, every random draw and the learning
rate are functions of (seed, step), so a state file with weights, EMA, optimiser moments and the
step is all that an exact resume needs.
"""

import contextlib
import copy
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor, distributed, nn
from torch.utils.tensorboard import SummaryWriter

from alam_core.errors import UserError
from alam_core.files import held
from alam_training.loop.parallel import local_sum, parallelise, whole
from alam_training.loop.progress import TrainingBar
from alam_training.loop.state import STATE_FILE, Average, TrainState

Batch = Any


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
        ema_decay: decay of the averaged weights that are evaluated and exported; 0 keeps no
            average.
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
        mixed_precision: "no", or "bf16": matrix products in bfloat16; weights, their average and
            the optimiser's moments stay float32.
        accumulate: parts that each process computes its share of a batch in, one after the other,
            where memory is short. Statistics of the batch are then those of a part, and buffers
            (the codebook) move with the last part only.
        sharded: with several processes, cut weights, gradients and moments up among them (FSDP) in
            place of a copy for each (DDP).
        cpu: stay on the CPU even where a GPU is.
        resume: go on from the run folder's state where there is one; false starts anew.
        max_minutes: stop and save after this wall time, to be resumed later; 0 has no limit. The
            schedule follows the steps, not the time.
        save_every: steps between saves of the state.
        eval_every: steps between evaluations.
        log_every: steps between TensorBoard entries.
    """

    steps: int = 10_000
    seed: int = 0
    optim: OptimConfig = field(default_factory=OptimConfig)
    mixed_precision: str = "no"
    accumulate: int = 1
    sharded: bool = False
    cpu: bool = False
    resume: bool = True
    max_minutes: float = 0.0
    save_every: int = 500
    eval_every: int = 500
    log_every: int = 20

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "save_every", "eval_every", "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"loop.{name} is {getattr(self, name)}: it must be at least 1")
        if self.mixed_precision not in ("no", "bf16"):
            raise UserError(f"loop.mixed_precision is '{self.mixed_precision}': choose no or bf16")


@dataclass
class TrainResult:
    """model: the trained weights (their average where ema_decay > 0), in eval mode, whole, on the
    training device. step: optimiser steps done. stopped: "" when all steps are done, else
    "interrupted" or "time". main: whether this process is the one that writes files (rank 0).
    """

    model: nn.Module
    step: int
    stopped: str
    main: bool


def step_rng(seed: int, step: int, *stream: int) -> np.random.Generator:
    """Numpy generator that depends on (seed, step, stream) only; give different streams (rank,
    purpose) different numbers.
    """
    return np.random.default_rng([seed, step, *stream])


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Rate of optimiser step ``step`` (0-based) out of ``steps``: linear warm-up to lr, cosine to
    final_lr_ratio * lr.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, steps - 1 - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return config.lr * (config.final_lr_ratio + (1 - config.final_lr_ratio) * cosine)


def every_nth(batch: Batch, part: int, parts: int) -> Batch:
    """Rows part, part + parts, ... of each tensor in any nest of dict, list and tuple."""
    return _mapped(lambda tensor: tensor[part::parts], batch)


def train(
    model: nn.Module,
    batch_at: Callable[[int, int, int], Batch],
    losses: Callable[[nn.Module, Batch], dict[str, Tensor]],
    folder: str | Path,
    config: LoopConfig,
    evaluate: Callable[[nn.Module, int], dict[str, float]] | None = None,
    identity: dict[str, Any] | None = None,
    batch_size: int | None = None,
    split: Callable[[Batch, int, int], Batch] = every_nth,
) -> TrainResult:
    """Train ``model`` to ``config.steps`` optimiser steps, or until interrupted or out of time; the
    state is saved in each case.

    batch_at(step, rank, ranks): this rank's share of the batch of that step, as tensors in any nest
        of dict, list and tuple. A pure function of its arguments; it runs in a thread ahead of
        time, so it must not use torch's global generator. losses(model, batch): scalars, means over
        the batch; ``"total"`` is minimised and all are logged. It must call ``model(...)`` itself,
        once, so that DDP or FSDP take part; torch's global generator is seeded from (seed, step,
        rank) just before. evaluate(model, step): figures to log every eval_every steps and at the
        end; model is the averaged one, in eval mode. identity: what else defines the run (the
        script's whole config as a dict); a state of a different run is refused. batch_size: samples
        a step, over all ranks; refused where they cannot be shared evenly. split(batch, part,
        parts): one of the parts that ``config.accumulate`` computes a batch in.

    Raises UserError when the state in ``folder`` belongs to a different run or is broken, when the
    loss is not finite, when ``batch_size`` does not fit the number of processes, and where the
    folder cannot be made.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the run folder '{folder}' ({error.strerror}): choose another --run"
        ) from None
    process = PartialState(cpu=config.cpu)
    rank, ranks, main = process.process_index, process.num_processes, process.is_main_process
    device = torch.device("cpu") if config.cpu else process.device
    if batch_size is not None and batch_size % (ranks * config.accumulate):
        raise UserError(
            f"a batch of {batch_size} cannot be shared evenly by {ranks} process(es) in {config.accumulate} part(s) each: "
            f"choose a multiple of {ranks * config.accumulate}"
        )
    identity = {"run": identity or {}, "loop": dataclasses.asdict(config), "ranks": ranks}

    torch.manual_seed(config.seed)
    finished = copy.deepcopy(model)  # takes the weights that are evaluated and returned
    model = model.to(device)
    wrapped = parallelise(model, process, config.sharded)
    average = Average(model, config.optim.ema_decay) if config.optim.ema_decay > 0 else None
    state = TrainState(model, adamw(model, config.optim), average)
    state_path = folder / STATE_FILE
    resumed = config.resume and _same_on_all(process, device, state_path.is_file(), folder)
    if resumed:
        state.load(state_path, identity)
    writer: SummaryWriter | None = None

    def means() -> dict[str, float]:
        """Of the terms since the last entry of the log."""
        figures = state.average_sums()
        if not all(math.isfinite(value) for value in figures.values()):
            raise UserError(
                f"the loss is not finite at step {state.step}: try a smaller --loop.optim.lr; '{folder}' keeps step {saved}"
            )
        return figures

    def save() -> None:
        means()
        if writer is not None:
            writer.flush()
        state.save(state_path, identity, main)

    def evaluated() -> nn.Module:
        finished.load_state_dict(state.evaluated())
        return finished.to(device).eval()

    def run_evaluation() -> None:
        if evaluate is None:
            return
        current = evaluated()
        if main:
            with torch.no_grad():
                figures = evaluate(current, state.step)
            for name, value in figures.items():
                writer.add_scalar(f"eval/{name}", value, state.step)  # type: ignore[union-attr]
            bar.note(
                f"step {state.step}: "
                + ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            )
        finished.cpu()

    started = time.monotonic()
    stopped, saved = "", state.step
    model.train()
    with (
        held(folder, "training in") if main else contextlib.nullcontext(),
        _Signals() as signals,
        TrainingBar(config.steps, state.step, shown=main) as bar,
        _Prefetch(batch_at, state.step, config.steps, rank, ranks) as batches,
    ):
        if main:
            state_path.with_suffix(".tmp").unlink(
                missing_ok=True
            )  # of a process that was killed while it saved
            writer = SummaryWriter(str(folder), purge_step=state.step + 1)
        if state.step:
            bar.note(f"going on from step {state.step} of '{folder}'")
        for batch in batches:
            late = 0 < config.max_minutes * 60 < time.monotonic() - started
            stopped = _agreed(device, signals.caught, late)
            if stopped:
                break
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(config.optim, state.step, config.steps)
            try:
                terms = _backward(
                    wrapped, model, losses, batch, split, config, (state.step, rank, ranks)
                )
            except torch.OutOfMemoryError:
                raise UserError(
                    f"the memory does not hold this batch; '{folder}' keeps step {saved}: raise --loop.accumulate or lower --batch"
                ) from None
            if config.optim.clip_norm > 0:
                terms["grad_norm"] = whole(
                    nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
                )
            state.optimizer.step()
            state.optimizer.zero_grad()
            if average is not None:
                average.update(model)
            state.step += 1
            state.counted += 1
            state.sums = {name: state.sums.get(name, 0.0) + value for name, value in terms.items()}
            bar.advance()
            if state.step % config.log_every == 0 or state.step == config.steps:
                figures = means()
                bar.show(figures["total"])
                if writer is not None:
                    for name, value in figures.items():
                        writer.add_scalar(f"train/{name}", value, state.step)
                    writer.add_scalar("train/lr", state.optimizer.param_groups[0]["lr"], state.step)
                state.sums, state.counted = {}, 0
            if state.step % config.save_every == 0 and state.step < config.steps:
                save()
                saved = state.step
            if state.step % config.eval_every == 0 and state.step < config.steps:
                run_evaluation()
        if not (resumed and saved == state.step):
            save()
        if not stopped:
            run_evaluation()
    if writer is not None:
        writer.close()
    return TrainResult(evaluated(), state.step, stopped, main)


def _backward(
    wrapped: nn.Module,
    model: nn.Module,
    losses: Callable[[nn.Module, Batch], dict[str, Tensor]],
    batch: Batch,
    split: Callable[[Batch, int, int], Batch],
    config: LoopConfig,
    clock: tuple[int, int, int],
) -> dict[str, Tensor]:
    """Gradients of a batch, part by part, and its terms."""
    step, rank, ranks = clock
    parts, device = config.accumulate, next(model.parameters()).device
    buffers = [buffer.clone() for buffer in model.buffers()] if parts > 1 else []
    terms: dict[str, Tensor] = {}
    for part in range(parts):
        torch.manual_seed(int(step_rng(config.seed, step, rank + part * ranks, 1).integers(2**62)))
        share = _mapped(
            lambda tensor: tensor.to(device, non_blocking=True),
            split(batch, part, parts) if parts > 1 else batch,
        )
        last = part == parts - 1
        with contextlib.nullcontext() if last else local_sum(wrapped):
            with torch.autocast(
                device.type, torch.bfloat16, enabled=config.mixed_precision == "bf16"
            ):
                values = losses(wrapped, share)
            (values["total"] / parts).backward()
        if not last:
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        terms = {
            name: terms.get(name, 0.0) + value.detach().float() / parts
            for name, value in values.items()
        }
    return terms


def adamw(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """The optimiser of ``model``'s trainable parameters."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for parameter in parameters if parameter.ndim >= 2],
            "weight_decay": config.weight_decay,
        },
        {
            "params": [parameter for parameter in parameters if parameter.ndim < 2],
            "weight_decay": 0.0,
        },
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2))


def _mapped(change: Callable[[Tensor], Tensor], batch: Batch) -> Batch:
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, dict):
        return {key: _mapped(change, value) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(_mapped(change, value) for value in batch)
    return batch


def _counted(flags: list[bool], device: torch.device) -> list[int]:
    """On how many ranks each flag is set."""
    if not distributed.is_initialized():
        return [int(flag) for flag in flags]
    counts = torch.tensor([int(flag) for flag in flags], device=device)
    distributed.all_reduce(counts)
    return counts.tolist()


def _agreed(device: torch.device, caught: bool, late: bool) -> str:
    """Why to stop now, the same on all ranks; a signal to any of them stops all."""
    interrupted, out_of_time = _counted([caught, late], device)
    return "interrupted" if interrupted else "time" if out_of_time else ""


def _same_on_all(process: PartialState, device: torch.device, there: bool, folder: Path) -> bool:
    """Whether the state file is there. Raises UserError where some ranks see it and others do not."""
    (seen,) = _counted([there], device)
    if 0 < seen < process.num_processes:
        raise UserError(
            f"{seen} of {process.num_processes} processes see the state in '{folder}': put the run folder where all machines see it"
        )
    return seen > 0


class _Prefetch:
    """Batches of the steps from ``first`` on, made in order by one thread, two ahead."""

    def __init__(
        self,
        batch_at: Callable[[int, int, int], Batch],
        first: int,
        steps: int,
        rank: int,
        ranks: int,
    ) -> None:
        self._make, self._steps = (lambda step: batch_at(step, rank, ranks)), range(first, steps)
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Iterator[Batch]:
        waiting: list[Future[Batch]] = [
            self._pool.submit(self._make, step) for step in self._steps[:2]
        ]
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
