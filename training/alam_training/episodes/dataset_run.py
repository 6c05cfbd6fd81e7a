"""One run of a command that writes a LeRobot data set, episode by episode: a new data set, or one
that an earlier run left unfinished.

T: frames of an episode, H, W: image height and width, S: state width, A: action width.
"""

import contextlib
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from alam_core.data.lerobot import LeRobotDataset, LeRobotWriter
from alam_core.errors import UserError
from alam_core.files import write_json
from alam_training.settings import check_same_settings


class DiskFull(UserError):
    """The disk has no space for another episode."""


class DatasetRun:
    """Adds episodes to the data set at ``root``; use it in a ``with`` block.

    The data set, and beside it the file ``record_file`` with the values of ``record``, appear at
    the end of the block. Ctrl-C ends the block early: whole episodes are kept, ``interrupted`` is
    true and the code after the block runs. If no episode was added, KeyboardInterrupt propagates.
    DiskFull keeps whole episodes too, and propagates. Any other exception discards what this run
    added.

    ``dataset``: the data set of an earlier run, or None. ``num_episodes``, ``num_frames``: counts
    of the whole data set. ``without_instruction``: episodes that this run added without an
    instruction. ``record``: the caller may change it until the block ends.
    """

    def __init__(self, root: str | Path, record_file: str, record: dict[str, Any]) -> None:
        self.root = Path(root)
        self.record_file, self.record = record_file, record
        self.dataset: LeRobotDataset | None = None
        self.num_episodes = self.num_frames = self.without_instruction = 0
        self.interrupted = False
        self._writer: LeRobotWriter | None = None

    def resume(
        self,
        allowed: bool,
        settings: dict[str, Any],
        made: str,
        option: str,
        extra: str,
        key: str = "",
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the data set at ``root`` to add to it, if it exists and this run fits it.

        allowed: whether the user asked to resume. settings: this run's settings that decide what an
        episode looks like. made, option: for messages, such as "collected" and "--output". extra:
        what each episode must have in ``LeRobotDataset.extras``. key: where the record keeps the
        settings; "" if it is the settings. defaults: settings that older records lack. Raises
        UserError if resuming is not allowed, or the record is missing, broken or has other
        settings.
        """
        if not self.root.exists():
            return
        if not allowed:
            raise UserError(
                f"'{self.root}' exists already; add --resume true to continue it, "
                f"or choose another {option}"
            )
        dataset = LeRobotDataset(self.root)
        try:
            record = json.loads((self.root / self.record_file).read_text())
            before = {**(defaults or {}), **(record[key] if key else record)}
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(
                f"'{self.root}/{self.record_file}' is missing or broken, or of another version of "
                "this program: only data sets made by this script can be resumed; choose another "
                f"{option}"
            ) from None
        check_same_settings(
            {name: before[name] for name in settings if name in before},
            settings,
            f"'{self.root}' was {made} with",
            f"give the same value or choose another {option}",
        )
        if extra not in dataset.extras:
            raise UserError(
                f"the episodes of '{self.root}' lack their {extra}, which this version of the "
                f"program needs to continue: choose another {option}"
            )
        self.dataset = dataset
        self.num_episodes, self.num_frames = dataset.num_episodes, dataset.num_frames

    def open(
        self,
        images: Mapping[str, np.ndarray],
        fps: float,
        state_names: Sequence[str],
        action_names: Sequence[str],
        robot_type: str,
    ) -> None:
        """Prepare for episodes like the first one; later calls do nothing.

        images: view -> (T, H, W, 3) of the first episode. Raises UserError if the data set cannot
        be written, or has other features than these episodes.
        """
        if self._writer is None:
            views = {view: (frames.shape[1], frames.shape[2]) for view, frames in images.items()}
            append = self.dataset is not None
            self._writer = LeRobotWriter(
                self.root, fps, views, state_names, action_names, robot_type, append=append
            )

    def add(
        self,
        images: dict[str, np.ndarray],
        state: np.ndarray,
        action: np.ndarray,
        task: str,
        extra: dict[str, int | float | bool | str],
    ) -> None:
        """Add one whole episode (see ``LeRobotWriter.add_episode``); Ctrl-C waits until it is
        written. Raises ValueError for arrays that do not fit, DiskFull if there is no space for
        another episode, and OSError.
        """
        assert self._writer is not None, "open() comes first"
        with uninterrupted():
            self._writer.add_episode(images, state, action, task, extra)
            self.num_episodes, self.num_frames = self._writer.num_episodes, self._writer.num_frames
            self.without_instruction += not task
        if self._writer.disk_is_full:
            raise DiskFull(
                f"the disk of '{self.root}' is full: the {self.num_episodes} episodes written so "
                "far are kept; free some space, and --resume true continues"
            )

    def __enter__(self) -> "DatasetRun":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        before = self.dataset.num_episodes if self.dataset else 0
        added = self.num_episodes > before
        self.interrupted = added and isinstance(error, KeyboardInterrupt)
        if error is not None and not self.interrupted and not isinstance(error, DiskFull):
            if self._writer is not None:
                self._writer.abort()
            return False
        with uninterrupted():  # without its record a data set cannot be resumed
            if self._writer is not None:
                self._writer.close()
            if self.num_episodes:
                write_json(self.root / self.record_file, self.record)
        return self.interrupted


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C to the end of the block, so that no file is left half-written. Works only in the
    main thread of a process.
    """
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise KeyboardInterrupt
