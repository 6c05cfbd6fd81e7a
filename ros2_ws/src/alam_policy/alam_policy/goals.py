"""The action ``/alam/execute_task``: one goal at a time, from its acceptance to its result.

A goal is passed to rclpy's ``execute`` only when it ends, so that no thread has to block for it;
until then its status is "accepted". The ROS thread calls all methods except ``sending``.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from alam_msgs.action import ExecuteTask
from alam_msgs.msg import TaskStatus
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node

from alam_common.messages import stamp_to_ns
from alam_core.policy.instructions import plain

FEEDBACK = 0.2  # s (steady clock) between two feedback messages


@dataclass
class Task:
    """The active goal."""

    goal: ServerGoalHandle
    instruction: str
    start: int  # ns, ROS time
    time_limit: float  # s
    number: int  # counts the goals of this node that were begun, from 0
    seed: int  # of the chunks' initial noise, below 0: the node's own
    chunks: int = 0  # number of chunks sent for it
    last_feedback: float = 0.0  # s, steady clock
    problem: str = ""  # why it must be aborted, "" if there is no problem
    unknown: str = ""  # that the policy was not trained on the instruction, "" if it was
    arm_heard: bool = False  # whether the arm's status was received during it
    ignored: int = 0  # number of its chunks that the arm has not executed
    stuck: str = ""  # that the arm does not execute the newest chunks, "" if it does
    judged: str = ""  # the instruction that /alam/task_status judges, "" before its first message

    @property
    def warning(self) -> str:
        """Why it may fail, for feedback and result."""
        return "; ".join(text for text in (self.unknown, self.stuck) if text)

    def judges(self, instruction: str) -> bool:
        """Whether a judge of ``instruction`` judges this goal."""
        return plain(instruction) == plain(self.instruction)

    def unfinished(self) -> str:
        """Why the time limit passed without success. Names the instruction that was judged, if it
        is another one.
        """
        reason = f"not done within {self.time_limit:.1f} s"
        if not self.judged:
            return f"{reason}; nothing on /alam/task_status said whether it was done"
        if not self.judges(self.judged):
            return f"{reason}; /alam/task_status judges another instruction: '{self.judged}'"
        return reason


class GoalServer:
    """The action server. ``task``: the active goal, None if there is none. ``outcome``: how the
    last one ended. ``count``: number of goals accepted.

    time_limit: s of ROS time, for goals without a time limit. on_begin: called with each new task
    before it becomes active; a ``problem`` that it sets refuses the goal.

    ROS passes no reason on to the client of a rejected goal. A goal that cannot be begun is
    therefore accepted and aborted at once, with the reason in its result.
    """

    def __init__(self, node: Node, time_limit: float, on_begin: Callable[[Task], None]) -> None:
        self.task: Task | None = None
        self.outcome = "no goal yet"
        self.count = 0
        self._node = node
        self._time_limit = time_limit
        self._on_begin = on_begin
        self._stopping = ""  # why no goal is begun any more, "" if goals are
        self._lock = threading.Lock()  # guards ``task``, and the sending of its chunks
        self._server: ActionServer | None = None
        node.create_subscription(TaskStatus, "alam/task_status", self._on_task_status, 10)

    @property
    def is_open(self) -> bool:
        """Whether the action is offered."""
        return self._server is not None

    def open(self) -> None:
        """Offer the action. ROS time must be known, because a goal records when it starts."""
        self._server = ActionServer(
            self._node,
            ExecuteTask,
            "alam/execute_task",
            execute_callback=lambda goal: ExecuteTask.Result(),
            goal_callback=lambda request: GoalResponse.ACCEPT,
            handle_accepted_callback=self._on_goal,
            cancel_callback=lambda goal: CancelResponse.ACCEPT,
        )
        self._node.get_logger().info("ready for goals")

    @contextmanager
    def sending(self, task: Task) -> Iterator[bool]:
        """A context in which ``task`` does not end, for sending a chunk of it. Yields whether the
        task is still active.
        """
        with self._lock:
            yield self.task is task and not task.goal.is_cancel_requested

    def watch(self, missing: str, inference_ms: float) -> None:
        """End the active goal if it is over, else publish feedback every ``FEEDBACK`` s.

        missing: why it must be aborted, "" if it can continue. inference_ms: wall time of the last
        inference.
        """
        task = self.task
        if task is None:
            return
        steady = time.monotonic()
        elapsed = self.elapsed(task)
        if task.goal.is_cancel_requested:
            self._end(task, "canceled", "canceled")
        elif elapsed > task.time_limit:
            self._end(task, "aborted", task.unfinished())
        elif elapsed < 0:
            self._end(task, "aborted", f"ROS time jumped back by {-elapsed:.1f} s or more")
        elif problem := task.problem or missing:
            self._end(task, "aborted", problem)
        elif steady - task.last_feedback >= FEEDBACK:
            task.last_feedback = steady
            task.goal.publish_feedback(
                ExecuteTask.Feedback(
                    elapsed=elapsed,
                    chunks=task.chunks,
                    inference_ms=inference_ms,
                    warning=task.warning,
                )
            )

    def stop(self, reason: str) -> bool:
        """Abort the active goal with ``reason``, and refuse every later one. Returns whether there
        was one; its result is sent by the executor.
        """
        self._stopping = reason
        task = self.task
        if task is not None:
            self._end(task, "aborted", reason)
        return task is not None

    def elapsed(self, task: Task) -> float:
        """Seconds of ROS time since the task was accepted."""
        return (self._now() - task.start) * 1e-9

    def _now(self) -> int:
        return self._node.get_clock().now().nanoseconds

    def _on_goal(self, goal: ServerGoalHandle) -> None:
        active, request = self.task, goal.request
        if active is not None and active.goal.is_cancel_requested:
            self._end(active, "canceled", "canceled")
        limit = request.time_limit or self._time_limit
        task = Task(goal, request.instruction, self._now(), limit, self.count, request.seed)
        task.problem = self._stopping or self._refusal(request)
        if not task.problem:
            self._on_begin(task)
        if task.problem:
            self._node.get_logger().warning(f"goal refused: {task.problem}")
            self._finish(task, "aborted", task.problem)
            return
        self.count += 1
        with self._lock:
            self.task = task
        self._node.get_logger().info(f"goal: '{task.instruction}' within {limit:.1f} s")

    def _refusal(self, request: ExecuteTask.Goal) -> str:
        """Why a goal cannot be begun whatever the policy and the arm are, "" if it can."""
        if self.task is not None:
            return f"'{self.task.instruction}' is still active; cancel it first"
        if not request.instruction.strip():
            return "the instruction is empty"
        if not math.isfinite(request.time_limit) or request.time_limit < 0:
            return f"the time limit {request.time_limit} is not a number >= 0"
        return ""

    def _on_task_status(self, status: TaskStatus) -> None:
        task = self.task
        if task is None or stamp_to_ns(status.header.stamp) <= task.start:
            return
        if status.instruction != task.judged and not task.judges(status.instruction):
            self._node.get_logger().warning(
                f"the goal is '{task.instruction}', but /alam/task_status judges "
                f"'{status.instruction}': only that instruction can succeed"
            )
        task.judged = status.instruction
        if status.success and task.judges(status.instruction):
            self._end(task, "succeeded", "the task is done")

    def _end(self, task: Task, outcome: str, reason: str) -> None:
        """End the active goal with ``outcome``: succeeded, aborted or canceled. No chunk is sent
        for it after this.
        """
        with self._lock:
            self.task = None
        notes = [f"warning: {task.unknown}"] if task.unknown else []
        if not task.arm_heard:
            notes.append("no arm reported on /alam/arm/status whether it executed the chunks")
        elif task.ignored and reason != task.stuck:
            notes.append(f"the arm did not execute {task.ignored} of {task.chunks} chunks")
        reason = "; ".join([reason, *notes])
        self.outcome = f"{outcome} after {self.elapsed(task):.1f} s: {reason}"
        self._node.get_logger().info(f"goal {self.outcome}")
        self._finish(task, outcome, reason)

    def _finish(self, task: Task, outcome: str, reason: str) -> None:
        """Give a goal its outcome and its result."""
        result = ExecuteTask.Result(
            success=outcome == "succeeded",
            reason=reason,
            duration=self.elapsed(task),
            chunks=task.chunks,
        )

        def finish(goal: ServerGoalHandle) -> ExecuteTask.Result:
            {"succeeded": goal.succeed, "aborted": goal.abort, "canceled": goal.canceled}[outcome]()
            return result

        task.goal.execute(finish)
