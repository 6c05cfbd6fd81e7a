"""Reads and checks the rows of a data file: states, actions and instructions.

F: rows of the file, S: state width, A: action width, D: width of one of them.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alam_core.data.lerobot.episodes import column_names_of, read_parquet
from alam_core.data.lerobot.features import Columns
from alam_core.errors import UserError


@dataclass
class DataFile:
    """The rows of a data file. tasks: the instruction of each row; None if the file or the data set
    does not say. task_index: the number of each row's task; None if the file has none. spans:
    episode -> its first row and number of rows. broken: episode -> what is wrong with its rows.
    """

    path: Path
    state: np.ndarray  # float32 (F, S)
    action: np.ndarray  # float32 (F, A)
    tasks: np.ndarray | None = None  # str objects (F,)
    task_index: np.ndarray | None = None  # int64 (F,)
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)


def read_rows(
    path: Path, columns: Columns, names: dict[str, list[str]], tasks: dict[int, str]
) -> DataFile:
    """The rows of the data file at ``path``. names: feature -> the names of its columns, empty if
    the data set does not have it. tasks: number -> instruction.

    Raises UserError if the file is missing or broken, or lacks a column.
    """
    present = column_names_of(path)
    features = [name for name in (columns.state, columns.action) if names[name]]
    lacking = [name for name in ("episode_index", *features) if name not in present]
    if lacking:
        raise UserError(
            f"'{path}' has no column {', '.join(lacking)}; it has: {', '.join(present)}: "
            "copy the data set again"
        )
    optional = [name for name in ("frame_index", "task_index") if name in present]
    table = read_parquet(path, list(dict.fromkeys(["episode_index", *features, *optional])))
    episodes = _integers(table, "episode_index", path)
    empty = np.zeros((len(episodes), 0), np.float32)
    file = DataFile(path, empty, empty)
    _find_spans(file, episodes)
    if "frame_index" in optional:
        _check_order(file, episodes, _integers(table, "frame_index", path), table)
    vectors = {}
    for feature in features:
        values, widths = _vectors(table, feature, len(names[feature]), path)
        finite = np.isfinite(values)
        _note(
            file,
            episodes,
            ~finite.all(1),
            partial(_vector_fault, feature, names[feature], finite, widths),
        )
        vectors[feature] = values
    file.state = vectors.get(columns.state, file.state)
    file.action = vectors.get(columns.action, file.action)
    if "task_index" in optional:
        numbers = file.task_index = _integers(table, "task_index", path)
    if "task_index" in optional and tasks:
        known, place = np.unique(numbers, return_inverse=True)
        file.tasks = np.array([tasks.get(int(number)) for number in known], object)[place]
        _note(
            file,
            episodes,
            ~np.isin(numbers, list(tasks)),
            lambda row, place: (
                f"task_index is {_shown(table, 'task_index', row)} in {place}, which meta/tasks "
                "does not list"
            ),
        )
    return file


def _find_spans(file: DataFile, episodes: np.ndarray) -> None:
    """Fill ``file.spans`` from the episode of each row (F,)."""
    edges = [*np.flatnonzero(np.diff(episodes, prepend=-2)).tolist(), len(episodes)]
    for first, end in itertools.pairwise(edges):
        episode = int(episodes[first])
        if episode in file.spans:
            file.broken[episode] = f"'{file.path}': the rows of episode {episode} are not together"
        else:
            file.spans[episode] = first, end - first


def _check_order(file: DataFile, episodes: np.ndarray, frames: np.ndarray, table: pa.Table) -> None:
    """Note the episodes whose rows are not their frames 0, 1, 2, ... episodes, frames: (F,)."""
    edges = np.flatnonzero(np.diff(episodes, prepend=-2))
    first = np.repeat(edges, np.diff(edges, append=len(episodes)))
    wanted = np.arange(len(episodes)) - first
    _note(
        file,
        episodes,
        frames != wanted,
        lambda row, place: (
            f"frame_index is {_shown(table, 'frame_index', row)} in {place}: rows are missing or "
            "in another order, and do not belong to the frames of the videos"
        ),
    )


def _note(
    file: DataFile, episodes: np.ndarray, wrong: np.ndarray, words: Callable[[int, str], str]
) -> None:
    """Add the episodes with ``wrong`` rows, bool (F,), to ``file.broken``. words: a row and its
    place in words -> what is wrong with it.
    """
    rows = np.flatnonzero(wrong)
    numbers, places = np.unique(episodes[rows], return_index=True)
    for episode, row in zip(numbers.tolist(), rows[places].tolist(), strict=True):
        place = f"episode {episode}, row {row - file.spans[episode][0]}"
        file.broken.setdefault(episode, f"'{file.path}': {words(row, place)}")


def _vector_fault(
    feature: str, names: list[str], finite: np.ndarray, widths: np.ndarray, row: int, place: str
) -> str:
    """What is wrong with a row of a vector. finite: bool (F, D). widths: numbers in each row."""
    if widths[row] != len(names):
        return f"{feature} has {widths[row]} numbers instead of {len(names)} in {place}"
    return f"{feature} is not finite in {place}, '{names[int(finite[row].argmin())]}'"


def _vectors(
    table: pa.Table, feature: str, width: int, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """A column of lists or numbers as float32 (F, D) with D = ``width``, and how many numbers each
    row has (F,). Rows with another number of them, and null, are not a number.
    """
    column = table[feature].combine_chunks()
    try:
        if not pa.types.is_nested(column.type):
            return _floats(column).reshape(-1, 1), np.ones(len(column), int)
        widths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        fitting = widths == width
        values = np.full((len(column), width), np.nan, np.float32)
        kept = column if fitting.all() else column.filter(pa.array(fitting))
        values[fitting] = _floats(kept.flatten()).reshape(-1, width)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise UserError(
            f"'{path}': column {feature} does not hold {width} numbers a row ({error}): "
            "copy the data set again"
        ) from None
    return values, widths


def _floats(array: pa.Array) -> np.ndarray:
    return np.asarray(array.to_numpy(zero_copy_only=False)).astype(np.float32)


def _shown(table: pa.Table, name: str, row: int) -> str:
    value = table[name][row].as_py()
    return "null" if value is None else str(value)


def _integers(table: pa.Table, name: str, path: Path) -> np.ndarray:
    """A column of numbers as int64 (F,); null becomes -1."""
    try:
        return np.asarray(table[name].cast(pa.int64()).fill_null(-1).to_numpy())
    except (pa.ArrowException, TypeError) as error:
        raise UserError(
            f"'{path}': column {name} does not hold integers ({error}): copy the data set again"
        ) from None
