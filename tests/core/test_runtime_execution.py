"""Chunks become motion: which rows are executed step by step, and how a controller joins chunks."""

import numpy as np
import pytest
from runtime_fixtures import CountingRunner, WanderingRunner
from world_fixtures import DrivenBlobWorld

from alam_core.errors import UserError
from alam_core.robots.piper import JOINT_LIMITS
from alam_core.runtime.execution import ControllerExecution, StepExecution
from alam_core.runtime.motion import MotionLimits, make_limits
from alam_core.runtime.planner import Planner
from alam_core.runtime.rollout import rollout
from alam_core.sim.world import TICK
from alam_core.types import Observation

DT = CountingRunner.dt
DELAYS = [(1, 1), (4, 2), (8, 3), (4, 9), (3, 4), (8, 8)]


def observe(step, start=0.0):
    return Observation({}, np.array([50.0, step], np.float32), "go", start + DT * step)


def steps_of(runner, replan_every, delay_steps):
    return StepExecution(Planner(runner, replan_every, delay_steps), lambda state: state)


def play(steps, replan_every, delay_steps, given_steps=0):
    runner = CountingRunner(given_steps)
    execution = steps_of(runner, replan_every, delay_steps)
    actions = [execution.act(observe(t)) for t in range(steps)]
    return runner, [tuple(int(x) for x in action) for action in actions]


