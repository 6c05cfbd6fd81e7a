"""A LeRobot data set of four short episodes with known content, for tests."""

from pathlib import Path

import numpy as np

from alam_core.data.lerobot import LeRobotDataset, LeRobotWriter

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
