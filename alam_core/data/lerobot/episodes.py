"""Reads and checks the metadata of a LeRobot data set: info.json, the instructions, and the files
and positions of the episodes.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alam_core.data.lerobot import layout
from alam_core.data.lerobot.schema import (
    COUNT,
    EPISODE_V2,
    INFO,
    TASK,
    Field,
    check,
    episode_fields,
)
from alam_core.errors import UserError, listing, one_line
from alam_core.files import instead_of
from alam_core.hub import data_set_hint

EPISODES_V2, TASKS_V2 = "meta/episodes.jsonl", "meta/tasks.jsonl"


@dataclass
class Episode:
    """The files and positions of one episode."""

    index: int
    length: int  # 0 if the metadata of the episode are broken
    tasks: list[str]
    data: str  # parquet file
    videos: dict[str, tuple[str, float]]  # view -> file, number of the first frame in it


@dataclass
class Metadata:
    """The contents of meta/, checked. tasks: number -> instruction, empty if the data set does not
    list them. extras: see ``LeRobotDataset``. broken: episode -> what is wrong with its metadata.
    """

    episodes: list[Episode]
    tasks: dict[int, str]
    extras: dict[str, list[Any]]
    broken: dict[int, str]


def read_info(root: Path) -> dict[str, Any]:
    """meta/info.json. Raises UserError if it is missing, broken, or of a version that is not
    supported.
    """
    path = root / layout.INFO
    if not path.is_file():
        hint = (
            "give the folder that holds meta/, data/ and videos/, "
            "or collect one with training/collect.py"
        )
        if (root.parent / layout.partial_name(root.name)).exists():
            hint = "writing it was interrupted or still goes on; let it finish or collect again"
        elif inside := data_sets_below(root):
            hint = f"it holds the data sets {listing(inside)}: give one of them"
        raise UserError(
            f"'{root}' is not a LeRobot data set: {layout.INFO} is missing; {hint}"
            f"{data_set_hint(root)}"
        )
    try:
        info = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"'{path}' is broken JSON ({error}); restore the file") from None
    known = info if isinstance(info, dict) else {}
    missing = [key for key, field in INFO.items() if not field.optional and key not in known]
    if missing:
        raise UserError(f"'{path}' lacks {', '.join(missing)}; is it a LeRobot data set?")
    version = str(info["codebase_version"])
    if not version.startswith("v3.") and version not in ("v2.0", "v2.1"):
        raise UserError(
            f"'{root}' is a LeRobot data set of version {version}; "
            "supported are v3.0, v2.1 and v2.0: convert it with lerobot's scripts"
        )
    return {**info, **check(info, INFO, f"'{path}'")}


def data_sets_below(root: Path) -> list[str]:
    """The LeRobot data sets in a folder, at most three levels deep: their paths, relative to it."""
    files = [file for depth in range(1, 4) for file in root.glob("*/" * depth + layout.INFO)]
    found = (file.parent.parent.relative_to(root) for file in files)
    return sorted(
        str(path) for path in found if not any(part.startswith(".") for part in path.parts)
    )


def read_metadata(root: Path, info: dict[str, Any], videos: dict[str, str]) -> Metadata:
    """The instructions and episodes of a data set. videos: view -> name of its feature.

    Raises UserError if a file is missing or broken, or if the episodes are not those that info.json
    counts.
    """
    if videos and not info["video_path"]:
        raise UserError(
            f"'{root / layout.INFO}' lacks video_path, but has videos; restore the file"
        )
    read = _read_v3 if str(info["codebase_version"]).startswith("v3.") else _read_v2
    metadata = read(root, info, videos)
    frames = sum(episode.length for episode in metadata.episodes)
    if metadata.broken or info["total_frames"] in (None, frames):
        return metadata
    metadata.broken = _miscounted(root, metadata.episodes)
    if not metadata.broken:
        raise UserError(
            f"'{root / layout.INFO}': total_frames is {info['total_frames']}, but its "
            f"{len(metadata.episodes)} episodes have {frames} frames together: copy the data set "
            f"again, or write {frames} there if the episodes are complete"
        )
    for number in metadata.broken:
        metadata.episodes[number].length = 0
    return metadata


def _miscounted(root: Path, episodes: list[Episode]) -> dict[int, str]:
    """Episode -> what is wrong, for those that have a data file of their own, with another number
    of rows than their length.
    """
    users = Counter(episode.data for episode in episodes)
    broken = {}
    for episode in episodes:
        path = root / episode.data
        if users[episode.data] > 1 or not path.is_file():
            continue
        rows = _reading(path, pq.read_metadata).num_rows
        if rows != episode.length:
            broken[episode.index] = (
                f"'{root / 'meta'}', episode {episode.index}: 'length' is {episode.length}, but "
                f"'{path}' has {rows} rows: restore the files"
            )
    return broken


def _read_v3(root: Path, info: dict[str, Any], videos: dict[str, str]) -> Metadata:
    folder = root / "meta/episodes"
    files = sorted(folder.glob("*/*.parquet"))
    if not files:
        raise UserError(f"'{root}' lacks meta/episodes/; copy the data set again")
    fields = {"episode_index": COUNT, **episode_fields(list(videos.values()))}
    rows: list[dict[str, Any]] = []
    extra: list[str] = []
    for file in files:
        present = column_names_of(file)
        missing = [name for name, f in fields.items() if not f.optional and name not in present]
        if missing:
            raise UserError(
                f"'{file}' lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}: "
                "copy the data set again"
            )
        extra = [name for name in present if name not in fields and "/" not in name]
        wanted = [name for name in present if name in fields or name in extra]
        rows += read_parquet(file, wanted).to_pylist()
    rows = _numbered(rows, str(folder), info["total_episodes"], spare=True)

    def episode(row: dict[str, Any]) -> Episode:
        where = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        spans = {}
        for view, key in videos.items():
            chunk, number, start = (
                row[f"videos/{key}/{name}"]
                for name in ("chunk_index", "file_index", "from_timestamp")
            )
            name = _file(
                root, info, "video_path", video_key=key, chunk_index=chunk, file_index=number
            )
            spans[view] = (name, round(start * info["fps"], 3))
        data = _file(root, info, "data_path", **where)
        return Episode(row["episode_index"], row["length"], row["tasks"] or [], data, spans)

    checked, broken = _checked(rows, fields, str(folder))
    broken |= _misplaced(checked, str(folder))
    return Metadata(
        _episodes(rows, checked, broken, episode),
        _tasks_v3(root),
        {name: [row.get(name) for row in rows] for name in extra},
        broken,
    )


def _read_v2(root: Path, info: dict[str, Any], videos: dict[str, str]) -> Metadata:
    path = root / EPISODES_V2
    if not path.is_file():
        raise UserError(f"'{root}' lacks {EPISODES_V2}; copy the data set again")
    rows = _numbered(list(_json_lines(path)), str(path), info["total_episodes"])

    def episode(row: dict[str, Any]) -> Episode:
        number = row["episode_index"]
        where = {
            "episode_chunk": number // (info["chunks_size"] or layout.FILES_PER_CHUNK),
            "episode_index": number,
        }
        return Episode(
            number,
            row["length"],
            row["tasks"] or [],
            _file(root, info, "data_path", **where),
            {
                view: (_file(root, info, "video_path", video_key=key, **where), 0)
                for view, key in videos.items()
            },
        )

    checked, broken = _checked(rows, {"episode_index": COUNT, **EPISODE_V2}, str(path))
    tasks = _tasks(list(_json_lines(root / TASKS_V2)), str(root / TASKS_V2))
    return Metadata(_episodes(rows, checked, broken, episode), tasks, {}, broken)


def _numbered(
    rows: list[dict[str, Any]], where: str, total: int, spare: bool = False
) -> list[dict[str, Any]]:
    """The rows of the episodes 0 to total - 1, in order. spare: ignore rows of later episodes,
    which a run leaves that was killed before it wrote info.json.

    Raises UserError unless there is one row for each.
    """
    for place, row in enumerate(rows):
        row |= check(row, {"episode_index": COUNT}, f"'{where}', row {place}")
    rows = [row for row in rows if not spare or row["episode_index"] < total]
    rows.sort(key=lambda row: row["episode_index"])
    numbers = [row["episode_index"] for row in rows]
    if numbers != list(range(total)):
        twice = next((a for a, b in zip(numbers, numbers[1:], strict=False) if a == b), None)
        missing = next((n for n in range(total) if n not in set(numbers)), None)
        why = (
            f"{twice} is there twice"
            if twice is not None
            else f"the first that is missing is {missing}"
            if missing is not None
            else f"{layout.INFO} counts fewer"
        )
        raise UserError(
            f"'{where}' lists {len(numbers)} of {total} episodes ({why}): copy the data set again"
        )
    return rows


def _checked(
    rows: list[dict[str, Any]], fields: dict[str, Field], where: str
) -> tuple[dict[int, dict[str, Any]], dict[int, str]]:
    """Episode -> its checked values, and episode -> what is wrong with them."""
    checked, broken = {}, {}
    for number, row in enumerate(rows):
        try:
            checked[number] = check(row, fields, f"'{where}', episode {number}")
        except UserError as error:
            broken[number] = str(error)
    return checked, broken


def _misplaced(checked: dict[int, dict[str, Any]], where: str) -> dict[int, str]:
    """Episode -> what is wrong, for lengths and ranges of rows that contradict each other."""
    broken = {}
    before, end = -1, 0
    for number in sorted(checked, key=lambda number: checked[number]["dataset_from_index"]):
        first, last, length = (
            checked[number][name] for name in ("dataset_from_index", "dataset_to_index", "length")
        )
        if last - first != length:
            broken[number] = (
                f"'{where}', episode {number}: 'length' is {length}, but 'dataset_from_index' "
                f"{first} to 'dataset_to_index' {last} are {last - first} rows: restore the file"
            )
        elif first < end:
            broken[number] = (
                f"'{where}', episode {number}: its rows, from 'dataset_from_index' {first}, "
                f"overlap those of episode {before}, to 'dataset_to_index' {end}: restore the file"
            )
        else:
            before, end = number, last
    return broken


def _episodes(
    rows: list[dict[str, Any]],
    checked: dict[int, dict[str, Any]],
    broken: dict[int, str],
    make: Callable[[dict[str, Any]], Episode],
) -> list[Episode]:
    return [
        Episode(number, 0, [], "", {}) if number in broken else make(checked[number])
        for number in range(len(rows))
    ]


def _file(root: Path, info: dict[str, Any], pattern: str, **where: Any) -> str:
    """The name of a file. pattern: the entry of info.json that says how files are named."""
    try:
        return str(info[pattern].format(**where))
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"'{root / layout.INFO}': {pattern} is '{info[pattern]}', which asks for {error}; "
            f"known are {', '.join(where)}: restore the file"
        ) from None


def _tasks_v3(root: Path) -> dict[int, str]:
    path = root / layout.TASKS
    if not path.is_file():
        return {}
    columns = read_parquet(path).to_pydict()
    # Pandas stores an index without a name under this one.
    texts = columns.get("task", columns.get("__index_level_0__"))
    if "task_index" not in columns or texts is None:
        raise UserError(
            f"'{path}' has the columns {', '.join(columns)} instead of task_index and task: "
            "copy the data set again"
        )
    return _tasks(
        [
            {"task_index": number, "task": text}
            for number, text in zip(columns["task_index"], texts, strict=True)
        ],
        str(path),
    )


def _tasks(rows: list[dict[str, Any]], where: str) -> dict[int, str]:
    """Number -> instruction. Raises UserError for a number that two instructions share."""
    tasks: dict[int, str] = {}
    for place, row in enumerate(rows):
        checked = check(row, TASK, f"'{where}', row {place}")
        number, text = checked["task_index"], checked["task"]
        if tasks.setdefault(number, text) != text:
            raise UserError(
                f"'{where}': task_index {number} is both '{tasks[number]}' and '{text}': "
                "restore the file"
            )
    return dict(sorted(tasks.items()))


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a file, one a line; none if there is no file."""
    if not path.is_file():
        return
    try:
        # A text may hold other line separators than this one.
        lines = path.read_text("utf-8-sig").split("\n")
    except ValueError as error:
        raise UserError(f"'{path}' is broken ({error}); copy the data set again") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            row = error
        if not isinstance(row, dict):
            why = row if isinstance(row, ValueError) else "not an object"
            raise UserError(
                f"'{path}' is broken (line {number}: {why}); copy the data set again"
            ) from None
        yield row


def column_names_of(path: Path) -> list[str]:
    """Names of a parquet file's columns. Raises UserError if it is missing or broken."""
    return list(_reading(path, pq.read_schema).names)


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A parquet file, or some of its columns. Raises UserError if it is missing or broken."""
    return _reading(path, lambda path: pq.read_table(path, columns=columns, partitioning=None))


def _reading(path: Path, read: Callable[[Path], Any]) -> Any:
    if not path.is_file():
        raise UserError(f"'{path}' is missing; copy the data set again or collect it again")
    try:
        return read(path)
    except (pa.ArrowException, OSError) as error:
        if instead := instead_of(path, "a table"):
            raise UserError(f"'{path}' is {instead}") from None
        raise UserError(f"'{path}' cannot be read ({one_line(error)}); restore the file") from None
