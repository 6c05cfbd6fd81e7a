"""The set-point: no sequence of references, ticks, brakes and restarts breaks a limit or leaves the
workspace; it comes to rest from every state, reaches what can be reached and tracks what it can.
"""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from alam_core.robots.piper import HOME, JOINT_LIMITS, inverse_kinematics
from alam_core.robots.workspace import BOUNDARIES, Workspace
from alam_core.runtime import motion
from alam_core.runtime.motion import GRIPPER_SPEED_UP, RESERVE, MotionLimits, SetPoint, make_limits

DT = 0.005
LIMITS = make_limits(JOINT_LIMITS)
WORKSPACE = Workspace(floor=0.0)
BESIDE_WALL = Workspace(floor=0.05, lower=(0.1, -0.2, 0.0), upper=(0.4, 0.2, 0.5))
MANUFACTURERS_HOME = np.array([0.0, 1.57, -1.3485, 0.0, 0.0, 0.0, 0.05])
LOWER = np.append(JOINT_LIMITS[:, 0], 0.0)
UPPER = np.append(JOINT_LIMITS[:, 1], 0.10)

properties = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
limits_of = st.builds(
    make_limits,
    st.just(JOINT_LIMITS),
    velocity=st.floats(0.2, 3.0),
    acceleration=st.floats(1.0, 50.0),
    jerk=st.floats(10.0, 3000.0),
)
fractions = st.lists(st.floats(0.0, 1.0), min_size=7, max_size=7).map(np.array)
poses = fractions.map(lambda part: LOWER + part * (UPPER - LOWER))
starts = st.sampled_from([np.array(HOME), MANUFACTURERS_HOME, np.zeros(7)]) | poses
ACTIONS = ("still", "jump", "ramp", "noise", "garbage", "bound", "brake", "restart")
actions = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2**32 - 1)), min_size=1, max_size=8
)


def references(action: str, rng: np.random.Generator, before: np.ndarray) -> np.ndarray:
    """(ticks, 7): what an action asks for."""
    ticks = int(rng.integers(1, 40))
    if action == "ramp":
        return before + rng.normal(0, 0.005, 7) * np.arange(1, ticks + 1)[:, None]
    if action == "noise":
        return before + rng.normal(0, rng.choice([0.001, 0.1]), (ticks, 7))
    if action == "garbage":
        return rng.choice([-1.0, 1.0], (ticks, 7)) * 10.0 ** rng.uniform(-320, 308, (ticks, 7))
    goal = {
        "jump": rng.uniform(LOWER, UPPER),
        "bound": np.where(rng.random(7) < 0.5, LOWER, UPPER),
    }.get(action, before)
    return np.tile(goal, (ticks, 1))


