"""The comparison of episodes through ROS with direct ones: what counts as equal."""

import numpy as np
import pytest

from alam_core.errors import UserError
from alam_training.benchmarks.ros_parity import ParityConfig, compare
from alam_training.episodes.metrics import ActionDigest, EpisodeResult


def result(seed: int, actions: str = "a", steps: int = 5, success: bool = True) -> EpisodeResult:
    return EpisodeResult(seed, success, steps, "task", actions=actions)


def test_episodes_are_equal_in_their_actions_steps_and_success() -> None:
    wanted = {seed: result(seed) for seed in range(5)}
    found = {
        0: result(0),
        1: result(1, actions="b"),
        2: result(2, steps=6),
        3: result(3, success=False),
        4: result(4),
    }
    assert compare(wanted, found) == {
        "episodes": 5,
        "equal": 2,
        "successes": 5,
        "steps": 25,
        "different": [1, 2, 3],
    }


def test_a_digest_tells_actions_and_their_order_apart() -> None:
    def digest(*actions: list[float]) -> str:
        one = ActionDigest()
        for action in actions:
            one.add(np.array(action))
        return one.digest

    assert digest([1.0, 2.0], [3.0, 4.0]) == digest([1.0, 2.0], [3.0, 4.0])
    assert len({digest([1, 2], [3, 4]), digest([3, 4], [1, 2]), digest([1, 2]), digest()}) == 4
    assert digest([0.1]) == digest([float(np.float32(0.1))]) != digest([0.1 + 1e-7])


def test_settings_are_checked() -> None:
    with pytest.raises(UserError, match="key a word"):
        ParityConfig(key="meta/world")
