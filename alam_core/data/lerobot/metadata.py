"""The contents of meta/: features, tasks, statistics, info.json and the rows of meta/episodes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alam_core.data.lerobot import layout
from alam_core.data.lerobot.reader import LeRobotDataset
from alam_core.data.lerobot.schema import OBJECT, STATISTICS, check
from alam_core.data.lerobot.statistics import Stats, from_json, to_json
from alam_core.errors import UserError


def describe_features(
    views: dict[str, tuple[int, int]], state_names: Sequence[str], action_names: Sequence[str]
) -> dict[str, Any]:
    """The features of info.json. views: camera name -> (H, W); the names of the columns of state
    and action, none for a data set without that vector.
    """
    features: dict[str, Any] = {
        layout.IMAGES + view: {
            "dtype": "video",
            "shape": [*size, 3],
            "names": ["height", "width", "channels"],
        }
        for view, size in views.items()
    }
    for feature, names in ((layout.STATE, state_names), (layout.ACTION, action_names)):
        if names:
            features[feature] = {"dtype": "float32", "shape": [len(names)], "names": list(names)}
    for name in layout.INDEX_COLUMNS:
        features[name] = {
            "dtype": "float32" if name == "timestamp" else "int64",
            "shape": [1],
            "names": None,
        }
    return features


def write_tables(folder: Path, tasks: list[str], stats: dict[str, Stats]) -> None:
    """Write meta/tasks.parquet and meta/stats.json of the data set in ``folder``."""
    pq.write_table(_tasks_table(tasks), folder / layout.TASKS)
    (folder / layout.STATS).write_text(json.dumps(to_json(stats), indent=4) + "\n")


def write_info(
    folder: Path,
    robot_type: str,
    fps: float,
    episodes: int,
    frames: int,
    tasks: int,
    features: dict[str, Any],
) -> None:
    """Write meta/info.json of the data set in ``folder``: counts, rate, layout and features."""
    info = {
        "codebase_version": layout.VERSION,
        "robot_type": robot_type,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": layout.FILES_PER_CHUNK,
        "data_files_size_in_mb": layout.DATA_FILE_MB,
        "video_files_size_in_mb": layout.VIDEO_FILE_MB,
        "fps": fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": layout.DATA,
        "video_path": layout.VIDEO,
        "features": features,
    }
    (folder / layout.INFO).write_text(json.dumps(info, indent=4, ensure_ascii=False) + "\n")


def read_stats(root: Path) -> dict[str, Stats]:
    """meta/stats.json, feature by feature. Raises UserError if it is missing or broken."""
    path = root / layout.STATS
    try:
        stats = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read ({error}); restore the file") from None
    for feature, rows in check(stats, dict.fromkeys(stats, OBJECT), f"'{path}'").items():
        check(rows, STATISTICS, f"'{path}', {feature}")
    return from_json(stats)


def same_format(dataset: LeRobotDataset, features: dict[str, Any], fps: float) -> bool:
    """Whether episodes with these features and rate can be added to ``dataset``."""

    def without_info(described: dict[str, Any]) -> dict[str, Any]:
        return {key: {**feature, "info": None} for key, feature in described.items()}

    return bool(
        dataset.info["codebase_version"] == layout.VERSION
        and without_info(dataset.features) == without_info(features)
        and dataset.fps == fps
    )


def last_episode_row(dataset: LeRobotDataset) -> dict[str, Any]:
    """The row of meta/episodes of the last episode that info.json counts. Rows after it, left by a
    run that was killed before it wrote info.json, are ignored.
    """
    for file in sorted((dataset.root / "meta/episodes").glob("*/*.parquet"), reverse=True):
        table = pq.read_table(file, partitioning=None)
        numbers = table["episode_index"].to_pylist()
        if dataset.num_episodes - 1 in numbers:
            return dict(table.slice(numbers.index(dataset.num_episodes - 1), 1).to_pylist()[0])
    raise UserError(f"'{dataset.root}' has no episode to append to; choose another folder")


def _tasks_table(tasks: list[str]) -> pa.Table:
    """The tasks in the form in which pandas stores a data frame indexed by instruction, as LeRobot
    expects.
    """
    table = pa.table(
        {
            "task_index": pa.array(range(len(tasks)), pa.int64()),
            "task": pa.array(tasks, pa.string()),
        }
    )
    described = [
        {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": numpy_type,
            "metadata": None,
        }
        for name, kind, numpy_type in (
            ("task_index", "int64", "int64"),
            ("task", "unicode", "object"),
        )
    ]
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": described,
        "creator": {"library": "pyarrow"},
    }
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})
