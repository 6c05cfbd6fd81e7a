"""Worlds that execute one row of a chunk per control step: through ROS and directly, the same seeds
give the same actions and successes.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from alam_msgs.action import ExecuteTask
from alam_msgs.msg import ActionChunk, ArmStatus, Processed, TaskStatus
from alam_msgs.srv import ResetWorld
from rclpy.action import ActionClient
from tiny_checkpoints import save_tiny_world_policy

from alam_common.messages import ns_to_stamp, stamp_to_ns
from alam_core.runtime.execution import StepExecution
from alam_core.runtime.planner import Planner
from alam_core.runtime.rollout import rollout
from alam_core.runtime.runner import PolicyRunner
from alam_core.sim.world import make_world
from alam_core.types import Observation

WORLD, DT = "metaworld/push", 1 / 80
STEPS = 30


class Actions:
    """Keeps the actions of an episode, an observer of a rollout."""

    needs_images = False

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []

    def on_start(self, observation: Observation) -> None:
        self.rows = []

    def on_step(self, observation: Observation, action: np.ndarray, after: Observation) -> None:
        self.rows.append(action)


def direct(folder: Path, seed: int) -> np.ndarray:
    """The actions (STEPS, A) of an episode in this process."""
    runner = PolicyRunner.from_pretrained(folder, threads=1)
    world = make_world(WORLD, runner.image_size)
    world.max_steps = STEPS
    actions = Actions()
    rollout(world, StepExecution(Planner(runner, 4), world.hold), seed, [actions])
    world.close()
    return np.stack(actions.rows)


def test_the_same_seeds_give_the_same_actions_as_without_ros(ros, start, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    save_tiny_world_policy(folder, DT)
    arm = ros.collect(ArmStatus, "/alam/arm/status", 1000)
    status = ros.collect(TaskStatus, "/alam/task_status", 1000)
    up = [sys.executable, "-m", "alam_cli", "up", "metaworld", "task:=push"]
    start("graph", [*up, f"checkpoint:={folder}", "speed:=0", "device:=cpu"])
    client = ActionClient(ros.node, ExecuteTask, "/alam/execute_task")
    for seed in (8, 3):
        reset = ros.call(ResetWorld, "/alam/sim/reset", ResetWorld.Request(seed=seed), 120.0)
        assert reset.success, reset.message
        goal = ros.send_goal(
            client,
            "/alam/execute_task",
            ExecuteTask.Goal(instruction=reset.instruction, time_limit=600.0, seed=seed),
        )
        begun = ros.wait_for(
            lambda seed=seed: [m for m in status if m.seed == seed and m.steps == 0],
            what="the new episode",
        )[0]

        def executed(since: int = stamp_to_ns(begun.header.stamp)) -> list[ArmStatus]:
            return [
                message
                for message in arm
                if message.state == "EXECUTING" and stamp_to_ns(message.header.stamp) >= since
            ]

        ros.wait_for(lambda executed=executed: len(executed()) >= STEPS, 120.0, "the steps")
        goal.cancel_goal_async()
        expected = direct(folder, seed)
        found = np.array([message.set_point for message in executed()[:STEPS]])
        np.testing.assert_array_equal(found.astype(np.float32), expected)
        assert {m.task for m in status} == {"push"}
        ros.wait_for(goal.get_result_async().done, what="the end of the goal")


@pytest.fixture
def world(ros, start_node):
    """The node alone, with what it publishes; chunks are sent by the test."""
    parameters = {"world": WORLD, "seed": 1, "lockstep": True}
    start_node("alam_sim", "step_node", parameters)
    return ros


def test_it_stands_still_without_a_chunk_and_says_why(world) -> None:
    arm = world.collect(ArmStatus, "/alam/arm/status", 100)
    status = world.collect(TaskStatus, "/alam/task_status", 100)
    chunks = world.node.create_publisher(ActionChunk, "/alam/action_chunk", 10)
    world.wait_for(lambda: len(status) > 3 and arm, 120.0, "the world")
    assert {message.steps for message in status} == {0}
    assert arm[-1].state == "HOLDING" and arm[-1].reason == "no chunk to execute"

    def send(width: int, sequence: int) -> None:
        chunk = ActionChunk(sequence=sequence, dt=DT, steps=3, positions=[0.0] * 3 * width)
        chunk.header.stamp = ns_to_stamp(stamp_to_ns(status[-1].header.stamp) + 2_000_000_000)
        chunks.publish(chunk)

    world.wait_for(lambda: "numbers" in arm[-1].reason, what="the reason", again=lambda: send(7, 1))
    # A chunk is executed when its time has come, row by row, and the world stands still again.
    send(4, 2)
    world.wait_for(lambda: status[-1].steps == 3, what="three steps", again=None)
    rows = [message.row for message in arm if message.state == "EXECUTING"]
    assert rows == [0, 1, 2]
    world.wait_for(lambda: arm[-1].reason == "no chunk to execute", what="the end of the chunk")


def test_without_lockstep_nobody_is_waited_for(ros, start_node) -> None:
    start_node("alam_sim", "step_node", {"world": WORLD, "lockstep": False})
    status = ros.collect(TaskStatus, "/alam/task_status", 1000)
    processed = ros.node.create_publisher(Processed, "/alam/processed", 10)
    ros.wait_for(lambda: status, 120.0, "the world")

    def tell() -> None:  # a node that is behind, and sent a chunk that never arrived
        message = Processed(node="slow", sequence=9)
        message.header.stamp = status[0].header.stamp
        processed.publish(message)

    ros.wait_for(processed.get_subscription_count, what="the subscription")
    tell()
    count = len(status)
    ros.wait_for(lambda: len(status) > count + 50, what="time that goes on", again=tell)


def test_a_reset_begins_a_new_episode(world) -> None:
    status = world.collect(TaskStatus, "/alam/task_status", 100)
    answer = world.call(ResetWorld, "/alam/sim/reset", ResetWorld.Request(seed=5), 120.0)
    assert answer.success and answer.instruction == "push the puck to the goal"
    world.wait_for(lambda: status and status[-1].seed == 5, what="the new episode")
    refused = world.call(ResetWorld, "/alam/sim/reset", ResetWorld.Request(seed=-1), 120.0)
    assert not refused.success and "below 0" in refused.message


def test_a_state_of_another_width_is_refused(start_node) -> None:
    process = start_node("alam_sim", "step_node", {"world": WORLD, "state_names": ["a", "b"]})
    assert process.wait(120.0) == 2
    assert "has 4 numbers: is the policy for it?" in "\n".join(process.lines)
