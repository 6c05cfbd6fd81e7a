"""What every reader of a foreign format gives: a source, its recordings, and the episode read from
each; and what they share.

T: frames of an episode, H, W: image height and width, S, A: state and action width.
"""

import importlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alam_core.data.images import resize_images
from alam_core.errors import UserError

NONE = "none"


class BrokenEpisode(Exception):
    """One line that says why a recording cannot be read; it is skipped and counted."""


@dataclass
class Request:
    """What to read.

    views: our view name -> the source's; state, action: names in the source, joined to one vector
    each; part: which part of the source. Empty ones, and an fps of 0, mean the source's own; the
    name NONE alone means no state, or no action. image_size: side of the square images in pixels, 0
    as they are.
    """

    folder: Path
    views: dict[str, str]
    state: list[str]
    action: list[str]
    part: str
    image_size: int
    fps: float


@dataclass
class SourceEpisode:
    """One episode as it goes to the writer."""

    images: dict[str, np.ndarray]  # view -> uint8 (T, H, W, 3)
    state: np.ndarray  # float32 (T, S)
    action: np.ndarray  # float32 (T, A), row t taken at observation t
    state_names: list[str]
    action_names: list[str]
    task: str = ""


@dataclass
class Recording:
    """Something that should hold an episode. ``read`` raises BrokenEpisode; ``name`` is unique and
    stays the same from run to run.
    """

    name: str
    read: Callable[[], SourceEpisode]


@dataclass
class ForeignDataset:
    """A data set in a foreign format. count: its recordings, None where only reading tells; note: a
    line that the user should see.
    """

    robot_type: str
    fps: float
    count: int | None
    recordings: Iterable[Recording]
    note: str = ""


def need(module: str, package: str, formats: str) -> Any:
    """Import ``module`` of ``package``, or raise UserError saying how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"reading {formats} needs the package {package} ({error}): pip install {package}"
        ) from None


def broken(name: str, reason: str) -> Recording:
    """A recording that is known to be unreadable before it is read."""

    def read() -> SourceEpisode:
        raise BrokenEpisode(reason)

    return Recording(name, read)


def decode_image(data: bytes, what: str) -> np.ndarray:
    """A PNG, JPEG or other encoded picture as uint8 RGB (H, W, 3). Raises BrokenEpisode naming
    ``what``.
    """
    try:
        image = Image.open(io.BytesIO(data))
        if image.mode not in ("RGB", "RGBA", "L", "P"):
            raise BrokenEpisode(
                f"{what} is no colour picture (mode {image.mode}; a depth image by mistake?)"
            )
        return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BrokenEpisode(f"{what} cannot be decoded ({' '.join(str(error).split())})") from None


def stack_images(frames: Iterable[np.ndarray], size: int, what: str) -> np.ndarray:
    """Frames (H, W, 3) as one uint8 array (T, H, W, 3), each resized to ``size`` pixels (0: as it
    is). Raises BrokenEpisode.
    """
    kept: list[np.ndarray] = []
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
            raise BrokenEpisode(
                f"{what} holds {frame.dtype} {frame.shape} where uint8 (H, W, 3) is needed"
            )
        kept.append(resize_images(frame, size) if size else frame)
        if kept[-1].shape != kept[0].shape:
            raise BrokenEpisode(
                f"{what} changes its size from {kept[0].shape[:2]} to {kept[-1].shape[:2]}"
            )
    if not kept:
        raise BrokenEpisode(f"{what} has no frames")
    return np.stack(kept)


def join_columns(parts: Mapping[str, np.ndarray], steps: int) -> tuple[np.ndarray, list[str]]:
    """Arrays (T, n) or (T,) side by side as float32 (T, S), and a name for each column: the part's
    own, numbered where it is wide.

    Raises BrokenEpisode for another number of rows and for what is no number.
    """
    if not parts:
        return np.zeros((steps, 0), np.float32), []
    for name, values in parts.items():
        if len(values) != steps:
            raise BrokenEpisode(f"{name} has {len(values)} rows for {steps} pictures")
        if values.dtype.kind not in "biuf":
            raise BrokenEpisode(f"{name} holds {values.dtype} where numbers are needed")
    columns = {
        name.rsplit("/", 1)[-1]: values.reshape(len(values), -1) for name, values in parts.items()
    }
    if len(columns) != len(parts):
        columns = {name: values.reshape(len(values), -1) for name, values in parts.items()}
    names = [
        name if values.shape[1] == 1 else f"{name}_{i}"
        for name, values in columns.items()
        for i in range(values.shape[1])
    ]
    return np.concatenate(list(columns.values()), axis=1).astype(np.float32), names


def chosen(names: list[str], default: list[str]) -> list[str]:
    """The names asked for, else the usual ones; none where NONE is asked for."""
    return [] if names == [NONE] else names or default


def first_present(candidates: Sequence[str], present: Iterable[str]) -> str | None:
    """The first of the candidates that is there."""
    there = set(present)
    return next((name for name in candidates if name in there), None)


def listing(names: Iterable[str]) -> str:
    """Names for an error message."""
    return ", ".join(sorted(names)) or "none"
