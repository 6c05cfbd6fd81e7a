"""What surrounds the policy node in its tests."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from alam_msgs.action import ExecuteTask
from alam_msgs.msg import ActionChunk, Observation, PredictedLatents, Processed, TaskStatus
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionClient
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from tiny_checkpoints import SIZE, save_tiny_policy

from alam_common.messages import ns_to_stamp, numpy_to_image, stamp_to_ns
from alam_core.robots.piper import JOINT_NAMES
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

    def observation(self) -> Observation:
        """Advance by 100 ms. Returns the observation of that time, which is not sent yet."""
        self.advance(STEP)
        message = Observation(
            views=list(VIEWS),
            joint_state=JointState(name=list(JOINT_NAMES), position=STATE.tolist()),
        )
        message.header.stamp = ns_to_stamp(self.now)
        message.images = [
            numpy_to_image(image, message.header.stamp) for image in self.picture(self.now)
        ]
        return message

    def tick(self) -> None:
        """Advance by 100 ms, send an observation and wait until the policy has processed it."""
        message = self.observation()
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


def start_with(
    ros, start_node: Callable, folder: Path, changes: dict[str, list[str]], **parameters: object
) -> tuple[World, object]:
    """A policy with changed entries of its configuration, ready for goals; the node's process."""
    save_tiny_policy(folder)
    config = json.loads((folder / "config.json").read_text())
    config["policy"] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    given = {"checkpoint": str(folder), "use_sim_time": True, "replan_every": 4, "seed": 5}
    process = start_node("alam_policy", "policy", given | parameters)
    world = World(ros)
    world.wait_until_connected()
    return world, process
