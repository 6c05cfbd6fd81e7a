"""The controller's state machine on the manufacturer's ROS node, which a node of this test plays
over DDS.
"""

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from piper_ros_node import STATUS_FIELDS, PiperRos, add_messages
from sensor_msgs.msg import JointState

from alam_core.errors import UserError
from alam_core.robots.piper import JOINT_NAMES
from alam_core.types import ActionChunk
from alam_piper.backends import BACKEND_PARAMETERS, make_backend
from alam_piper.bus import BusConfig
from alam_piper.config import ControllerConfig
from alam_piper.controller import ArmController
from alam_piper.feedback_watch import take_reading
from alam_piper.frames import POSITION_FRAMES
from alam_piper.hardware import SdkBackend
from alam_piper.ros_backend import LOOK, PiperRosNames, RosBackend, to_feedback
from alam_piper.states import State

POSE = np.array([0.1, 1.2, -0.9, 0.2, 0.3, -0.4, 0.05])  # rad and m
# A starved machine is no fault here, and piper_ros does not tell the firmware and its limits.
BUSY = ControllerConfig(feedback_timeout=1.0, strict=False)


class Loop:
    """The controller and its backend, ticked on the wall clock."""

    def __init__(self, backend: RosBackend) -> None:
        self.backend = backend
        self.controller = ArmController(BUSY)

    def tick(self) -> None:
        reading = take_reading(self.backend, self.controller.feedback, 0.0, POSITION_FRAMES)
        output = self.controller.tick(time.monotonic(), reading)
        if output.enable:
            self.backend.enable()
        if output.set_point is not None:
            self.backend.write(output.set_point)
        time.sleep(0.005)

    def until(self, condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.controller.reason}"
            self.tick()

    def enable(self) -> None:
        """Until it succeeds, because discovery may take longer than enabling may."""

        def enabled() -> bool:
            if self.controller.state is State.DISABLED:
                self.controller.enable()
            return self.controller.state is State.HOLDING

        self.until(enabled, "the arm to be enabled", 60.0)


