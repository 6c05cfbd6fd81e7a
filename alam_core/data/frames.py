"""All frames of one view of a data set: decoded once into a memory-mapped array (``FrameStore``),
or decoded from the videos on demand (``OnDemandFrames``). Both are indexed the same way.

F: frames of the whole data set, E: episodes, T: frames of an episode, N: frames read, S: image
side.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.progress import Progress

from alam_core.data.images import resize_images
from alam_core.errors import UserError
from alam_core.files import replacing_file, write_json

SHOW_PROGRESS_FROM = 3000  # frames
DECODED_AT_ONCE = 256  # frames
READING = 2  # changes when frames are read in another way, so that they are decoded again


class VideoSet(Protocol):
    """The part of ``LeRobotDataset`` and ``VideoFolder`` that reading frames needs."""

    root: Path
    num_episodes: int
    num_frames: int

    @property
    def views(self) -> tuple[str, ...]: ...
    @property
    def left_out(self) -> dict[str, str]: ...
    def check_view(self, view: str) -> None: ...
    def episode_length(self, e: int) -> int: ...
    def frames(self, e: int, view: str, indices: Sequence[int] | np.ndarray) -> np.ndarray: ...
    def video_span(self, e: int, view: str) -> tuple[Path, float]: ...
    def video_files(self, view: str) -> list[Path]: ...


@dataclass
class FrameStore:
    """Frames of all episodes in sequence; frame t of episode e is ``array[starts[e] + t]``."""

    array: np.ndarray  # uint8 RGB (F, S, S, 3), read-only, mapped from disk
    starts: np.ndarray  # int64 (E,)
    lengths: np.ndarray  # int64 (E,)

    def episode(self, e: int) -> np.ndarray:
        """The frames of episode e: uint8 (T, S, S, 3)."""
        return self.array[self.starts[e] : self.starts[e] + self.lengths[e]]

    def __reduce__(self) -> tuple[Any, ...]:
        file = getattr(self.array, "filename", None)  # worker processes map the same file
        return (
            (_mapped, (file, self.starts, self.lengths))
            if file
            else (FrameStore, (self.array, self.starts, self.lengths))
        )


def _mapped(file: str, starts: np.ndarray, lengths: np.ndarray) -> FrameStore:
    return FrameStore(np.load(file, mmap_mode="r", allow_pickle=False), starts, lengths)


class OnDemandFrames:
    """The same frames as those of a ``FrameStore``, each decoded when it is read.

    ``array[rows]`` with rows (N,) is uint8 (N, S, S, 3), ``array[row]`` is (S, S, 3). Both raise
    UserError if the video is broken.
    """

    def __init__(self, dataset: VideoSet, view: str, size: int) -> None:
        self.dataset, self.view, self.size = dataset, view, size
        self.starts, self.lengths = _rows_of_episodes(dataset, view)

    @property
    def array(self) -> "OnDemandFrames":
        return self

    def __getitem__(self, rows: np.ndarray | int) -> np.ndarray:
        rows = np.asarray(rows)
        if rows.ndim == 0:
            return self[rows[None]][0]
        episodes = np.searchsorted(self.starts, rows, side="right") - 1
        out = np.empty((len(rows), self.size, self.size, 3), np.uint8)
        for e in np.unique(episodes):
            mine = episodes == e
            out[mine] = resize_images(
                self.dataset.frames(int(e), self.view, rows[mine] - self.starts[e]), self.size
            )
        return out


def frame_store(
    dataset: VideoSet, view: str, size: int, broken: dict[int, str] | None = None
) -> FrameStore:
    """Frames of ``view`` at ``size`` x ``size`` pixels (see ``resize_images``), decoded into a
    cache file on first use.

    broken: episode -> reason, for videos of this view that are known to be broken. Videos found
        broken while decoding are added to it; the frames of all of these stay black. None: a broken
        video is an error.

    The cache is in ``<root>/.cache``. It is decoded again when a video file changes; older caches
    of the same view and size are removed. Raises UserError for an unknown view, a broken video, or
    a folder that cannot be written.
    """
    starts, lengths = _rows_of_episodes(dataset, view)
    folder = dataset.root / ".cache"
    path = folder / f"{view}-{size}-{_fingerprint(dataset, view, broken is not None)}.npy"
    shape = (int(lengths.sum()), size, size, 3)
    if not path.is_file():
        try:
            _decode(dataset, view, path, shape, broken)
        except OSError as error:
            raise UserError(
                f"cannot write the decoded frames to '{folder}' ({error.strerror}): "
                "free some space, or copy the data set to a folder that you may write to"
            ) from None
        for old in folder.glob(f"{view}-{size}-*"):
            if not old.name.startswith(path.stem):
                old.unlink(missing_ok=True)
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.shape != shape:
        raise UserError(
            f"'{path}' has shape {array.shape} instead of {shape}; remove it to decode it again"
        )
    if _faults_file(path).is_file():
        found = {int(e): why for e, why in json.loads(_faults_file(path).read_text()).items()}
        if broken is None:
            raise UserError(next(iter(found.values())))
        broken.update(found)
    return FrameStore(array, starts, lengths)


def store_bytes(dataset: VideoSet, views: Sequence[str], size: int) -> int:
    """Bytes on disk of the frame stores of these views."""
    return dataset.num_frames * len(views) * size * size * 3


def _rows_of_episodes(dataset: VideoSet, view: str) -> tuple[np.ndarray, np.ndarray]:
    """First row and length of each episode, int64 (E,). Raises UserError for an unknown view."""
    dataset.check_view(view)
    lengths = np.array(
        [max(dataset.episode_length(e), 0) for e in range(dataset.num_episodes)], np.int64
    )
    return np.cumsum(lengths) - lengths, lengths


def _faults_file(path: Path) -> Path:
    """The file that lists the broken episodes of a frame store."""
    return path.with_name(path.stem + ".broken.json")


def _decode(
    dataset: VideoSet, view: str, path: Path, shape: tuple[int, ...], broken: dict[int, str] | None
) -> None:
    """Write all frames of a view to ``path``, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Writing to a full disk through a memory map would kill the process.
    if np.prod(shape) > shutil.disk_usage(path.parent).free:
        raise OSError(28, "No space left on device")
    found: dict[int, str] = {}
    with replacing_file(path) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        row = 0
        with Progress(transient=True, disable=shape[0] < SHOW_PROGRESS_FROM) as progress:
            task = progress.add_task(f"decoding {view} of {dataset.root.name}", total=shape[0])
            for e in range(dataset.num_episodes):
                length = max(dataset.episode_length(e), 0)
                try:
                    for first in range(
                        0, length if e not in (broken or {}) else 0, DECODED_AT_ONCE
                    ):
                        images = dataset.frames(
                            e, view, range(first, min(first + DECODED_AT_ONCE, length))
                        )
                        array[row + first : row + first + len(images)] = resize_images(
                            images, shape[1]
                        )
                except UserError as error:
                    if broken is None:
                        raise
                    found[e] = str(error)
                    array[row : row + length] = 0
                row += length
                progress.advance(task, length)
        array.flush()
        del array
        if found or broken:
            write_json(_faults_file(path), {**(broken or {}), **found})


def _fingerprint(dataset: VideoSet, view: str, tolerant: bool) -> str:
    """A hash that changes with the video files and with the positions of the episodes in them.
    tolerant: accept missing files. Raises UserError for a missing file otherwise.
    """
    parts = [
        f"{READING} {dataset.num_episodes} {dataset.num_frames} {getattr(dataset, 'fps', 'own')}"
    ]
    for file in dataset.video_files(view):
        if file.is_file():
            stat = file.stat()
            parts.append(f"{file.relative_to(dataset.root)} {stat.st_size} {stat.st_mtime_ns}")
        elif tolerant:
            parts.append(f"{file.relative_to(dataset.root)} missing")
        else:
            raise UserError(
                f"video '{file}' is missing; copy the data set again or collect it again"
            )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
