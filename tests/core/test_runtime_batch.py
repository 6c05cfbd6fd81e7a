"""Several episodes planned in one call of the policy give what each gives alone, up to rounding."""

import numpy as np
import pytest
import torch
from policy_fixtures import random_observation, tiny_policy
from world_fixtures import BlobWorld, DrivenBlobWorld

from alam_core.robots.piper import JOINT_LIMITS
from alam_core.runtime.batch import play_batched
from alam_core.runtime.execution import ControllerExecution, StepExecution
from alam_core.runtime.motion import make_limits
from alam_core.runtime.planner import Planner
from alam_core.runtime.rollout import DemonstrationRecorder, rollout_steps
from alam_core.runtime.runner import PlanRequest, PolicyRunner

LIMITS = make_limits(
    JOINT_LIMITS, velocity=1.0, acceleration=10.0, jerk=100.0, gripper_velocity=0.1
)


class CountingBatches(PolicyRunner):
    """Keeps the sizes of the batches and the numbers of given steps."""

    def __init__(self, **model):
        super().__init__(tiny_policy(**model))
        self.batches = []

    def infer_batch(self, requests):
        given = [0 if request.given is None else len(request.given) for request in requests]
        self.batches.append((len(requests), set(given)))
        return super().infer_batch(requests)


def requests(count, given=None):
    return [
        PlanRequest(random_observation(seed=i), torch.Generator().manual_seed(i), given)
        for i in range(count)
    ]


@pytest.mark.parametrize("given_steps", [0, 2])
def test_a_batch_holds_the_chunk_of_each_request(given_steps):
    runner = PolicyRunner(tiny_policy(given_steps=given_steps))
    given = np.full((given_steps, 7), 0.1, np.float32) if given_steps else None
    batch = requests(3, given)
    for chunk, request, drawn in zip(
        runner.infer_batch(batch), requests(3, given), batch, strict=True
    ):
        alone = runner.infer(request.observation, request.generator, request.given)
        np.testing.assert_allclose(chunk.actions, alone.actions, atol=1e-4)
        for view, latents in alone.latents.items():
            np.testing.assert_allclose(chunk.latents[view], latents, atol=1e-3)
        assert (chunk.stamp, chunk.dt) == (alone.stamp, alone.dt)
        # the generators go on from the same place
        assert torch.equal(request.generator.get_state(), drawn.generator.get_state())


def play(kind, runner, slots, seeds, delay):
    """Seed -> the actions of its episode."""
    recorders = {}
    world_type = BlobWorld if kind == "steps" else DrivenBlobWorld
    worlds = [world_type() for _ in range(slots)]
    agents = [
        StepExecution(planner, worlds[0].hold)
        if kind == "steps"
        else ControllerExecution(planner, LIMITS)
        for planner in (Planner(runner, 2, delay) for _ in range(slots))
    ]

    def begin(number, seed):
        recorders[seed] = DemonstrationRecorder()
        yield from rollout_steps(worlds[number], agents[number], seed, [recorders[seed]])
        return seed

    ended = list(play_batched(runner, agents, begin, seeds))
    return ended, {seed: np.stack(recorder.actions) for seed, recorder in recorders.items()}


@pytest.mark.parametrize("kind", ["steps", "controller"])
@pytest.mark.parametrize("delay", [0, 1])
def test_episodes_side_by_side_are_those_of_one_after_another(kind, delay):
    runner = CountingBatches(given_steps=delay)
    seeds = range(7)
    ended, together = play(kind, runner, 3, seeds, delay)
    assert sorted(ended) == sorted(together) == list(seeds)
    if kind == "steps":  # seed 3 succeeds after three steps and ends before those begun with it
        assert ended != sorted(ended)
    assert {size for size, _ in runner.batches} == {3}
    assert {frozenset(given) for _, given in runner.batches} == (
        {frozenset({0})} if delay == 0 else {frozenset({0}), frozenset({1})}
    )
    runner.batches.clear()
    _, alone = play(kind, runner, 1, seeds, delay)
    for seed in seeds:
        np.testing.assert_allclose(together[seed], alone[seed], atol=1e-3)
    again = play(kind, runner, 3, seeds, delay)[1]
    assert all(np.array_equal(together[seed], again[seed]) for seed in seeds)


def test_fewer_seeds_than_agents_are_enough():
    runner = CountingBatches()
    ended, _ = play("steps", runner, 3, [3], 0)
    assert ended == [3] and {size for size, _ in runner.batches} == {3}
