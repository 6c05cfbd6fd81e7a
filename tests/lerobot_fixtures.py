"""A LeRobot data set of four short episodes with known content, and ways to damage a data set."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alam_core.data.lerobot import LeRobotDataset, LeRobotWriter, layout

EPISODES = "meta/episodes/chunk-000/file-000.parquet"
DATA = "data/chunk-000/file-000.parquet"
SIZE = 32
LENGTHS = (11, 30, 7, 19)
NAMES = ["a", "b", "c"]


def picture(length: int, phase: float) -> np.ndarray:
    """A moving coloured square on a slope of grey, with hard edges as renderers draw them: uint8
    (T, SIZE, SIZE, 3).
    """
    frames = (
        np.broadcast_to(np.linspace(60, 190, SIZE)[None, :, None, None], (length, SIZE, SIZE, 3))
        .astype(np.uint8)
        .copy()
    )
    for t in range(length):
        x, y = int(10 + 8 * np.sin(phase + t / 5)), int(10 + 8 * np.cos(phase + t / 7))
        frames[t, y : y + 9, x : x + 9] = ((220, 40, 30), (30, 60, 220), (40, 190, 60))[
            int(phase) % 3
        ]
    return frames


def episode(k: int) -> dict:
    rng = np.random.default_rng(k)
    length = LENGTHS[k]
    return {
        "images": {"third_person": picture(length, k), "wrist": picture(length, k + 1.5)},
        "state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 3)).astype(np.float32),
        "task": ("pick red", "pick blue")[k % 2],
        "extra": {"seed": 100 + k},
    }


def open_writer(root: Path, append: bool = False, fps: float = 10) -> LeRobotWriter:
    return LeRobotWriter(
        root,
        fps,
        {"third_person": (SIZE, SIZE), "wrist": (SIZE, SIZE)},
        NAMES,
        NAMES,
        "robot",
        append,
    )


def write(root: Path, episodes: range = range(4), append: bool = False) -> None:
    with open_writer(root, append) as writer:
        for k in episodes:
            writer.add_episode(**episode(k))


def check_content(dataset: LeRobotDataset) -> None:
    assert dataset.num_episodes == 4 and dataset.num_frames == sum(LENGTHS)
    assert dataset.views == ("third_person", "wrist") and dataset.fps == 10.0
    for k in range(4):
        wanted = episode(k)
        arrays = dataset.episode(k)
        assert np.array_equal(arrays.state, wanted["state"]) and np.array_equal(
            arrays.action, wanted["action"]
        )
        assert arrays.task == wanted["task"] and dataset.episode_length(k) == LENGTHS[k]
        for view, images in wanted["images"].items():
            error = dataset.frames(k, view, range(LENGTHS[k])).astype(float) - images
            assert 10 * np.log10(255**2 / (error**2).mean()) > 38  # dB


def edit_json(path: Path, **values: Any) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def edit_rows(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Apply ``change`` to the rows of a parquet file."""
    table = pq.read_table(path, partitioning=None)
    rows = table.to_pylist()
    change(rows)
    types = {
        # A list of another length than the others does not fit the type with a fixed one.
        name: pa.list_(kind.value_type) if pa.types.is_fixed_size_list(kind) else kind
        for name, kind in zip(table.schema.names, table.schema.types, strict=True)
    }
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(types)), path)


def as_version_2(source: Path, root: Path) -> None:
    """Write the data set ``source`` again as version 2.1, one file per episode, without videos."""
    info = json.loads((source / layout.INFO).read_text())
    features = {k: f for k, f in info["features"].items() if f["dtype"] != "video"}
    info |= {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "features": features,
    }
    dataset = LeRobotDataset(source)
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    (root / layout.INFO).write_text(json.dumps(info))
    episodes, table = [], pq.read_table(source / "data/chunk-000/file-000.parquet")
    for e in range(dataset.num_episodes):
        rows = table.filter(pc.field("episode_index") == e)
        pq.write_table(rows, root / f"data/chunk-000/episode_{e:06d}.parquet")
        tasks = [dataset.episode(e).task]
        episodes.append({"episode_index": e, "tasks": tasks, "length": len(rows)})
    tasks = [{"task_index": number, "task": task} for number, task in dataset.tasks.items()]
    for name, lines in (("episodes", episodes), ("tasks", tasks)):
        (root / f"meta/{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))


def edit_line(path: Path, number: int, **values: Any) -> None:
    """Change entries of one line of a file of JSON lines."""
    lines = path.read_text().splitlines()
    lines[number] = json.dumps({**json.loads(lines[number]), **values})
    path.write_text("\n".join(lines) + "\n")


def rename_feature(root: Path, old: str, new: str) -> None:
    """Give a feature of a data set of version 3 another name."""
    info = json.loads((root / layout.INFO).read_text())
    features = {new if key == old else key: feature for key, feature in info["features"].items()}
    edit_json(root / layout.INFO, features=features)
    for path in (root / EPISODES, root / DATA):
        table = pq.read_table(path, partitioning=None)
        columns = [name.replace(f"/{old}/", f"/{new}/") for name in table.column_names]
        columns = [new if name == old else name for name in columns]
        pq.write_table(table.rename_columns(columns), path)
    if (root / "videos" / old).exists():
        (root / "videos" / new).parent.mkdir(exist_ok=True)
        (root / "videos" / old).rename(root / "videos" / new)
