"""The arm behind the manufacturer's ROS node, ``piper_ctrl_single_node`` of piper_ros.

That node owns the CAN bus and gives less than the SDK does; docs/real_arm.md lists what is weaker.
Its units are rad, m of total opening, rad/s and percent of speed. Its package of messages,
piper_msgs, is not on PyPI, so it is imported only to connect.
"""

import contextlib
import importlib
import math
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState

from alam_core.errors import UserError, listing
from alam_core.robots.piper import JOINT_NAMES
from alam_piper.frames import FEEDBACK_FRAMES
from alam_piper.hardware import CTRL_MODE_CAN, Feedback

LOOK = 0.25  # s of wall time between two looks at who publishes commands
SILENCE = 0.5  # s of wall time without a message after which a topic counts as silent
STATUS_FRAME = 0x2A1
ANSWER = 8.0  # s of wall time for the node to enable the arm; it takes up to 5.5 s
HOW_TO_START = "ros2 run piper piper_single_ctrl --ros-args -p auto_enable:=false"


@dataclass(frozen=True)
class PiperRosNames:
    """The names of the node's topics and service, in the namespace of the controller unless they
    begin with '/'.

    joint_states: ``joint_states_single``, or ``joint_states_feedback`` of newer versions. command:
    what the node obeys. (The topic ``joint_ctrl`` of newer versions is no command: the node reports
    on it what it hears on the bus.)
    """

    joint_states: str = "joint_states_single"
    arm_status: str = "arm_status"
    command: str = "joint_ctrl_single"
    enable: str = "enable_srv"


@dataclass(frozen=True)
class _Heard:
    """A message and when it arrived, s on the steady clock."""

    message: Any
    time: float


def load_messages() -> tuple[type, type]:
    """The types PiperStatusMsg and Enable. Raises UserError if piper_msgs is not installed."""
    try:
        status = importlib.import_module("piper_msgs.msg").PiperStatusMsg
        return status, importlib.import_module("piper_msgs.srv").Enable
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"the message package piper_msgs of piper_ros cannot be imported ({error}): build the "
            "manufacturer's workspace and source it before this one, or use backend:=piper_sdk"
        ) from None


def to_feedback(
    joints: JointState, status: Any, powered: bool, counts: tuple[int, int] = (0, 0)
) -> Feedback:
    """A snapshot from one message of each topic. ``status``: a PiperStatusMsg. ``powered``: whether
    the node has confirmed that all drivers are enabled, the only thing that it says about them.
    ``counts``: how many stamps of joint states, and how many statuses, were received.

    Raises ValueError if the joint state lacks a joint or a velocity.
    """
    columns = {name: column for column, name in enumerate(joints.name)}
    if missing := [name for name in JOINT_NAMES if name not in columns]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    order = [columns[name] for name in JOINT_NAMES]
    if len(joints.position) <= max(order) or len(joints.velocity) <= max(order[:6]):
        raise ValueError(
            f"it has {len(joints.position)} positions and {len(joints.velocity)} velocities"
        )
    return Feedback(
        stamp=joints.header.stamp.sec + joints.header.stamp.nanosec * 1e-9,
        positions=np.array([joints.position[i] for i in order]),
        velocities=np.array([joints.velocity[i] for i in order[:6]]),
        ctrl_mode=int(status.ctrl_mode),
        arm_status=int(status.arm_status),
        teach_status=int(status.teach_status),
        drivers_enabled=(powered,) * 6,
        driver_faults=tuple(
            f"joint{i} communication lost"
            for i in range(1, 7)
            if getattr(status, f"communication_status_joint_{i}")
        ),
        counts=tuple(counts[frame == STATUS_FRAME] for frame in FEEDBACK_FRAMES),
        error_code=int(status.err_code),
        move_mode=int(status.mode_feedback),
    )


