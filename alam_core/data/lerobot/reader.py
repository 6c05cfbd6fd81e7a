"""Reads LeRobot data sets from disk: version 3.0 (many episodes per file) and versions 2.0 and 2.1
(one episode per file).

T: frames of an episode, S: state width, A: action width, F: rows of a data file, N: frames read, H,
W: image height and width.
"""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alam_core.data.lerobot import layout
from alam_core.data.lerobot.episodes import Episode, read_info, read_metadata
from alam_core.data.lerobot.features import Columns, check_features, column_names, video_features
from alam_core.data.lerobot.rows import DataFile, read_rows
from alam_core.data.lerobot.views import no_colours
from alam_core.data.video.reader import OpenVideos
from alam_core.errors import UserError


@dataclass
class EpisodeArrays:
    """States, actions and instructions of one episode: row t is the state observed, the action
    taken, and the instruction followed at frame t.
    """

    state: np.ndarray  # float32 (T, S); S = 0 if the data set has no state
    action: np.ndarray  # float32 (T, A); A = 0 if it has no actions
    tasks: np.ndarray  # str objects (T,)

    @property
    def task(self) -> str:
        """The instruction of the first frame; most data sets have one per episode."""
        return str(self.tasks[0])


class LeRobotDataset:
    """A data set folder, opened for reading. Numbers and frames are read from disk on demand.

    columns: the features to read. broken: episodes whose metadata are broken are added to it, with
    the reason, and have no frames. None: such an episode is an error.

    ``fps``: frames per second. ``views``: camera names. ``left_out``: name -> reason, for videos
    that are no views because they seem to show no colours. ``features``: as in meta/info.json.
    ``state_names``, ``action_names``: one name per column. ``tasks``: number -> instruction.
    ``extras``: further values stored per episode, such as its seed: name -> list with one entry per
    episode.

    Raises UserError if ``root`` is not a data set, has a version that is not supported, lacks a
    file, or has metadata that are broken or contradict each other.
    """

    def __init__(
        self,
        root: str | Path,
        columns: Columns = Columns(),  # noqa: B008 (it is immutable)
        broken: dict[int, str] | None = None,
    ) -> None:
        self.root = Path(root)
        self.columns = columns
        self.info = read_info(self.root)
        self.features: dict[str, Any] = self.info["features"]
        check_features(self.root, self.features)
        self.fps = float(self.info["fps"])
        videos = video_features(self.root, self.features, columns.images)
        seen = {view: no_colours(key, self.features[key]) for view, key in videos.items()}
        self._refused = {view for view, (_, certain) in seen.items() if certain}
        self.left_out = {
            view: why
            for view, (why, certain) in seen.items()
            if certain or (why and not columns.images)
        }
        self.views = tuple(view for view in videos if view not in self.left_out)
        for view in columns.images:
            self.check_view(view)
        self.state_names = column_names(self.root, self.features, columns.state)
        self.action_names = column_names(self.root, self.features, columns.action)
        usable = {view: key for view, key in videos.items() if view not in self._refused}
        metadata = read_metadata(self.root, self.info, usable)
        self.extras, self.tasks = metadata.extras, metadata.tasks
        self._episodes, self._broken = metadata.episodes, metadata.broken
        if broken is None and self._broken:
            raise UserError(next(iter(self._broken.values())))
        if broken is not None:
            broken.update(self._broken)
        self.num_episodes = len(self._episodes)
        self.num_frames = sum(episode.length for episode in self._episodes)
        self._videos = OpenVideos()
        self._rows = self._cached_rows()

    def __repr__(self) -> str:
        return (
            f"LeRobotDataset('{self.root}', {self.num_episodes} episodes, "
            f"{self.num_frames} frames, views {', '.join(self.views)})"
        )

    def __getstate__(self) -> dict[str, Any]:  # worker processes open their own files
        return {**self.__dict__, "_videos": None, "_rows": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _videos=OpenVideos(), _rows=self._cached_rows())

    def episode_length(self, e: int) -> int:
        """Number of frames T of episode e."""
        return self._episodes[e].length

    def stated_tasks(self, e: int) -> list[str]:
        """The instructions that meta/episodes lists for episode e, which its rows may contradict:
        ``episode`` has those of the rows.
        """
        return self._episodes[e].tasks

    def episode(self, e: int) -> EpisodeArrays:
        """The states, actions and instructions of episode e. Raises UserError if its file is
        missing or broken, or holds other rows than those of the episode, values that are not
        finite, or a task without an instruction.
        """
        where = self._intact(e)
        file = self._rows(where.data)
        if e in file.broken:
            raise UserError(f"{file.broken[e]}: repair the episode, or leave it out")
        first, count = file.spans.get(e, (0, 0))
        if count != where.length:
            raise UserError(
                f"'{self.root / where.data}' has {count} rows of episode {e}, not the "
                f"{where.length} that meta/ says: restore the file, or leave the episode out"
            )
        rows = slice(first, first + count)
        if file.tasks is not None:
            tasks = file.tasks[rows]
        elif file.task_index is not None and str(self.info["codebase_version"]).startswith("v3."):
            raise UserError(
                f"'{self.root}' lacks {layout.TASKS}, which says what task_index "
                f"{file.task_index[first]} of episode {e} means: restore the file"
            )
        elif len(set(where.tasks)) > 1 or (
            file.task_index is not None and len(set(file.task_index[rows].tolist())) > 1
        ):
            raise UserError(
                f"episode {e} of '{self.root}' has the tasks {', '.join(map(repr, where.tasks))}, "
                "but nothing says which rows belong to which: meta/tasks or the column "
                "'task_index' is missing; restore it, or leave the episode out"
            )
        else:
            tasks = np.full(count, next(iter(where.tasks), ""), object)
        return EpisodeArrays(file.state[rows], file.action[rows], tasks)

    def frames(self, e: int, view: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images of episode e, uint8 RGB (N, H, W, 3), in the order of ``indices``, which count
        from the episode's start.

        Raises UserError for an unknown view and a missing or broken video, IndexError for an index
        outside the episode.
        """
        length = self.episode_length(e)
        if view not in self.views:
            self.check_view(view)
        for i in indices:
            if not 0 <= i < length:
                raise IndexError(f"frame {i} of episode {e}, which has {length}")
        file, first = self._intact(e).videos[view]
        return self._videos.reader(os.path.join(self.root, file), self.fps).read(
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
        that file, which is whole if the file's frames are at multiples of 1 / fps. Raises
        UserError if the metadata of the episode are broken.
        """
        file, first = self._intact(e).videos[view]
        return self.root / file, first

    def video_files(self, view: str) -> list[Path]:
        """The video files of a view, each once, in the order of the episodes."""
        return list(
            dict.fromkeys(
                self.root / episode.videos[view][0]
                for episode in self._episodes
                if episode.index not in self._broken
            )
        )

    def _intact(self, e: int) -> Episode:
        if e in self._broken:
            raise UserError(self._broken[e])
        return self._episodes[e]

    def _cached_rows(self) -> Callable[[str], DataFile]:
        return functools.lru_cache(maxsize=4)(self._read_rows)

    def _read_rows(self, file: str) -> DataFile:
        names = {self.columns.state: self.state_names, self.columns.action: self.action_names}
        return read_rows(self.root / file, self.columns, names, self.tasks)
