"""All frames of one view of a data set, decoded once and kept as one memory-mapped array: training reads them at memory speed.

F: frames of the whole data set, E: episodes.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import Progress

from alam_core.data.images import resize_images
from alam_core.data.lerobot import LeRobotDataset
from alam_core.errors import UserError

SHOW_PROGRESS_FROM = 3000  # frames
PIECE = 256  # frames decoded at a time


@dataclass
class FrameStore:
    """Frames of all episodes one after another; frame t of episode e is ``array[starts[e] + t]``."""

    array: np.ndarray  # uint8 RGB (F, size, size, 3), read-only, mapped from disk
    starts: np.ndarray  # int64 (E,)
    lengths: np.ndarray  # int64 (E,)

    def episode(self, e: int) -> np.ndarray:
        """The frames of episode e: uint8 (T, size, size, 3)."""
        return self.array[self.starts[e] : self.starts[e] + self.lengths[e]]


def frame_store(dataset: LeRobotDataset, view: str, size: int) -> FrameStore:
    """Frames of ``view`` at ``size`` x ``size`` pixels (see ``resize_images``), from the cache or decoded into it now.

    The cache, in ``<root>/.cache``, is made anew whenever a video file changes; older versions of the same view and size are removed.
    Raises UserError for an unknown view, a broken video, or a folder that cannot be written.
    """
    if view not in dataset.views:
        raise UserError(f"'{dataset.root}' has no view '{view}'; it has: {', '.join(dataset.views) or 'none'}")
    lengths = np.array([dataset.episode_length(e) for e in range(dataset.num_episodes)], np.int64)
    starts = np.cumsum(lengths) - lengths
    folder = dataset.root / ".cache"
    path = folder / f"{view}-{size}-{_fingerprint(dataset, view)}.npy"
    shape = (int(lengths.sum()), size, size, 3)
    if not path.is_file():
        try:
            _decode(dataset, view, path, shape)
        except OSError as error:
            raise UserError(
                f"cannot write the decoded frames to '{folder}' ({error.strerror}): free space or copy the data set to where you may write"
            ) from None
        for old in folder.glob(f"{view}-{size}-*.npy"):
            if old != path:
                old.unlink(missing_ok=True)
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.shape != shape:
        raise UserError(f"'{path}' has shape {array.shape} instead of {shape}; remove it, it is made anew")
    return FrameStore(array, starts, lengths)


def _decode(dataset: LeRobotDataset, view: str, path: Path, shape: tuple[int, ...]) -> None:
    """Write all frames of a view to ``path``, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=".npy")
    os.close(descriptor)
    try:
        array = np.lib.format.open_memmap(name, mode="w+", dtype=np.uint8, shape=shape)
        row = 0
        with Progress(transient=True, disable=shape[0] < SHOW_PROGRESS_FROM) as progress:
            task = progress.add_task(f"decoding {view}", total=shape[0])
            for e in range(dataset.num_episodes):
                length = dataset.episode_length(e)
                for first in range(0, length, PIECE):
                    images = dataset.frames(e, view, range(first, min(first + PIECE, length)))
                    array[row : row + len(images)] = resize_images(images, shape[1])
                    row += len(images)
                    progress.advance(task, len(images))
        array.flush()
        del array
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _fingerprint(dataset: LeRobotDataset, view: str) -> str:
    """Changes with the video files and with where the episodes lie in them."""
    parts = [f"{dataset.num_episodes} {dataset.num_frames} {dataset.fps}"]
    for file in dataset.video_files(view):
        if not file.is_file():
            raise UserError(f"video '{file}' is missing; copy the data set again or collect it anew")
        stat = file.stat()
        parts.append(f"{file.relative_to(dataset.root)} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
