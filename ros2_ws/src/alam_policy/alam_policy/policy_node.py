"""Node ``policy``: carries out an instruction by sending action chunks.

One thread serves ROS, another runs inference, so that a goal can be cancelled during an inference.
"""

import queue
import threading
import time
import uuid
from collections.abc import Callable

import numpy as np
import torch
from alam_msgs.msg import ActionChunk, ArmStatus, PredictedLatents, Processed
from alam_msgs.msg import Observation as ObservationMessage
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

import alam_core.types as core
from alam_common.diagnostics import ERROR, OK, WARN, Diagnostics, Report
from alam_common.main import run_node
from alam_common.messages import stamp_to_ns, stamp_to_seconds
from alam_common.meters import RateMeter, Recent
from alam_common.parameters import Parameter, declare_parameters
from alam_core.errors import UserError, one_line
from alam_core.robots.piper import JOINT_NAMES
from alam_core.runtime.columns import parse_names_map
from alam_core.runtime.planner import Planner
from alam_core.runtime.runner import PolicyRunner
from alam_policy.arm import ArmWatch
from alam_policy.execution import Execution
from alam_policy.goals import GoalServer, Task
from alam_policy.messages import chunk_to_message, latents_to_message, observation_from_message

WATCH = 0.05  # s (steady clock) between two checks of the active goal
IGNORED = 2  # chunks in a row that the arm does not execute before the goal's client is warned
GOODBYE = 0.5  # s (wall time) for sending the result of the goal that is active when the node stops
SILENCE = 2.0  # s (steady clock) without an observation after which diagnostics report it
PARAMETERS = {
    "checkpoint": Parameter("", "folder of a policy; required", path=True),
    "seed": Parameter(0, "seed of the chunks' initial noise; goal n uses seed + n", 0, 2**31 - 1),
    "replan_every": Parameter(8, "steps of a chunk after which the next one is planned", 1, 1000),
    "time_limit": Parameter(30.0, "s of ROS time, for goals without a time limit", 0.01, 1e6),
    "observation_timeout": Parameter(
        1.0, "s without an observation before a goal is aborted, of ROS and of wall time", 0.01, 1e6
    ),
    "silence_timeout": Parameter(
        5.0,
        "s of wall time without an observation before a goal is aborted; ends a goal even while "
        "ROS time stands still",
        0.01,
        1e6,
    ),
    "max_ignored": Parameter(
        10,
        "chunks in a row that the arm does not execute, after which a goal is aborted",
        1,
        1_000_000,
    ),
    "threads": Parameter(1, "CPU threads of the network", 1, 1024),
    "device": Parameter("", "cpu, cuda or cuda:N; empty: a GPU if there is one"),
    "bfloat16": Parameter(False, "keep pi0's weights in bfloat16, which halves their memory"),
    "joints": Parameter(
        list(JOINT_NAMES),
        "names of the arm's joints; empty for a world without such names, whose state and actions "
        "are in the order of the policy's data",
    ),
    "joint_names_map": Parameter(
        [""],
        "entries <name in the policy's data>=<joint of the arm>, for data with other names, for "
        "example joint_1.pos=joint1",
    ),
    "strict_instructions": Parameter(
        False, "end a goal at once if the policy was not trained on its instruction; else warn"
    ),
    "compiled": Parameter(
        False,
        "compile the network, on a GPU also record it as a CUDA graph: starts at least a minute "
        "later, infers faster",
    ),
}


