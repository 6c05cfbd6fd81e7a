"""Reads the metadata of a LeRobot data set: info.json, and the files and positions of its
episodes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alam_core.data.lerobot import layout
from alam_core.errors import UserError


@dataclass
class Episode:
    """The files and positions of one episode."""

    index: int
    length: int
    task: str
    data: str  # parquet file
    row: int  # of the first frame in that file
    videos: dict[str, tuple[str, int]]  # view -> file, number of the first frame in it


def read_info(root: Path) -> dict[str, Any]:
    path = root / layout.INFO
    if not path.is_file():
        hint = (
            "give the folder that holds meta/, data/ and videos/, "
            "or collect one with training/collect.py"
        )
        if (root.parent / layout.partial_name(root.name)).exists():
            hint = "writing it was interrupted or still goes on; let it finish or collect again"
        raise UserError(f"'{root}' is not a LeRobot data set: {layout.INFO} is missing; {hint}")
    try:
        info = json.loads(path.read_text())
        missing = [
            key
            for key in ("codebase_version", "fps", "features", "data_path", "total_episodes")
            if key not in info
        ]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' is broken JSON ({error}); restore the file") from None
    if missing:
        raise UserError(f"'{path}' lacks {', '.join(missing)}; is it a LeRobot data set?")
    return info


def read_episodes(
    root: Path, info: dict[str, Any], video_keys: list[str]
) -> tuple[list[Episode], dict[str, list[Any]]]:
    """The episodes of a data set, and the further values stored per episode (see
    ``LeRobotDataset.extras``). Raises UserError if the version is not supported, or if a file is
    missing or broken.
    """
    version = str(info.get("codebase_version"))
    if version.startswith("v3."):
        return _read_episodes_v3(root, info, video_keys)
    if version in ("v2.0", "v2.1"):
        return _read_episodes_v2(root, info, video_keys), {}
    raise UserError(
        f"'{root}' is a LeRobot data set of version {version}; "
        "supported are 3.0, 2.1 and 2.0: convert it with lerobot's scripts"
    )


def _read_episodes_v3(
    root: Path, info: dict[str, Any], video_keys: list[str]
) -> tuple[list[Episode], dict[str, list[Any]]]:
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    if not files:
        raise UserError(f"'{root}' lacks meta/episodes/; copy the data set again")
    rows = [row for file in files for row in read_parquet(file, statistics=False).to_pylist()]
    rows = [row for row in rows if row["episode_index"] < info["total_episodes"]]
    rows.sort(key=lambda row: row["episode_index"])
    if len(rows) != info["total_episodes"]:
        raise UserError(
            f"'{root}/meta/episodes' lists {len(rows)} of "
            f"{info['total_episodes']} episodes; copy the data set again"
        )
    known = {"episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"}
    extras = {
        name: [row[name] for row in rows]
        for name in (rows[0] if rows else {})
        if name not in known and "/" not in name
    }
    starts: dict[str, int] = {}  # data file -> index of its first frame in the whole set
    episodes = []
    for row in rows:
        data = info["data_path"].format(
            chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
        )
        start = starts.setdefault(data, row["dataset_from_index"])
        videos = {}
        for key in video_keys:
            where = f"videos/{key}/"
            file = info["video_path"].format(
                video_key=key,
                chunk_index=row[where + "chunk_index"],
                file_index=row[where + "file_index"],
            )
            videos[view_name(key)] = (file, round(row[where + "from_timestamp"] * info["fps"]))
        task = row["tasks"][0] if row["tasks"] else ""
        episodes.append(
            Episode(
                row["episode_index"],
                row["length"],
                task,
                data,
                row["dataset_from_index"] - start,
                videos,
            )
        )
    return episodes, extras


def _read_episodes_v2(root: Path, info: dict[str, Any], video_keys: list[str]) -> list[Episode]:
    path = root / "meta/episodes.jsonl"
    if not path.is_file():
        raise UserError(f"'{root}' lacks meta/episodes.jsonl; copy the data set again")
    try:
        read = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        rows = [(row["episode_index"], row["length"], row["tasks"]) for row in read]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is broken ({error}); copy the data set again") from None
    episodes = []
    for index, length, tasks in rows:
        where = {
            "episode_chunk": index // info.get("chunks_size", layout.FILES_PER_CHUNK),
            "episode_index": index,
        }
        videos = {
            view_name(key): (info["video_path"].format(video_key=key, **where), 0)
            for key in video_keys
        }
        episodes.append(
            Episode(
                index,
                length,
                tasks[0] if tasks else "",
                info["data_path"].format(**where),
                0,
                videos,
            )
        )
    return episodes


def view_name(key: str) -> str:
    """Camera name of a video feature. Dots become underscores, because the names of torch modules
    cannot contain them.
    """
    return key.removeprefix(layout.IMAGES).removeprefix("observation.").replace(".", "_")


def read_parquet(path: Path, columns: list[str] | None = None, statistics: bool = True) -> pa.Table:
    """A parquet file, or some of its columns; ``statistics`` False leaves out the ``stats/...``
    columns. Raises UserError if the file is missing or broken.
    """
    if not path.is_file():
        raise UserError(f"'{path}' is missing; copy the data set again or collect it again")
    try:
        if not statistics:
            columns = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
        return pq.read_table(path, columns=columns, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"'{path}' cannot be read ({' '.join(str(error).split())}); restore the file"
        ) from None


def column_names(feature: dict[str, Any] | None) -> list[str]:
    """Column names of a vector feature, in any of the forms that LeRobot has used."""
    if feature is None:
        return []
    names = feature.get("names")
    if isinstance(names, dict):  # some sets group them: {"motors": [...]}
        names = [
            name
            for group in names.values()
            for name in (group if isinstance(group, list) else [group])
        ]
    width = feature["shape"][0]
    return list(names) if names and len(names) == width else [str(i) for i in range(width)]
