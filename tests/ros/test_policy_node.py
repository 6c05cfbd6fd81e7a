"""The policy node as a real process over DDS: goals, chunks, cancelling, and what happens when its
input stops.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from policy_world import MS, STATE, STEP, TASK, World
from tiny_checkpoints import DIM, HORIZON, TOKENS, save_tiny_policy

from alam_common.messages import stamp_to_ns
from alam_core import types
from alam_core.robots.piper import JOINT_NAMES
from alam_core.runtime.planner import Planner
from alam_core.runtime.runner import PolicyRunner
from alam_core.types import VIEWS


@pytest.fixture
def world(ros, start_node: Callable, tmp_path: Path) -> World:
    save_tiny_policy(tmp_path / "policy")
    parameters = {
        "checkpoint": str(tmp_path / "policy"),
        "use_sim_time": True,
        "replan_every": 4,
        "seed": 5,
        "silence_timeout": 6.0,
    }
    world = World(ros)
    world.process = start_node("alam_policy", "policy", parameters)  # type: ignore[attr-defined]
    world.wait_until_connected()
    return world


def test_a_goal_from_acceptance_to_success(world: World, tmp_path: Path) -> None:
    for _ in range(3):
        world.tick()
    assert not world.chunks  # nothing is sent without a goal
    goal = world.send_goal()
    assert goal.accepted
    first = len(world.sent)
    for _ in range(9):
        world.tick()
    world.ros.wait_for(
        lambda: len(world.chunks) == 3 and len(world.latents) == 3, what="three chunks"
    )

    # The node sends what the library computes, with the stamps of the observations used.
    planner = Planner(PolicyRunner.from_pretrained(tmp_path / "policy"), replan_every=4)
    planner.reset(seed=5)
    expected = []
    for stamp in world.sent[first:]:
        images = dict(zip(VIEWS, world.picture(stamp), strict=True))
        if planner.due(stamp * 1e-9):
            observation = types.Observation(images, STATE, TASK, stamp * 1e-9)
            expected.append((stamp, planner.plan(observation)))
    sequences = [chunk.sequence for chunk in world.chunks]
    assert sequences == [sequences[0], sequences[0] + 1, sequences[0] + 2]
    for chunk, latents, (stamp, wanted) in zip(world.chunks, world.latents, expected, strict=True):
        assert (
            stamp_to_ns(chunk.header.stamp) == stamp
            and chunk.dt == pytest.approx(0.1)
            and (chunk.first_step, chunk.steps) == (0, HORIZON)
        )
        assert tuple(chunk.joint_names) == JOINT_NAMES
        np.testing.assert_allclose(
            np.reshape(chunk.positions, (HORIZON, 7)), wanted.actions, atol=1e-5
        )
        assert latents.sequence == chunk.sequence and latents.header.stamp == chunk.header.stamp
        assert len(latents.transitions) == HORIZON * len(VIEWS)
        for i, transition in enumerate(latents.transitions):
            step, view = divmod(i, len(VIEWS))
            assert (transition.view, transition.tokens, transition.dim) == (
                VIEWS[view],
                TOKENS,
                DIM,
            )
            assert (stamp_to_ns(transition.from_stamp), stamp_to_ns(transition.to_stamp)) == (
                stamp + step * STEP,
                stamp + (step + 1) * STEP,
            )
            np.testing.assert_allclose(
                transition.data, wanted.latents[VIEWS[view]][step], atol=1e-4
            )

    world.judge(True, instruction="put the blue cube on the plate")  # another task
    world.judge(True, stamp=world.sent[0])  # from before the goal
    world.judge(False)
    world.tick()
    assert goal.status == GoalStatus.STATUS_ACCEPTED or goal.status == GoalStatus.STATUS_EXECUTING
    world.ros.wait_for(lambda: world.feedback, what="feedback")
    assert 0 < world.feedback[-1].elapsed < 2 and world.feedback[-1].inference_ms > 0
    answer = world.result(goal, again=lambda: world.judge(True))
    assert answer.status == GoalStatus.STATUS_SUCCEEDED and answer.result.success
    assert answer.result.chunks == 3 and answer.result.duration == pytest.approx(1.0, abs=0.25)
    for _ in range(5):
        world.tick()
    assert len(world.chunks) == 3  # nothing is sent after the goal's end
    assert {stamp_to_ns(message.header.stamp) for message in world.processed} == set(world.sent)


def test_one_goal_at_a_time_and_a_cancel_stops_the_chunks(world: World) -> None:
    def refused(**goal: Any) -> str:
        answer = world.result(world.send_goal(**goal))
        assert answer.status == GoalStatus.STATUS_ABORTED and not answer.result.success
        return answer.result.reason

    assert refused(instruction=" ") == "the instruction is empty"
    assert refused(time_limit=float("nan")) == "the time limit nan is not a number >= 0"
    assert refused(time_limit=-1.0) == "the time limit -1.0 is not a number >= 0"
    goal = world.send_goal()
    reason = refused(instruction="something else")
    assert reason == f"'{TASK}' is still active; cancel it first"
    for _ in range(2):
        world.tick()
    world.ros.wait_for(lambda: world.chunks, what="a chunk")
    answer = world.result(goal, again=goal.cancel_goal_async)
    assert answer.status == GoalStatus.STATUS_CANCELED and not answer.result.success
    sent = len(world.chunks)
    for _ in range(9):
        world.tick()
    assert len(world.chunks) == sent

    again = world.send_goal()
    assert again.accepted
    world.tick()
    world.ros.wait_for(lambda: len(world.chunks) > sent, what="a chunk of the next goal")
    assert world.chunks[sent].sequence == world.chunks[sent - 1].sequence + 1


def test_how_goals_fail(world: World) -> None:
    # The time limit has passed.
    answer = world.result(world.send_goal(time_limit=1.5), tick=True)
    assert answer.status == GoalStatus.STATUS_ABORTED and not answer.result.success
    assert "not done within 1.5 s" in answer.result.reason
    world.ros.wait_for(lambda: world.says("waiting for a goal"), what="the diagnosis")

    # The policy cannot use the instruction; the node continues.
    answer = world.result(world.send_goal(instruction="word " * 500), tick=True)
    assert answer.status == GoalStatus.STATUS_ABORTED and "instruction" in answer.result.reason

    # Time advances, but no observation arrives.
    goal = world.send_goal()
    world.tick()
    world.advance(1100 * MS)
    answer = world.result(goal)
    assert answer.status == GoalStatus.STATUS_ABORTED
    assert "no observation for 1." in answer.result.reason

    # Time stands still: the simulator has stopped.
    goal = world.send_goal()
    world.tick()
    answer = world.result(goal)
    assert answer.status == GoalStatus.STATUS_ABORTED
    assert "s of wall time; has the simulator stopped?" in answer.result.reason
    world.ros.wait_for(lambda: world.says("no observation for"), what="the diagnosis")


def test_a_state_outside_the_range_of_training_is_diagnosed(
    ros, start_node: Callable, tmp_path: Path
) -> None:
    policy = save_tiny_policy(tmp_path / "policy")
    policy.stats.state_range = np.stack([STATE - 0.1, STATE + 0.1])
    policy.stats.state_range[:, 3] = STATE[3] - 1.5  # joint4, 0.5 beyond what is let through
    policy.save_pretrained(tmp_path / "policy")
    start_node(
        "alam_policy", "policy", {"checkpoint": str(tmp_path / "policy"), "use_sim_time": True}
    )
    world = World(ros)
    world.wait_until_connected()
    assert world.send_goal(time_limit=600.0).accepted
    world.tick()
    ros.wait_for(
        lambda: world.says(
            "outside the range of training: joint4 is 0.03, 1.5 outside -1.47 to -1.47 (clipped)"
        ),
        what="the diagnosis",
        again=world.tick,
    )


def test_a_goal_needs_ros_time_and_is_aborted_when_it_jumps_back(
    ros, start_node: Callable, tmp_path: Path
) -> None:
    save_tiny_policy(tmp_path / "policy")
    start_node(
        "alam_policy", "policy", {"checkpoint": str(tmp_path / "policy"), "use_sim_time": True}
    )
    world = World(ros)
    ros.wait_for(lambda: world.says("no ROS time yet"), timeout=120, what="the diagnosis")
    assert not world.client.server_is_ready()
    world.wait_until_connected()
    goal = world.send_goal(time_limit=600.0)
    assert goal.accepted
    for _ in range(3):
        world.tick()
    world.now = 1000 * MS - STEP  # as if the simulator were restarted
    answer = world.result(goal, tick=True)
    assert answer.status == GoalStatus.STATUS_ABORTED and "jumped back" in answer.result.reason


def test_without_a_checkpoint_it_ends_with_one_clear_line(start_node: Callable) -> None:
    processes = [
        start_node("alam_policy", "policy", {"checkpoint": folder})
        for folder in ("", "/nowhere/policy")
    ]
    for process in processes:
        assert process.wait(120) == 2
        assert process.last_line().startswith("error: ") and "checkpoint" in process.last_line()
        assert not any("Traceback" in line for line in process.lines)
