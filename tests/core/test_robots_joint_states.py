"""Joint states are merged by name, and two sources of one joint that contradict each other are told
from motions, jumps and disturbances of one source.
"""

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from alam_core.robots.joint_states import SECOND, JointStates

Sample = tuple[float, float]  # stamp in s, position
BOTH_PHASES = [0.0, 0.001, 0.01]  # s from the first source's stamps to the second's


def series(
    position: Callable[[float], float], rate: float, seconds: float = 5.0, phase: float = 0.0
) -> list[Sample]:
    return [(float(t), position(t)) for t in np.arange(phase, seconds, 1 / rate)]


def contradicts(samples: Iterable[Sample], keep_all: bool = True) -> str:
    """Why the samples, in the order of their stamps, have two sources; "" if they have not."""
    joints = JointStates(keep_all)
    for t, position in sorted(samples, key=lambda sample: sample[0]):
        stamp = round((100 + t) * SECOND)
        joints.add(stamp, stamp, ["j"], [position])
    return joints.contradiction.reason if joints.contradiction else ""


def swing(t: float) -> float:
    """Up to 3 rad/s and 18 rad/s^2."""
    return 0.5 * float(np.sin(6 * t))


@pytest.mark.parametrize("keep_all", [False, True])
@pytest.mark.parametrize("phase", BOTH_PHASES)
@pytest.mark.parametrize("rate", [1, 10, 50, 200])
def test_a_second_source_is_noticed_whatever_its_rate(
    rate: float, phase: float, keep_all: bool
) -> None:
    first = series(lambda t: 1.2 + swing(t) / 3, 50)
    assert contradicts(first + series(lambda t: 0.0, rate, phase=phase), keep_all)
    gripper = series(lambda t: 0.05, 50)
    assert contradicts(gripper + series(lambda t: 0.0, rate, phase=phase), keep_all)


@pytest.mark.parametrize("rate", [10, 50, 200, 1000])
def test_what_one_source_does_is_no_contradiction(rate: float) -> None:
    """Of fast motions, noise, resets, restarts, bursts and other units."""
    noise = np.random.default_rng(0).normal(0, 0.003, 5000)
    samples = {
        "a fast motion": series(swing, rate),
        "noise": [(t, x + n) for (t, x), n in zip(series(swing, rate), noise, strict=False)],
        "a reset": series(lambda t: 1.2 if t < 2 else -0.5, rate),
        "resets": series(lambda t: float(np.floor(t) % 2), rate),
        "one false position": [
            (t, 0.0 if i == 9 else 1.2) for i, (t, _) in enumerate(series(swing, rate))
        ],
        "a gripper in percent": [
            (t, 50 + 1.0 * (i % 2)) for i, (t, _) in enumerate(series(swing, rate))
        ],
        "degrees": series(lambda t: 90 + 57 * swing(t), rate),
        "an angle at pi": [(t, np.pi * (-1) ** i) for i, (t, _) in enumerate(series(swing, rate))],
        "stamps in bursts": [(t - 0.99 * (t % 0.1), x) for t, x in series(swing, rate)],
        "a relay": series(swing, rate) + series(swing, rate),
    }
    alarms = {name: reason for name, found in samples.items() if (reason := contradicts(found))}
    assert not alarms


def test_sources_with_different_clocks_contradict_and_a_clock_that_is_set_back_does_not() -> None:
    joints = JointStates()
    for i in range(100):
        joints.add((1000 + i) * SECOND // 50, i, ["j"], [0.1])
    for i in range(100):  # an hour back
        joints.add((-180_000 + i) * SECOND // 50, 100 + i, ["j"], [0.2])
    assert joints.contradiction is None
    assert joints.joints["j"].nearest(2000 * SECOND)[1] == 0.2  # what was before is forgotten
    for i in range(10):
        for clock in (0, 3600):
            joints.add((clock * 50 + i) * SECOND // 50, 200 + i, ["j"], [0.2])
    assert joints.contradiction and "two clocks" in joints.contradiction.reason


def test_joints_are_merged_by_name_and_looked_up_by_time() -> None:
    joints = JointStates()
    for i in range(10):
        joints.add(i * SECOND // 10, 0, ["b", "a"], [i, -i])
        joints.add(i * SECOND // 10 + 3, 0, ["c", "a"], [10 * i, np.nan])
        joints.add(i * SECOND // 10 + 4, 0, ["wheel"], [])  # velocities only
    assert list(joints.joints) == ["b", "a", "c"]
    now = SECOND // 2 + SECOND // 50
    assert [joint.nearest(now) for joint in joints.joints.values()] == [
        (SECOND // 2, 5),
        (SECOND // 2, -5),
        (SECOND // 2 + 3, 50),
    ]
    assert joints.joints["c"].nearest(-SECOND) == (3, 0)
    assert joints.joints["c"].nearest(9 * SECOND)[1] == 90


def test_old_positions_are_dropped_unless_all_are_kept() -> None:
    for keep_all in (False, True):
        joints = JointStates(keep_all)
        for i in range(10_000):
            joints.add(i * SECOND // 100, 0, ["j"], [0.0])
        assert (len(joints.joints["j"].stamps) == 10_000) is keep_all
        assert joints.joints["j"].stamps[-1] == 9999 * SECOND // 100


def test_a_jump_is_unconfirmed_until_the_next_message() -> None:
    joints = JointStates()
    seen = []
    for i, position in enumerate([0.0, 0.05, 0.1, 1.3, 1.3, 1.35]):
        joints.add(i * SECOND // 50, 0, ["still", "j"], [0.0, position])
        seen.append(joints.jumped())
    assert seen == ["", "", "", "j", "", ""]


@pytest.mark.parametrize(
    ("names", "positions", "words"),
    [
        (["a", "b"], [1.0], "2 names but 1 positions"),
        ([], [1.0], "0 names but 1 positions"),
        (["a", "a"], [1.0, 1.0], "a joint twice"),
    ],
)
def test_a_malformed_message_is_refused_as_a_whole(
    names: list[str], positions: list[float], words: str
) -> None:
    joints = JointStates()
    with pytest.raises(ValueError, match=words):
        joints.add(0, 0, names, positions)
    assert not joints.joints
