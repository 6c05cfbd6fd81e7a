"""Node ``sim_node``: a simulated world in place of cameras, arm and wall clock.

One loop in the main thread does everything, because a GL context belongs to its thread. Between two
ticks of 5 ms it serves ROS and waits for slow nodes. On the wall clock a second thread repeats the
arm's feedback while an image is rendered. See the package's README for topics and parameters.
"""

import time
from contextlib import nullcontext

import numpy as np
from alam_msgs.msg import Processed, TaskStatus
from alam_msgs.srv import ResetWorld
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from alam_common.diagnostics import OK, WARN, Diagnostics, Report
from alam_common.main import run_node
from alam_common.messages import NANOSECONDS, ns_to_stamp, numpy_to_image, stamp_to_ns
from alam_common.meters import Recent
from alam_common.parameters import Parameter, declare_parameters
from alam_core.errors import UserError
from alam_core.sim.world import DrivenWorld, make_world
from alam_core.types import VIEWS
from alam_piper.bus import INTERFACES, BusConfig
from alam_piper.emulator import ArmEmulator, open_emulator_bus
from alam_sim.pacing import NodeWait, Throttle, repeated

TICK = 5_000_000  # ns of simulated time per tick: one exchange with the arm's bus
START = 1_000_000_000  # ns, start of simulated time; in ROS a time of 0 means "no time yet"
PER_FRAME = 20  # ticks between two camera images, and between two task statuses: 0.1 s
FEEDBACK = 0.01  # s of wall time between two repetitions of the feedback during rendering
PARAMETERS = {
    "world": Parameter("piper_place", "name of the world"),
    "seed": Parameter(0, "seed of the first episode", 0, 2**31 - 1),
    "camera_size": Parameter(0, "px, side of the camera images; 0: the world's default", 0, 4096),
    "speed": Parameter(
        1.0, "upper limit of simulated time relative to real time; 0: none", 0.0, 1e6
    ),
    "max_lag": Parameter(
        0.1,
        "s that simulated time may be ahead of the newest observation that each node processed",
        0.1,
        1e6,
    ),
    "patience": Parameter(
        2.0, "s of wall time that the simulator waits for a silent node", 0.001, 1e6
    ),
    "realtime": Parameter(False, "run on the wall clock: publish no /clock, wait for no node"),
    "can_interface": Parameter(
        "udp_multicast", "python-can interface of the emulated CAN bus", choices=INTERFACES
    ),
    "can_channel": Parameter("239.74.163.2", "multicast address of the emulated CAN bus"),
    "can_port": Parameter(43113, "UDP port of the emulated CAN bus", 0, 65535),
    "muted_views": Parameter(
        "",
        "fault injection: views whose camera publishes nothing, separated by commas",
        dynamic=True,
    ),
}


class WorldPlant:
    """The arm of the world, as the plant that the CAN emulator moves.

    ``tick`` lets the emulator read commands, advances the physics, and sends feedback of the new
    state. Outside a tick a new target does not advance the physics.
    """

    def __init__(self, world: DrivenWorld) -> None:
        self._world = world
        self._ticking = False

    def set_target(self, joints: np.ndarray, gripper: float) -> None:
        if self._ticking:
            self._world.physics_step(np.append(joints, gripper))

    def state(self) -> tuple[np.ndarray, np.ndarray, float]:
        q, qd = self._world.joint_state()
        return q[:6], qd[:6], float(q[6])

    def tick(self, emulator: ArmEmulator) -> None:
        """Make one tick of the world with the emulated arm in it."""
        self._ticking = True
        emulator.step(TICK * 1e-9)
        self._ticking = False


