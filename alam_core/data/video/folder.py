"""A folder of video files as a data set: each file is an episode with one view, its frames numbered
at the file's own rate.

N: frames read, H, W: image height and width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alam_core.data.video.index import inspect_videos
from alam_core.data.video.reader import OpenVideos
from alam_core.errors import UserError

VIEW = "video"
ENDINGS = {
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".m2ts",
    ".wmv",
    ".flv",
    ".ogv",
    ".3gp",
    ".gif",
}


class VideoFolder:
    """All video files below ``root``, in the order of their names, read like the videos of a
    ``LeRobotDataset``.

    ``names``: the files, relative to root. ``views``: always ("video",). ``fps``: the median of the
    files' frame rates. A broken file keeps its
    episode number, so that the other numbers stay the same when it is repaired. Raises UserError if
    ``root`` holds no video file.
    """

    views = (VIEW,)
    left_out: dict[str, str] = {}  # as in LeRobotDataset

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        paths = sorted(
            path
            for path in self.root.rglob("*")
            if path.suffix.lower() in ENDINGS and not _hidden(path.relative_to(self.root))
        )
        self.names = [str(path.relative_to(self.root)) for path in paths]
        if not self.names:
            raise UserError(
                f"'{self.root}' holds no video file: give a LeRobot data set or a folder with "
                f"{', '.join(sorted(ENDINGS))}"
            )
        facts = inspect_videos(self.root, self.names)
        rates = [fact.fps for fact in facts if fact.fps > 0]
        self.fps = float(np.median(rates)) if rates else 0.0
        self._lengths = [_length(fact.frames, fact.seconds * fact.fps) for fact in facts]
        self.num_episodes = len(self.names)
        self.num_frames = sum(self._lengths)
        self._videos = OpenVideos()

    def __repr__(self) -> str:
        return f"VideoFolder('{self.root}', {self.num_episodes} files, {self.num_frames} frames)"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_videos": None}  # worker processes open their own files

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _videos=OpenVideos())

    def episode_length(self, e: int) -> int:
        """Number of frames of episode e; 0 if its file cannot be opened."""
        return self._lengths[e]

    def frames(self, e: int, view: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images of episode e, uint8 RGB (N, H, W, 3), in the order of ``indices``.

        Raises UserError for an unknown view and a missing or broken video, IndexError for an index
        outside the episode.
        """
        for i in indices:
            if not 0 <= i < self._lengths[e]:
                raise IndexError(f"frame {i} of '{self.names[e]}', which has {self._lengths[e]}")
        return self._videos.reader(str(self.video_span(e, view)[0]), None).read(
            [int(i) for i in indices]
        )

    def check_view(self, view: str) -> None:
        """Raises UserError for another view than "video"."""
        if view != VIEW:
            raise UserError(
                f"'{self.root}' is a folder of videos: its only view is called '{VIEW}', "
                f"not '{view}'"
            )

    def video_span(self, e: int, view: str) -> tuple[Path, float]:
        """The file of episode e, and the number of its first frame: 0."""
        self.check_view(view)
        return self.root / self.names[e], 0

    def video_files(self, view: str) -> list[Path]:
        """All files, in the order of the episodes."""
        return [self.video_span(e, view)[0] for e in range(self.num_episodes)]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _length(frames: int, shown: float) -> int:
    """Length of an episode in frames at its mean rate. frames: number of frames in the file. shown:
    duration times mean rate, which differs from ``frames`` if the rate varies.
    """
    return frames if abs(shown - frames) <= 1 else round(shown)
