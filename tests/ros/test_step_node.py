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
from alam_core.runtime.runner import PolicyRunner
from alam_core.sim.world import make_world

WORLD, DT = "metaworld/push", 1 / 80
STEPS = 30  # that are compared


def direct(world_name: str, folder: Path, seed: int) -> np.ndarray:
    """The first actions (STEPS, A) of an episode in this process."""
    runner = PolicyRunner.from_pretrained(folder, threads=1)
    world = make_world(world_name, runner.image_size)
    agent = StepExecution(Planner(runner, 4), world.hold)
    observation = world.reset(seed)
    agent.reset(seed)
    actions = []
    for _ in range(STEPS):
        actions.append(agent.act(observation))
        render = agent.needs_images(observation.stamp + world.dt)
        observation = agent.apply(world, actions[-1], render)
    world.close()
    return np.stack(actions)


@pytest.mark.parametrize(
    ("graph", "world", "dt", "state", "action"),
    [
        (["metaworld", "task:=push"], "metaworld/push", 1 / 80, 4, 4),
        (["steps", "world:=piper_place"], "piper_place", 0.1, 7, 7),
        pytest.param(
            ["libero", "suite:=spatial", "task:=3"],
            "libero/spatial/3",
            1 / 20,
            8,
            7,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_same_seeds_give_the_same_actions_as_without_ros(
    ros, start, tmp_path: Path, graph: list[str], world: str, dt: float, state: int, action: int
) -> None:
    folder = tmp_path / "policy"
    save_tiny_world_policy(folder, dt, state, action)
    arm = ros.collect(ArmStatus, "/alam/arm/status", 1000)
    status = ros.collect(TaskStatus, "/alam/task_status", 1000)
    up = [sys.executable, "-m", "alam_cli", "up", *graph]
    processed = ros.collect(Processed, "/alam/processed")
    start("graph", [*up, f"checkpoint:={folder}", "speed:=0", "device:=cpu"])
    client = ActionClient(ros.node, ExecuteTask, "/alam/execute_task")
    ros.wait_for(
        lambda: any(message.node == "policy" for message in processed),
        180.0,
        "the policy to receive observations",
    )
    for seed in (8, 3):
        reset = ros.call(ResetWorld, "/alam/sim/reset", ResetWorld.Request(seed=seed), 180.0)
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

        ros.wait_for(lambda executed=executed: len(executed()) >= STEPS, 180.0, "the steps")
        goal.cancel_goal_async()
        expected = direct(world, folder, seed)
        found = np.array([message.set_point for message in executed()[:STEPS]])
        np.testing.assert_array_equal(found.astype(np.float32), expected)
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
