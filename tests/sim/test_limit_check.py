"""Set-points that break a limit are counted, each kind of limit by itself; those of a controller
that is sent random messages break none.
"""

import numpy as np
import pytest

from alam_core.robots.piper import JOINT_LIMITS
from alam_core.robots.workspace import Workspace
from alam_core.runtime.motion import SetPoint, make_limits
from alam_demo.controller_fuzz import FuzzBlock, FuzzCount, fuzz
from alam_demo.limit_check import KINDS, LimitCount, count_broken
from alam_piper.config import ControllerConfig
from alam_piper.controller import ArmController

PERIOD = 0.005
POSE = np.array([0.0, 1.2, -1.2, 0.0, 0.6, 0.0, 0.05])
LIMITS, WORKSPACE = make_limits(JOINT_LIMITS), Workspace()


def count(times: np.ndarray, points: np.ndarray, clock_error: float = 0.0) -> LimitCount:
    fresh = np.zeros(len(points), dtype=bool)
    return count_broken(times, points, fresh, LIMITS, WORKSPACE, PERIOD, clock_error)


def motion(ticks: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Times and set-points of joint 1 on its way, in ticks of irregular length."""
    times = np.cumsum(np.random.default_rng(0).uniform(0.001, 0.019, ticks))
    set_point = SetPoint(LIMITS, WORKSPACE)
    set_point.seed(POSE)
    points = [POSE]
    for gap in np.diff(times):
        points.append(set_point.follow(POSE + [1.0, 0, 0, 0, 0, 0, 0], gap).copy())
    return times, np.array(points)


def test_a_motion_within_the_limits_breaks_none_and_reaches_them() -> None:
    found = count(*motion())
    assert (found.broken, found.set_points) == (0, 200)
    assert all(found.largest[kind] > 0.99 for kind in ("velocity", "acceleration", "jerk"))


@pytest.mark.parametrize(
    ("kind", "tick", "away"),
    [
        ("velocity", 100, [0.02, 0, 0, 0, 0, 0, 0]),
        ("acceleration", 100, [1e-3, 0, 0, 0, 0, 0, 0]),
        ("jerk", 100, [2e-5, 0, 0, 0, 0, 0, 0]),
        ("position", 150, [0, 0, 1.3, 0, 0, 0, 0]),
        ("workspace", 150, [0, 1.4, 0, 0, 0, 0, 0]),
    ],
)
def test_a_broken_limit_is_counted(kind: str, tick: int, away: list[float]) -> None:
    times, points = motion()
    points[tick] += away
    found = count(times, points)
    assert found.by_kind[kind] >= 1 and found.broken >= 1
    values = found.values()
    assert values["limits_broken"] == found.broken
    assert values["limits_broken_by_kind"] == {name: found.by_kind[name] for name in KINDS}


def test_what_the_clock_alone_can_explain_is_not_counted() -> None:
    times, points = motion()
    told = np.round(times * 1e7) / 1e7 + np.random.default_rng(1).uniform(-1e-7, 1e-7, len(times))
    assert count(told, points).broken > 0
    assert count(told, points, clock_error=4e-7).broken == 0


def test_a_pause_begins_a_motion_from_rest() -> None:
    """After more than four periods a set-point that goes on at its old speed breaks limits."""
    times, points = motion()
    times[100:] += 0.3
    assert count(times, points).by_kind["acceleration"] > 0


def test_random_messages_break_no_limit_and_move_the_arm() -> None:
    done: list[int] = []
    found = fuzz(600, seed=3, done=done.append)
    assert (found.messages, found.crashes, found.limits.broken) == (600, 0, 0), found.failed
    assert found.rejections_without_reason == found.sent_without_permission == 0
    assert found.accepted > 100 and found.rejected > 100 and done == [500, 600]
    assert found.limits.set_points > 300 and found.limits.largest["velocity"] > 0.9
    assert found.states["EXECUTING"] > found.states["FAULT"] > 0


@pytest.mark.parametrize("wrong", [{"velocity": 1.2}, {"acceleration": 6.0}, {"jerk": 60.0}])
def test_random_messages_find_a_controller_that_breaks_a_limit(wrong: dict[str, float]) -> None:
    found = FuzzCount()
    block = FuzzBlock(found, (0, 1))
    block.controller = ArmController(ControllerConfig(limits=make_limits(JOINT_LIMITS, **wrong)))
    block.run(200)
    assert found.limits.by_kind[next(iter(wrong))] > 0
    assert found.failed[0].startswith("seed (0, 1): ")


def test_a_chunk_right_after_a_reset_breaks_no_limit() -> None:
    """The set-point then moves in the first tick in which it is sent."""
    found = FuzzCount()
    block = FuzzBlock(found, (0, 2))
    block.run(1)
    block.arm.arm_status = 7
    block.ticks(200)
    block.arm.repair()
    block.ticks(25)
    assert block.controller.state == "FAULT"
    block.request("reset_fault")
    block.request("enable")
    block.offer("towards a goal")
    sent = len(block._points)
    block.ticks(50)
    assert len(block._points) == sent + 50 and block.check().broken == 0
    points = np.array(block._points[sent - 1 :])
    assert np.abs(points[1] - points[0]).max() > 0.0


def test_a_crash_is_counted_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(ArmController, "offer", broken)
    found = fuzz(10, seed=7)
    assert found.crashes == 1
    assert "seed (7, 0)" in found.failed[0] and "on purpose" in found.failed[0]