def play(
    point: SetPoint, script: list[tuple[str, int]]
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The continuous parts of a motion: positions (T + 4, 7), three of them at rest before the
    first tick, times (T + 4,) in s, and of each tick the longest part (T,).
    """
    parts = []
    reference = point.position
    positions, times = [point.position] * 4, [-0.03, -0.02, -0.01, 0.0]
    for action, seed in script:
        rng = np.random.default_rng(seed)
        if action == "restart":
            parts.append((np.array(positions), np.array(times)))
            point.restart()
            assert point.at_rest
            positions, times = [point.position] * 4, [-0.03, -0.02, -0.01, 0.0]
            continue
        before = np.clip(reference, LOWER - 1, UPPER + 1)
        for reference in references(action, rng, before):
            dt = DT if rng.random() < 0.5 else rng.uniform(0.001, 0.02)
            moved = point.brake(dt) if action == "brake" else point.follow(reference, dt)
            np.testing.assert_array_equal(moved, point.position)
            positions.append(moved)
            times.append(times[-1] + dt)
    return [*parts, (np.array(positions), np.array(times))]


def derivatives(positions: np.ndarray, times: np.ndarray) -> list[np.ndarray]:
    """Mean velocity, acceleration and jerk (T, 7) from divided differences."""
    found, values = [], positions
    for order in (1, 2, 3):
        values = np.diff(values, axis=0) / (times[order:] - times[:-order])[:, None] * order
        found.append(values)
    return found


def assert_limits_hold(limits: MotionLimits, positions: np.ndarray, times: np.ndarray) -> None:
    bounds = (limits.velocity, limits.acceleration, limits.jerk)
    for values, bound in zip(derivatives(positions, times), bounds, strict=True):
        # Rounding errors of positions are divided by short ticks.
        assert (np.abs(values) <= bound * (1 + 1e-6) + 1e-4).all(), np.abs(values / bound).max()
    below, above = (limits.lower - positions).clip(0), (positions - limits.upper).clip(0)
    for outside in (below, above):
        assert (np.diff(outside, axis=0) <= 1e-9).all()


def assert_inwards(workspace: Workspace, positions: np.ndarray) -> None:
    """No violation begins, and none grows but by what lies between two samples of a stop."""
    beyond = np.maximum.reduceat(workspace.beyond(positions), BOUNDARIES, axis=1)
    inside = beyond[0] <= -RESERVE
    assert (beyond[:, inside] <= 0.0).all(), beyond.max(axis=0)
    grown = beyond - np.minimum.accumulate(beyond, axis=0)
    assert ((grown <= RESERVE / 4) | (beyond <= 0.0)).all(), grown.max(axis=0)


@properties
@given(limits_of, st.sampled_from([WORKSPACE, BESIDE_WALL]), starts, actions)
@example(  # joints beyond the margin that turn
    make_limits(JOINT_LIMITS, 1.0, 1.0, 10.0), WORKSPACE, LOWER, [("still", 0), ("noise", 0)]
)
def test_no_sequence_of_references_breaks_a_limit_or_leaves_the_workspace(
    limits, workspace, start, script
):
    point = SetPoint(limits, workspace)
    point.seed(start)
    for positions, times in play(point, script):
        assert_limits_hold(limits, positions, times)
        assert_inwards(workspace, positions)
    assert_comes_to_rest(point)


@properties
@given(limits_of, starts, actions)
def test_without_a_workspace_the_limits_hold_too(limits, start, script):
    point = SetPoint(limits)
    point.seed(start)
    for positions, times in play(point, script):
        assert_limits_hold(limits, positions, times)
    assert_comes_to_rest(point)


def assert_comes_to_rest(point: SetPoint) -> None:
    limits = point.limits
    # Undo the acceleration, then brake from a speed that may have grown meanwhile.
    longest = (limits.velocity / limits.acceleration + 3 * limits.acceleration / limits.jerk).max()
    before = point.position
    time = 0.0
    while not point.at_rest:
        point.brake(DT)
        time += DT
        assert time <= longest + 2 * DT
    assert (np.abs(point.position - before) <= limits.velocity * (time + DT)).all()
    held = point.position
    np.testing.assert_array_equal(point.brake(DT), held)
    assert not point.velocity.any() and not point.acceleration.any()


@settings(properties, max_examples=30)
@given(limits_of, poses, poses)
def test_a_goal_at_the_end_of_a_free_line_is_reached(limits, start, goal):
    start, goal = np.clip(start, limits.lower, limits.upper), np.clip(goal, *bounds(limits))
    line = start + np.linspace(0, 1, 200)[:, None] * (goal - start)
    if WORKSPACE.beyond(line).max() > -0.02:
        return  # not free
    point = SetPoint(limits, WORKSPACE)
    point.seed(start)
    for _ in range(4000):
        point.follow(goal, 0.02)
        if np.abs(point.position - goal).max() < 1e-7:
            break
    np.testing.assert_allclose(point.position, goal, atol=1e-6)
    assert point.blocked == ""


def bounds(limits: MotionLimits) -> tuple[np.ndarray, np.ndarray]:
    return limits.lower, limits.upper


def test_from_starts_a_little_outside_the_arm_can_be_led_inside():
    rng = np.random.default_rng(0)
    led = 0
    while led < 25:
        start = rng.uniform(LOWER, UPPER)
        beyond = WORKSPACE.beyond(start[None])[0]
        inside_itself = beyond[BOUNDARIES[2] :].max() > WORKSPACE.clearance + 0.005
        if not 0.0 < beyond.max() < 0.06 or inside_itself:
            continue
        led += 1
        point = SetPoint(LIMITS, WORKSPACE)
        point.seed(start)
        for tick in range(4000):
            if WORKSPACE.depth(point.position[None])[0] == 0.0:
                break
            if tick % 10 == 0:
                goal = point.position + 0.03 * way_in(point.position)
            point.follow(goal, DT)
        assert WORKSPACE.depth(point.position[None])[0] == 0.0, (start, point.blocked)


def way_in(pose: np.ndarray) -> np.ndarray:
    """A direction (7,) in which nothing that is furthest beyond a boundary goes further."""
    steps = np.vstack([np.zeros(7), np.eye(7), -np.eye(7)]) * 1e-5
    beyond = WORKSPACE.beyond(pose + steps)
    slopes = ((beyond[1:8] - beyond[8:]) / 2e-5).T  # (R, 7)
    sizes = np.diff([*BOUNDARIES, len(slopes)])
    furthest = np.maximum.reduceat(beyond[0], BOUNDARIES).repeat(sizes)
    active = (furthest > -0.004) & (beyond[0] > furthest - 0.003)
    pace = np.where(furthest > -0.0015, 1.0, 0.2)[active]
    lower = np.where(pose <= LIMITS.lower, 0.0, -1.0)
    upper = np.where(pose >= LIMITS.upper, 0.0, 1.0)
    found = linprog(  # the fastest way in
        np.append(np.zeros(7), -1.0),
        np.column_stack([slopes[active], pace]),
        np.zeros(active.sum()),
        bounds=[*zip(lower, upper, strict=True), (0.0, 1.0)],
    )
    return found.x[:7]


def test_a_blocked_arm_says_why_and_moves_as_soon_as_the_reference_leads_away():
    above = np.append(inverse_kinematics(np.array([0.3, 0.0, 0.08]), 0.3), 0.09)
    below = np.append(inverse_kinematics(np.array([0.3, 0.0, -0.05]), 0.3), 0.09)
    point = SetPoint(LIMITS, WORKSPACE)
    point.seed(above)
    for _ in range(600):
        point.follow(below, DT)
    assert "tool 0.06" in point.blocked and "below the floor" in point.blocked
    assert WORKSPACE.depth(point.position[None])[0] == 0.0
    left = -WORKSPACE.beyond(point.position[None])[0, BOUNDARIES[1]]
    assert left < 0.01, "the arm goes down as far as it may"
    held = point.position
    for _ in range(10):
        point.follow(above, DT)
        assert point.blocked == ""
    assert np.abs(point.position - held).max() > 1e-3
    for _ in range(600):
        point.follow(above, DT)
    np.testing.assert_allclose(point.position, above, atol=1e-6)


def test_joints_move_in_proportion_where_each_at_its_own_pace_would_go_further_out():
    start = np.array([-1.18, 2.21, -0.17, -1.3, 0.89, -1.85, 0.04])
    goal = start + 0.03 * way_in(start)
    point = SetPoint(LIMITS, WORKSPACE)
    point.seed(start)
    for _ in range(100):
        point.follow(goal, DT)
    assert np.linalg.norm(point.position - start) > 0.01, point.blocked


def test_an_arm_at_rest_beyond_the_margin_does_not_move_further_out_but_can_come_in():
    point = SetPoint(LIMITS, Workspace())
    point.seed(np.zeros(7))  # joints 2 and 3 lie on their limits
    for _ in range(200):
        point.follow(np.array([0, -1.0, 1.0, 0, 0, 0, 0]), DT)
    assert point.position[1] >= 0.0 and point.position[2] <= 0.0
    inside = np.array([0, 0.5, -0.5, 0, 0, 0, 0])
    for _ in range(600):
        point.follow(inside, DT)
    np.testing.assert_allclose(point.position, inside, atol=1e-6)


def track(reference: Callable[[float], np.ndarray], seconds: float = 3.0) -> np.ndarray:
    """The distance (T, 7) of the set-point to a reference."""
    point = SetPoint(LIMITS, WORKSPACE)
    point.seed(reference(0.0))
    errors = []
    for tick in range(1, round(seconds / DT)):
        wanted = reference(tick * DT)
        errors.append(np.abs(point.follow(wanted, DT) - wanted))
    assert point.position_clamps == 0 and point.velocity_clamps == 0 and point.blocked == ""
    return np.array(errors)


SIZES = np.array([1, -1, -1, 1, -1, 1, 0.1])  # the tool rises


def test_a_smooth_reference_is_tracked_within_a_milliradian():
    errors = track(lambda time: MANUFACTURERS_HOME + 0.2 * SIZES * (1 - np.cos(2.0 * time)))
    assert errors.max() < 1e-3


def test_a_steady_reference_is_met_and_then_followed_without_lag():
    errors = track(lambda time: MANUFACTURERS_HOME + 0.2 * SIZES * time, seconds=2.0)
    assert errors.max() < 0.02, "while the set-point speeds up"
    assert errors[100:].max() < 1e-6


def test_rows_at_10_hz_are_followed_closely():
    times = np.arange(0.0, 4.0, 0.1)
    rows = MANUFACTURERS_HOME + 0.3 * np.sin(0.6 * np.pi * times)[:, None] * SIZES * 0.9
    errors = track(
        lambda time: np.array([np.interp(time, times, rows[:, column]) for column in range(7)])
    )
    assert errors[100:].mean() < 0.01


def test_a_still_goal_is_reached_without_overshoot():
    point = SetPoint(LIMITS)
    goal = MANUFACTURERS_HOME + np.array([0.5, -0.3, 0.2, 0.1, -0.1, 0.7, 0.03])
    point.seed(MANUFACTURERS_HOME)
    for _ in range(600):
        point.follow(goal, DT)
        assert ((point.position - goal) * np.sign(goal - MANUFACTURERS_HOME) <= 1e-6).all()
    np.testing.assert_allclose(point.position, goal, atol=1e-6)
    assert point.velocity_clamps == 1, "the jump"


def test_references_beyond_the_bounds_are_clamped_and_counted():
    point = SetPoint(LIMITS)
    point.seed(MANUFACTURERS_HOME)
    for _ in range(5):
        point.follow(np.array([1e308, 1.5, -1e308, 0, 0, 0, 0.05]), DT)
    assert point.position_clamps == 5 and point.velocity_clamps == 1


def moving(limits: MotionLimits = LIMITS) -> SetPoint:
    point = SetPoint(limits)
    point.seed(MANUFACTURERS_HOME)
    for _ in range(100):
        point.follow(MANUFACTURERS_HOME + [2.0, 0, 0, 0, 0, 0, 0], DT)
    assert point.velocity[0] == pytest.approx(1.0)
    return point


def test_braking_takes_the_time_and_the_way_that_the_limits_need():
    point = moving()
    start, ticks = point.position[0], 0
    while not point.at_rest:
        point.brake(DT)
        ticks += 1
    needed = 1.0 / 5.0 + 5.0 / 50.0  # velocity / acceleration + acceleration / jerk
    assert ticks * DT == pytest.approx(needed, abs=2 * DT)
    assert point.position[0] - start == pytest.approx(needed / 2, abs=1e-6)


def test_a_stop_does_not_depend_on_the_ticks():
    one, other = moving(), moving()
    for _ in range(5):
        one.brake(0.02)
        for dt in (0.003, 0.009, 0.001, 0.007):
            other.brake(dt)
        np.testing.assert_allclose(one.position, other.position, atol=1e-12)
        np.testing.assert_allclose(one.velocity, other.velocity, atol=1e-12)


def test_after_a_restart_the_set_point_is_at_rest_where_it_was():
    point = moving()
    held = point.position
    point.restart()
    assert point.at_rest and not point.velocity.any() and not point.acceleration.any()
    np.testing.assert_array_equal(point.brake(DT), held)
    point.follow(held, DT)
    np.testing.assert_allclose(point.position, held, atol=1e-12)


def test_when_no_motion_can_be_computed_the_verified_stop_is_taken(monkeypatch):
    point, other = moving(), moving()

    def fail(*_: object) -> None:
        raise ValueError("no motion")

    monkeypatch.setattr(motion, "_trajectory", fail)
    for _ in range(100):
        point.follow(MANUFACTURERS_HOME, DT)
        np.testing.assert_array_equal(point.position, other.brake(DT))
    assert point.at_rest and point.blocked == ""


def test_the_gripper_reaches_its_full_speed_in_time():
    point = SetPoint(LIMITS)
    point.seed(MANUFACTURERS_HOME * [1, 1, 1, 1, 1, 1, 0])
    for _ in range(round(GRIPPER_SPEED_UP / DT)):
        point.follow(MANUFACTURERS_HOME * [1, 1, 1, 1, 1, 1, 0] + [0, 0, 0, 0, 0, 0, 0.1], DT)
    assert point.velocity[6] == pytest.approx(0.3)
