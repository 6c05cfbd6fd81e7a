"""``alam jog``: moves one joint by a little, slowly, with one action chunk: the first motion of a
new arm, and a check of each joint's direction.
"""

import math
import time
from collections.abc import Callable

import numpy as np
import rclpy
from alam_msgs.msg import ActionChunk, ArmStatus
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from alam_cli.arm import start_command
from alam_common.stopping import StopRequest
from alam_core.errors import UserError
from alam_core.robots.piper import JOINT_NAMES
from alam_core.robots.units import RANGES

MAX_TURN = 0.2  # rad
MAX_SLIDE = 0.02  # m, of the gripper's opening
PEAK_TURN = 0.15  # rad/s
PEAK_SLIDE = 0.02  # m/s
SHORTEST = 1.0  # s that a motion takes at least
NEAR = 0.002  # rad or m by which the set-point may miss the goal
DT = 0.05  # s between rows of the chunk
EXTRA_ROWS = 10  # that keep the goal at the end, so that the arm arrives
WAIT = 20.0  # s of wall time for the controller to answer
ACCEPTANCE = 3.0  # s of wall time for it to execute the chunk
ATTEMPTS = 3  # a message may be lost while the nodes discover each other
SLOWEST = 10.0  # how many times slower than the wall clock ROS time may run, and 5 s


def joint_index(text: str) -> int:
    """The column of a joint, given as 1, joint1 or gripper. Raises UserError for another word."""
    name = f"joint{text}" if text.isdecimal() else text
    if name not in JOINT_NAMES:
        raise UserError(f"there is no joint '{text}'; the joints are 1 to 6 and gripper")
    return JOINT_NAMES.index(name)


def check_distance(index: int, by: float) -> None:
    """Raises UserError if ``by`` (rad, m for the gripper) is no small motion of a joint."""
    most, unit = (MAX_SLIDE, "m") if JOINT_NAMES[index] == "gripper" else (MAX_TURN, "rad")
    if not 0.0 < abs(by) <= most:  # also refuses NaN
        raise UserError(f"--by {by:g}: it must be at most {most} {unit} either way, and not 0")


def check_goal(index: int, start: float, goal: float) -> None:
    """Raises UserError if a motion from ``start`` to ``goal`` (rad, m for the gripper) ends outside
    the joint's range.
    """
    lower, upper = RANGES[index]
    if not lower <= goal <= upper:
        unit = "m" if JOINT_NAMES[index] == "gripper" else "rad"
        raise UserError(
            f"{JOINT_NAMES[index]} is at {start:.3f} {unit}, and {goal:.3f} is outside its range, "
            f"{lower:.3f} to {upper:.3f}"
        )


def plan(start: np.ndarray, index: int, by: float) -> np.ndarray:
    """Rows (T, 7) every ``DT`` s that move one joint by ``by``, from rest to rest, and no other.

    start: set-point (7,), rad and m. The speed follows a bell curve with a peak of PEAK_TURN or
    PEAK_SLIDE.
    """
    peak = PEAK_SLIDE if JOINT_NAMES[index] == "gripper" else PEAK_TURN
    duration = max(SHORTEST, 1.5 * abs(by) / peak)  # of a cubic, whose peak is 1.5 times the mean
    steps = math.ceil(duration / DT)
    phase = np.arange(1, steps + 1) / steps  # (T,)
    rows = np.tile(start, (steps + EXTRA_ROWS, 1))
    rows[:steps, index] += by * phase**2 * (3.0 - 2.0 * phase)
    rows[steps:, index] += by
    return rows


