"""When chunks are planned and which of their rows are executed."""

import numpy as np
import pytest
import torch

from alam_core.errors import UserError
from alam_core.runtime import Replanner
from alam_core.types import ActionChunk, Observation


class CountingRunner:
    """Row i of the n-th chunk is [n, i]."""

    horizon = 16
    joint_names = ("a", "b")
    state_dim = 2
    device = torch.device("cpu")

    def __init__(self, given_steps=0):
        self.stamps, self.given, self.given_steps = [], [], given_steps

    def infer(self, observation, generator, given=None):
        self.stamps.append(observation.stamp)
        self.given.append(given)
        rows = np.stack([np.full(16, len(self.stamps) - 1), np.arange(16)], 1)
        return ActionChunk(rows.astype(np.float32), 0.1, observation.stamp)


def play(steps, replan_every, delay_steps, given_steps=0):
    runner = CountingRunner(given_steps)
    replanner = Replanner(runner, replan_every, delay_steps, lambda state: state)
    actions = [
        replanner.act(Observation({}, np.array([50.0, t], np.float32), "go", float(t)))
        for t in range(steps)
    ]
    return runner, [tuple(int(x) for x in action) for action in actions]


@pytest.mark.parametrize("replan_every", [1, 4, 8, 16])
def test_without_delay_each_step_plays_the_row_of_the_newest_chunk_that_is_due(replan_every):
    runner, actions = play(33, replan_every, 0)
    assert runner.stamps == [float(t) for t in range(0, 33, replan_every)]
    assert actions == [(t // replan_every, t % replan_every) for t in range(33)]


@pytest.mark.parametrize(
    ("replan_every", "delay"), [(1, 1), (4, 2), (8, 3), (4, 9), (3, 4), (8, 8)]
)
def test_with_delay_the_older_chunk_goes_on_and_expired_rows_are_dropped(replan_every, delay):
    _, actions = play(40, replan_every, delay)
    assert actions[:delay] == [(50, 0)] * delay  # held where the arm was first seen
    for t in range(delay, 40):
        chunk = (t - delay) // replan_every
        assert actions[t] == (chunk, t - chunk * replan_every)


@pytest.mark.parametrize(
    ("replan_every", "delay"), [(1, 1), (4, 2), (8, 3), (4, 9), (3, 4), (8, 8)]
)
def test_a_policy_that_can_is_given_what_is_executed_while_it_plans(replan_every, delay):
    runner, actions = play(40, replan_every, delay, given_steps=9)
    for number, planned in enumerate(range(0, 40 - delay, replan_every)):
        if planned < delay:
            assert runner.given[number] is None  # the arm holds where it was first seen
        else:
            assert [tuple(map(int, row)) for row in runner.given[number]] == actions[
                planned : planned + delay
            ]


def test_a_policy_that_cannot_is_given_nothing():
    assert set(play(40, 4, 2)[0].given) == {None}
    assert set(play(40, 4, 3, given_steps=2)[0].given) == {None}
    assert set(play(40, 4, 0, given_steps=2)[0].given) == {None}


def test_a_chunk_that_would_run_out_is_refused():
    with pytest.raises(UserError, match="needs chunks of 17 steps, this policy's have 16"):
        Replanner(CountingRunner(), 12, 5)
    with pytest.raises(UserError, match="at least 1"):
        Replanner(CountingRunner(), 0)
    with pytest.raises(UserError, match="a delay needs to know what holds the arm"):
        Replanner(CountingRunner(), 8, 2)


def test_reset_begins_anew():
    runner = CountingRunner()
    replanner = Replanner(runner, 8, 2, lambda state: state)
    for t in range(11):
        replanner.act(Observation({}, np.zeros(2, np.float32), "go", float(t)))
    replanner.reset()
    assert replanner.chunk is None
    assert replanner.due()
    assert replanner.act(Observation({}, np.array([7.0, 8.0], np.float32), "go", 0.0)).tolist() == [
        7.0,
        8.0,
    ]