class PolicyNode(Node):
    """See the package's README for topics, the action and parameters.

    load: loads the policy; takes the arguments of ``PolicyRunner.from_pretrained``.
    """

    def __init__(self, load: Callable[..., PolicyRunner] = PolicyRunner.from_pretrained) -> None:
        super().__init__("policy")
        p = declare_parameters(self, PARAMETERS)
        if not p["checkpoint"]:
            raise UserError(
                "policy: no checkpoint given; set the parameter 'checkpoint' to a policy's folder"
            )
        self._source = f"{self.get_fully_qualified_name()} {uuid.uuid4().hex[:8]}"
        self._seed = p["seed"]
        self._observation_timeout = p["observation_timeout"]
        self._silence_timeout = p["silence_timeout"]
        self._max_ignored = p["max_ignored"]
        torch.set_num_threads(p["threads"])
        torch.set_num_interop_threads(1)
        device = p["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
        self._runner = load(p["checkpoint"], device, bfloat16=p["bfloat16"], compiled=p["compiled"])
        self._strict = p["strict_instructions"]
        if self._strict and not self._runner.instructions:
            raise UserError(
                "policy: strict_instructions needs a checkpoint that keeps its instructions, but "
                f"'{p['checkpoint']}' keeps none: train it again with this version"
            )
        self._misfit = ""  # why the policy's columns are not those of the arm
        renamed = parse_names_map(p["joint_names_map"])
        self._joints = [name for name in p["joints"] if name]
        try:
            if self._joints:
                self._runner.fit_joints(self._joints, renamed)
        except UserError as error:
            self._misfit = str(error)
        # Sequence numbers start at the time in ms, so that they increase after a restart too.
        self._planner = Planner(
            self._runner,
            p["replan_every"],
            delay_steps=None,
            first_sequence=time.time_ns() // 1_000_000,
        )
        self._execution = Execution()
        self._arm = ArmWatch()
        self._warm_up()

        self._inbox: queue.SimpleQueue[ObservationMessage | None] = queue.SimpleQueue()
        self._busy = False
        # When the last observation was processed, or the goal accepted: ROS time (ns), steady
        # clock (s).
        self._last_seen = (0, 0.0)
        self._failure: Exception | None = None
        self._closing = False
        self._newest = 0  # sequence number of the newest chunk that was sent
        self._planned_for: Task | None = None  # the task that the planner was reset for
        self._unusual = ""  # states of the newest planned observation outside the training range
        self._meter, self._chunk_meter, self._inference = RateMeter(), RateMeter(), Recent()

        self._chunks = self.create_publisher(ActionChunk, "alam/action_chunk", 10)
        self._latents = self.create_publisher(PredictedLatents, "alam/predicted_latents", 10)
        self._processed = self.create_publisher(Processed, "alam/processed", 10)
        self.create_subscription(ArmStatus, "alam/arm/status", self._on_arm_status, 50)
        self.create_subscription(DiagnosticArray, "diagnostics", self._arm.on_diagnostics, 10)
        self.create_subscription(ObservationMessage, "alam/observation", self._on_observation, 1)
        self._goals = GoalServer(self, p["time_limit"], self._on_begin)
        self.create_timer(WATCH, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._diagnostics = Diagnostics(self, self._check)
        self._worker = threading.Thread(target=self._work, name="inference", daemon=True)
        self._worker.start()
        self.get_logger().info(f"the policy in {p['checkpoint']} is loaded on {device}")

    # -- the ROS thread ---------------------------------------------------------------------------

    def _on_begin(self, task: Task) -> None:
        unknown = self._runner.unknown(task.instruction)
        if unknown:
            self.get_logger().warning(unknown)
        if self._strict or self._misfit:
            task.problem = self._misfit or unknown
        else:
            task.unknown = unknown
        self._execution.begin()
        self._arm.begin(task.start)
        self._last_seen = (task.start, time.monotonic())

    def _on_observation(self, message: ObservationMessage) -> None:
        self._meter.tick()
        self._inbox.put(message)

    def _on_arm_status(self, message: ArmStatus) -> None:
        self._execution.reported(
            message.state, message.sequence, stamp_to_seconds(message.header.stamp)
        )
        problem = self._arm.on_status(message, self.get_clock().now().nanoseconds)
        task = self._goals.task
        if task is not None:
            task.arm_heard = self._arm.heard
            task.problem = task.problem or problem

    def _watch(self) -> None:
        if self._closing:
            return
        if self._failure is not None:
            raise self._failure
        if not self._goals.is_open and self.get_clock().now().nanoseconds > 0:
            self._goals.open()
        if self._goals.task is not None:
            self._look_for_ignored(self._goals.task)
        silence = self._arm.silence(self.get_clock().now().nanoseconds)
        self._goals.watch(silence or self._missing(), self._inference.last())

    def _look_for_ignored(self, task: Task) -> None:
        """Warn, and in the end abort the goal, if the arm does not execute its chunks."""
        row, task.ignored = self._execution.ignored()
        task.stuck = ""
        if row >= IGNORED:
            why = f" ({self._arm.rejection})" if self._arm.rejection else ""
            task.stuck = f"the arm does not execute the last {row} of {task.chunks} chunks{why}"
        if row >= self._max_ignored:
            task.problem = task.problem or task.stuck

    def _missing(self) -> str:
        """Why the goal must be aborted: no observation for too long. The time of an inference does
        not count; nor does ROS time that a simulator makes pass faster than real time. "" if there
        is no reason.
        """
        if self._busy:
            return ""
        ros, steady = self._last_seen
        wall = time.monotonic() - steady
        silence = min((self.get_clock().now().nanoseconds - ros) * 1e-9, wall)
        if silence > self._observation_timeout:
            return f"no observation for {silence:.1f} s; has a camera stopped?"
        if wall > self._silence_timeout:
            return f"no observation for {wall:.1f} s of wall time; has the simulator stopped?"
        return ""

    # -- the inference thread ---------------------------------------------------------------------

    def _work(self) -> None:
        while (message := self._inbox.get()) is not None:
            while not self._inbox.empty():  # skip to the newest
                newer = self._inbox.get()
                if newer is None:
                    return
                message = newer
            self._busy = True
            try:
                self._process(message)
            except Exception as error:  # raised again in the ROS thread, which ends the node
                self._failure = error
                return
            self._last_seen = (self.get_clock().now().nanoseconds, time.monotonic())
            self._busy = False

    def _process(self, message: ObservationMessage) -> None:
        task = self._goals.task
        if (
            task is not None
            and not task.problem
            and stamp_to_ns(message.header.stamp) >= task.start
        ):
            try:
                self._plan(task, message)
            except (UserError, ValueError) as error:  # unusable observation or instruction
                task.problem = str(error)
        done = Processed(node=self.get_name(), sequence=self._newest)
        done.header.stamp = message.header.stamp
        self._processed.publish(done)

    def _plan(self, task: Task, message: ObservationMessage) -> None:
        """If a chunk is due, plan it from the observation and send it."""
        planner, execution = self._planner, self._execution
        if self._planned_for is not task:
            self._planned_for = task
            planner.reset(self._seed + task.number if task.seed < 0 else task.seed)
        for seconds in execution.new_delays():
            planner.delay.add(seconds)
        stamp = stamp_to_seconds(message.header.stamp)
        if not planner.due(stamp) and not execution.ignores_newest(self._now()):
            return
        started = time.monotonic()
        observation = observation_from_message(message, task.instruction, self._joints)
        planner.plan(observation, execution.upcoming(self._now()))
        self._inference.add((time.monotonic() - started) * 1e3)
        self._unusual = self._runner.unusual_states(observation)
        with self._goals.sending(task) as runs:
            if runs:
                task.chunks += 1
                self._chunk_meter.tick()
                self._send(message)

    def _send(self, observation: ObservationMessage) -> None:
        now = self._now()
        chunk = self._planner.ready(now)
        self._execution.sent(chunk, now)  # before publishing: the arm may report it at once
        self._newest = chunk.sequence
        stamp = observation.header.stamp
        names = self._runner.joint_names
        self._chunks.publish(chunk_to_message(chunk, stamp, names, self._source))
        if chunk.latents:
            self._latents.publish(latents_to_message(chunk, stamp, self._runner.latent_shape))

    def _now(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _warm_up(self) -> None:
        """Run two inferences, so that torch allocates memory and selects kernels before the first
        goal.
        """
        size = self._runner.image_size
        images = {view: np.zeros((size, size, 3), np.uint8) for view in self._runner.views}
        state = np.zeros(self._runner.state_dim, np.float32)
        for _ in range(2):
            self._runner.infer(core.Observation(images, state, "warm up"))

    # -- diagnostics ------------------------------------------------------------------------------

    def _check(self) -> Report:
        task = self._goals.task
        values: dict[str, object] = {
            "observation_rate_hz": self._meter.rate(),
            "chunk_rate_hz": self._chunk_meter.rate(),
            "chunks": self._chunk_meter.count,
            "inference_ms_p50": self._inference.percentile(50),
            "inference_ms_p99": self._inference.percentile(99),
            "delay_steps": self._planner.delay_steps,
            "chunks_ignored": task.ignored if task is not None else 0,
            "goals": self._goals.count,
            "last_goal": self._goals.outcome,
        }
        if not self._goals.is_open:
            return (
                WARN,
                "no ROS time yet, goals are not accepted; is the simulator running?",
                values,
            )
        if self._misfit:
            return ERROR, f"every goal is refused: {self._misfit}", values
        if self._meter.silence() > SILENCE and not self._busy:
            return ERROR, f"no observation for {self._meter.silence():.1f} s", values
        if task is not None:
            warnings = [task.warning] if task.warning else []
            if self._planned_for is task and self._unusual:
                warnings.append(f"outside the range of training: {self._unusual}")
            if warnings:
                return WARN, "; ".join(warnings), values
            elapsed = self._goals.elapsed(task)
            return OK, f"'{task.instruction}' for {elapsed:.1f} s, {task.chunks} chunks", values
        return OK, "waiting for a goal", values

    def close(self) -> None:
        """Abort the active goal, then stop the inference thread, after the inference that it is
        running.
        """
        self._closing = True
        reason = "the policy node stops"
        if self._failure is not None:
            reason = f"the policy node failed: {one_line(self._failure)}"
        if self._goals.stop(reason) and self.executor is not None:
            until = time.monotonic() + GOODBYE
            while time.monotonic() < until:
                self.executor.spin_once(timeout_sec=0.05)
        self._inbox.put(None)
        self._worker.join(10.0)


def main() -> None:
    run_node(PolicyNode)


if __name__ == "__main__":
    main()
