"""Node ``policy``: an action server that carries out an instruction, observation after observation,
by sending action chunks.

ROS is served by one thread, inference runs in another, so that a cancel is answered while the
network works. A goal is handed to rclpy's ``execute`` only when it ends (until then it is
"accepted"): no thread has to block for it.
"""

import math
import queue
import threading
import time
from dataclasses import dataclass

import numpy as np
import torch
from alam_msgs.action import ExecuteTask
from alam_msgs.msg import ActionChunk, LatentTransition, PredictedLatents, Processed, TaskStatus
from alam_msgs.msg import Observation as ObservationMessage
from builtin_interfaces.msg import Time
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

import alam_core.types as core
from alam_common.diagnostics import ERROR, OK, WARN, Diagnostics, Report
from alam_common.main import run_node
from alam_common.messages import (
    NANOSECONDS,
    image_to_numpy,
    joint_positions,
    ns_to_stamp,
    stamp_to_ns,
    stamp_to_seconds,
)
from alam_common.meters import RateMeter, Recent
from alam_core.errors import UserError
from alam_core.runtime import PolicyRunner, Replanner

WATCH = 0.05  # s of the steady clock between two looks at the running goal
SILENCE = 2.0  # s of the steady clock without an observation after which diagnostics say so
FEEDBACK = 0.2  # s of the steady clock between two feedback messages


@dataclass
class Task:
    """The goal that is being carried out."""

    goal: ServerGoalHandle
    instruction: str
    start: int  # ns, ROS time
    time_limit: float  # s
    number: int  # of the goals of this node, from 0
    chunks: int = 0
    told: float = 0.0  # s, steady clock, of the last feedback
    problem: str = ""  # why it cannot go on


