"""Reads LeRobot data sets from disk: version 3.0 (many episodes per file) and versions 2.0 and 2.1
(one episode per file).

T: frames of an episode, S: state width, A: action width, N: frames read, H, W: image height and
width.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alam_core.data.lerobot import layout
from alam_core.data.lerobot.views import no_colours
from alam_core.data.video.reader import OpenVideos
from alam_core.errors import UserError


@dataclass
class EpisodeArrays:
    """States and actions of one episode: row t is the state observed, and the action taken, at
    frame t.
    """

    state: np.ndarray  # float32 (T, S); S = 0 if the data set has no state
    action: np.ndarray  # float32 (T, A); A = 0 if it has no actions
    task: str


@dataclass
class _Episode:
    """The files and positions of one episode."""

    index: int
    length: int
    task: str
    data: str  # parquet file
    row: int  # of the first frame in that file
    videos: dict[str, tuple[str, float]]  # view -> file, number of the first frame in it


class LeRobotDataset:
    """A data set folder, opened for reading. Numbers and frames are read from disk on demand.

    ``fps``: frames per second. ``views``: names of the cameras. ``left_out``: name -> reason, for
    videos that are not among them because they do not seem to show colours. ``features``: as in
    meta/info.json. ``state_names``, ``action_names``: one name per column. ``extras``: further
    values stored per episode, such as its seed: name -> list with one entry per episode.

    Raises UserError if ``root`` is not a data set, has a version that is not supported, or lacks a
    file.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.info = self._read_info()
        self.features: dict[str, Any] = self.info["features"]
        self.fps = float(self.info["fps"])
        seen = {_view(key): no_colours(key, self.features[key]) for key in self._video_keys()}
        self.views = tuple(view for view, (why, _) in seen.items() if not why)
        self.left_out = {view: why for view, (why, _) in seen.items() if why}
        self._refused = {view for view, (_, certain) in seen.items() if certain}
        self.state_names = _names(self.features.get(layout.STATE))
        self.action_names = _names(self.features.get(layout.ACTION))
        self.extras: dict[str, list[Any]] = {}
        version = str(self.info.get("codebase_version"))
        if version.startswith("v3."):
            self._episodes = self._read_episodes_v3()
        elif version in ("v2.0", "v2.1"):
            self._episodes = self._read_episodes_v2()
        else:
            raise UserError(
                f"'{self.root}' is a LeRobot data set of version {version}; "
                "supported are 3.0, 2.1 and 2.0: convert it with lerobot's scripts"
            )
        self.num_episodes = len(self._episodes)
        self.num_frames = sum(episode.length for episode in self._episodes)
        self._videos = OpenVideos()
        self._rows = functools.lru_cache(maxsize=4)(self._read_rows)

    def __repr__(self) -> str:
        return (
            f"LeRobotDataset('{self.root}', {self.num_episodes} episodes, "
            f"{self.num_frames} frames, views {', '.join(self.views)})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return LeRobotDataset, (self.root,)  # worker processes open their own files

    def episode_length(self, e: int) -> int:
        """Number of frames T of episode e."""
        return self._episodes[e].length

    def episode(self, e: int) -> EpisodeArrays:
        """The states, actions and instruction of episode e. Raises UserError if its file is missing
        or broken.
        """
        where = self._episodes[e]
        columns = self._rows(where.data)
        rows = slice(where.row, where.row + where.length)
        if (
            not (columns["episode_index"][rows] == where.index).all()
            or len(columns["episode_index"][rows]) != where.length
        ):
            raise UserError(
                f"'{self.root / where.data}' does not hold the {where.length} frames "
                f"of episode {where.index}; restore the file"
            )
        return EpisodeArrays(columns[layout.STATE][rows], columns[layout.ACTION][rows], where.task)

    def frames(self, e: int, view: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images of episode e, uint8 RGB (N, H, W, 3), in the order of ``indices``, which count
        from the episode's start.

        Raises UserError for an unknown view and a missing or broken video, IndexError for an index
        outside the episode.
        """
        where = self._episodes[e]
        if view not in self.views:
            self.check_view(view)
        for i in indices:
            if not 0 <= i < where.length:
                raise IndexError(f"frame {i} of episode {e}, which has {where.length}")
        file, first = where.videos[view]
        return self._videos.reader(self.root / file, self.fps).read(
            [first + int(i) for i in indices]
        )

    def check_view(self, view: str) -> None:
        """Raises UserError for a view that the data set does not have or that is declared not to
        show colours. A view that is left out only for its name can be used.
        """
        if view in self._refused:
            raise UserError(f"'{self.root}': '{view}' is no colour view: {self.left_out[view]}")
        if view not in self.views and view not in self.left_out:
            raise UserError(
                f"'{self.root}' has no view '{view}'; it has: {', '.join(self.views) or 'none'}"
            )

    def video_span(self, e: int, view: str) -> tuple[Path, float]:
        """The video file of a view of episode e, and the number of the episode's first frame in
        that file: a whole one, if the file's pictures are at multiples of 1 / fps.
        """
        file, first = self._episodes[e].videos[view]
        return self.root / file, first

    def video_files(self, view: str) -> list[Path]:
        """The video files of a view, each once, in the order of the episodes."""
        return list(
            dict.fromkeys(self.root / episode.videos[view][0] for episode in self._episodes)
        )

    def _read_info(self) -> dict[str, Any]:
        path = self.root / layout.INFO
        if not path.is_file():
            hint = (
                "give the folder that holds meta/, data/ and videos/, "
                "or collect one with training/collect.py"
            )
            if (self.root.parent / layout.partial_name(self.root.name)).exists():
                hint = "writing it was interrupted or still goes on; let it finish or collect again"
            raise UserError(
                f"'{self.root}' is not a LeRobot data set: {layout.INFO} is missing; {hint}"
            )
        try:
            info = json.loads(path.read_text())
            missing = [
                key
                for key in ("codebase_version", "fps", "features", "data_path", "total_episodes")
                if key not in info
            ]
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"'{path}' is broken JSON ({error}); restore the file") from None
        if missing:
            raise UserError(f"'{path}' lacks {', '.join(missing)}; is it a LeRobot data set?")
        return info

    def _video_keys(self) -> list[str]:
        stills = [key for key, feature in self.features.items() if feature["dtype"] == "image"]
        if stills:
            raise UserError(
                f"'{self.root}' stores {', '.join(stills)} as single images; "
                "convert it to video with lerobot's scripts"
            )
        return [key for key, feature in self.features.items() if feature["dtype"] == "video"]

    def _read_episodes_v3(self) -> list[_Episode]:
        files = sorted((self.root / "meta/episodes").glob("*/*.parquet"))
        if not files:
            raise UserError(f"'{self.root}' lacks meta/episodes/; copy the data set again")
        rows = [row for file in files for row in _read_parquet(file, statistics=False).to_pylist()]
        rows = [row for row in rows if row["episode_index"] < self.info["total_episodes"]]
        rows.sort(key=lambda row: row["episode_index"])
        if len(rows) != self.info["total_episodes"]:
            raise UserError(
                f"'{self.root}/meta/episodes' lists {len(rows)} of "
                f"{self.info['total_episodes']} episodes; copy the data set again"
            )
        known = {"episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"}
        self.extras = {
            name: [row[name] for row in rows]
            for name in (rows[0] if rows else {})
            if name not in known and "/" not in name
        }
        starts: dict[str, int] = {}  # data file -> index of its first frame in the whole set
        episodes = []
        for row in rows:
            data = self.info["data_path"].format(
                chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
            )
            start = starts.setdefault(data, row["dataset_from_index"])
            videos = {}
            for key in self._video_keys():
                where = f"videos/{key}/"
                file = self.info["video_path"].format(
                    video_key=key,
                    chunk_index=row[where + "chunk_index"],
                    file_index=row[where + "file_index"],
                )
                videos[_view(key)] = (file, round(row[where + "from_timestamp"] * self.fps, 3))
            task = row["tasks"][0] if row["tasks"] else ""
            episodes.append(
                _Episode(
                    row["episode_index"],
                    row["length"],
                    task,
                    data,
                    row["dataset_from_index"] - start,
                    videos,
                )
            )
        return episodes

    def _read_episodes_v2(self) -> list[_Episode]:
        path = self.root / "meta/episodes.jsonl"
        if not path.is_file():
            raise UserError(f"'{self.root}' lacks meta/episodes.jsonl; copy the data set again")
        try:
            read = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
            rows = [(row["episode_index"], row["length"], row["tasks"]) for row in read]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"'{path}' is broken ({error}); copy the data set again") from None
        episodes = []
        for index, length, tasks in rows:
            where = {
                "episode_chunk": index // self.info.get("chunks_size", layout.FILES_PER_CHUNK),
                "episode_index": index,
            }
            videos = {
                _view(key): (self.info["video_path"].format(video_key=key, **where), 0)
                for key in self._video_keys()
            }
            episodes.append(
                _Episode(
                    index,
                    length,
                    tasks[0] if tasks else "",
                    self.info["data_path"].format(**where),
                    0,
                    videos,
                )
            )
        return episodes

    def _read_rows(self, file: str) -> dict[str, np.ndarray]:
        """State, action and episode index of every frame in a data file."""
        present = [name for name in (layout.STATE, layout.ACTION) if name in self.features]
        table = _read_parquet(self.root / file, columns=["episode_index", *present])
        columns = {
            name: np.zeros((table.num_rows, 0), np.float32)
            for name in (layout.STATE, layout.ACTION)
        }
        for name in present:
            column = table[name].combine_chunks()
            values = column.flatten() if pa.types.is_nested(column.type) else column
            columns[name] = (
                values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(table.num_rows, -1)
            )
        columns["episode_index"] = table["episode_index"].to_numpy()
        return columns


def _view(key: str) -> str:
    """Camera name of a video feature. Dots become underscores, because the names of torch modules
    cannot contain them.
    """
    return key.removeprefix(layout.IMAGES).removeprefix("observation.").replace(".", "_")


def _read_parquet(
    path: Path, columns: list[str] | None = None, statistics: bool = True
) -> pa.Table:
    """A parquet file, or some of its columns; ``statistics`` False leaves out the ``stats/...``
    columns. Raises UserError if the file is missing or broken.
    """
    if not path.is_file():
        raise UserError(f"'{path}' is missing; copy the data set again or collect it again")
    try:
        if not statistics:
            columns = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
        return pq.read_table(path, columns=columns, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"'{path}' cannot be read ({' '.join(str(error).split())}); restore the file"
        ) from None


def _names(feature: dict[str, Any] | None) -> list[str]:
    """Column names of a vector feature, in any of the forms that LeRobot has used."""
    if feature is None:
        return []
    names = feature.get("names")
    if isinstance(names, dict):  # some sets group them: {"motors": [...]}
        names = [
            name
            for group in names.values()
            for name in (group if isinstance(group, list) else [group])
        ]
    width = feature["shape"][0]
    return list(names) if names and len(names) == width else [str(i) for i in range(width)]