class SimNode(Node):
    """One simulated world. Build it and call ``step`` in the same thread."""

    def __init__(self) -> None:
        super().__init__("sim_node")
        p = declare_parameters(self, PARAMETERS)
        self.realtime: bool = p["realtime"]
        self.patience: float = p["patience"]
        bus = BusConfig(p["can_interface"], p["can_channel"], p["can_port"])
        world = make_world(p["world"])
        if not isinstance(world, DrivenWorld):
            raise UserError(
                f"sim_node: the world '{p['world']}' has no Piper arm to drive; "
                "choose another world, for example piper_place"
            )
        self.world: DrivenWorld = world
        self.world.reset(p["seed"])
        self.camera_size: int = p["camera_size"] or self.world.camera_size
        self._plant = WorldPlant(self.world)
        self._bus = open_emulator_bus(bus)
        self._emulator = ArmEmulator(self._bus, self._plant)
        self._ticks = 0
        self._wait = NodeWait(round(p["max_lag"] * NANOSECONDS), self.patience)
        self._throttle = Throttle(TICK * 1e-9, 1.0 if self.realtime else p["speed"])
        self._holding: list[str] = []
        self._tick_ms, self._frame_ms = Recent(), Recent(50)
        self._speed = (time.monotonic(), 0)  # steady clock (s) and ticks at the last diagnostics

        if not self.realtime:
            self._time = self.create_publisher(
                Clock, "clock", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
            )
        self._images = {
            view: self.create_publisher(Image, f"{view}/color/image_raw", qos_profile_sensor_data)
            for view in VIEWS
        }
        self._status = self.create_publisher(TaskStatus, "alam/task_status", 10)
        self.create_subscription(Processed, "alam/processed", self._on_processed, 20)
        self.create_service(ResetWorld, "alam/sim/reset", self._on_reset)
        self._diagnostics = Diagnostics(self, self._check, stamp=lambda: ns_to_stamp(self.now))
        self.get_logger().info(
            f"world {p['world']}, seed {p['seed']}: {self.world.instruction}; arm on CAN bus {bus}"
        )

    @property
    def now(self) -> int:
        """Time in ns: simulated, or that of the wall clock with ``realtime``."""
        return self.get_clock().now().nanoseconds if self.realtime else START + self._ticks * TICK

    def step(self, executor: Executor) -> None:
        """Serve ROS, then make a tick if it is due."""
        executor.spin_once(timeout_sec=0)
        if self._may_tick(executor):
            self._tick()

    def _may_tick(self, executor: Executor) -> bool:
        """Whether the next tick may start. If not, wait a short time for the nodes or the clock."""
        self._holding = (
            [] if self.realtime else self._wait.holding(self.now + TICK, time.monotonic())
        )
        if self._holding:
            executor.spin_once(timeout_sec=0.02)
            return False
        delay = self._throttle.wait(time.monotonic())
        if delay > 0.0:
            time.sleep(min(delay, 0.005))
            return False
        return True

    def _tick(self) -> None:
        if not self.realtime:
            self._emulator.wait_for_command(self.patience)
        start = time.monotonic()
        self._throttle.ticked(start)
        self._plant.tick(self._emulator)
        self._ticks += 1
        now = self.now
        if not self.realtime:
            self._time.publish(Clock(clock=ns_to_stamp(now)))
        self._tick_ms.add((time.monotonic() - start) * 1e3)
        if self._ticks % PER_FRAME == 0:
            self._publish_frame(now)

    def _publish_frame(self, now: int) -> None:
        start = time.monotonic()
        stamp = ns_to_stamp(now)
        muted = self.get_parameter("muted_views").value.split(",")
        # On the wall clock rendering keeps the arm from moving, but not from giving feedback.
        alive = repeated(self._repeat_feedback, FEEDBACK) if self.realtime else nullcontext()
        with alive:
            for view, publisher in self._images.items():
                if view not in muted:
                    publisher.publish(
                        numpy_to_image(
                            self.world.render(view, self.camera_size),
                            stamp,
                            f"{view}_color_optical_frame",
                        )
                    )
        self._publish_status(now)
        self._frame_ms.add((time.monotonic() - start) * 1e3)

    def _repeat_feedback(self) -> None:
        self._emulator.step(0.0)

    def _publish_status(self, now: int) -> None:
        status = TaskStatus(
            instruction=self.world.instruction, seed=self.world.seed, success=self.world.success()
        )
        status.header.stamp = ns_to_stamp(now)
        self._status.publish(status)

    def _on_processed(self, message: Processed) -> None:
        if self._wait.heard(message.node, stamp_to_ns(message.header.stamp)) and not self.realtime:
            self.get_logger().info(f"waiting for {message.node} from now on")

    def _on_reset(
        self, request: ResetWorld.Request, response: ResetWorld.Response
    ) -> ResetWorld.Response:
        response.instruction = self.world.instruction
        if request.seed < 0:
            response.message = f"seed {request.seed} is below 0"
            return response
        self.world.reset(request.seed)
        self._emulator.teleport()
        self._publish_status(self.now)
        response.success = True
        response.message = f"episode of seed {request.seed}"
        response.instruction = self.world.instruction
        return response

    def _check(self) -> Report:
        moment, ticks = self._speed
        self._speed = (time.monotonic(), self._ticks)
        speed = (self._ticks - ticks) * TICK * 1e-9 / max(self._speed[0] - moment, 1e-6)
        values: dict[str, object] = {
            "sim_time_s": self.now * 1e-9,
            "speed": speed,
            "tick_ms_p50": self._tick_ms.percentile(50),
            "frame_ms_p50": self._frame_ms.percentile(50),
            "lost_s": self._throttle.lost,
            "joint_commands": self._emulator.joint_commands,
            "instruction": self.world.instruction,
            "seed": self.world.seed,
        }
        dropped = self._wait.dropped()
        if dropped and not self.realtime:
            return (
                WARN,
                f"no longer waiting for {', '.join(dropped)}: silent for {self.patience:.1f} s",
                values,
            )
        if self._holding:
            return OK, f"waiting for {', '.join(self._holding)}", values
        return OK, f"running at {speed:.2f} of real time", values

    def close(self) -> None:
        """Close the bus and the world."""
        self._bus.shutdown()
        self.world.close()


def main() -> None:
    run_node(SimNode, step=SimNode.step)


if __name__ == "__main__":
    main()
