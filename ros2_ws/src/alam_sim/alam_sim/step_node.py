"""Node ``step_node``: a simulated world that executes one row of an action chunk per control step,
such as a task of MetaWorld. It takes the place of cameras, arm and clock.

In lockstep, the default, simulated time advances only when every node has processed the newest
observation and the newest chunk is here: what happens does not depend on the machine's speed. Until
a chunk arrives, and when the episode is over, time advances and the world stands still.
"""

import time

import numpy as np
from alam_msgs.msg import ActionChunk, ArmStatus, Processed, TaskStatus
from alam_msgs.srv import ResetWorld
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState

import alam_core.types as core
from alam_common.diagnostics import OK, WARN, Diagnostics, Report
from alam_common.main import run_node
from alam_common.messages import (
    NANOSECONDS,
    ns_to_stamp,
    numpy_to_image,
    stamp_to_ns,
    stamp_to_seconds,
)
from alam_common.meters import Recent
from alam_common.parameters import Parameter, declare_parameters
from alam_core.errors import UserError
from alam_core.runtime.timeline import StepTimeline
from alam_core.sim.protocols import find_profile
from alam_core.sim.world import GroupedWorld, make_world
from alam_sim.pacing import NodeWait, Throttle

START = 1_000_000_000  # ns, start of simulated time; in ROS a time of 0 means "no time yet"
RESEND = 0.5  # s of wall time after which an observation that nobody processed is sent again
IDLE = 0.02  # s of wall time, the longest between two observations while the world stands still
HOLDING, EXECUTING = "HOLDING", "EXECUTING"  # states of ArmStatus.msg
PARAMETERS = {
    "world": Parameter("metaworld", "name of the world"),
    "protocol": Parameter("", "play a benchmark as others do (docs/benchmarks.md); empty: no"),
    "rendering": Parameter(
        "", "of a benchmark's images; empty: as the protocol does", choices=("", "fast", "full")
    ),
    "state_names": Parameter(
        [""], "names of the state's numbers in joint_states; empty: state_0, state_1, ..."
    ),
    "seed": Parameter(0, "seed of the first episode", 0, 2**31 - 1),
    "speed": Parameter(
        0.0, "upper limit of simulated time relative to real time; 0: none", 0.0, 1e6
    ),
    "lockstep": Parameter(True, "wait for the nodes before each control step"),
    "patience": Parameter(
        60.0, "s of wall time that the simulator waits for a silent node", 0.001, 1e6
    ),
}


