"""Writes LeRobot v3.0 data sets: parquet for numbers, one H.264 video a view, many episodes a file.

Everything goes into a hidden folder beside the target and moves in place on ``close``, so that an
interrupted run leaves nothing that looks whole. T: frames of an episode, S: state width, A: action
width, H, W: image height and width.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alam_core.data.lerobot import layout
from alam_core.data.lerobot.reader import LeRobotDataset
from alam_core.data.lerobot.statistics import (
    Stats,
    from_json,
    image_stats,
    merge_stats,
    to_json,
    vector_stats,
)
from alam_core.data.video.writer import VideoWriter, video_info
from alam_core.errors import UserError
from alam_core.files import lock_folder, move_into_place

INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
MB = 1024**2


class LeRobotWriter:
    """Collects episodes into a data set at ``root``; use it in a ``with`` block, or call ``close``
    (keep) or ``abort`` (discard).

    views: camera name -> (H, W). state_names, action_names: one name for each column, none where
    the data have no such vector. append: add to the data set that is there (in files of its own);
    without it an existing ``root`` is refused. Raises UserError where it cannot write.
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
        self._widths = {layout.STATE: len(state_names), layout.ACTION: len(action_names)}
        self._features = _features(views, state_names, action_names)
        self._video_keys = [layout.IMAGES + view for view in views]
        self._robot_type = robot_type
        self._stats: dict[str, Stats] = {}
        self._tasks: list[str] = []
        self._new_episodes: list[dict[str, Any]] = []
        self.num_episodes = self.num_frames = 0
        self._position = dict.fromkeys(
            ("data", "episodes", *self._video_keys), (0, 0)
        )  # chunk and file index now written
        self._data: tuple[BinaryIO, pq.ParquetWriter] | None = None
        self._videos: dict[str, VideoWriter] = {}
        self._append = append
        self._folder = self.root.parent / layout.partial_name(self.root.name)
        if self.root.exists() and not append:
            raise UserError(
                f"'{root}' exists already; choose another folder, remove it, or resume it"
            )
        self._lock = _lock_empty(self._folder)
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
        """Append one episode.

        images: view -> uint8 RGB (T, H, W, 3). state: (T, S). action: (T, A), row t taken at
        observation t. task: the instruction. extra: scalars kept with the episode (the same names
        for every episode). Raises ValueError for arrays that do not fit.
        """
        self._check(images, state, action)
        length = len(state)
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
        row["data/chunk_index"], row["data/file_index"] = self._write_rows(columns)
        for view in self.views:
            row.update(self._write_video(view, images[view]))
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

    def close(self) -> None:
        """Finish all files and move the data set in place. Raises UserError when it would be empty."""
        if not self.num_episodes:
            self.abort()
            raise UserError(f"no episode was added to '{self.root}'; nothing is written")
        self._close_data()
        for video in self._videos.values():
            video.close()
        self._write_meta()
        if self._append:
            self._move_into_root()
        elif self.root.exists():
            raise UserError(
                f"'{self.root}' appeared while it was being written; the new data stay in '{self._folder}'"
            )
        else:
            move_into_place(self._folder, self.root)
        os.close(self._lock)

    def abort(self) -> None:
        """Discard what was added; a data set appended to stays as it was."""
        self._close_data()
        for video in self._videos.values():
            video.abort()
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
            raise ValueError(f"images of {sorted(images)} where {sorted(self.views)} are needed")
        shapes |= {
            view: (images[view], (len(state), *size, 3)) for view, size in self.views.items()
        }
        for name, (array, shape) in shapes.items():
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape} where {shape} is needed")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds values that are not finite")

    def _write_rows(self, columns: dict[str, np.ndarray]) -> tuple[int, int]:
        """Append one episode's rows to the data file, or to a new one when it is full; returns its
        chunk and file index.
        """
        arrays = {}
        for name, values in columns.items():
            wide = (
                values.ndim == 2 and values.shape[1] != 1
            )  # LeRobot keeps vectors of one number as scalars
            flat = pa.array(values.reshape(-1))
            arrays[name] = (
                pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if wide else flat
            )
        table = pa.table(arrays)
        if self._data and self._data[0].tell() + table.nbytes >= layout.DATA_FILE_MB * MB:
            self._close_data()
            self._position["data"] = layout.next_file(*self._position["data"])
        if not self._data:
            file = self._file(layout.DATA, "data").open("wb")
            self._data = file, pq.ParquetWriter(file, table.schema, compression="snappy")
        self._data[1].write_table(table)
        return self._position["data"]

    def _close_data(self) -> None:
        if self._data:
            file, writer = self._data
            writer.close()
            file.close()
            self._data = None

    def _write_video(self, view: str, images: np.ndarray) -> dict[str, Any]:
        """Append one episode's frames to the view's video file, or to a new one when it is full;
        returns where they are.
        """
        key = layout.IMAGES + view
        video = self._videos.get(view)
        if (
            video
            and video.num_bytes * (1 + len(images) / video.num_frames) >= layout.VIDEO_FILE_MB * MB
        ):
            video.close()
            video = None
            self._position[key] = layout.next_file(*self._position[key])
        if not video:
            video = VideoWriter(self._file(layout.VIDEO, key), self.fps, *self.views[view])
            self._videos[view] = video
        first = video.num_frames
        video.add(images)
        chunk, file = self._position[key]
        where = {
            "chunk_index": chunk,
            "file_index": file,
            "from_timestamp": first / self.fps,
            "to_timestamp": video.num_frames / self.fps,
        }
        return {f"videos/{key}/{name}": value for name, value in where.items()}

    def _file(self, pattern: str, key: str) -> Path:
        chunk, file = self._position[key]
        path = self._folder / pattern.format(video_key=key, chunk_index=chunk, file_index=file)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write_meta(self) -> None:
        """Episodes, tasks, statistics and info, in the working folder."""
        rows = list(self._new_episodes)
        bytes_a_row = pa.Table.from_pylist(rows[:1]).nbytes
        rows_a_file = max(1, layout.DATA_FILE_MB * MB // bytes_a_row)
        for start in range(0, len(rows), rows_a_file):
            if start:
                self._position["episodes"] = layout.next_file(*self._position["episodes"])
            chunk, file = self._position["episodes"]
            where = {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
            table = pa.Table.from_pylist(
                [{**row, **where} for row in rows[start : start + rows_a_file]]
            )
            pq.write_table(table, self._file(layout.EPISODES, "episodes"), compression="snappy")
        pq.write_table(_tasks_table(self._tasks), self._folder / layout.TASKS)
        for view, video in self._videos.items():
            self._features[layout.IMAGES + view]["info"] = video_info(video.path, self.fps)
        info = {
            "codebase_version": layout.VERSION,
            "robot_type": self._robot_type,
            "total_episodes": self.num_episodes,
            "total_frames": self.num_frames,
            "total_tasks": len(self._tasks),
            "chunks_size": layout.FILES_PER_CHUNK,
            "data_files_size_in_mb": layout.DATA_FILE_MB,
            "video_files_size_in_mb": layout.VIDEO_FILE_MB,
            "fps": self.fps,
            "splits": {"train": f"0:{self.num_episodes}"},
            "data_path": layout.DATA,
            "video_path": layout.VIDEO,
            "features": self._features,
        }
        (self._folder / layout.STATS).write_text(json.dumps(to_json(self._stats), indent=4) + "\n")
        (self._folder / layout.INFO).write_text(
            json.dumps(info, indent=4, ensure_ascii=False) + "\n"
        )

    def _continue(self) -> None:
        """Take up counts, tasks, statistics and file positions of the data set at ``root``."""
        old = LeRobotDataset(self.root)
        features = {key: {**feature, "info": None} for key, feature in old.features.items()}
        wanted = {key: {**feature, "info": None} for key, feature in self._features.items()}
        if (
            old.info["codebase_version"] != layout.VERSION
            or features != wanted
            or old.fps != self.fps
        ):
            raise UserError(
                f"'{self.root}' has other features or another rate than the new episodes; write them to another folder"
            )
        self.num_episodes, self.num_frames = old.num_episodes, old.num_frames
        self._robot_type = old.info["robot_type"]
        self._stats = from_json(json.loads((self.root / layout.STATS).read_text()))
        tasks = pq.read_table(self.root / layout.TASKS).to_pydict()
        numbers = tasks.pop("task_index")
        self._tasks = [task for _, task in sorted(zip(numbers, *tasks.values(), strict=True))]
        last = self._last_row(old)
        for key in self._position:
            where = {"data": "data", "episodes": "meta/episodes"}.get(key, f"videos/{key}")
            self._position[key] = layout.next_file(
                last[f"{where}/chunk_index"], last[f"{where}/file_index"]
            )

    def _last_row(self, old: LeRobotDataset) -> dict[str, Any]:
        """What is written down of the last episode that counts; files of a run killed before its
        info.json lie behind and are replaced.
        """
        for file in sorted((self.root / "meta/episodes").glob("*/*.parquet"), reverse=True):
            table = pq.read_table(file, partitioning=None)
            numbers = table["episode_index"].to_pylist()
            if old.num_episodes - 1 in numbers:
                return dict(table.slice(numbers.index(old.num_episodes - 1), 1).to_pylist()[0])
        raise UserError(f"'{self.root}' has no episode to go on from; choose another folder")

    def _move_into_root(self) -> None:
        """Move the new files beside the old ones; readers believe info.json, which comes last."""
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


def _features(
    views: dict[str, tuple[int, int]], state_names: Sequence[str], action_names: Sequence[str]
) -> dict[str, Any]:
    features: dict[str, Any] = {
        layout.IMAGES + view: {
            "dtype": "video",
            "shape": [*size, 3],
            "names": ["height", "width", "channels"],
        }
        for view, size in views.items()
    }
    for feature, names in ((layout.STATE, state_names), (layout.ACTION, action_names)):
        if names:
            features[feature] = {"dtype": "float32", "shape": [len(names)], "names": list(names)}
    for name in INDEX_COLUMNS:
        features[name] = {
            "dtype": "float32" if name == "timestamp" else "int64",
            "shape": [1],
            "names": None,
        }
    return features


def _tasks_table(tasks: list[str]) -> pa.Table:
    """Tasks as pandas would write a frame indexed by the instruction, which is how LeRobot reads
    them.
    """
    table = pa.table(
        {
            "task_index": pa.array(range(len(tasks)), pa.int64()),
            "task": pa.array(tasks, pa.string()),
        }
    )
    described = [
        {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": numpy_type,
            "metadata": None,
        }
        for name, kind, numpy_type in (
            ("task_index", "int64", "int64"),
            ("task", "unicode", "object"),
        )
    ]
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": described,
        "creator": {"library": "pyarrow"},
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _lock_empty(folder: Path) -> int:
    """Make ``folder``, empty, and hold it for this process; returns the open descriptor that holds
    it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = lock_folder(folder, "writing this data set in")
    except OSError as error:
        raise UserError(f"cannot write in '{folder.parent}': {error.strerror}") from None
    for child in folder.iterdir():  # left by an interrupted run
        shutil.rmtree(child) if child.is_dir() else child.unlink()
    return descriptor
