"""The policy node as a real process over DDS: goals, chunks, cancelling, and what happens when its
input stops.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from alam_msgs.action import ExecuteTask
from alam_msgs.msg import ActionChunk, Observation, PredictedLatents, Processed, TaskStatus
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionClient
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from tiny_checkpoints import DIM, HORIZON, SIZE, TOKENS, save_tiny_policy

from alam_common.messages import ns_to_stamp, numpy_to_image, stamp_to_ns
from alam_core import types
from alam_core.robots.piper import JOINT_NAMES
from alam_core.runtime import Planner, PolicyRunner
from alam_core.types import VIEWS

MS = 1_000_000
STEP = 100 * MS
TASK = "put the red cube on the plate"
STATE = np.linspace(0.0, 0.06, 7, dtype=np.float32)


class World:
    """Takes the place of camera_sync, simulator and judge, and is a client of the action. Time
    advances only in ``tick`` and ``advance``.
    """

    def __init__(self, ros) -> None:
        self.ros = ros
        self.now = 1000 * MS
        self.sent: list[int] = []  # stamps of observations
        self.clock = ros.node.create_publisher(Clock, "/clock", 1)
        self.observations = ros.node.create_publisher(Observation, "/alam/observation", 1)
        self.status = ros.node.create_publisher(TaskStatus, "/alam/task_status", 10)
        self.chunks: list[ActionChunk] = ros.collect(ActionChunk, "/alam/action_chunk")
        self.latents: list[PredictedLatents] = ros.collect(
            PredictedLatents, "/alam/predicted_latents"
        )
        self.processed: list[Processed] = ros.collect(Processed, "/alam/processed")
        self.diagnostics: list[DiagnosticArray] = ros.collect(DiagnosticArray, "/diagnostics")
        self.client = ActionClient(ros.node, ExecuteTask, "/alam/execute_task")
        self.feedback: list[ExecuteTask.Feedback] = []

    def wait_until_connected(self) -> None:
        publishers = (self.clock, self.observations, self.status)
        self.ros.wait_for(
            lambda: all(p.get_subscription_count() for p in publishers),
            timeout=120,
            what="the policy's subscriptions",
        )

        def opened() -> bool:  # the node accepts goals once it knows ROS time
            self.advance(0)
            return self.client.server_is_ready()

        self.ros.wait_for(opened, timeout=120, what="the action server")
        for name in ("/alam/action_chunk", "/alam/processed", "/alam/predicted_latents"):
            self.ros.wait_for(lambda name=name: self.ros.node.count_publishers(name), what=name)
        self.tick()

    def picture(self, stamp: int) -> np.ndarray:
        return np.random.default_rng(stamp).integers(0, 255, (2, SIZE, SIZE, 3), dtype=np.uint8)

    def advance(self, ns: int) -> None:
        """Advance the time without an observation. The clock is best effort, so it is sent
        repeatedly.
        """
        self.now += ns
        for _ in range(3):
            self.clock.publish(Clock(clock=ns_to_stamp(self.now)))
            self.ros.executor.spin_once(timeout_sec=0.05)

    def tick(self) -> None:
        """Advance by 100 ms, send an observation and wait until the policy has processed it."""
        self.advance(STEP)
        message = Observation(
            views=list(VIEWS),
            joint_state=JointState(name=list(JOINT_NAMES), position=STATE.tolist()),
        )
        message.header.stamp = ns_to_stamp(self.now)
        message.images = [
            numpy_to_image(image, message.header.stamp) for image in self.picture(self.now)
        ]
        self.sent.append(self.now)
        self.ros.wait_for(
            lambda: self.processed and stamp_to_ns(self.processed[-1].header.stamp) == self.now,
            what="the policy to be done with an observation",
            again=lambda: self.observations.publish(message),  # the same twice changes nothing
            every=5.0,
        )

    def judge(self, success: bool, instruction: str = TASK, stamp: int | None = None) -> None:
        message = TaskStatus(instruction=instruction, seed=1, success=success)
        message.header.stamp = ns_to_stamp(self.now if stamp is None else stamp)
        self.status.publish(message)

    def send_goal(self, instruction: str = TASK, time_limit: float = 20.0):
        return self.ros.send_goal(
            self.client,
            "/alam/execute_task",
            ExecuteTask.Goal(instruction=instruction, time_limit=time_limit),
            feedback_callback=lambda message: self.feedback.append(message.feedback),
        )

    def result(self, goal, tick: bool = False, again: Callable | None = None):
        """Wait for the goal's result. tick: whether to tick meanwhile. again: called until it
        ends.
        """
        future = goal.get_result_async()

        def over() -> bool:
            if tick:
                self.tick()
            return future.done()

        self.ros.wait_for(over, what="the goal's end", again=again)
        return future.result()

    def says(self, text: str) -> bool:
        return any(
            text in status.message for array in self.diagnostics[-2:] for status in array.status
        )


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
    assert not world.send_goal(instruction=" ").accepted
    assert not world.send_goal(time_limit=float("nan")).accepted
    goal = world.send_goal()
    assert not world.send_goal(instruction="something else").accepted
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
            "outside the range of training, the policy sees it clipped: "
            "joint4 is 0.03, 1.5 outside -1.47 to -1.47"
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
