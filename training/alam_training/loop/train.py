"""The training loop of both stages: one process, or several under ``accelerate launch`` (DDP or
FSDP).

The number of completed optimiser steps is the only clock. The batch, every random draw and the
learning rate are functions of (seed, step), so a state file with weights, EMA, optimiser moments
and the step is all that an exact resume needs.
"""

import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from alam_core.errors import UserError, reason
from alam_core.files import locked_folder, temporaries
from alam_training.loop.config import LoopConfig
from alam_training.loop.gradients import Batch, Losses, Shard, accumulate_gradients, shard_rows
from alam_training.loop.optim import adamw, learning_rate, set_learning_rate
from alam_training.loop.parallel import all_see_state, full_tensor, parallelise, reason_to_stop
from alam_training.loop.prefetch import Prefetch
from alam_training.loop.progress import TrainingBar
from alam_training.loop.signals import StopSignals
from alam_training.loop.state import STATE_FILE, TrainState, WeightAverage


@dataclass
class TrainResult:
    """What ``train`` returns.

    model: the trained weights (their average if ema_decay > 0), in eval mode, unsharded, on the
    training device. step: optimiser steps done in the whole run. stopped: "" when all steps are
    done, else "interrupted" or "time". main: whether this process writes the files (rank 0).
    """

    model: nn.Module
    step: int
    stopped: str
    main: bool

    def why_stopped(self, steps: int, product: str) -> str:
        """One line for the user of a run that stopped before ``steps``. product: what the run
        writes at its end, such as "model".
        """
        why = {
            "interrupted": f"interrupted at step {self.step} of {steps}: the state is saved",
            "time": f"out of time at step {self.step} of {steps}: the {product} so far is written",
        }[self.stopped]
        return f"{why}; the same command resumes the run"


