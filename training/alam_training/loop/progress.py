"""Progress of a training run: a bar on a terminal, else a line every ten seconds."""

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TrainingBar:
    """Steps done out of ``steps``, starting at ``first``; prints nothing unless ``shown``."""

    def __init__(self, steps: int, first: int, shown: bool) -> None:
        self._console = Console(quiet=not shown)
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[rate]:.2f} steps/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(
            *columns, console=self._console, disable=not self._console.is_terminal
        )
        self._task = self._progress.add_task(
            "train", total=steps, completed=first, loss=float("nan"), rate=0.0
        )
        self._first, self._steps, self._step, self._started = first, steps, first, time.monotonic()
        self._printed = self._started

    def __enter__(self) -> "TrainingBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self) -> None:
        """Count one step."""
        self._step += 1
        self._progress.advance(self._task)

    def show(self, loss: float) -> None:
        """Update the loss and the rate; without a terminal, print a line if it is time for one."""
        now = time.monotonic()
        rate = (self._step - self._first) / (now - self._started)
        self._progress.update(self._task, loss=loss, rate=rate)
        if not self._console.is_terminal and (
            now - self._printed > 10 or self._step == self._steps
        ):
            left = (self._steps - self._step) / rate
            self.note(
                f"step {self._step}/{self._steps}  loss {loss:.4f}  {rate:.2f} steps/s  "
                f"{left:.0f} s left"
            )
            self._printed = now

    def note(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, highlight=False, soft_wrap=True)
