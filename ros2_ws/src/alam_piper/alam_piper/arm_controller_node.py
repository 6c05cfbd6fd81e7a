"""Node ``arm_controller``: executes action chunks on the arm, in a 200 Hz loop on ROS time.

Everything runs in one thread, so the CAN bus has one writer and the state machine needs no locks.
See the package's README for topics, services and guarantees.
"""

import os
import signal
import time
from collections.abc import Callable

from alam_msgs.msg import ActionChunk, ArmStatus
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger

from alam_common.diagnostics import Diagnostics, Report
from alam_common.main import run_node
from alam_common.messages import seconds_to_stamp, stamp_to_seconds
from alam_common.parameters import Parameter, declare_parameters
from alam_core.errors import UserError
from alam_core.robots.piper import JOINT_LIMITS, JOINT_NAMES, MAX_VELOCITY
from alam_core.runtime.motion import make_limits
from alam_piper.bus import INTERFACES, BusConfig
from alam_piper.controller import ArmController, ControllerConfig, State
from alam_piper.gate import ChunkRejected, ChunkRules, parse_chunk
from alam_piper.hardware import Feedback, SdkBackend, read_newer
from alam_piper.report import LoopTimes, judge, values

PERIOD = 0.005  # s between ticks of the loop
CLOCK_PATIENCE = 3.0  # s of wall time without a tick after which ROS time counts as stopped
FEEDBACK_PATIENCE = 0.03  # s of wall time that a tick waits for feedback, where it waits
ANSWER_PATIENCE = 10.0  # s of wall time after which a service answers, whether done or not
REOPEN_PATIENCE = 1.0  # s of wall time to wait for feedback on a bus that was opened again
PARAMETERS = {
    "can_interface": Parameter("udp_multicast", "python-can interface", choices=INTERFACES),
    "can_channel": Parameter(
        "239.74.163.2", "CAN channel: can0, a multicast address, or socket://host:port"
    ),
    "can_port": Parameter(43113, "UDP port, for udp_multicast only", 0, 65535),
    "max_velocity": Parameter(1.0, "rad/s, limit of each joint", 0.05, MAX_VELOCITY),
    "max_acceleration": Parameter(
        5.0, "rad/s^2, limit of each joint; the firmware of a real arm allows 5", 0.5, 50.0
    ),
    "gripper_stroke": Parameter(
        0.10, "m, full opening: 0.07 for the older gripper, 0.10 for the newer one", 0.01, 0.10
    ),
    "max_gripper_velocity": Parameter(0.3, "m/s, limit of the opening", 0.01, 1.0),
    "gripper_effort": Parameter(1.0, "N*m, grip effort", 0.0, 5.0),
    "firmware_speed_percent": Parameter(
        100, "speed limit in the arm's firmware, percent of 3 rad/s", 1, 100
    ),
    "command_timeout": Parameter(
        0.2, "s after the last row of a chunk after which the arm holds", 0.02, 5.0
    ),
    "feedback_timeout": Parameter(0.1, "s without new feedback before a fault", 0.02, 2.0),
    "max_chunk_age": Parameter(1.0, "s, largest age of a chunk's observation", 0.05, 10.0),
    "splice_fade": Parameter(
        0.15, "s over which the difference between two chunks is faded out", 0.005, 1.0
    ),
    "realtime_priority": Parameter(
        20,
        "SCHED_FIFO priority of the loop and the CAN reader, on the wall clock only and if "
        "permitted; 0: none",
        0,
        90,
    ),
    "joint_state_divider": Parameter(
        4, "joint_states and alam/arm/status are published on every n-th tick", 1, 200
    ),
}