class Jogger(Node):
    """Sends one chunk and follows what the controller reports.

    namespace: of the graph. stop: whether the user asked to stop; it must not interrupt a callback,
    after which ROS would call no other one.
    """

    def __init__(self, namespace: str, stop: StopRequest) -> None:
        super().__init__("jog", namespace=namespace)
        self._namespace = namespace
        self._stop = stop
        self.status: ArmStatus | None = None
        self.sent = False  # whether a chunk was sent
        self.executing = ""  # the last reason while a chunk was executed
        self.joints: JointState | None = None
        self.rejections = ("0", "")  # how many chunks were rejected, and why the last one
        self._chunks = self.create_publisher(ActionChunk, "alam/action_chunk", 10)
        self._hold = self.create_client(Trigger, "alam/arm/hold")
        self.create_subscription(ArmStatus, "alam/arm/status", self._on_status, 10)
        self.create_subscription(JointState, "joint_states", self._on_joints, 10)
        self.create_subscription(DiagnosticArray, "diagnostics", self._on_diagnostics, 10)

    def _on_status(self, message: ArmStatus) -> None:
        self.status = message
        if message.state == "EXECUTING":
            self.executing = message.reason

    def _on_joints(self, message: JointState) -> None:
        self.joints = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith("arm_controller"):
                values = {pair.key: pair.value for pair in status.values}
                self.rejections = (
                    values.get("chunks_rejected", ""),
                    values.get("last_rejection", ""),
                )

    def until(self, condition: Callable[[], object], seconds: float) -> bool:
        """Spin until ``condition()`` is true, at most ``seconds`` s. Returns whether it is. Raises
        KeyboardInterrupt if the user asked to stop.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if self._stop.made:
                raise KeyboardInterrupt
            if time.monotonic() > deadline:
                return False
            rclpy.spin_once(self, timeout_sec=0.05)
        return True

    def wait_for_arm(self) -> ArmStatus:
        """The arm's status. Raises UserError if the controller is silent or the arm not ready."""
        heard = self.until(
            lambda: (
                self.status
                and self.joints
                and self._chunks.get_subscription_count()
                and self._hold.service_is_ready()
            ),
            WAIT,
        )
        if not heard or self.status is None:
            raise UserError(
                f"no answer from the arm controller within {WAIT:.0f} s: start the graph first, "
                f"with '{start_command(self._namespace)}' in another shell"
            )
        advice = {
            "DISABLED": "enable it first, with 'alam arm enable'",
            "FAULT": "remove the cause, then run 'alam arm reset_fault' and 'alam arm enable'",
            "ENABLING": "try again",
            "EXECUTING": "cancel the task first",
        }.get(self.status.state)
        if advice:
            raise UserError(f"the arm is {self.status.state} ({self.status.reason}): {advice}")
        return self.status

    def send(self, rows: np.ndarray, status: ArmStatus) -> int:
        """Send rows that begin at the time of ``status``. Returns the chunk's sequence number."""
        # Higher than that of any chunk before, whoever sent it.
        message = ActionChunk(joint_names=list(JOINT_NAMES), dt=DT)
        message.sequence = time.time_ns() // 1_000_000
        message.source = f"alam jog {message.sequence}"
        message.header.stamp = status.header.stamp
        message.header.frame_id = "base_link"
        message.steps = len(rows)
        message.positions = rows.ravel().tolist()
        self.sent = True
        self._chunks.publish(message)
        return message.sequence

    def hold(self) -> None:
        """Stop the arm; it holds until it is enabled again. Raises UserError if that is not
        confirmed.
        """
        self._stop.made = False
        future = self._hold.call_async(Trigger.Request())
        if not self.until(future.done, ACCEPTANCE):
            raise UserError("the arm controller did not confirm the hold; stop the arm otherwise")


def jog(joint: str, by: float, namespace: str) -> int:
    """Move one joint of the running graph's arm and print where it was and is. Returns 0, or 130
    after Ctrl-C, which stops the arm.

    joint: 1 to 6, a joint's name, or gripper. by: rad, m for the gripper. Raises UserError if the
    distance is too large, or the arm is not ready, does not accept the motion or stops in it.
    """
    index = joint_index(joint)
    check_distance(index, by)
    rclpy.init(args=[], signal_handler_options=rclpy.SignalHandlerOptions.NO)
    stop = StopRequest()
    node = Jogger(namespace, stop)
    stop.interrupts = False
    try:
        return _move(node, index, by)
    except KeyboardInterrupt:
        if not node.sent:
            print("stopped before a motion was sent")
            return 130
        node.hold()
        print("stopped; the arm holds until it is enabled again")
        return 130
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def _move(node: Jogger, index: int, by: float) -> int:
    start = float(node.wait_for_arm().set_point[index])
    goal, name = start + by, JOINT_NAMES[index]
    check_goal(index, start, goal)
    rows = _start(node, index, goal)
    print(f"{name} moves from {start:.3f} to {goal:.3f}", flush=True)
    patience = 5.0 + SLOWEST * rows * DT
    ended = node.until(lambda: node.status and node.status.state != "EXECUTING", patience)
    assert node.status is not None and node.joints is not None
    if not ended or node.status.state != "HOLDING":
        raise UserError(f"the motion did not end well: {node.status.state} ({node.status.reason})")
    reached = node.status.set_point[index]
    if abs(reached - goal) > NEAR:
        why = node.executing.partition("; ")[2] or node.status.reason
        if why.startswith("command: the last chunk ended"):
            why = "the controller's limit of the joint is there"
        raise UserError(f"{name} stopped at {reached:.3f}: {why}")
    measured = dict(zip(node.joints.name, node.joints.position, strict=False)).get(name, math.nan)
    print(f"{name} is measured at {measured:.3f}; the arm holds")
    return 0


def _start(node: Jogger, index: int, goal: float) -> int:
    """Send a motion to ``goal``, again if it is lost, and wait until it begins. Returns its number
    of rows. Raises UserError if it is not executed.
    """
    sent: dict[int, int] = {}  # sequence number -> rows
    before = node.rejections[0]
    for _ in range(ATTEMPTS):
        status = node.wait_for_arm()
        rows = plan(np.asarray(status.set_point), index, goal - status.set_point[index])
        sent[node.send(rows, status)] = len(rows)
        if node.until(lambda: node.status and node.status.sequence in sent, ACCEPTANCE):
            assert node.status is not None
            return sent[node.status.sequence]
        if node.rejections[0] != before and not node.rejections[1].startswith("source "):
            break  # else a motion before this one had the arm until a moment ago: once more
    raise UserError(
        f"the arm controller did not execute the motion: {node.rejections[1] or 'no reason given'}"
    )
