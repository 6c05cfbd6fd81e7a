"""When chunks are planned, what they continue from, and what is left of them when they are sent."""

import numpy as np
import pytest
from runtime_fixtures import CountingRunner

from alam_core.errors import UserError
from alam_core.runtime.planner import DelayEstimate, Planner
from alam_core.types import Observation

DT = CountingRunner.dt


def observe(stamp):
    return Observation({}, np.zeros(2, np.float32), "go", stamp)


def planned_from(stamps, replan_every):
    """Stamps of the observations that a planner plans from."""
    planner = Planner(CountingRunner(), replan_every)
    for stamp in stamps:
        if planner.due(stamp):
            planner.plan(observe(stamp))
    return planner.runner.stamps


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("replan_every", [1, 3, 8])
def test_repeated_observations_and_those_lost_between_plans_change_nothing(seed, replan_every):
    rng = np.random.default_rng(seed)
    stamps = 100.0 + DT * np.arange(60)
    expected = list(stamps[::replan_every])
    assert planned_from(stamps, replan_every) == expected
    kept = [
        stamp
        for i, stamp in enumerate(stamps)
        if i % replan_every == 0 or rng.random() < 0.5
        for _ in range(rng.integers(1, 4))
    ]
    assert planned_from(kept, replan_every) == expected


@pytest.mark.parametrize("seed", range(10))
def test_a_lost_observation_delays_its_plan_to_the_next_one(seed):
    rng = np.random.default_rng(seed)
    stamps = [float(stamp) for stamp in DT * np.arange(100) if rng.random() < 0.6]
    plans = planned_from(stamps, 5)
    assert plans[0] == stamps[0]
    for before, after in zip(plans, plans[1:], strict=False):
        assert after == next(stamp for stamp in stamps if stamp > before + 4.5 * DT)


def test_jitter_of_less_than_half_a_step_changes_no_count():
    rng = np.random.default_rng(0)
    stamps = DT * np.arange(80)
    jittered = stamps + rng.uniform(-0.2, 0.2, 80) * DT
    assert planned_from(jittered, 8) == list(jittered[::8])


def test_a_clock_that_was_set_back_makes_a_plan_due():
    planner = Planner(CountingRunner(), 8)
    planner.plan(observe(50.0))
    assert not planner.due(50.0) and not planner.due(50.3)
    assert planner.due(3.0)


def test_a_chunk_is_given_what_is_executed_until_it_takes_effect():
    planner = Planner(CountingRunner(given_steps=4), 8, delay_steps=3)
    planner.plan(observe(10.0), lambda time: np.array([time, -time]))
    expected = [[10.1, -10.1], [10.2, -10.2], [10.3, -10.3]]
    np.testing.assert_allclose(planner.runner.given[0], expected)


@pytest.mark.parametrize(("given_steps", "delay_steps"), [(0, 3), (2, 3), (4, 0)])
def test_a_policy_that_cannot_continue_from_that_many_steps_is_given_none(given_steps, delay_steps):
    planner = Planner(CountingRunner(given_steps), 8, delay_steps)
    planner.plan(observe(10.0), lambda time: np.zeros(2))
    assert planner.runner.given == [None]
    assert planner.ready(10.2).first_step == 0


def test_nothing_is_given_where_the_arm_executes_nothing_for_a_part_of_the_delay():
    planner = Planner(CountingRunner(given_steps=4), 8, delay_steps=3)
    planner.plan(observe(10.0), lambda time: np.zeros(2) if time < 10.25 else None)
    planner.plan(observe(11.0))
    assert planner.runner.given == [None, None]


@pytest.mark.parametrize("passed", [-0.5, 0.0, 0.9, 1.0, 2.0, 2.99, 3.0, 4.0, 9.0])
def test_a_ready_chunk_lacks_the_given_steps_that_have_passed(passed):
    planner = Planner(CountingRunner(given_steps=4), 8, delay_steps=3)
    planner.plan(observe(10.0), lambda time: np.zeros(2))
    chunk = planner.ready(10.0 + passed * DT)
    dropped = min(3, max(0, int(passed)))
    assert chunk.first_step == dropped
    assert chunk.actions[:, 1].tolist() == list(range(dropped, 16))
    assert chunk.due(0) == pytest.approx(10.0 + (dropped + 1) * DT)
    assert chunk.end == pytest.approx(10.0 + 16 * DT)


def test_the_estimate_of_the_delay_leaves_the_first_one_out_and_forgets():
    delay = DelayEstimate(window=3)
    assert delay.seconds == 0.0
    delay.add(60.0)
    assert delay.seconds == 0.0
    for seconds, expected in ((0.2, 0.2), (0.3, 0.3), (0.1, 0.3), (0.1, 0.3), (0.1, 0.1)):
        delay.add(seconds)
        assert delay.seconds == expected


def test_an_estimated_delay_is_rounded_up_to_whole_steps_except_for_a_small_excess():
    planner = Planner(CountingRunner(given_steps=4), 8, delay_steps=None)
    assert planner.delay_steps == 0
    for seconds, steps in ((9.0, 0), (0.05, 1), (0.11, 1), (0.13, 2), (0.3, 3)):
        planner.delay.add(seconds)
        assert planner.delay_steps == steps
    planner.reset()
    assert planner.delay_steps == 3  # the delay is that of the machine, not of the episode


def test_a_chunk_that_would_run_out_is_refused():
    with pytest.raises(UserError, match="needs chunks of 17 steps, this policy's have 16"):
        Planner(CountingRunner(), 12, 5)
    with pytest.raises(UserError, match="at least 1"):
        Planner(CountingRunner(), 0)
    with pytest.raises(UserError, match="delay_steps at least 0"):
        Planner(CountingRunner(), 8, -1)


def test_a_reset_begins_an_episode_and_sequence_numbers_continue():
    planner = Planner(CountingRunner(), 8, first_sequence=70)
    assert [planner.plan(observe(t)).sequence for t in (0.0, 0.8)] == [70, 71]
    planner.reset()
    assert planner.chunk is None and planner.due(0.9)
    assert planner.plan(observe(0.9)).sequence == 72


def test_the_seed_of_an_episode_determines_the_noise_of_its_chunks():
    planner = Planner(CountingRunner(), 8)
    for seed in (3, 4):
        planner.reset(seed)
        for stamp in (0.0, 0.8):
            planner.plan(observe(stamp))
    assert planner.runner.seeds == [3, 3, 4, 4]