class ArmControllerNode(Node):
    """The controller as a node. Raises UserError if the CAN bus cannot be opened."""

    def __init__(self) -> None:
        super().__init__("arm_controller")
        p = declare_parameters(self, PARAMETERS)
        limits = make_limits(
            JOINT_LIMITS,
            velocity=p["max_velocity"],
            acceleration=p["max_acceleration"],
            gripper_stroke=p["gripper_stroke"],
            gripper_velocity=p["max_gripper_velocity"],
        )
        self._controller = ArmController(
            ControllerConfig(
                limits=limits,
                rules=ChunkRules(max_age=p["max_chunk_age"]),
                period=PERIOD,
                command_timeout=p["command_timeout"],
                feedback_timeout=p["feedback_timeout"],
                fade=p["splice_fade"],
            )
        )
        self._bus = BusConfig(p["can_interface"], p["can_channel"], p["can_port"])
        self._backend = SdkBackend(self._bus, p["firmware_speed_percent"], p["gripper_effort"])
        self._simulated_time = self.get_parameter("use_sim_time").value
        self._divider = p["joint_state_divider"]
        self._ticks = 0
        self._published: Feedback | None = None  # the feedback in the last joint state published
        self._reported: tuple[State, str, int] | None = None  # what the last ArmStatus contained
        self._times = LoopTimes(PERIOD, jitter=not self._simulated_time)
        self._stops = 0  # requests to hold or disable, which cancel an enabling that waits
        # Service calls in progress: future, condition to wait for, deadline (s, steady clock).
        self._waiting: list[tuple[Future, Callable[[], bool], float]] = []

        if not self._simulated_time and p["realtime_priority"]:
            self._raise_priority(p["realtime_priority"])
        self._backend.connect()  # its threads inherit the priority
        self._joint_states = self.create_publisher(JointState, "joint_states", 10)
        self._status = self.create_publisher(ArmStatus, "alam/arm/status", 50)
        self.create_subscription(ActionChunk, "alam/action_chunk", self._on_chunk, 10)
        # These two wait for the arm. They have their own callback group, so that the loop goes on.
        waiting = ReentrantCallbackGroup()
        self.create_service(SetBool, "alam/arm/enable", self._on_enable, callback_group=waiting)
        self.create_service(
            Trigger, "alam/arm/reset_fault", self._on_reset_fault, callback_group=waiting
        )
        self.create_service(Trigger, "alam/arm/hold", self._on_hold)
        # Off simulation the steady clock, because a timer on the system clock stops for as long as
        # that clock was set back.
        steady = None if self._simulated_time else Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(PERIOD, self._on_tick, clock=steady)
        self._diagnostics = Diagnostics(self, self._report)
        enable = self.resolve_service_name("alam/arm/enable")
        self.get_logger().info(f"arm on CAN bus {self._bus}; nothing moves before {enable}")

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

    # The loop

    def _on_tick(self) -> None:
        now = self._now()
        if now <= 0.0:  # simulated time before the first /clock
            return
        late = self._times.tick() > self._controller.config.feedback_timeout / 2
        self._ticks += 1

        state = self._controller.state
        # In simulated time the loop waits for the feedback that was sent before this tick. On the
        # wall clock it waits only after it could not run for a while: the feedback of that time is
        # there, but was not read yet.
        due = self._controller.feedback_is_fresh if self._simulated_time else late
        patience = FEEDBACK_PATIENCE if due else 0.0
        feedback = read_newer(self._backend, self._controller.feedback, patience)
        self._controller.firmware = self._backend.firmware()
        self._controller.arm_limits = self._backend.arm_limits()
        self._controller.foreign_writer = self._backend.foreign_writer()
        output = self._controller.tick(now, feedback, "" if feedback else self._backend.missing())
        if output.set_point is not None:
            self._backend.write(output.set_point)
            if output.first_of_chunk is not None:
                self._times.sent_first_of_chunk(self._now() - output.first_of_chunk)
        elif output.enable:
            self._backend.enable()
        if self._controller.state is not state:
            self.get_logger().info(
                f"{state} -> {self._controller.state}: {self._controller.reason}"
            )
            self._diagnostics.publish()
        # In simulated time at multiples of the period, so that each image has a joint state of the
        # same stamp.
        if (round(now / PERIOD) if self._simulated_time else self._ticks) % self._divider == 0:
            self._publish_joint_states()
            self._publish_status()
        elif self._reported != self._present():
            self._publish_status()
        if self._waiting:
            self._answer()

    def _publish_joint_states(self) -> None:
        controller = self._controller
        if controller.feedback is None or controller.feedback is self._published:
            return
        self._published = controller.feedback
        message = JointState()
        message.header.stamp = seconds_to_stamp(controller.feedback_time)
        message.header.frame_id = "base_link"
        message.name = list(JOINT_NAMES)
        message.position = controller.feedback.positions.tolist()
        message.velocity = [*controller.feedback.velocities.tolist(), controller.gripper_velocity]
        self._joint_states.publish(message)

    def _present(self) -> tuple[State, str, int]:
        """State, reason, and sequence number of the chunk being executed (0: none)."""
        controller = self._controller
        return (
            controller.state,
            controller.reason,
            controller.chunk.sequence if controller.chunk else 0,
        )

    def _publish_status(self) -> None:
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

    # Requests

    def _on_chunk(self, message: ActionChunk) -> None:
        try:
            stamp = stamp_to_seconds(message.header.stamp)
            chunk = parse_chunk(
                stamp,
                message.sequence,
                message.joint_names,
                message.dt,
                message.steps,
                message.positions,
                message.first_step,
            )
            self._controller.offer(chunk)
            self._publish_status()  # immediately: the policy node measures the delay with it
        except ChunkRejected as reason:
            self._controller.count_rejected(str(reason))  # /diagnostics reports and logs it

    async def _on_enable(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        controller = self._controller
        if request.data:
            stops = self._stops
            refused = await self._reopen_if_unheard()
            if refused is None and self._stops != stops:
                refused = "not enabled: asked to hold or disable meanwhile"
            refused = refused or controller.enable()
            if refused is None:
                await self._until(lambda: controller.state is not State.ENABLING)
            response.success = refused is None and controller.state in (
                State.HOLDING,
                State.EXECUTING,
            )
            response.message = refused or controller.reason
        else:
            self._stops += 1
            controller.disable()
            await self._until(lambda: controller.state in (State.DISABLED, State.FAULT))
            response.success = controller.state in (
                State.DISABLED,
                State.FAULT,
            )  # FAULT also sends nothing once at rest
            response.message = controller.reason
        return response

    def _on_hold(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._stops += 1
        self._controller.hold()
        response.success = self._controller.state is not State.EXECUTING
        response.message = self._controller.reason
        return response

    async def _on_reset_fault(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        refused = await self._reopen_if_unheard() or self._controller.reset_fault()
        response.success = refused is None
        response.message = refused or self._controller.reason
        return response

    async def _reopen_if_unheard(self) -> str | None:
        """If the arm is not heard, open the bus again, because its adapter may have been pulled and
        plugged in, and wait for feedback. Does nothing while set-points are sent. Returns why the
        bus cannot be opened, None if it is open.
        """
        controller = self._controller
        if controller.feedback_is_fresh or not controller.is_silent:
            return None
        try:
            self._backend.connect()
        except UserError as error:
            return str(error)
        self.get_logger().info(f"opened CAN bus {self._bus} again: the arm was not heard")
        await self._until(lambda: controller.feedback_is_fresh, REOPEN_PATIENCE)
        return None

    async def _until(self, done: Callable[[], bool], patience: float = ANSWER_PATIENCE) -> None:
        """Wait until ``done()`` is true, for at most ``patience`` s of wall time; the loop
        continues meanwhile.
        """
        if not done():
            future: Future = Future()
            self._waiting.append((future, done, time.monotonic() + patience))
            await future

    def _answer(self) -> None:
        now = time.monotonic()
        for entry in list(self._waiting):
            future, done, deadline = entry
            if done() or now > deadline:
                self._waiting.remove(entry)
                future.set_result(None)

    # Diagnostics, on the steady clock

    def _report(self) -> Report:
        silence = time.monotonic() - self._times.last_tick
        clock_stopped = ""
        if silence > CLOCK_PATIENCE:
            clock_stopped = f"ROS time stands still for {silence:.0f} s"
            self._controller.pause(
                f"clock: no ROS time for {silence:.0f} s of wall time; is the simulator running?"
            )
        self._answer()
        bus = {"firmware": self._backend.firmware() or "unknown", "can_bus": self._bus}
        measured = values(self._controller, self._now()) | self._times.values() | bus
        return *judge(self._controller, clock_stopped), measured

    def close(self) -> None:
        """Brake to rest and close the bus. The motors stay powered. Runs on the wall clock, because
        ROS may have shut down.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(
                number, signal.SIG_IGN
            )  # the braking below is short and must not be interrupted
        controller = self._controller
        while not controller.set_point.at_rest:
            self._backend.write(controller.set_point.brake(PERIOD))
            time.sleep(PERIOD)
        self._backend.close()


def main() -> None:
    run_node(ArmControllerNode)


if __name__ == "__main__":
    main()
