"""Batches that are made ahead of time: a run that waits for one can be stopped."""

import os
import signal
import threading
from pathlib import Path

import torch
from torch import Tensor, nn

from alam_training.loop.config import LoopConfig
from alam_training.loop.state import STATE_FILE
from alam_training.loop.train import TrainResult, train


def run(folder: Path, stuck_at: int, never: threading.Event) -> TrainResult:
    def batch_at(step: int, rank: int, ranks: int) -> Tensor:
        if step == stuck_at:
            os.kill(os.getpid(), signal.SIGTERM)
            never.wait()
        return torch.ones(4, 2)

    def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return {"total": model(batch).square().mean()}

    return train(nn.Linear(2, 1), batch_at, losses, folder, LoopConfig(steps=12, cpu=True))


def test_a_signal_stops_a_run_that_waits_for_a_batch_that_never_comes(tmp_path: Path) -> None:
    never = threading.Event()
    result = run(tmp_path, 3, never)
    never.set()
    assert result.stopped == "interrupted" and 0 <= result.step <= 3
    assert (tmp_path / STATE_FILE).is_file() and run(tmp_path, -1, never).step == 12
