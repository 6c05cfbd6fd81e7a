"""camera_sync and latent_encoder with what real robots send: joint states in parts, from two nodes,
and messages that are broken.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from alam_msgs.msg import LatentTransition, Observation
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import Image, JointState
from test_perception_nodes import MS, PATIENCE, SIZE, Robot, observation
from tiny_checkpoints import save_tiny_transition

from alam_common.messages import ns_to_stamp
from alam_core.robots.piper import JOINT_NAMES

POSITIONS = [0.1 * i for i in range(7)]


@pytest.fixture
def robot(ros) -> Robot:
    return Robot(ros)


@pytest.fixture
def sync(start_node: Callable, robot: Robot) -> Callable:
    """Start camera_sync in simulated time, and wait until it serves."""

    def start(**parameters: object):
        parameters = {"use_sim_time": True, "image_size": SIZE} | parameters
        process = start_node("alam_perception", "camera_sync", parameters)
        robot.wait_until_connected()
        robot.tick_until_served()
        return process

    return start


def tick_until(
    robot: Robot, condition: Callable[[], object], also: Callable = lambda: None
) -> None:
    """Tick, and call ``also`` after each tick, until the condition is met."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, robot.status().message
        robot.tick()
        also()
        robot.ros.executor.spin_once(timeout_sec=0.02)


def values(status: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def test_two_publishers_of_a_joint_are_an_error_until_one_stops(sync, ros, robot: Robot) -> None:
    sync()
    other = ros.node.create_publisher(JointState, "/joint_states", 10)

    def zeros() -> None:  # just after the driver's message
        message = JointState(name=list(JOINT_NAMES), position=[0.0] * 7)
        message.header.stamp = ns_to_stamp(robot.now + MS)
        other.publish(message)

    tick_until(robot, lambda: robot.says("two nodes publish it, stop one"), zeros)
    assert robot.status().level == DiagnosticStatus.ERROR
    count, start = len(robot.observations), robot.now
    tick_until(robot, lambda: robot.now > start + 1000 * MS, zeros)
    assert len(robot.observations) == count
    ros.node.destroy_publisher(other)
    robot.tick_until_served()
    for served in robot.observations:
        np.testing.assert_allclose(served.joint_state.position, POSITIONS)


def test_arm_and_gripper_of_two_drivers_are_one_state_and_a_silent_one_is_named(
    sync, ros, robot: Robot
) -> None:
    gripper = ros.node.create_publisher(JointState, "/joint_states", 10)
    robot.drivers = {JOINT_NAMES[:6]: robot.joints, JOINT_NAMES[6:]: gripper}
    robot.encoding = "8UC3"
    sync(channels="rgb")
    tick_until(robot, lambda: robot.status().level == DiagnosticStatus.OK)
    for served in robot.observations:
        assert tuple(served.joint_state.name) == JOINT_NAMES
        np.testing.assert_allclose(served.joint_state.position, POSITIONS)
    del robot.drivers[JOINT_NAMES[6:]]
    tick_until(robot, lambda: robot.says("no observation: newest position of gripper is"))
    assert robot.status().level == DiagnosticStatus.ERROR


def test_broken_messages_are_dropped_and_counted_and_an_error_when_they_persist(
    sync, ros, robot: Robot
) -> None:
    process = sync()
    cut = Image(height=4, width=4, encoding="rgb8", step=12, data=[0] * 40)
    depth = Image(height=4, width=4, encoding="16UC1", step=8, data=[0] * 32)
    short = JointState(name=list(JOINT_NAMES), position=[0.0])

    def counted() -> bool:
        dropped = values(robot.status())
        return int(dropped.get("dropped /joint_states", 0)) > 0 and (
            int(dropped.get("dropped /wrist/color/image_raw", 0)) >= 2
        )

    def send() -> None:
        robot.images["wrist"].publish(cut)
        robot.images["wrist"].publish(depth)
        robot.joints.publish(short)

    tick_until(robot, counted, send)
    robot.tick_until_served()
    assert process.poll() is None

    def only_broken() -> None:
        robot.tick(views=("third_person",))
        robot.images["wrist"].publish(cut)

    ros.wait_for(
        lambda: robot.says("(/wrist/color/image_raw carries a broken image: 4x4 rgb8, step 12"),
        what="the reason",
        again=only_broken,
        every=0.1,
    )
    assert robot.status().level == DiagnosticStatus.ERROR and process.poll() is None


def test_latent_encoder_goes_on_after_a_broken_observation(
    start_node: Callable, ros, tmp_path: Path
) -> None:
    save_tiny_transition(tmp_path / "transition")
    process = start_node(
        "alam_perception", "latent_encoder", {"checkpoint": str(tmp_path / "transition")}
    )
    publisher = ros.node.create_publisher(Observation, "/alam/observation", 1)
    latents: list[LatentTransition] = ros.collect(LatentTransition, "/alam/latents")
    diagnostics: list[DiagnosticArray] = ros.collect(DiagnosticArray, "/diagnostics")
    moment = 10

    def send() -> None:
        nonlocal moment
        moment += 1
        message = observation(moment * 100 * MS, moment)
        if moment % 3 == 0:
            message.images.pop()
        elif moment % 5 == 0:
            message.images[0].data = message.images[0].data[:-1]
        publisher.publish(message)

    def dropped() -> int:
        return int(values(diagnostics[-1].status[0])["dropped"]) if diagnostics else 0

    ros.wait_for(
        lambda: dropped() > 5 and len(latents) > 2,
        timeout=120,
        what="transitions after broken observations",
        again=send,
        every=0.1,
    )
    assert process.poll() is None
