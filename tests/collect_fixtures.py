"""A world and an expert so small that the data collected in it are known."""

from pathlib import Path

import numpy as np

from alam_core.data.lerobot import LeRobotDataset
from alam_core.types import Observation
from alam_training.commands.collect import CollectConfig, collect


class Line:
    """A point that must reach 1 on a line and stay there; seeds divisible by 5 are unsolvable."""

    name, dt, max_steps, action_dim, state_dim = "line", 0.1, 40, 2, 2

    def __init__(self, size: int) -> None:
        self.size = size

    def reset(self, seed: int) -> Observation:
        self.seed, self.x = seed, float(np.random.default_rng(seed).uniform(-1, 0))
        self.seen_actions: list[np.ndarray] = []
        return self.observe()

    def step(self, action: np.ndarray, render: bool = True) -> Observation:
        self.seen_actions.append(np.array(action))
        self.x += float(np.clip(action[0] - self.x, -0.1, 0.1))
        return self.observe()

    def observe(self) -> Observation:
        image = np.full((self.size, self.size, 3), round(100 + 50 * self.x), np.uint8)
        return Observation(
            {"third_person": image, "wrist": 255 - image},
            np.array([self.x, 0], np.float32),
            f"go {self.seed % 2}",
        )

    def success(self) -> bool:
        return self.seed % 5 != 0 and abs(self.x - 1) < 0.05

    def close(self) -> None:
        pass


class Walker:
    """Its action is always the goal, so the recorded action shows whether it contains noise."""

    def __init__(self, world: Line, seed: int) -> None:
        self.world = world

    def reset(self) -> None:
        pass

    def act(self) -> np.ndarray:
        return np.array([1.0, self.world.x])


def make_line(name: str, size: int) -> Line:
    return Line(size)


def collect_line(root: Path, **changes: object) -> LeRobotDataset:
    values = {
        "world": "line",
        "output": str(root),
        "episodes": 6,
        "first_seed": 1,
        "image_size": 8,
        "workers": 0,
        "hold_steps": 3,
        **changes,
    }
    collect(CollectConfig(**values), make_line, Walker)  # type: ignore[arg-type]
    return LeRobotDataset(root)


def content(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.suffix in (".parquet", ".mp4")
    }