def train(
    model: nn.Module,
    batch_at: Callable[[int, int, int], Batch],
    losses: Losses,
    folder: str | Path,
    config: LoopConfig,
    evaluate: Callable[[nn.Module, int], dict[str, float]] | None = None,
    identity: dict[str, Any] | None = None,
    batch_size: int | None = None,
    shard: Shard = shard_rows,
) -> TrainResult:
    """Train ``model`` up to ``config.steps`` optimiser steps, or until interrupted or out of time.
    The state is saved in each case.

    batch_at(step, rank, ranks): this rank's share of the batch of that step. A pure function of its
        arguments; a thread calls it ahead of time, so it must not use torch's global generator.
    losses(model, batch): scalars, means over the batch; "total" is minimised and all are logged. It
        must call ``model(...)`` itself, once, so that DDP and FSDP take part. torch's global
        generator is seeded from (seed, step, rank) just before.
    evaluate(model, step): metrics to log every eval_every steps and at the end. It gets the
        averaged model in eval mode and runs on the main process only.
    identity: the settings, besides ``config``, that define the run; the state of a run with
        other settings is refused.
    batch_size: samples per step over all ranks; it must be a multiple of the number of
        ranks times ``accumulate``.
    shard(batch, index, count): one of the micro-batches of gradient accumulation.

    Raises UserError if the state in ``folder`` belongs to a different run or is broken, the loss is
    not finite, the batch does not fit into memory or does not fit the number of processes, or the
    folder cannot be created.
    """
    folder = _make_folder(folder)
    process = PartialState(cpu=config.cpu)
    rank, ranks, main = process.process_index, process.num_processes, process.is_main_process
    device = torch.device("cpu") if config.cpu else process.device
    _check_batch_size(batch_size, ranks, config.accumulate)
    identity = {"run": identity or {}, "loop": dataclasses.asdict(config), "ranks": ranks}

    torch.manual_seed(config.seed)
    exported = copy.deepcopy(model)  # receives the weights that are evaluated and returned
    model = model.to(device)
    wrapped = parallelise(model, process, config.sharded)
    average = WeightAverage(model, config.optim.ema_decay) if config.optim.ema_decay > 0 else None
    state = TrainState(model, adamw(model, config.optim), average)
    state_path = folder / STATE_FILE
    resumed = config.resume and all_see_state(process, device, state_path)
    if resumed:
        state.load(state_path, identity)
    saved = state.step  # step of the last saved state
    writer: SummaryWriter | None = None  # on the main process

    def log(prefix: str, metrics: dict[str, float]) -> None:
        if writer is not None:
            for name, value in metrics.items():
                with _writing_the_log(folder, saved):
                    writer.add_scalar(f"{prefix}/{name}", value, state.step)

    def mean_losses() -> dict[str, float]:
        means = state.mean_losses()
        if not all(math.isfinite(value) for value in means.values()):
            raise UserError(
                f"the loss is not finite at step {state.step}: try a smaller --loop.optim.lr; "
                f"'{folder}' keeps step {saved}"
            )
        return means

    def save() -> None:
        mean_losses()  # a loss that is not finite is never saved
        if writer is not None:
            with _writing_the_log(folder, saved):
                writer.flush()
        state.save(state_path, identity, main)

    def export() -> nn.Module:
        exported.load_state_dict(state.exported())
        return exported.to(device).eval()

    def run_evaluation() -> None:
        if evaluate is None:
            return
        current = export()
        if main:
            with torch.no_grad():
                metrics = evaluate(current, state.step)
            log("eval", metrics)
            values = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            bar.note(f"step {state.step}: {values}")  # the bar of the loop below
        exported.cpu()

    started = time.monotonic()
    stopped = ""
    model.train()
    with (
        locked_folder(folder, "training in") if main else contextlib.nullcontext(),
        StopSignals() as signals,
        TrainingBar(config.steps, state.step, shown=main) as bar,
        Prefetch(
            batch_at, state.step, config.steps, rank, ranks, lambda: signals.caught
        ) as batches,
    ):
        if main:
            for left in temporaries(state_path):  # by a process that was killed during a save
                left.unlink()
            writer = SummaryWriter(str(folder), purge_step=state.step + 1)
        if state.step:
            bar.note(f"resuming '{folder}' from step {state.step}")

        for batch in batches:
            out_of_time = 0 < config.max_minutes * 60 < time.monotonic() - started
            stopped = reason_to_stop(device, signals.caught, out_of_time)
            if stopped:
                break
            assert batch is not None  # it is only if the training is to stop
            rate = learning_rate(config.optim, state.step, config.steps)
            set_learning_rate(state.optimizer, rate)
            position = (state.step, rank, ranks)
            try:
                step_losses = accumulate_gradients(
                    wrapped, model, losses, batch, shard, config, position
                )
            except torch.OutOfMemoryError:
                raise UserError(
                    f"a batch does not fit into memory; '{folder}' keeps step {saved}: raise "
                    "--loop.accumulate or lower --batch"
                ) from None
            if config.optim.clip_norm > 0:
                step_losses["grad_norm"] = full_tensor(
                    nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
                )
            state.optimizer.step()
            state.optimizer.zero_grad()
            if average is not None:
                average.update(model)
            state.step += 1
            state.add_losses(step_losses)
            bar.advance()

            is_last = state.step == config.steps
            if state.step % config.log_every == 0 or is_last:
                means = mean_losses()
                bar.show(means["total"])
                log("train", {**means, "lr": rate})
                state.clear_losses()
            if state.step % config.save_every == 0 and not is_last:
                save()
                saved = state.step
            if state.step % config.eval_every == 0 and not is_last:
                run_evaluation()

        if not (resumed and saved == state.step):  # else nothing has changed since
            save()
        if not stopped:
            run_evaluation()
    if writer is not None:
        writer.close()
    return TrainResult(export(), state.step, stopped, main)


@contextlib.contextmanager
def _writing_the_log(folder: Path, saved: int) -> Iterator[None]:
    """Turn an OSError into a UserError; the TensorBoard log meets a full disk first."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the log in '{folder}': {reason(error)}; the folder keeps step {saved}, "
            "and the same command resumes the run"
        ) from None


def _make_folder(folder: str | Path) -> Path:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the run folder '{folder}' with --run: {reason(error)}"
        ) from None
    return Path(folder)


def _check_batch_size(batch_size: int | None, ranks: int, accumulate: int) -> None:
    if batch_size is not None and batch_size % (ranks * accumulate):
        raise UserError(
            f"a batch of {batch_size} cannot be shared evenly by {ranks} process(es) with "
            f"{accumulate} gradient accumulation step(s) each: choose a multiple of "
            f"{ranks * accumulate}"
        )
