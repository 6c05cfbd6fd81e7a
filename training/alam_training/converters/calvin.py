"""CALVIN: a folder of ``episode_XXXXXXX.npz``, one file per frame, with the bounds of the
recordings and the annotations in further files.

Part ``language`` (the default if there are annotations): each annotated window is an episode with
its instruction. Part ``play``: the recordings between the bounds in ``ep_start_end_ids.npy``, cut
into pieces, without instructions; for pretraining.

The annotations are a pickled array of objects. The pickle is not trusted: the numpy names
in it are replaced by the inert stand-ins below, and any other name is refused, so the file cannot
run code.
"""

import pickle
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alam_core.errors import UserError, listing, one_line
from alam_training.converters.source import (
    BrokenEpisode,
    ForeignDataset,
    Recording,
    Request,
    SourceEpisode,
    chosen,
    join_columns,
    stack_images,
)

FPS = 30.0
VIEWS = {"third_person": "rgb_static", "wrist": "rgb_gripper"}
STATE = ["robot_obs"]
ACTION = ["rel_actions"]
PIECE = 1000  # frames; recordings of play have tens of thousands
BOUNDS = "ep_start_end_ids.npy"
HINT = "give the folder that holds episode_*.npz, such as task_D_D/training"


def open_calvin(request: Request) -> ForeignDataset:
    """The annotated windows of one split, or its recordings of play. Raises UserError if
    ``request.folder`` is not a split of CALVIN.
    """
    folder = request.folder
    if next(folder.glob("episode_*.npz"), None) is None:
        raise UserError(f"'{folder}' holds no episode_*.npz; {HINT}")
    annotations = sorted(
        folder.glob("lang*/auto_lang_ann.npy"),
        key=lambda path: (path.parent.name != "lang_annotations", path),
    )
    part = request.part or ("language" if annotations else "play")
    if part not in ("language", "play"):
        raise UserError(f"CALVIN has no part '{part}': choose language or play")
    if part == "language" and not annotations:
        raise UserError(
            f"'{folder}' has no lang_annotations/auto_lang_ann.npy; "
            "--part play reads the recordings without instructions"
        )
    spans = _annotated(annotations[0]) if part == "language" else _play(folder / BOUNDS)
    recordings = [
        Recording(
            f"{part}_{i:06d}_{first}-{last}", partial(_read, folder, first, last, task, request)
        )
        for i, (first, last, task) in enumerate(spans)
    ]
    return ForeignDataset("calvin_panda", request.fps or FPS, len(recordings), recordings)


def _read(folder: Path, first: int, last: int, task: str, request: Request) -> SourceEpisode:
    """Frames ``first`` to ``last``, both included."""
    views, state, action = (
        request.views or VIEWS,
        chosen(request.state, STATE),
        chosen(request.action, ACTION),
    )
    keys = [*views.values(), *state, *action]
    if last < first:
        raise BrokenEpisode(f"it ends at frame {last}, before its start")
    frames = [_frame(folder, number, keys) for number in range(first, last + 1)]
    images = {
        view: stack_images((frame[key] for frame in frames), request.image_size, key)
        for view, key in views.items()
    }
    states, state_names = join_columns({key: _stack(frames, key) for key in state}, len(frames))
    actions, action_names = join_columns({key: _stack(frames, key) for key in action}, len(frames))
    return SourceEpisode(images, states, actions, state_names, action_names, task)


def _frame(folder: Path, number: int, keys: list[str]) -> dict[str, np.ndarray]:
    path = folder / f"episode_{number:07d}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in keys if key not in file]
            if missing:
                raise BrokenEpisode(
                    f"'{path.name}' has no '{missing[0]}'; it has: {listing(file, missing[0])}"
                )
            return {key: file[key] for key in keys}
    except FileNotFoundError:
        raise BrokenEpisode(f"'{path.name}' is missing") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BrokenEpisode(f"'{path.name}' cannot be read ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """Why numpy cannot read a file; it takes a damaged one for a pickle."""
    damaged = isinstance(error, ValueError) and "pickle" in str(error)
    return "it is damaged or not numpy's" if damaged else one_line(error)


def _stack(frames: list[dict[str, np.ndarray]], key: str) -> np.ndarray:
    rows = [np.ravel(frame[key]) for frame in frames]
    if len({len(row) for row in rows}) > 1:
        raise BrokenEpisode(f"{key} changes its width")
    return np.stack(rows)


def _play(path: Path) -> Iterator[tuple[int, int, str]]:
    """First and last frame of every piece, and an empty instruction."""
    try:
        bounds = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"'{path}' cannot be read ({_reason(error)}); {HINT}") from None
    if bounds.ndim != 2 or bounds.shape[1] != 2 or bounds.dtype.kind not in "iu":
        raise UserError(
            f"'{path}' holds {bounds.dtype} {bounds.shape}, not pairs of frame numbers; "
            "is it CALVIN's?"
        )
    for start, end in bounds.tolist():
        for first in range(start, max(end, start) + 1, PIECE):
            yield first, min(first + PIECE - 1, end), ""


def _annotated(path: Path) -> list[tuple[int, int, str]]:
    """First frame, last frame and instruction of every annotated window."""
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file)[0] != 1:
                raise ValueError("not in the first version of numpy's format")
            np.lib.format.read_array_header_1_0(file)
            root = _Inert(file).load().items[0]
        texts, spans = root["language"]["ann"], root["info"]["indx"]
        rows = [
            (int(first), int(last), str(text).strip())
            for (first, last), text in zip(spans, texts, strict=True)
        ]
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        raise UserError(
            f"the annotations '{path}' cannot be read ({one_line(error)}); "
            "--part play does not need them"
        ) from None
    return rows


class _Dtype:
    """Stand-in for numpy.dtype that keeps its code and byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def numbers(self, data: Any) -> list[Any]:
        """The numbers or texts in ``data``; empty for other types."""
        if (
            not isinstance(data, bytes)
            or self.code[:1] not in "biufU"
            or not self.code[1:].isdigit()
        ):
            return []
        return np.frombuffer(data, np.dtype(self.order + self.code)).tolist()


class _Array:
    """Stand-in for a numpy array: a list of its items, or of its rows if it is two-dimensional."""

    def __init__(self, *_: Any) -> None:
        self.items: list[Any] = []

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, _, data = state
        self.items = data if isinstance(data, list) else dtype.numbers(data)
        if len(shape) == 2 and shape[1]:
            self.items = [self.items[i : i + shape[1]] for i in range(0, len(self.items), shape[1])]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    """Stand-in for a numpy scalar."""
    return dtype.numbers(data)[0]


class _Inert(pickle.Unpickler):
    """Reads a pickle of numpy objects into the stand-ins above; refuses any other name."""

    _STAND_INS = {"dtype": _Dtype, "ndarray": _Array, "_reconstruct": _Array, "scalar": _scalar}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] != "numpy" or name not in self._STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return self._STAND_INS[name]
