"""What finetune says about the ranges of its data: units, the arm's limits, dimensions that hardly
move; and what the policy then does outside them.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from policy_fixtures import tiny_backbone

from alam_core.data.checks import wrong_units
from alam_core.data.checks.units import is_piper
from alam_core.data.lerobot import LeRobotWriter
from alam_core.errors import UserError
from alam_core.policy.config import ModelConfig
from alam_core.robots.piper import HOME, JOINT_NAMES
from alam_training.loop.config import LoopConfig
from alam_training.stage2.config import FinetuneConfig
from alam_training.stage2.data import load

EPISODES, LENGTH = 4, 8
DEGREES = np.array([180 / np.pi] * 6 + [1.0])


def arm(rng: np.random.Generator) -> np.ndarray:
    """States (LENGTH, 7) in which every joint moves."""
    return np.asarray(HOME) + np.array([0.1] * 6 + [0.008]) * rng.uniform(-1, 1, (LENGTH, 7))


def write(
    root: Path, change: Callable[[int, str, np.ndarray], np.ndarray], robot: str = "ros2"
) -> FinetuneConfig:
    """A data set of the Piper. change: (episode, feature, values) -> the values to write."""
    rng = np.random.default_rng(0)
    names = list(JOINT_NAMES)
    with LeRobotWriter(root, 10.0, {"top": (32, 32)}, names, names, robot) as writer:
        for e in range(EPISODES):
            images = {"top": rng.integers(0, 256, (LENGTH, 32, 32, 3), dtype=np.uint8)}
            values = [change(e, feature, arm(rng)) for feature in ("state", "action")]
            writer.add_episode(images, *values, "wave")
    return FinetuneConfig(
        str(root),
        str(root.parent / "run"),
        held_out=0.0,
        model=ModelConfig(horizon=4, image_size=32, small=tiny_backbone()),
        loop=LoopConfig(steps=1, cpu=True),
    )


@pytest.mark.parametrize(
    ("scale", "hint"),
    [
        (DEGREES, "degrees, multiply all angles by pi / 180"),
        (1000 * DEGREES, "the SDK's 0.001 degrees"),
        (np.array([1.0] * 6 + [1e3]), "millimetres or percent, divide it by 1000"),
    ],
)
def test_data_in_other_units_are_refused_with_a_hint(
    tmp_path: Path, scale: np.ndarray, hint: str
) -> None:
    config = write(tmp_path / "data", lambda e, feature, values: values * scale)
    with pytest.raises(UserError, match=f"observation.state in episode 0: .*{hint}") as error:
        load(config)
    assert "\n" not in str(error.value)


def test_one_episode_or_one_feature_in_degrees_is_found(tmp_path: Path) -> None:
    def change(e: int, feature: str, values: np.ndarray) -> np.ndarray:
        return values * DEGREES if (e, feature) == (2, "action") else values

    config = write(tmp_path / "data", change)
    with pytest.raises(UserError, match=r"1 broken of 4 .*action in episode 2: .*degrees"):
        load(config)
    config.max_broken = 0.25
    assert load(config)[1].left_out == [2]


def test_units_are_compared_for_the_piper_only_and_not_by_stray_rows() -> None:
    rows = np.tile(HOME, (1000, 1))
    rows[7] *= DEGREES  # a glitch of one row
    assert wrong_units(JOINT_NAMES, rows, None) == ""
    rows = rows * DEGREES
    assert "degrees" in wrong_units(JOINT_NAMES, rows, "Piper_follower")
    assert wrong_units(JOINT_NAMES, rows, "xarm6") == ""
    assert not is_piper(["joint1", "joint2", "gripper"], None)
    # Columns are found by name.
    order = ["force", *reversed(JOINT_NAMES)]
    mixed = np.column_stack([np.full(1000, 900.0), np.tile(HOME, (1000, 1))[:, ::-1]])
    assert wrong_units(order, mixed, "") == ""


def test_what_hardly_moves_and_what_is_a_little_outside_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(e: int, feature: str, values: np.ndarray) -> np.ndarray:
        values[:, 3] = 0.2  # joint4
        values[0, 1] = -0.12 if e == 1 else values[0, 1]  # joint2, whose range begins at 0
        return values

    _, data, *_ = load(write(tmp_path / "data", change))
    told = capsys.readouterr().err
    for vector in ("state", "action"):
        assert f"{vector} 'joint4': never changes" in told
        assert f"{vector} 'joint2': up to 0.12 beyond the arm's range" in told
    np.testing.assert_allclose(data.stats.state_range[:, 3], 0.2, atol=1e-6)


def test_data_in_the_right_units_are_not_warned_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load(write(tmp_path / "data", lambda e, feature, values: values, "piper"))
    assert "range" not in capsys.readouterr().err
