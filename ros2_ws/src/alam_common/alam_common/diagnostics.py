"""Publishes a node's status on /diagnostics, at a fixed rate of the steady clock, so that it is
published even while ROS time stands still.
"""

import re
from collections.abc import Callable, Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)

# Level (OK, WARN, ERROR or STALE), one line with the state or the reason, values by name.
Report = tuple[bytes, str, Mapping[str, object]]


class Diagnostics:
    """Publishes what ``check`` returns, under the node's name, at ``rate`` Hz of the steady clock.

    stamp: returns the time for the header, by default that of the node's clock. When the level or
    the problem changes, the message is also logged, once.
    """

    def __init__(
        self,
        node: Node,
        check: Callable[[], Report],
        rate: float = 2.0,
        stamp: Callable[[], Time] | None = None,
    ) -> None:
        self._node = node
        self._check = check
        self._stamp = stamp or (lambda: node.get_clock().now().to_msg())
        self._level: bytes | None = None
        self._logged = ""  # the last problem, its message without the numbers
        self._publisher = node.create_publisher(DiagnosticArray, "diagnostics", 10)
        self._timer = node.create_timer(
            1.0 / rate,
            self.publish,
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def publish(self) -> None:
        """Call ``check`` and publish the result now."""
        self.send(*self._check())

    def send(self, level: bytes, message: str, values: Mapping[str, object]) -> None:
        """Publish the given status now; floats are printed with four significant digits."""
        status = DiagnosticStatus(
            level=level, name=self._node.get_name(), message=message, hardware_id="alam"
        )
        status.values = [
            KeyValue(key=key, value=f"{value:.4g}" if isinstance(value, float) else str(value))
            for key, value in values.items()
        ]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._stamp()
        self._publisher.publish(array)
        kind = re.sub(r"\d+(\.\d+)?", "", message) if level != OK else ""
        if level != OK and (level, kind) != (self._level, self._logged):
            self._node.get_logger().warning(message)
        elif level == OK and self._level not in (OK, None):
            self._node.get_logger().info(message)
        self._level, self._logged = level, kind
