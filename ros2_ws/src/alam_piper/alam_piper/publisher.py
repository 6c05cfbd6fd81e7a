"""Publishes what the arm does: its joint states and the controller's status."""

from alam_msgs.msg import ArmStatus
from rclpy.node import Node
from sensor_msgs.msg import JointState

from alam_common.messages import seconds_to_stamp
from alam_core.robots.piper import JOINT_NAMES
from alam_piper.controller import ArmController
from alam_piper.states import State


class ArmPublisher:
    """Publishes joint_states and alam/arm/status of one controller."""

    def __init__(self, node: Node, controller: ArmController) -> None:
        self._controller = controller
        self._joint_states = node.create_publisher(JointState, "joint_states", 10)
        self._status = node.create_publisher(ArmStatus, "alam/arm/status", 50)
        self._measured_at: float | None = None  # s, of the last joint state published
        self._reported: tuple[State, str, int] | None = None  # what the last status contained

    def publish(self) -> None:
        """Publish both."""
        self._publish_joint_states()
        self.publish_status()

    def publish_change(self) -> None:
        """Publish the status if it contains news."""
        if self._reported != self._present():
            self.publish_status()

    def publish_status(self) -> None:
        """Publish the status now."""
        controller = self._controller
        if controller.now is None:
            return
        self._reported = state, reason, sequence = self._present()
        message = ArmStatus(state=str(state), reason=reason, sequence=sequence)
        message.header.stamp = seconds_to_stamp(controller.now)
        message.header.frame_id = "base_link"
        message.row = controller.chunk.row_at(controller.now) if controller.chunk else -1
        message.joint_names = list(JOINT_NAMES)
        message.set_point = controller.set_point.position.tolist()
        self._status.publish(message)

    def _present(self) -> tuple[State, str, int]:
        """State, reason, and sequence number of the chunk being executed (0: none)."""
        controller = self._controller
        sequence = controller.chunk.sequence if controller.chunk else 0
        return controller.state, controller.explanation, sequence

    def _publish_joint_states(self) -> None:
        """Publish the measured positions, unless a part of them is stale or published already. The
        stamp is the time of the oldest part.
        """
        watch = self._controller.watch
        measured_at = watch.positions_time
        if watch.feedback is None or measured_at is None or measured_at == self._measured_at:
            return
        self._measured_at = measured_at
        message = JointState()
        message.header.stamp = seconds_to_stamp(measured_at)
        message.header.frame_id = "base_link"
        message.name = list(JOINT_NAMES)
        message.position = watch.feedback.positions.tolist()
        message.velocity = [*watch.feedback.velocities.tolist(), watch.gripper_velocity]
        self._joint_states.publish(message)
