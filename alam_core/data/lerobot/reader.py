"""Reads LeRobot data sets from disk: version 3.0 (many episodes per file) and versions 2.0 and 2.1
(one episode per file).

T: frames of an episode, S: state width, A: action width, N: frames read, H, W: image height and
width.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from alam_core.data.lerobot import layout
from alam_core.data.lerobot.episodes import (
    column_names,
    read_episodes,
    read_info,
    read_parquet,
    view_name,
)
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


class LeRobotDataset:
    """A data set folder, opened for reading. Numbers and frames are read from disk on demand.

    ``fps``: frames per second. ``views``: camera names. ``features``: as in meta/info.json.
    ``state_names``, ``action_names``: one name per column. ``extras``: further values stored per
    episode, such as its seed: name -> list with one entry per episode.

    Raises UserError if ``root`` is not a data set, has a version that is not supported, or lacks a
    file.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.info = read_info(self.root)
        self.features: dict[str, Any] = self.info["features"]
        self.fps = float(self.info["fps"])
        self.views = tuple(view_name(key) for key in self._video_keys())
        self.state_names = column_names(self.features.get(layout.STATE))
        self.action_names = column_names(self.features.get(layout.ACTION))
        self._episodes, self.extras = read_episodes(self.root, self.info, self._video_keys())
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
            raise UserError(
                f"'{self.root}' has no view '{view}'; it has: {', '.join(self.views) or 'none'}"
            )
        for i in indices:
            if not 0 <= i < where.length:
                raise IndexError(f"frame {i} of episode {e}, which has {where.length}")
        file, first = where.videos[view]
        return self._videos.reader(self.root / file, self.fps).read(
            [first + int(i) for i in indices]
        )

    def video_span(self, e: int, view: str) -> tuple[Path, int]:
        """The video file of a view of episode e, and the number of the episode's first frame in
        that file.
        """
        file, first = self._episodes[e].videos[view]
        return self.root / file, first

    def video_files(self, view: str) -> list[Path]:
        """The video files of a view, each once, in the order of the episodes."""
        return list(
            dict.fromkeys(self.root / episode.videos[view][0] for episode in self._episodes)
        )

    def _video_keys(self) -> list[str]:
        stills = [key for key, feature in self.features.items() if feature["dtype"] == "image"]
        if stills:
            raise UserError(
                f"'{self.root}' stores {', '.join(stills)} as single images; "
                "convert it to video with lerobot's scripts"
            )
        return [key for key, feature in self.features.items() if feature["dtype"] == "video"]

    def _read_rows(self, file: str) -> dict[str, np.ndarray]:
        """State, action and episode index of every frame in a data file."""
        present = [name for name in (layout.STATE, layout.ACTION) if name in self.features]
        table = read_parquet(self.root / file, columns=["episode_index", *present])
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
