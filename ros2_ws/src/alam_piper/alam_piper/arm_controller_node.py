"""Node ``arm_controller``: executes action chunks on the arm, in a 200 Hz loop on ROS time.

Everything runs in one thread, so the CAN bus has one writer and the state machine needs no locks.
See the package's README for topics, services and guarantees.
"""

import os
import signal
import time

from alam_msgs.msg import ActionChunk
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from alam_common.diagnostics import Diagnostics, Report
from alam_common.main import run_node
from alam_common.messages import stamp_to_seconds
from alam_common.parameters import declare_parameters
from alam_common.stopping import SIGNALS
from alam_piper.backends import make_backend
from alam_piper.bus import BusConfig
from alam_piper.controller import ArmController
from alam_piper.feedback_watch import take_reading
from alam_piper.frames import FEEDBACK_FRAMES, POSITION_FRAMES
from alam_piper.gate import ChunkRejected, parse_chunk
from alam_piper.parameters import PARAMETERS, PERIOD, make_config
from alam_piper.publisher import ArmPublisher
from alam_piper.report import LoopTimes, judge, values
from alam_piper.services import ArmServices

CLOCK_PATIENCE = 3.0  # s of wall time without a tick after which ROS time counts as stopped
CLOSE_PATIENCE = 0.1  # s of wall time without a tick after which the arm has stopped by itself
FEEDBACK_PATIENCE = 0.03  # s of wall time that a tick waits for feedback, where it waits


class ArmControllerNode(Node):
    """The controller as a node. Raises UserError if the arm's connection cannot be opened."""

    def __init__(self) -> None:
        super().__init__("arm_controller")
        p = declare_parameters(self, PARAMETERS)
        self._controller = ArmController(make_config(p), self._on_transition)
        bus = BusConfig(p["can_interface"], p["can_channel"], p["can_port"])
        self._backend = make_backend(p, bus, self.get_namespace())
        self._simulated_time = self.get_parameter("use_sim_time").value
        self._divider = p["joint_state_divider"]
        self._ticks = 0
        self._changed = False  # whether the state changed since /diagnostics was published
        self._times = LoopTimes(PERIOD, jitter=not self._simulated_time)

        if not self._simulated_time and p["realtime_priority"]:
            self._raise_priority(p["realtime_priority"])
        self._backend.connect()  # its threads inherit the priority
        self._publisher = ArmPublisher(self, self._controller)
        self._requests = ArmServices(self, self._controller, self._backend)
        self.create_subscription(ActionChunk, "alam/action_chunk", self._on_chunk, 10)
        # Off simulation the steady clock, because a timer on the system clock stops for as long as
        # that clock was set back.
        steady = None if self._simulated_time else Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(PERIOD, self._on_tick, clock=steady)
        self._diagnostics = Diagnostics(self, self._report)
        enable = self.resolve_service_name("alam/arm/enable")
        self.get_logger().info(f"arm on {self._backend}; nothing moves before {enable}")

    def _raise_priority(self, priority: int) -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        except OSError as error:
            self.get_logger().info(
                f"no real-time priority ({error.strerror}): "
                "other processes on this machine may delay the loop"
            )

    def _now(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _on_transition(self, line: str) -> None:
        self._changed = True
        self.get_logger().info(line)

    # The loop

    def _on_tick(self) -> None:
        now = self._now()
        if now <= 0.0:  # simulated time before the first /clock
            return
        controller = self._controller
        late = self._times.tick() > controller.config.feedback_timeout / 2
        self._ticks += 1

        # In simulated time the loop waits for the positions that were sent before this tick. On the
        # wall clock it waits only after it could not run for a while: the feedback of that time is
        # there, but was not read yet.
        due = controller.watch.is_fresh if self._simulated_time else late
        reading = take_reading(
            self._backend,
            controller.feedback,
            FEEDBACK_PATIENCE if due else 0.0,
            POSITION_FRAMES if self._simulated_time else tuple(FEEDBACK_FRAMES),
        )
        output = controller.tick(now, reading)
        if output.set_point is not None:
            self._backend.write(output.set_point)
            if output.first_of_chunk is not None:
                self._times.sent_first_of_chunk(self._now() - output.first_of_chunk)
        elif output.enable:
            self._backend.enable()
        if self._changed:
            self._changed = False
            self._diagnostics.publish()
        # In simulated time at multiples of the period, so that each image has a joint state of the
        # same stamp.
        if (round(now / PERIOD) if self._simulated_time else self._ticks) % self._divider == 0:
            self._publisher.publish()
        else:
            self._publisher.publish_change()
        self._requests.answer()

    def _on_chunk(self, message: ActionChunk) -> None:
        try:
            chunk = parse_chunk(
                stamp_to_seconds(message.header.stamp),
                message.sequence,
                message.joint_names,
                message.dt,
                message.steps,
                message.positions,
                message.first_step,
            )
            self._controller.offer(chunk, message.source)
            self._publisher.publish_status()  # immediately: the policy measures the delay with it
        except ChunkRejected as reason:
            self._controller.count_rejected(str(reason))  # /diagnostics reports and logs it

    # Diagnostics, on the steady clock

    def _report(self) -> Report:
        silence = time.monotonic() - self._times.last_tick
        clock_stopped = ""
        if silence > CLOCK_PATIENCE:
            clock_stopped = f"ROS time stands still for {silence:.0f} s"
            self._controller.pause(
                f"clock: no ROS time for {silence:.0f} s of wall time; is the simulator running?"
            )
        self._requests.answer()
        arm = {"firmware": self._backend.firmware() or "unknown", "connection": self._backend}
        measured = values(self._controller, self._now()) | self._times.values() | arm
        return *judge(self._controller, clock_stopped), measured

    def close(self) -> None:
        """Brake to rest and close the bus. The motors stay powered. Runs on the wall clock, because
        ROS may have shut down.
        """
        for number in SIGNALS:
            signal.signal(
                number, signal.SIG_IGN
            )  # the braking below is short and must not be interrupted
        controller = self._controller
        silence = time.monotonic() - self._times.last_tick
        if not self._simulated_time and silence > CLOSE_PATIENCE:
            controller.set_point.restart()  # the arm has stopped at its last set-point
        while not controller.set_point.at_rest:
            self._backend.write(controller.set_point.brake(PERIOD))
            time.sleep(PERIOD)
        self._backend.close()


def main() -> None:
    run_node(ArmControllerNode)


if __name__ == "__main__":
    main()
