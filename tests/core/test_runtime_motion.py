"""The set-point generator: no input makes it break a limit, and a feasible reference is followed
exactly.
"""

import numpy as np
import pytest

from alam_core.robots.piper import JOINT_LIMITS
from alam_core.runtime.motion import SetPoint, make_limits

DT = 0.005


def random_references(rng: np.random.Generator, ticks: int) -> np.ndarray:
    """(ticks, 7): jumps, ramps, far outside the limits, sometimes still."""
    kind = rng.integers(3)
    if kind == 0:
        return rng.uniform(-6, 6, (ticks // 20 + 1, 7)).repeat(20, axis=0)[:ticks]
    if kind == 1:
        return np.cumsum(rng.normal(0, rng.choice([0.001, 0.01, 0.1]), (ticks, 7)), axis=0)
    return rng.normal(0, 3, (ticks, 7))


@pytest.mark.parametrize("seed", range(30))
def test_limits_are_never_broken(seed):
    rng = np.random.default_rng(seed)
    limits = make_limits(
        JOINT_LIMITS, velocity=rng.uniform(0.2, 3.0), acceleration=rng.uniform(1.0, 30.0)
    )
    point = SetPoint(limits)
    slack = rng.uniform(-0.05, 0.05, 7)  # some seeds lie outside
    point.seed(np.where(rng.random(7) < 0.5, limits.lower, limits.upper) + slack)
    lower, upper = (
        np.minimum(limits.lower, point.position),
        np.maximum(limits.upper, point.position),
    )
    for reference in random_references(rng, 400):
        dt = DT if rng.random() < 0.8 else rng.uniform(0.001, 0.02)
        before, speed = point.position, point.velocity
        after = point.brake(dt) if rng.random() < 0.05 else point.follow(reference, dt)
        assert (after >= lower - 1e-9).all() and (after <= upper + 1e-9).all()
        assert np.allclose(after, before + point.velocity * dt)
        assert (np.abs(point.velocity) <= limits.velocity + 1e-9).all()
        assert (np.abs(point.velocity - speed) <= limits.acceleration * dt + 1e-9).all()


def test_a_seed_outside_the_bounds_is_not_moved_further_out_but_can_come_in():
    limits = make_limits(
        JOINT_LIMITS,
    )
    point = SetPoint(limits)
    rest = np.zeros(7)  # joints 2 and 3 of an arm at rest lie on their limits, beyond the margin
    point.seed(rest)
    outwards = np.array([0, -1.0, 1.0, 0, 0, 0, 0])
    for _ in range(200):
        point.follow(outwards, DT)
    assert (point.position[1] >= 0.0) and (point.position[2] <= 0.0)
    for _ in range(400):
        point.follow(np.array([0, 0.5, -0.5, 0, 0, 0, 0]), DT)
    assert np.allclose(point.position, [0, 0.5, -0.5, 0, 0, 0, 0], atol=1e-6)


def test_a_feasible_reference_is_followed_without_lag():
    point = SetPoint(
        make_limits(
            JOINT_LIMITS,
        )
    )
    home = np.array([0.0, 1.5, -1.3, 0.0, 0.0, 0.0, 0.05])
    point.seed(home)
    times = np.arange(1, 600) * DT
    for time in times:
        wanted = home + 0.2 * np.array([1, 1, 1, 1, 1, 1, 0.1]) * (1 - np.cos(2.0 * time))
        assert np.allclose(point.follow(wanted, DT), wanted, atol=1e-9)
    assert point.position_clamps == 0 and point.velocity_clamps == 0


def test_a_still_goal_is_reached_without_overshoot():
    point = SetPoint(
        make_limits(
            JOINT_LIMITS,
        )
    )
    home = np.array([0.0, 1.5, -1.3, 0.0, 0.0, 0.0, 0.05])
    goal = home + np.array([0.5, -0.3, 0.2, 0.1, -0.1, 0.7, 0.03])
    point.seed(home)
    for _ in range(600):
        point.follow(goal, DT)
        assert ((point.position - goal) * np.sign(goal - home) <= 1e-6).all()
    assert np.allclose(point.position, goal, atol=1e-6)
    assert point.velocity_clamps > 0


def test_braking_ends_at_rest():
    limits = make_limits(JOINT_LIMITS, acceleration=5.0)
    point = SetPoint(limits)
    point.seed(np.array([0.0, 1.5, -1.3, 0.0, 0.0, 0.0, 0.05]))
    for _ in range(100):
        point.follow(np.array([2.0, 1.5, -1.3, 0.0, 0.0, 0.0, 0.05]), DT)
    speed, start = point.velocity[0], point.position[0]
    assert speed == pytest.approx(1.0)
    ticks = 0
    while not point.at_rest:
        point.brake(DT)
        ticks += 1
    assert ticks * DT == pytest.approx(speed / 5.0, abs=2 * DT)
    assert point.position[0] - start <= speed**2 / (2 * 5.0) + 1e-9