class StepNode(Node):
    """One simulated world. Build it and call ``step`` in the same thread."""

    def __init__(self) -> None:
        super().__init__("step_node")
        p = declare_parameters(self, PARAMETERS)
        profile = find_profile(p["world"], p["protocol"], p["rendering"] or None)
        self.world = make_world(p["world"], 0, profile)
        self._period = round(self.world.dt * NANOSECONDS)
        self._names = self._state_names(p["state_names"])
        self._lockstep: bool = p["lockstep"]
        self._wait = NodeWait(0, p["patience"])
        self._throttle = Throttle(self.world.dt, p["speed"])
        self._timeline = StepTimeline()
        self._ticks = 0
        self._newest = 0  # sequence number of the newest chunk that was received
        self._awaited = 0  # that of the newest chunk that a node has sent
        self._refused = ""  # why the newest chunk cannot be executed, "" if it can
        self._sent_at = 0.0  # s (steady clock), when the current observation was last published
        self._waiting: list[str] = []
        self._step_ms = Recent(50)
        self._speed = (time.monotonic(), 0)  # steady clock (s) and ticks at the last diagnostics
        self._begin(p["seed"])

        self._time = self.create_publisher(
            Clock, "clock", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        )
        self._states = self.create_publisher(JointState, "joint_states", 10)
        self._images = {
            view: self.create_publisher(Image, f"{view}/color/image_raw", qos_profile_sensor_data)
            for view in self._observation.images
        }
        self._arm = self.create_publisher(ArmStatus, "alam/arm/status", 10)
        self._status = self.create_publisher(TaskStatus, "alam/task_status", 10)
        self.create_subscription(ActionChunk, "alam/action_chunk", self._on_chunk, 10)
        self.create_subscription(Processed, "alam/processed", self._on_processed, 20)
        self.create_service(ResetWorld, "alam/sim/reset", self._on_reset)
        self._diagnostics = Diagnostics(self, self._check, stamp=lambda: ns_to_stamp(self.now))
        self.get_logger().info(
            f"world {p['world']}, seed {p['seed']}: {self._observation.instruction}"
        )
        self._publish()

    @property
    def now(self) -> int:
        """Simulated time in ns."""
        return START + self._ticks * self._period

    @property
    def over(self) -> bool:
        """Whether the episode is over: at its first success, or at the step limit."""
        return self._success or self._steps >= self.world.max_steps

    def step(self, executor: Executor) -> None:
        """Serve ROS, then make a control step if it is due."""
        executor.spin_once(timeout_sec=0)
        if self._may_step(executor):
            self._step()

    def _state_names(self, given: list[str]) -> list[str]:
        names = [name for name in given if name]
        names = names or [f"state_{i}" for i in range(self.world.state_dim)]
        if len(names) != self.world.state_dim:
            raise UserError(
                f"step_node: state_names has {len(names)} names, but the state of the world "
                f"'{self.world.name}' has {self.world.state_dim} numbers: is the policy for it?"
            )
        return names

    def _begin(self, seed: int) -> None:
        self._observation = self.world.reset(seed)
        self._seed, self._steps, self._success = seed, 0, False
        self._since = self.now  # chunks from before the episode are not executed
        self._timeline.clear()

    def _may_step(self, executor: Executor) -> bool:
        """Whether the next control step may be made. If not, serve ROS for a short time."""
        steady = time.monotonic()
        self._waiting = self._wait.holding(self.now, steady) if self._lockstep else []
        if self._lockstep and not self._waiting and self._awaited > self._newest:
            self._waiting = ["a chunk"]
        if self._waiting:
            if steady - self._sent_at > RESEND:
                self._publish()
            executor.spin_once(timeout_sec=0.02)
            return False
        pause = min(IDLE, self.world.dt) if self._row() is None else 0.0
        delay = max(self._throttle.wait(steady), self._sent_at + pause - steady)
        if delay > 0.0:
            executor.spin_once(timeout_sec=min(delay, 0.005))
            return False
        return True

    def _row(self) -> tuple[core.ActionChunk, int] | None:
        """The row to execute now; None if there is none, which keeps the world still."""
        now = self.now / NANOSECONDS
        found = None if self.over else self._timeline.at(now)
        ended = found is not None and now > found[0].end - 0.5 * self.world.dt
        return None if ended else found

    def _step(self) -> None:
        started = time.monotonic()
        self._throttle.ticked(started)
        found = self._row()
        self._report(found)
        if found is not None:
            chunk, row = found
            self._observation = self.world.step(chunk.actions[row])
            self._steps += 1
            self._success = self._success or self.world.success()
        self._ticks += 1
        self._publish()
        self._step_ms.add((time.monotonic() - started) * 1e3)

    def _publish(self) -> None:
        """The observation at the current time, and how the task stands."""
        stamp = ns_to_stamp(self.now)
        self._time.publish(Clock(clock=stamp))
        state = JointState(name=self._names, position=self._observation.state.tolist())
        state.header.stamp = stamp
        self._states.publish(state)  # before the images, which it belongs to
        for view, publisher in self._images.items():
            image = self._observation.images[view]
            publisher.publish(numpy_to_image(image, stamp, f"{view}_color_optical_frame"))
        status = TaskStatus(
            instruction=self._observation.instruction,
            seed=self._seed,
            success=self._success,
            task=self.world.task,
            group=self.world.group if isinstance(self.world, GroupedWorld) else "",
            steps=self._steps,
        )
        status.header.stamp = stamp
        self._status.publish(status)
        self._sent_at = time.monotonic()

    def _report(self, found: tuple[core.ActionChunk, int] | None) -> None:
        """Publish what is executed from now on."""
        message = ArmStatus(state=HOLDING, reason=self._reason(), row=-1)
        if found is not None:
            chunk, row = found
            message = ArmStatus(
                state=EXECUTING,
                sequence=chunk.sequence,
                row=row,
                set_point=chunk.actions[row].astype(np.float64).tolist(),
            )
        message.header.stamp = ns_to_stamp(self.now)
        self._arm.publish(message)

    def _reason(self) -> str:
        """Why the world stands still."""
        if self.over:
            how = "success" if self._success else "the step limit"
            return f"the episode is over ({how}): reset the world (alam/sim/reset)"
        return self._refused or "no chunk to execute"

    def _on_chunk(self, message: ActionChunk) -> None:
        actions = np.array(message.positions, np.float32)
        width = self.world.action_dim
        self._newest = max(self._newest, message.sequence)
        self._refused = ""
        if len(actions) != message.steps * width or not message.steps:
            self._refused = (
                f"a chunk of {message.steps} steps has {len(actions)} numbers, but an action of "
                f"the world has {width}"
            )
        elif not np.isfinite(actions).all() or abs(message.dt - self.world.dt) > 1e-6:
            self._refused = (
                f"a chunk has steps of {message.dt} s or numbers that are not finite; the world "
                f"takes steps of {self.world.dt} s"
            )
        elif stamp_to_ns(message.header.stamp) >= self._since:
            chunk = core.ActionChunk(
                actions.reshape(-1, width),
                message.dt,
                stamp_to_seconds(message.header.stamp),
                sequence=message.sequence,
                first_step=message.first_step,
            )
            self._timeline.add(chunk)

    def _on_processed(self, message: Processed) -> None:
        self._awaited = max(self._awaited, message.sequence)
        if self._wait.heard(message.node, stamp_to_ns(message.header.stamp)) and self._lockstep:
            self.get_logger().info(f"waiting for {message.node} from now on")

    def _on_reset(
        self, request: ResetWorld.Request, response: ResetWorld.Response
    ) -> ResetWorld.Response:
        response.instruction = self._observation.instruction
        if request.seed < 0:
            response.message = f"seed {request.seed} is below 0"
            return response
        self._ticks += 1  # the first observation of an episode has a stamp of its own
        self._begin(request.seed)
        self._publish()
        response.success = True
        response.message = f"episode of seed {request.seed}"
        response.instruction = self._observation.instruction
        return response

    def _check(self) -> Report:
        moment, ticks = self._speed
        self._speed = (time.monotonic(), self._ticks)
        passed = (self._ticks - ticks) * self.world.dt
        values: dict[str, object] = {
            "sim_time_s": self.now * 1e-9,
            "speed": passed / max(self._speed[0] - moment, 1e-6),
            "step_ms_p50": self._step_ms.percentile(50),
            "instruction": self._observation.instruction,
            "seed": self._seed,
            "steps": self._steps,
            "success": self._success,
        }
        if self._refused:
            return WARN, self._refused, values
        if dropped := self._wait.dropped():
            return WARN, f"no longer waiting for {', '.join(dropped)}: silent", values
        if self._waiting:
            return OK, f"waiting for {', '.join(self._waiting)}", values
        return OK, self._reason() if self._row() is None else "running", values

    def close(self) -> None:
        """Close the world."""
        self.world.close()


def main() -> None:
    run_node(StepNode, step=StepNode.step)


if __name__ == "__main__":
    main()