class PolicyNode(Node):
    """See the package's README for topics, the action and parameters."""

    def __init__(self) -> None:
        super().__init__("policy")
        checkpoint = self.declare_parameter("checkpoint", "").value
        self.time_limit = self.declare_parameter("time_limit", 30.0).value
        self.observation_timeout = self.declare_parameter("observation_timeout", 1.0).value
        self.silence_timeout = self.declare_parameter("silence_timeout", 5.0).value
        replan_every = self.declare_parameter("replan_every", 8).value
        self.seed = self.declare_parameter("seed", 0).value
        threads = self.declare_parameter("threads", 1).value
        device = self.declare_parameter("device", "").value
        bfloat16 = self.declare_parameter("bfloat16", False).value
        compiled = self.declare_parameter("compiled", False).value
        if not checkpoint:
            raise UserError(
                "policy: no checkpoint given; set the parameter 'checkpoint' to the folder of a policy"
            )
        if min(self.time_limit, self.observation_timeout, self.silence_timeout) <= 0 or threads < 1:
            raise UserError(
                "policy: time_limit, observation_timeout and silence_timeout must be over 0 s, threads at least 1"
            )
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._runner = PolicyRunner.from_pretrained(
            checkpoint, device, bfloat16=bfloat16, compiled=compiled
        )
        self._replanner = Replanner(self._runner, replan_every)
        self._warm_up()

        self._task: Task | None = None
        self._lock = threading.Lock()  # over _task and the sending of chunks
        self._sequence = (
            time.time_ns() // 1_000_000
        )  # a policy that was started anew goes on with higher numbers
        self._inbox: queue.SimpleQueue[ObservationMessage | None] = queue.SimpleQueue()
        self._busy = False
        self._seen = (
            0,
            0.0,
        )  # ROS time (ns) and steady time (s) when an observation came or was done with last
        self._failure: Exception | None = None
        self._acting: Task | None = None  # the goal that the replanner's state belongs to
        self._goals = 0
        self._outcome = "no goal yet"
        self._meter, self._chunk_meter, self._inference = RateMeter(), RateMeter(), Recent()

        self._chunks = self.create_publisher(ActionChunk, "/alam/action_chunk", 10)
        self._latents = self.create_publisher(PredictedLatents, "/alam/predicted_latents", 10)
        self._processed = self.create_publisher(Processed, "/alam/processed", 10)
        self.create_subscription(ObservationMessage, "/alam/observation", self._on_observation, 1)
        self.create_subscription(TaskStatus, "/alam/task_status", self._on_status, 10)
        self._server: ActionServer | None = (
            None  # opened with the first ROS time: without one a goal has no beginning
        )
        self.create_timer(WATCH, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._diagnostics = Diagnostics(self, self._check)
        self._worker = threading.Thread(target=self._work, name="inference", daemon=True)
        self._worker.start()
        self.get_logger().info(f"the policy in {checkpoint} is loaded on {device}")

    # -- goals: the ROS thread ---------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Offer the action: from now on goals may come."""
        self._server = ActionServer(
            self,
            ExecuteTask,
            "/alam/execute_task",
            execute_callback=lambda goal: ExecuteTask.Result(),
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=lambda goal: CancelResponse.ACCEPT,
        )
        self.get_logger().info("ready for goals")

    def _on_goal(self, request: ExecuteTask.Goal) -> GoalResponse:
        reason = ""
        if self._task is not None:
            reason = f"'{self._task.instruction}' is being carried out; cancel it first"
        elif not request.instruction.strip():
            reason = "the instruction is empty"
        elif not math.isfinite(request.time_limit) or request.time_limit < 0:
            reason = f"the time limit {request.time_limit} is not a number of at least 0"
        if reason:
            self.get_logger().warning(f"goal rejected: {reason}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_accepted(self, goal: ServerGoalHandle) -> None:
        now, steady = self.get_clock().now().nanoseconds, time.monotonic()
        task = Task(
            goal,
            goal.request.instruction,
            now,
            goal.request.time_limit or self.time_limit,
            self._goals,
        )
        self._goals += 1
        self._seen = (now, steady)
        with self._lock:
            self._task = task
        self.get_logger().info(f"goal: '{task.instruction}' within {task.time_limit:.1f} s")

    def _watch(self) -> None:
        """Look whether the running goal is over, and tell its client how it goes."""
        if self._failure is not None:
            raise self._failure
        if self._server is None and self.get_clock().now().nanoseconds > 0:
            self._open()
        task = self._task
        if task is None:
            return
        now, steady = self.get_clock().now().nanoseconds, time.monotonic()
        elapsed = (now - task.start) * 1e-9
        problem = task.problem or self._missing(now, steady)
        if elapsed < 0:
            problem = f"ROS time jumped back by {-elapsed:.1f} s or more"
        if task.goal.is_cancel_requested:
            self._end(task, "canceled", "canceled")
        elif elapsed > task.time_limit:
            self._end(task, "aborted", f"not done within {task.time_limit:.1f} s")
        elif problem:
            self._end(task, "aborted", problem)
        elif steady - task.told >= FEEDBACK:
            task.told = steady
            task.goal.publish_feedback(
                ExecuteTask.Feedback(
                    elapsed=elapsed, chunks=task.chunks, inference_ms=self._inference.last()
                )
            )

    def _missing(self, now: int, steady: float) -> str:
        """Why the goal cannot go on: no observation for too long. Time spent on inference does not
        count.
        """
        if self._busy:
            return ""
        silence = (now - self._seen[0]) * 1e-9
        wall = steady - self._seen[1]
        if silence > self.observation_timeout:
            return f"no observation for {silence:.1f} s; is a camera gone?"
        if wall > self.silence_timeout:
            return f"no observation for {wall:.1f} s of wall time; is the simulator gone?"
        return ""

    def _on_status(self, status: TaskStatus) -> None:
        task = self._task
        if (
            task is not None
            and status.success
            and status.instruction == task.instruction
            and stamp_to_ns(status.header.stamp) > task.start
        ):
            self._end(task, "succeeded", "the task is fulfilled")

    def _end(self, task: Task, outcome: str, reason: str) -> None:
        """End the running goal as ``outcome``: succeeded, aborted or canceled. No chunk is sent
        after this.
        """
        with self._lock:
            self._task = None
        duration = (self.get_clock().now().nanoseconds - task.start) * 1e-9
        result = ExecuteTask.Result(
            success=outcome == "succeeded", reason=reason, duration=duration, chunks=task.chunks
        )
        self._outcome = f"{outcome} after {duration:.1f} s: {reason}"
        self.get_logger().info(f"goal {self._outcome}")

        def finish(goal: ServerGoalHandle) -> ExecuteTask.Result:
            {"succeeded": goal.succeed, "aborted": goal.abort, "canceled": goal.canceled}[outcome]()
            return result

        task.goal.execute(finish)

    def _on_observation(self, message: ObservationMessage) -> None:
        self._meter.tick()
        self._inbox.put(message)

    # -- inference: the worker thread --------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (message := self._inbox.get()) is not None:
            while not self._inbox.empty():  # only the newest counts
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
            self._seen = (self.get_clock().now().nanoseconds, time.monotonic())
            self._busy = False

    def _process(self, message: ObservationMessage) -> None:
        task = self._task
        if (
            task is not None
            and not task.problem
            and stamp_to_ns(message.header.stamp) >= task.start
        ):
            try:
                self._act(task, message)
            except (
                UserError,
                ValueError,
            ) as error:  # an observation or an instruction that this policy cannot take
                task.problem = str(error)
        done = Processed(node=self.get_name())
        done.header.stamp = message.header.stamp
        self._processed.publish(done)

    def _act(self, task: Task, message: ObservationMessage) -> None:
        """Show the observation to the replanner; if it made a new chunk, send it."""
        images = {
            view: image_to_numpy(image, "/alam/observation")
            for view, image in zip(message.views, message.images, strict=True)
        }
        state = joint_positions(message.joint_state)
        observation = core.Observation(
            images, state, task.instruction, stamp_to_seconds(message.header.stamp)
        )
        if self._acting is not task:
            self._acting = task
            self._replanner.reset(self.seed + task.number)
        due = self._replanner.due()
        start = time.monotonic()
        self._replanner.act(observation)
        chunk = self._replanner.chunk
        if not due or chunk is None:
            return
        self._inference.add((time.monotonic() - start) * 1e3)
        with self._lock:
            if self._task is not task or task.goal.is_cancel_requested:
                return
            self._sequence += 1
            task.chunks += 1
            self._chunk_meter.tick()
            self._send(chunk, message.header.stamp)

    def _send(self, chunk: core.ActionChunk, stamp: Time) -> None:
        actions = np.asarray(chunk.actions, dtype=np.float64)  # (H, A)
        message = ActionChunk(
            sequence=self._sequence,
            joint_names=self._runner.joint_names,
            dt=float(chunk.dt),
            steps=len(actions),
        )
        message.header.stamp = stamp
        message.header.frame_id = "base_link"
        message.positions.frombytes(actions.tobytes())
        self._chunks.publish(message)
        if not chunk.latents:
            return
        latents = PredictedLatents(sequence=self._sequence)
        latents.header.stamp = stamp
        tokens, dim = self._runner.latent_shape
        origin, step = stamp_to_ns(stamp), round(chunk.dt * NANOSECONDS)
        for i in range(len(actions)):
            for view, z in chunk.latents.items():
                transition = LatentTransition(
                    view=view, tokens=tokens, dim=dim, from_stamp=ns_to_stamp(origin + i * step)
                )
                transition.header.stamp = transition.to_stamp = ns_to_stamp(origin + (i + 1) * step)
                transition.data.frombytes(np.ascontiguousarray(z[i], dtype=np.float32).tobytes())
                latents.transitions.append(transition)
        self._latents.publish(latents)

    def _warm_up(self) -> None:
        """Let torch allocate and choose its kernels now: the first inference is the slowest."""
        size = self._runner.image_size
        images = {view: np.zeros((size, size, 3), np.uint8) for view in self._runner.views}
        for _ in range(2):
            self._runner.infer(
                core.Observation(images, np.zeros(self._runner.state_dim, np.float32), "warm up")
            )

    # -- diagnostics -------------------------------------------------------------------------------------------------------------

    def _check(self) -> Report:
        task = self._task
        values: dict[str, object] = {
            "observation_rate_hz": self._meter.rate(),
            "chunk_rate_hz": self._chunk_meter.rate(),
            "chunks": self._chunk_meter.count,
            "inference_ms_p50": self._inference.percentile(50),
            "inference_ms_p99": self._inference.percentile(99),
            "goals": self._goals,
            "last_goal": self._outcome,
        }
        if self._server is None:
            return WARN, "no ROS time yet, so no goal is taken; is the simulator running?", values
        if self._meter.silence() > SILENCE and not self._busy:
            return ERROR, f"no observation for {self._meter.silence():.1f} s", values
        if task is not None:
            elapsed = (self.get_clock().now().nanoseconds - task.start) * 1e-9
            return OK, f"'{task.instruction}' for {elapsed:.1f} s, {task.chunks} chunks", values
        return OK, "waiting for a goal", values

    def close(self) -> None:
        """End the worker: an inference that is under way is waited for."""
        self._inbox.put(None)
        self._worker.join(10.0)


def main() -> None:
    run_node(PolicyNode)


if __name__ == "__main__":
    main()