@pytest.mark.parametrize("replan_every", [1, 4, 8, 16])
def test_without_delay_each_step_plays_the_row_of_the_newest_chunk_that_is_due(replan_every):
    runner, actions = play(33, replan_every, 0)
    assert runner.stamps == [DT * t for t in range(0, 33, replan_every)]
    assert actions == [(t // replan_every, t % replan_every) for t in range(33)]


@pytest.mark.parametrize(("replan_every", "delay"), DELAYS)
def test_with_delay_the_older_chunk_goes_on_and_expired_rows_are_dropped(replan_every, delay):
    _, actions = play(40, replan_every, delay)
    assert actions[:delay] == [(50, 0)] * delay  # the arm stays where it was first observed
    for t in range(delay, 40):
        chunk = (t - delay) // replan_every
        assert actions[t] == (chunk, t - chunk * replan_every)


@pytest.mark.parametrize(("replan_every", "delay"), DELAYS)
def test_a_policy_that_can_continue_is_given_what_is_executed_while_it_plans(replan_every, delay):
    runner, actions = play(40, replan_every, delay, given_steps=9)
    for number, planned in enumerate(range(0, 40 - delay, replan_every)):
        if planned < delay:
            assert runner.given[number] is None  # the arm still executes no chunk
        else:
            assert [tuple(map(int, row)) for row in runner.given[number]] == actions[
                planned : planned + delay
            ]


def test_a_policy_that_cannot_continue_is_given_nothing():
    assert set(play(40, 4, 2)[0].given) == {None}
    assert set(play(40, 4, 3, given_steps=2)[0].given) == {None}
    assert set(play(40, 4, 0, given_steps=2)[0].given) == {None}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("replan_every", "delay"), [(4, 0), *DELAYS])
def test_lost_and_repeated_observations_change_no_row(seed, replan_every, delay):
    _, expected = play(60, replan_every, delay)
    rng = np.random.default_rng(seed)
    execution = steps_of(CountingRunner(), replan_every, delay)
    for t in range(60):
        # Observations that are planned from are never lost.
        if t % replan_every == 0 or rng.random() < 0.5:
            for _ in range(rng.integers(1, 4)):
                assert tuple(execution.act(observe(t))) == expected[t]


def test_the_stamps_may_jitter_and_begin_anywhere():
    rng = np.random.default_rng(0)
    execution = steps_of(CountingRunner(), 8, 2)
    for t, row in enumerate(play(60, 8, 2)[1]):
        jitter = rng.uniform(-0.2, 0.2) * DT
        assert tuple(execution.act(observe(t, start=1e6 + jitter))) == row


def test_a_delay_requires_a_hold_action():
    with pytest.raises(UserError, match="give hold"):
        StepExecution(Planner(CountingRunner(), 8, 2))


def test_an_observation_without_a_stamp_is_refused():
    execution = StepExecution(Planner(CountingRunner()))
    with pytest.raises(UserError, match="has no stamp"):
        execution.act(Observation({}, np.zeros(2, np.float32), "go"))


def test_reset_begins_an_episode():
    execution = steps_of(CountingRunner(), 8, 2)
    for t in range(11):
        execution.act(Observation({}, np.zeros(2, np.float32), "go", DT * t))
    execution.reset()
    assert execution.planner.chunk is None
    assert execution.needs_images(0.0)
    first = Observation({}, np.array([7.0, 8.0], np.float32), "go", 0.0)
    assert execution.act(first).tolist() == [7.0, 8.0]


def test_after_a_clock_was_set_back_the_arm_stays_where_it_is_until_a_chunk_takes_effect():
    execution = steps_of(CountingRunner(), 8, 2)
    for t in range(11):
        execution.act(observe(t, start=90.0))
    actions = [tuple(execution.act(observe(t))) for t in range(3, 7)]
    assert actions == [(50, 3), (50, 3), (2, 2), (2, 3)]


def drive(runner, replan_every, delay, limits, steps=40):
    """The set-points (ticks, 7) of an episode, the first before its first tick."""
    world = DrivenBlobWorld()
    world.max_steps = steps
    rollout(world, ControllerExecution(Planner(runner, replan_every, delay), limits), seed=1)
    start = np.random.default_rng(1).uniform(-0.1, 0.1, 7).astype(np.float32)
    return np.stack([start, *world.set_points])


@pytest.mark.parametrize(("replan_every", "delay"), [(4, 0), *DELAYS])
@pytest.mark.parametrize("given_steps", [0, 9])
def test_a_controller_never_breaks_its_limits_and_holds_until_the_first_chunk(
    replan_every, delay, given_steps
):
    limits = make_limits(JOINT_LIMITS, velocity=1.0, acceleration=5.0)
    points = drive(WanderingRunner(given_steps, speed=0.3), replan_every, delay, limits)
    velocity = np.diff(points, axis=0) / TICK
    assert (np.abs(velocity) <= limits.velocity + 1e-9).all()
    change = np.diff(velocity, axis=0, prepend=np.zeros((1, 7)))
    assert (np.abs(change) <= limits.acceleration * TICK + 1e-9).all()
    still = round(delay * DT / TICK)
    assert (points[: still + 1] == points[0].clip(limits.range_lower)).all()
    assert np.abs(points[still + 1 :] - points[0]).max() > 0.01


def test_a_controllers_episode_does_not_depend_on_the_one_before():
    execution = ControllerExecution(Planner(WanderingRunner(9), 4, 9), make_limits(JOINT_LIMITS))
    world, played = DrivenBlobWorld(), []
    world.max_steps = 30
    for seed in (1, 2, 1):
        execution.planner.runner.rng = np.random.default_rng(0)
        rollout(world, execution, seed)
        played.append(np.stack(world.set_points))
    np.testing.assert_array_equal(played[2], played[0])


@pytest.mark.parametrize(("replan_every", "delay"), DELAYS)
def test_the_steps_that_a_chunk_is_given_are_those_that_the_arm_executes(replan_every, delay):
    wide = np.full(7, 1e2)  # limits that no reference meets, so that it is followed exactly
    limits = MotionLimits(-wide, wide, wide, wide * 1e3, wide * 1e6, -wide, wide)
    runner = WanderingRunner(given_steps=9)
    points = drive(runner, replan_every, delay, limits, steps=80)
    compared = 0
    for stamp, given in zip(runner.stamps, runner.given, strict=True):
        assert (given is None) == (stamp < delay * DT - 1e-9)
        for i, row in enumerate(() if given is None else given):
            tick = round((stamp + (i + 1) * DT) / TICK)
            if tick < len(points):
                np.testing.assert_allclose(points[tick], row, atol=1e-6)
                compared += 1
    assert compared > 20
    # Each chunk that continues from given steps joins the one before: no step is faster than the
    # chunks' own, as there is no gap to fade out.
    joined = round((2 * delay + replan_every) * DT / TICK)
    assert np.abs(np.diff(points[joined:], axis=0)).max() < 4.5 * runner.speed * TICK / DT
