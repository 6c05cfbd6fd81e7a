"""LeRobot's own reader, for the reading benchmark: a process of a Python interpreter that has
LeRobot installed. It runs ``lerobot_reader.py`` and answers each request with one JSON line.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from alam_core.data.lerobot import LeRobotDataset
from alam_core.errors import UserError

SCRIPT = Path(__file__).with_name("lerobot_reader.py")
TOLERANCE = 3.0  # of 255 levels: how far two decoders' means of the same image may differ

# Units per second of wall-clock time, and per second of CPU time (None if it is not known).
Measure = Callable[[np.random.Generator], tuple[float, float | None]]


class LeRobotProcess:
    """LeRobot's reader of the data set at ``root``, run by ``python``.

    gap: frames between the images of a triplet. frames: only the first ``frames`` of the data set
    are read. Raises UserError if the process does not start.
    """

    def __init__(self, python: str, root: Path, gap: int, frames: int) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (read when the process fails)
        arguments = [python, str(SCRIPT), str(root), str(gap)]
        try:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )
        except OSError as error:
            raise UserError(
                f"--lerobot_python '{python}' cannot be started ({error.strerror})"
            ) from None
        self.versions = self._answer()
        self._items = min(int(self.versions.pop("items")), frames)
        self.versions.pop("ready")

    def items(self, count: int) -> Measure:
        """``count`` random single items."""
        return self._measure("items", count)

    def triplets(self, count: int, views: int, workers: int, batch: int) -> Measure:
        """``count`` random items of three frames, in batches if there are workers. An item counts
        as one triplet per view.
        """
        if workers:  # whole batches, and those that the workers read ahead
            count = (count // batch + 1 + 2 * workers) * batch
        return self._measure("triplets", count, views, workers, batch)

    def check(self, dataset: LeRobotDataset) -> None:
        """Raises UserError unless both readers return the same images."""
        indices = [0, self._items // 3, self._items - 1]
        theirs = np.array(
            self._ask({"kind": "frames", "indices": indices})["means"]
        )  # (3, views, 3)
        ends = np.cumsum([dataset.episode_length(e) for e in range(dataset.num_episodes)])
        for index, means in zip(indices, theirs, strict=True):
            e = int(np.searchsorted(ends, index, side="right"))
            t = index - int(ends[e]) + dataset.episode_length(e)
            for view, mean in zip(dataset.views, means, strict=True):
                ours = dataset.frames(e, view, [t])[0].mean((0, 1))
                if abs(ours - mean).max() > TOLERANCE:
                    raise UserError(
                        f"frame {index} of '{dataset.root}' differs between LeRobot's reader and "
                        f"ours: mean colours {mean} and {ours}"
                    )

    def close(self) -> None:
        """Wait until the process has ended."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(30)

    def _measure(
        self, kind: str, count: int, units: int = 1, workers: int = 0, batch: int = 1
    ) -> Measure:
        def measure(rng: np.random.Generator) -> tuple[float, float | None]:
            indices = rng.integers(0, self._items, count).tolist()
            answer = self._ask(
                {"kind": kind, "indices": indices, "workers": workers, "batch": batch}
            )
            cpu = answer.get("cpu_seconds")
            rate = units * answer.get("counted", count) / answer["seconds"]
            return rate, units * count / cpu if cpu else None

        return measure

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(request) + "\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            self._errors.seek(0)
            said = [text for text in self._errors.read().splitlines() if text.strip()]
            raise UserError(
                f"LeRobot's reader ended: {said[-1] if said else 'it printed nothing'}; "
                "is LeRobot installed for --lerobot_python?"
            )
        return dict(json.loads(line))
