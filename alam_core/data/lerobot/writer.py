"""Writes LeRobot v3.0 data sets: numbers in parquet files, images in H.264 video files, many
episodes per file.

Everything is written to a hidden folder beside the target and moved into place on ``close``, so
that a killed run leaves nothing that looks like a data set. T: frames of an episode, S: state
width, A: action width, H, W: image height and width.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from alam_core.data.lerobot import layout
from alam_core.data.lerobot.features import name_fault
from alam_core.data.lerobot.metadata import (
    describe_features,
    last_episode_row,
    read_stats,
    same_format,
    write_info,
    write_tables,
)
from alam_core.data.lerobot.reader import LeRobotDataset
from alam_core.data.lerobot.shards import ShardWriter
from alam_core.data.lerobot.statistics import (
    Stats,
    image_stats,
    merge_stats,
    vector_stats,
)
from alam_core.errors import UserError, reason
from alam_core.files import lock_folder, move_into_place
from alam_core.reserve import Reserve

RESERVE = 32 * 1024**2  # bytes set aside for finishing the files, besides two episodes


class LeRobotWriter:
    """Writes episodes to a data set at ``root``; use it in a ``with`` block, or call ``close``
    (keep) or ``abort`` (discard).

    views: camera name -> (H, W). state_names, action_names: one name per column, none for data
    without that vector. append: add to the existing data set at ``root``, in new files; without it
    an existing ``root`` is refused. Raises UserError if it cannot write, or if another process is
    writing this data set.
    """

    def __init__(
        self,
        root: str | Path,
        fps: float,
        views: dict[str, tuple[int, int]],
        state_names: Sequence[str],
        action_names: Sequence[str],
        robot_type: str,
        append: bool = False,
    ) -> None:
        self.root = Path(root).absolute()
        self.views = dict(views)
        self.fps = int(fps) if float(fps).is_integer() else float(fps)
        for feature, names in ((layout.STATE, state_names), (layout.ACTION, action_names)):
            if fault := name_fault(names):
                raise UserError(f"'{root}': {feature} {fault}")
        self._widths = {layout.STATE: len(state_names), layout.ACTION: len(action_names)}
        self._features = describe_features(views, state_names, action_names)
        self._robot_type = robot_type
        self._stats: dict[str, Stats] = {}
        self._tasks: list[str] = []
        self._new_episodes: list[dict[str, Any]] = []
        self.num_episodes = self.num_frames = 0
        self._append = append
        self._folder = self.root.parent / layout.partial_name(self.root.name)
        if self.root.exists() and not append:
            raise UserError(
                f"'{root}' exists already; choose another folder, remove it, or resume it"
            )
        self._lock = _make_locked(self._folder)
        self._reserve = Reserve(self._folder)
        self._reserve.grow(RESERVE)
        self._largest = 0  # episode, in bytes
        self._shards = ShardWriter(self._folder, self.views, self.fps, self._reserve)
        if self._reserve.used:
            self.abort()
            raise UserError(
                f"the disk of '{root}' has less than {RESERVE // 1024**2} MB left: free some "
                "space, or choose a folder on another disk"
            )
        if append:
            try:
                self._continue()
            except BaseException:
                self.abort()
                raise

    def add_episode(
        self,
        images: dict[str, np.ndarray],
        state: np.ndarray,
        action: np.ndarray,
        task: str,
        extra: dict[str, int | float | bool | str] | None = None,
    ) -> None:
        """Add one episode.

        images: view -> uint8 RGB (T, H, W, 3). state: (T, S). action: (T, A), row t is the action
        taken at observation t. task: the instruction. extra: scalars stored with the episode, the
        same names for every episode. Raises ValueError for arrays of a wrong shape or type, and for
        values that are not finite, and OSError, after which only ``abort`` is possible.
        """
        self._check(images, state, action)
        length, before = len(state), self._shards.num_bytes
        if task not in self._tasks:
            self._tasks.append(task)
        frame_index = np.arange(length)
        vectors = {layout.STATE: state.astype(np.float32), layout.ACTION: action.astype(np.float32)}
        columns: dict[str, np.ndarray] = {
            **{name: values for name, values in vectors.items() if self._widths[name]},
            "timestamp": (frame_index / self.fps).astype(np.float32),
            "frame_index": frame_index,
            "episode_index": np.full(length, self.num_episodes),
            "index": self.num_frames + frame_index,
            "task_index": np.full(length, self._tasks.index(task)),
        }
        row: dict[str, Any] = {
            "episode_index": self.num_episodes,
            "tasks": [task],
            "length": length,
            "dataset_from_index": self.num_frames,
            "dataset_to_index": self.num_frames + length,
            **(extra or {}),
        }
        row.update(self._shards.add_rows(columns))
        for view in self.views:
            row.update(self._shards.add_video(view, images[view]))
        stats = {name: vector_stats(values) for name, values in columns.items()}
        stats |= {layout.IMAGES + view: image_stats(images[view]) for view in self.views}
        for feature, values in stats.items():
            self._stats[feature] = (
                merge_stats(self._stats[feature], values) if feature in self._stats else values
            )
            row.update(
                {f"stats/{feature}/{name}": value.tolist() for name, value in values.items()}
            )
        self._new_episodes.append(row)
        self.num_episodes += 1
        self.num_frames += length
        self._largest = max(self._largest, self._shards.num_bytes - before)
        self._reserve.grow(RESERVE + 2 * self._largest)

    @property
    def disk_is_full(self) -> bool:
        """Whether the disk has no space for another episode, only for ``close``."""
        return self._reserve.used

    def close(self) -> None:
        """Finish all files and move the data set into place. Raises UserError if it has no
        episodes, and OSError; the added episodes are then lost.
        """
        if not self.num_episodes:
            self.abort()
            raise UserError(f"no episode was added to '{self.root}'; nothing is written")
        if not self._new_episodes:
            self.abort()
            return
        self._reserve.release()
        try:
            self._shards.close()
            self._write_meta()
        except OSError:
            self.abort()
            raise
        if self._append:
            self._move_into_root()
        elif self.root.exists():
            raise UserError(
                f"'{self.root}' appeared while it was being written; "
                f"the new data stay in '{self._folder}'"
            )
        else:
            move_into_place(self._folder, self.root)
        os.close(self._lock)

    def abort(self) -> None:
        """Discard the added episodes; a data set that they were added to does not change."""
        self._shards.abort()
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    def __enter__(self) -> "LeRobotWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _check(self, images: dict[str, np.ndarray], state: np.ndarray, action: np.ndarray) -> None:
        if not len(state):
            raise ValueError("an episode needs at least one frame")
        shapes: dict[str, tuple[np.ndarray, tuple[int, ...]]] = {
            layout.STATE: (state, (len(state), self._widths[layout.STATE]))
        }
        shapes[layout.ACTION] = (action, (len(state), self._widths[layout.ACTION]))
        if set(images) != set(self.views):
            raise ValueError(f"images of {sorted(images)}, but {sorted(self.views)} are needed")
        shapes |= {
            view: (images[view], (len(state), *size, 3)) for view, size in self.views.items()
        }
        for name, (array, shape) in shapes.items():
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, but {shape} is needed")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} has values that are not finite")

    def _write_meta(self) -> None:
        """Episodes, tasks, statistics and info, in the working folder."""
        self._shards.write_episodes(self._new_episodes)
        write_tables(self._folder, self._tasks, self._stats)
        for view, info in self._shards.video_infos().items():
            self._features[layout.IMAGES + view]["info"] = info
        write_info(
            self._folder,
            self._robot_type,
            self.fps,
            self.num_episodes,
            self.num_frames,
            len(self._tasks),
            self._features,
        )

    def _continue(self) -> None:
        """Take over counts, tasks, statistics and shard positions of the existing data set."""
        old = LeRobotDataset(self.root)
        if not same_format(old, self._features, self.fps):
            raise UserError(
                f"'{self.root}' has other features or another rate than the new episodes; "
                "write them to another folder"
            )
        if list(old.tasks) != list(range(len(old.tasks))):
            raise UserError(
                f"the tasks of '{self.root}' are not numbered from 0 on; write to another folder"
            )
        self.num_episodes, self.num_frames = old.num_episodes, old.num_frames
        self._robot_type = old.info["robot_type"]
        self._stats = read_stats(self.root)
        self._tasks = list(old.tasks.values())
        self._shards.start_after(last_episode_row(old))

    def _move_into_root(self) -> None:
        """Move the new files beside the old ones; info.json, which readers rely on, comes last."""
        files = sorted(
            file.relative_to(self._folder) for file in self._folder.rglob("*") if file.is_file()
        )
        order = [file for file in files if file.parts[0] != "meta"] + [
            file for file in files if file.parts[:2] == ("meta", "episodes")
        ]
        for file in [*order, *(Path(name) for name in (layout.TASKS, layout.STATS, layout.INFO))]:
            (self.root / file).parent.mkdir(parents=True, exist_ok=True)
            move_into_place(self._folder / file, self.root / file)
        shutil.rmtree(self._folder)


def _make_locked(folder: Path) -> int:
    """Make ``folder``, or empty it, and lock it for this process. Returns the descriptor that keeps
    the lock.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = lock_folder(folder, "writing this data set in")
    except OSError as error:
        raise UserError(f"cannot write in '{folder.parent}': {reason(error)}") from None
    for child in folder.iterdir():  # left by a killed run
        shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
    return descriptor
