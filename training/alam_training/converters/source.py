"""Types and functions shared by the readers of foreign formats. A reader opens a data set, lists
its recordings, and reads an episode from each.

T: frames of an episode, H, W: image height and width, S, A: state and action width.
"""

import importlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from alam_core.data.images import resize_images
from alam_core.data.raw_images import ChannelOrder
from alam_core.errors import UserError, one_line

Stamps = Literal["header", "recording"]  # which times of a bag's messages count
Columns = tuple[list[str], list[str]]  # names of the state and of the action
NONE = "none"  # as the only name of a state or an action: leave the vector out


class BrokenEpisode(Exception):
    """A recording cannot be read, for a reason given in one line; it is skipped and counted."""


@dataclass
class Request:
    """What to read of a source.

    views: view in the data set -> its name in the source. state, action: names in the source,
    concatenated to one vector each; only NONE: no such vector. part: which part of the source. If
    these are empty, or fps is 0, the defaults of the format apply. image_size: side of the square
    images in pixels; 0 keeps the size. stamps, channels: as in ConvertConfig, for bags.
    """

    folder: Path
    views: dict[str, str]
    state: list[str]
    action: list[str]
    part: str
    image_size: int
    fps: float
    stamps: Stamps
    channels: ChannelOrder


@dataclass
class SourceEpisode:
    """One episode read from a foreign data set."""

    images: dict[str, np.ndarray]  # view -> uint8 (T, H, W, 3)
    state: np.ndarray  # float32 (T, S)
    action: np.ndarray  # float32 (T, A), row t is taken at observation t
    state_names: list[str]
    action_names: list[str]
    task: str = ""

    @property
    def columns(self) -> Columns:
        """Names of the state and of the action."""
        return self.state_names, self.action_names


@dataclass
class Recording:
    """A part of a source that should hold one episode. ``name`` is unique in the source and the
    same in each run. ``read`` may raise BrokenEpisode; it can be sent to another process. episodes:
    how many are lost if it does, more than 1 for a broken file of several episodes.
    """

    name: str
    read: Callable[[], SourceEpisode]
    episodes: int = 1


@dataclass
class ForeignDataset:
    """A data set in a foreign format. count: number of episodes, broken ones included, None if it
    is known only after reading. note: one line for the user.
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


def broken(name: str, reason: str, episodes: int = 1) -> Recording:
    """A recording, or a file of several episodes, that is already known to be unreadable."""
    return Recording(name, partial(_refuse, reason), episodes)


def _refuse(reason: str) -> SourceEpisode:
    raise BrokenEpisode(reason)


def decode_image(data: bytes, what: str) -> np.ndarray:
    """Decode a PNG, JPEG or similar image to uint8 RGB (H, W, 3). Raises BrokenEpisode that names
    ``what``.
    """
    try:
        image = Image.open(io.BytesIO(data))
        if image.mode not in ("RGB", "RGBA", "L", "P"):
            raise BrokenEpisode(
                f"{what} is not a colour image (mode {image.mode}; a depth image by mistake?)"
            )
        return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        raise BrokenEpisode(
            f"{what} cannot be decoded: it is no image (its first bytes are {data[:8]!r}), but "
            "perhaps video or depth; give colour images, such as JPEG or PNG"
        ) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BrokenEpisode(f"{what} cannot be decoded ({one_line(error)})") from None


def stack_images(frames: Iterable[np.ndarray], size: int, what: str) -> np.ndarray:
    """Stack frames (H, W, 3) to uint8 (T, H, W, 3), each resized to ``size`` x ``size`` pixels (0:
    not resized). Raises BrokenEpisode for another shape or dtype, and if there are no frames.
    """
    kept: list[np.ndarray] = []
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
            raise BrokenEpisode(
                f"{what} holds {frame.dtype} {frame.shape}, but uint8 (H, W, 3) is needed"
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
    """Concatenate arrays (T, n) or (T,) to float32 (T, S). Returns it with a name per column: the
    array's name, with a number if n > 1.

    Raises BrokenEpisode if an array does not have ``steps`` rows or holds no numbers.
    """
    if not parts:
        return np.zeros((steps, 0), np.float32), []
    for name, values in parts.items():
        if len(values) != steps:
            raise BrokenEpisode(f"{name} has {len(values)} rows for {steps} images")
        if values.dtype.kind not in "biuf":
            raise BrokenEpisode(f"{name} holds {values.dtype}, but numbers are needed")
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


def unlike(columns: Columns, first: Columns) -> str:
    """How the columns of an episode differ from those of the first one; "" if they do not."""
    for what, names, expected in zip(("state", "action"), columns, first, strict=True):
        if names != expected:
            return (
                f"its {what} has the columns {', '.join(names) or 'none'}, unlike the first "
                f"episode's: {', '.join(expected) or 'none'}"
            )
    return ""


def chosen(names: list[str], default: list[str]) -> list[str]:
    """The given names, or the default names if none are given; empty for NONE alone."""
    return [] if names == [NONE] else names or default


def first_present(candidates: Sequence[str], present: Iterable[str]) -> str | None:
    """The first candidate in ``present``, or None."""
    known = set(present)
    return next((name for name in candidates if name in known), None)