class RosBackend:
    """A Piper behind a running piper_ros node. Start that node by HOW_TO_START: its launch file
    powers the arm at once, and makes it obey the topic /joint_states.

    A thread of its own receives messages, so that ``read`` is as fresh as with the SDK.
    """

    def __init__(
        self,
        names: PiperRosNames | None = None,
        namespace: str = "",
        speed_percent: int = 100,
        gripper_effort: float = 1.0,
    ):
        """speed_percent: 1 to 100, the firmware's own speed limit. gripper_effort: N*m; the node
        limits it to 0.5 to 3.
        """
        self._names = names or PiperRosNames()
        self._namespace = namespace
        self._speed = float(min(max(int(speed_percent), 1), 100))
        self._effort = float(gripper_effort)
        self._node: Node | None = None
        self._executor: SingleThreadedExecutor | None = None
        self._thread: threading.Thread | None = None
        self._counts = [0, 0]  # stamps of joint states and statuses received, on all connections
        self._forget()

    def _forget(self) -> None:
        self._joints: _Heard | None = None
        self._status: _Heard | None = None
        self._powered = False
        self._request: Future | None = None  # for power, until it is answered
        self._asked = 0.0  # s on the steady clock, when
        self._complaint = ""
        self._looked = -math.inf  # s on the steady clock, when
        self._others = ""  # who else publishes commands, one line

    def __str__(self) -> str:
        return f"piper_ros ({self._names.command})"

    def connect(self) -> None:
        self.close()
        status_type, enable_type = load_messages()
        # Without the process's own arguments, whose name and remappings are the controller's.
        node = Node(
            "arm_backend",
            namespace=self._namespace,
            use_global_arguments=False,
            start_parameter_services=False,
            enable_rosout=False,
        )
        node.create_subscription(JointState, self._names.joint_states, self._on_joints, 1)
        node.create_subscription(status_type, self._names.arm_status, self._on_status, 1)
        self._commands = node.create_publisher(JointState, self._names.command, 1)
        self._enable = node.create_client(enable_type, self._names.enable)
        self._enable_type: Any = enable_type
        self._node = node
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._thread = threading.Thread(
            target=self._spin, args=(self._executor,), name="piper_ros reader", daemon=True
        )
        self._thread.start()

    @staticmethod
    def _spin(executor: SingleThreadedExecutor) -> None:
        with contextlib.suppress(ExternalShutdownException):
            executor.spin()

    # In the thread of the reader

    def _on_joints(self, message: JointState) -> None:
        now = time.monotonic()
        if self._joints and now - self._joints.time > SILENCE:
            # The node may have been started again, and then obeys nothing before it enables.
            self._powered, self._request = False, None
        if not self._joints or message.header.stamp != self._joints.message.header.stamp:
            self._counts[0] += 1
        self._joints = _Heard(message, now)

    def _on_status(self, message: Any) -> None:
        self._status = _Heard(message, time.monotonic())
        self._counts[1] += 1

    def _on_answer(self, future: Future) -> None:
        if future is self._request:
            self._powered, self._request = bool(future.result().enable_response), None
            if not self._powered:
                self._complain("piper_ros could not enable every motor driver")

    # In the thread of the controller

    def read(self) -> Feedback | None:
        found = self._look()
        return found if isinstance(found, Feedback) else None

    def missing(self) -> str:
        found = self._look()
        return found if isinstance(found, str) else ""

    def _look(self) -> Feedback | str:
        """The newest feedback, or what it lacks, one line for the user."""
        if self._node is None:
            return "not connected to piper_ros"
        heard = {self._names.joint_states: self._joints, self._names.arm_status: self._status}
        now = time.monotonic()
        if absent := [
            self._node.resolve_topic_name(name)
            for name, last in heard.items()
            if last is None or now - last.time > SILENCE
        ]:
            return f"no message on {' and '.join(absent)}: is piper_ros running ({HOW_TO_START})?"
        assert self._joints is not None and self._status is not None
        stamp = self._joints.message.header.stamp
        if not (stamp.sec or stamp.nanosec):
            return "piper_ros has heard nothing from the arm: is it powered and connected?"
        try:
            counts = (self._counts[0], self._counts[1])
            return to_feedback(self._joints.message, self._status.message, self._powered, counts)
        except ValueError as error:
            return f"a joint state of piper_ros is not that of a Piper with a gripper: {error}"

    def enable(self) -> None:
        """Request power, and once the node has confirmed it, CAN control. The node enters CAN
        control only with a command, so it is sent the measured pose.
        """
        if self._node is None or not self._can_command():
            return
        feedback = self.read()
        if self._powered and feedback is not None and feedback.ctrl_mode != CTRL_MODE_CAN:
            self.write(feedback.positions)
        now = time.monotonic()
        if self._powered or (self._request is not None and now - self._asked < ANSWER):
            return
        request = self._enable_type.Request()
        request.enable_request = True
        self._asked = now
        self._request = self._enable.call_async(request)
        self._request.add_done_callback(self._on_answer)

    def _can_command(self) -> bool:
        """Whether the node is there and obeys the command topic; if not, the log says why."""
        assert self._node is not None
        if not self._enable.service_is_ready():
            self._complain(f"there is no service {self._enable.service_name}: is piper_ros running")
        elif not self._commands.get_subscription_count():
            self._complain(
                f"nothing obeys the topic {self._commands.topic_name}: start piper_ros without its "
                "launch file, which renames it"
            )
        else:
            return True
        return False

    def _complain(self, text: str) -> None:
        """Log a text once, until another one is logged."""
        if self._node is not None and text != self._complaint:
            self._complaint = text
            self._node.get_logger().error(f"{text} ({HOW_TO_START})")

    def write(self, set_point: np.ndarray) -> None:
        if self._node is None:
            return
        *joints, gripper = (float(value) for value in set_point)
        message = JointState(name=list(JOINT_NAMES))
        message.header.stamp = self._node.get_clock().now().to_msg()
        # A command without a joint would mean 0 rad to the node, and a negative gripper its
        # absolute value.
        message.position = [*joints, max(gripper, 0.0)]
        message.velocity = [0.0] * 6 + [self._speed]
        message.effort = [0.0] * 6 + [self._effort]
        if all(map(math.isfinite, message.position)):
            self._commands.publish(message)

    def power_off(self) -> None:
        """Cut the power of all motors. The arm drops."""
        if self._node is not None and self._enable.service_is_ready():
            self._powered, self._request = False, None
            self._enable.call_async(self._enable_type.Request())  # its field is false by default

    def firmware(self) -> str:
        return ""  # the node does not say

    def arm_limits(self) -> None:
        return None  # the node does not say

    def foreign_writer(self) -> str:
        """Which other node sends commands to the arm, one line; "" if none."""
        if self._node is None:
            return ""
        now = time.monotonic()
        if now - self._looked >= LOOK:
            self._looked = now
            topic = self._commands.topic_name
            others = [info.node_name for info in self._node.get_publishers_info_by_topic(topic)]
            if self._node.get_name() in others:
                others.remove(self._node.get_name())  # ours; a second one is another controller's
            self._others = f"{listing(others)} also publishes on {topic}" if others else ""
        return self._others

    def close(self) -> None:
        if self._executor is not None and self._thread is not None and self._node is not None:
            self._executor.shutdown()
            self._thread.join()
            self._node.destroy_node()
        self._node = self._executor = self._thread = None
        self._forget()