@pytest.fixture
def context(domain: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    add_messages(monkeypatch)
    rclpy.init(domain_id=domain)
    yield
    rclpy.shutdown()


@pytest.fixture
def piper(context: None) -> Iterator[PiperRos]:
    node = PiperRos(POSE)
    yield node
    node.close()


@pytest.fixture
def loop(context: None) -> Iterator[Loop]:
    backend = RosBackend(speed_percent=40, gripper_effort=1.5)
    backend.connect()
    yield Loop(backend)
    backend.close()


def test_nothing_moves_before_enable_and_a_chunk_moves_the_arm(piper: PiperRos, loop: Loop) -> None:
    controller = loop.controller
    loop.until(lambda: controller.watch.is_fresh, "feedback")
    assert controller.feedback is not None
    assert controller.feedback.positions == pytest.approx(POSE)
    assert not any(controller.feedback.drivers_enabled)
    assert not piper.commands and not piper.requests

    loop.enable()
    assert piper.requests == [True]
    # The first command holds the arm where it is; it takes the arm into CAN control.
    assert piper.commands[0].position[:6] == pytest.approx(POSE[:6])
    assert piper.joints[:6] == pytest.approx(POSE[:6])

    goal = POSE + [0.2, -0.1, 0.1, -0.2, 0.1, 0.2, 0.0]
    sequence = itertools.count(1)

    def arrived() -> bool:
        if controller.state is State.HOLDING:  # at first, and if a starved loop missed the chunk
            start = controller.set_point.position
            rows = start + (goal - start) * np.arange(1, 6)[:, None] / 5
            chunk = ActionChunk(rows, 0.1, time.monotonic(), sequence=next(sequence))
            controller.offer(chunk, "test")
        return np.allclose(piper.joints, goal, atol=1e-3)

    loop.until(arrived, "the arm to arrive")
    # A joint that is not named would go to 0.
    assert {tuple(command.name) for command in piper.commands} == {JOINT_NAMES}
    assert {command.velocity[6] for command in piper.commands} == {40.0}
    assert {command.effort[6] for command in piper.commands} == {1.5}

    # The node is stopped, then started again: it enables nothing by itself.
    piper.silent = True
    loop.until(lambda: controller.state is State.FAULT, "a fault")
    assert controller.reason.startswith("feedback: no new feedback")
    loop.until(lambda: "no message on /joint_states_single and" in loop.backend.missing(), "it")
    assert loop.backend.read() is None
    piper.silent, piper.enabled = False, False
    loop.until(lambda: controller.watch.is_fresh, "feedback")
    assert controller.reset_fault() is None
    assert controller.state is State.DISABLED and "motor power off" in controller.reason
    loop.enable()
    assert piper.requests == [True, True]

    # A fault of the arm.
    piper.status["communication_status_joint_3"] = 1
    loop.until(lambda: controller.state is State.FAULT, "a fault")
    assert controller.reason == "drivers: joint3 communication lost"
    loop.controller.disable()
    assert False not in piper.requests  # which would cut the power: the arm would drop
    loop.backend.power_off()
    loop.until(lambda: False in piper.requests, "the request to cut the power")
    assert loop.backend.firmware() == "" and loop.backend.arm_limits() is None


def test_what_piper_ros_does_not_say_is_no_feedback(piper: PiperRos, loop: Loop) -> None:
    piper.stamp = 0.0  # as before the first frame of the arm
    loop.until(lambda: "heard nothing from the arm" in loop.backend.missing(), "that")
    piper.stamp = 5.0  # frozen: the node publishes again and again what it heard once
    loop.until(lambda: loop.controller.watch.is_fresh, "feedback")
    loop.until(lambda: not loop.controller.watch.is_fresh, "old feedback")
    assert "kinds of feedback for" in str(loop.controller.enable())  # all but the status
    piper.stamp, piper.names = None, ["joint1", "joint2", "joint3", "joint4", "joint5", "finger"]
    piper.names.append("gripper")
    loop.until(lambda: "it lacks joint6" in loop.backend.missing(), "that")
    assert loop.backend.read() is None and not piper.commands


def test_a_node_that_obeys_another_topic_is_not_enabled(
    context: None, loop: Loop, capfd: pytest.CaptureFixture
) -> None:
    """Its own launch file makes it obey /joint_states."""
    piper = PiperRos(POSE, obeys="joint_states")
    try:
        loop.until(lambda: loop.controller.watch.is_fresh, "feedback")
        loop.until(lambda: loop.backend._enable.service_is_ready(), "the service")
        assert loop.controller.enable() is None
        loop.until(lambda: loop.controller.state is State.DISABLED, "the end of enabling")
        assert not piper.requests and "motor power off" in loop.controller.reason
        assert capfd.readouterr().err.count("nothing obeys the topic /joint_ctrl_single") == 1
    finally:
        piper.close()


def test_another_node_that_commands_the_arm_is_named(piper: PiperRos, loop: Loop) -> None:
    assert loop.backend.foreign_writer() == ""
    looks: list[str] = []
    look = loop.backend._node.get_publishers_info_by_topic
    loop.backend._node.get_publishers_info_by_topic = lambda name: looks.append(name) or look(name)
    begun = time.monotonic()
    for _ in range(100):
        loop.backend.foreign_writer()
    assert len(looks) <= 1 + (time.monotonic() - begun) / LOOK  # each asks the whole ROS graph
    piper.node.create_publisher(JointState, "joint_ctrl_single", 1)
    loop.until(loop.backend.foreign_writer, "the other publisher")
    assert loop.backend.foreign_writer() == (
        "piper_ctrl_single_node also publishes on /joint_ctrl_single"
    )


def test_a_second_controller_is_named(piper: PiperRos, loop: Loop) -> None:
    second = RosBackend()
    second.connect()
    try:
        loop.until(loop.backend.foreign_writer, "the other controller")
        assert loop.backend.foreign_writer().startswith("arm_backend also publishes")
    finally:
        second.close()


def test_without_piper_msgs_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "piper_msgs.msg", None)
    with pytest.raises(UserError, match="piper_msgs of piper_ros cannot be imported") as caught:
        RosBackend().connect()
    assert "\n" not in str(caught.value)


def test_a_message_is_read_by_the_names_of_its_joints() -> None:
    status = SimpleNamespace(**dict.fromkeys(STATUS_FIELDS, 0))
    status.ctrl_mode, status.arm_status, status.teach_status = 1, 4, 2
    status.communication_status_joint_2 = True
    order = [6, 0, 5, 1, 4, 2, 3]
    message = JointState(name=[JOINT_NAMES[i] for i in order], velocity=[float(i) for i in order])
    message.position = [POSE[i] for i in order]
    message.header.stamp.sec, message.header.stamp.nanosec = 7, 250_000_000
    feedback = to_feedback(message, status, powered=True)
    assert feedback.stamp == 7.25 and feedback.positions == pytest.approx(POSE)
    assert feedback.velocities.tolist() == [0, 1, 2, 3, 4, 5]
    assert (feedback.ctrl_mode, feedback.arm_status, feedback.teach_status) == (1, 4, 2)
    assert feedback.drivers_enabled == (True,) * 6
    assert feedback.driver_faults == ("joint2 communication lost",)
    message.velocity = []
    with pytest.raises(ValueError, match="7 positions and 0 velocities"):
        to_feedback(message, status, powered=True)


def test_parameters_choose_the_backend() -> None:
    values = {name: parameter.default for name, parameter in BACKEND_PARAMETERS.items()}
    values |= {"firmware_speed_percent": 50, "gripper_effort": 1.0}
    assert isinstance(make_backend(values, BusConfig(), "/left"), SdkBackend)
    values |= {"backend": "piper_ros", "piper_ros_command": "/arm/joint_ctrl_single"}
    backend = make_backend(values, BusConfig(), "/left")
    assert isinstance(backend, RosBackend)
    assert backend._names == PiperRosNames(command="/arm/joint_ctrl_single")
