"""A clean data set of a Piper that moves smoothly, in memory and on disk, to test checks with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from alam_core.data.checks import Recorded
from alam_core.data.lerobot import EpisodeArrays, LeRobotWriter
from alam_core.robots.piper import HOME, JOINT_NAMES

FPS = 10.0
TASKS = ("put the red cube on the plate", "put the blue cube on the plate")
SIZE = 32
Change = Callable[[Recorded], None]


def numbers(e: int, length: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """States and actions (T, 7) of episode e: every joint moves, the action is a little ahead."""
    time = np.arange(length)[:, None] / FPS
    reach = np.array([0.4, 0.3, 0.3, 0.3, 0.2, 0.3, 0.03])
    speed = np.array([1.0, 1.3, 0.7, 1.1, 0.9, 1.2, 0.8])
    middle = np.array(HOME) - [0, 0, 0, 0, 0, 0, 0.04]

    def at(t: np.ndarray) -> np.ndarray:
        return (middle + reach * np.sin(speed * t + e + np.arange(7))).astype(np.float32)

    return at(time), at(time + 0.1)


def clean(episodes: int = 12) -> Recorded:
    made = {
        e: EpisodeArrays(*numbers(e), np.full(30, TASKS[e % 2], object)) for e in range(episodes)
    }
    return Recorded(made, list(JOINT_NAMES), list(JOINT_NAMES), FPS, "piper")


def pictures(states: np.ndarray, view: int = 0) -> np.ndarray:
    """uint8 (T, SIZE, SIZE, 3): a bright square that moves with the first joints, on a slope."""
    images = np.zeros((len(states), SIZE, SIZE, 3), np.uint8)
    images[:] = np.linspace(40, 160, SIZE)[None, None, :, None]
    for image, state in zip(images, states, strict=True):
        x, y = int(12 + 20 * state[0]), int(10 * state[1]) + 6 * view
        image[y : y + 6, x : x + 6] = (230, 60, int(150 + 200 * state[3]))
    return images


def write(root: Path, episodes: int = 3, **changed: np.ndarray) -> Path:
    """The same on disk. changed: view -> images of every episode."""
    with LeRobotWriter(
        root,
        FPS,
        {"third_person": (SIZE, SIZE), "wrist": (SIZE, SIZE)},
        list(JOINT_NAMES),
        list(JOINT_NAMES),
        "piper",
    ) as writer:
        for e in range(episodes):
            state, action = numbers(e)
            images = {"third_person": pictures(state), "wrist": pictures(state, 1)} | changed
            writer.add_episode(images, state, action, TASKS[e % 2])
    return root


def state(
    column: int, value: Callable[[np.ndarray], object], episodes: range = range(12)
) -> Change:
    """Change a column of the states, with all rows of an episode at hand."""

    def change(recorded: Recorded) -> None:
        for e in episodes:
            recorded.episodes[e].state[:, column] = value(recorded.episodes[e].state[:, column])

    return change
