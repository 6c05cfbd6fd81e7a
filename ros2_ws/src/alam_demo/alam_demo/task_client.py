"""Runs tasks on a live graph as a person would: reset the world, enable the arm, send the goal,
wait for the result, watch on the way.

Everything is waited for with a limit on the wall clock, and what did not answer is named.
"""

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import rclpy
from action_msgs.msg import GoalStatus
from action_msgs.srv import CancelGoal
from alam_msgs.action import ExecuteTask
from alam_msgs.msg import LatentTransition, PredictedLatents
from alam_msgs.srv import ResetWorld
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from alam_common.messages import image_to_numpy, stamp_to_seconds
from alam_core.errors import UserError
from alam_core.types import VIEWS
from alam_demo.film import Look

ANSWER = 15.0  # s of wall time without an answer before a request is sent again
ATTEMPTS = 3
SILENCE = 60.0  # s of wall time without any sign of progress before a running task is given up


@dataclass
class Episode:
    """How one task went; ``looks`` is empty unless it was filmed."""

    seed: int
    instruction: str
    success: bool
    reason: str
    duration: float  # s of ROS time
    wall: float  # s
    chunks: int
    looks: list[Look] = field(default_factory=list)


class TaskClient(Node):
    """A node that carries out episodes one after the other. Use as a context manager; spins in a
    thread of its own.
    """

    def __init__(self, film: bool = False, views: tuple[str, ...] = VIEWS) -> None:
        super().__init__("task_client")
        self._film = film
        self._views = views
        self.latent_times: dict[str, list[float]] = defaultdict(
            list
        )  # view -> wall times of arrival, s
        self.diagnostics: dict[str, dict[str, str]] = {}  # node -> key -> value, the newest
        self._lock = threading.Lock()
        self._clear()
        self._reset = self.create_client(ResetWorld, "/alam/sim/reset")
        self._enable = self.create_client(SetBool, "/alam/arm/enable")
        self._task = ActionClient(self, ExecuteTask, "/alam/execute_task")
        self._cancel = self.create_client(CancelGoal, "/alam/execute_task/_action/cancel_goal")
        self.create_subscription(LatentTransition, "/alam/latents", self._on_latent, 20)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        if film:
            self.create_subscription(
                PredictedLatents, "/alam/predicted_latents", self._on_predicted, 10
            )
            for view in views:
                self.create_subscription(
                    Image,
                    f"/{view}/color/image_raw",
                    lambda message, view=view: self._on_image(view, message),
                    qos_profile_sensor_data,
                )
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def __enter__(self) -> "TaskClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._thread.join(5.0)
        self.destroy_node()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    # -- what a caller does ------------------------------------------------------------------------------------------------------

    def wait_for_graph(self, timeout: float, alive: Callable[[], None] = lambda: None) -> None:
        """Wait until simulator, controller, policy and encoder answer. ``alive`` may raise when a
        node has died meanwhile.
        """
        doors = {
            "the simulator (/alam/sim/reset)": self._reset.service_is_ready,
            "the arm controller (/alam/arm/enable)": self._enable.service_is_ready,
            "the policy (/alam/execute_task)": self._task.server_is_ready,
            "the latent encoder (/alam/latents)": lambda: bool(self.latent_times),
        }
        deadline = time.monotonic() + timeout
        while waiting := [name for name, ready in doors.items() if not ready()]:
            alive()
            if time.monotonic() > deadline:
                raise UserError(
                    f"no answer within {timeout:.0f} s from {' and '.join(waiting)}; look at the node's log above"
                )
            time.sleep(0.05)

    def run_episode(
        self,
        seed: int,
        time_limit: float,
        on_feedback: Callable[[ExecuteTask.Feedback], None] = lambda feedback: None,
    ) -> Episode:
        """Reset the world to ``seed`` and carry out what it asks for within ``time_limit`` s of ROS
        time.
        """
        self._call(self._enable, SetBool.Request(data=False), "/alam/arm/enable")
        reset = self._call(self._reset, ResetWorld.Request(seed=seed), "/alam/sim/reset")
        if not reset.success:
            raise UserError(f"the world could not be reset: {reset.message}")
        # The controller takes its set-point from fresh feedback; right after a reset there may be
        # none yet.
        for attempt in range(20):
            enabled = self._call(self._enable, SetBool.Request(data=True), "/alam/arm/enable")
            if enabled.success:
                break
            time.sleep(0.1 * (attempt + 1))
        else:
            raise UserError(f"the arm could not be enabled: {enabled.message}")
        self._clear()
        started = time.monotonic()
        last_sign = [started]

        def feedback(message: ExecuteTask.Impl.FeedbackMessage) -> None:
            last_sign[0] = time.monotonic()
            on_feedback(message.feedback)

        goal = ExecuteTask.Goal(instruction=reset.instruction, time_limit=float(time_limit))
        handle = self._send_goal(goal, feedback)
        if not handle.accepted:
            raise UserError("the policy rejected the goal; its log says why")
        future = handle.get_result_async()
        while not future.done():
            if time.monotonic() - last_sign[0] > SILENCE:
                handle.cancel_goal_async()
                raise UserError(
                    f"no progress for {SILENCE:.0f} s of wall time in episode {seed}; look at /diagnostics"
                )
            time.sleep(0.02)
        outcome = future.result()
        result = outcome.result
        success = result.success and outcome.status == GoalStatus.STATUS_SUCCEEDED
        return Episode(
            seed,
            reset.instruction,
            success,
            result.reason,
            result.duration,
            time.monotonic() - started,
            result.chunks,
            self._looks(),
        )

    def disable(self) -> None:
        self._call(self._enable, SetBool.Request(data=False), "/alam/arm/enable")

    # -- asking ----------------------------------------------------------------------------------------------------------------

    def _call(self, client: rclpy.client.Client, request: object, name: str):
        """Call a service. An answer may get lost while nodes discover each other, so the request is
        sent again; all requests here may be repeated.
        """
        for _ in range(ATTEMPTS):
            future = client.call_async(request)
            if self._is_answered(future):
                return future.result()
        raise UserError(f"{name} did not answer within {ATTEMPTS * ANSWER:.0f} s")

    def _send_goal(self, goal: ExecuteTask.Goal, feedback: Callable[..., None]):
        """The goal's handle. Where no answer comes the goal is cancelled, as the policy may carry
        it out, and sent again.
        """
        for attempt in range(ATTEMPTS):
            future = self._task.send_goal_async(goal, feedback_callback=feedback)
            if self._is_answered(future) and (future.result().accepted or attempt == 0):
                return future.result()
            self._call(self._cancel, CancelGoal.Request(), "/alam/execute_task")
            time.sleep(0.5)  # until the policy has ended it
        raise UserError(
            f"/alam/execute_task did not accept a goal within {ATTEMPTS * ANSWER:.0f} s"
        )

    def _is_answered(self, future: Future) -> bool:
        """Wait for an answer for at most ``ANSWER`` s."""
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        return done.wait(ANSWER)

    # -- watching ----------------------------------------------------------------------------------------------------------------

    def _clear(self) -> None:
        with self._lock:
            self._images: dict[float, dict[str, np.ndarray]] = defaultdict(dict)
            self._seen: dict[float, dict[str, np.ndarray]] = defaultdict(dict)
            self._imagined: dict[float, dict[str, np.ndarray]] = {}

    def _on_image(self, view: str, message: Image) -> None:
        with self._lock:
            self._images[stamp_to_seconds(message.header.stamp)][view] = image_to_numpy(message)

    def _on_latent(self, message: LatentTransition) -> None:
        with self._lock:
            self.latent_times[message.view].append(time.monotonic())
            if self._film:
                self._seen[stamp_to_seconds(message.to_stamp)][message.view] = np.asarray(
                    message.data
                )

    def _on_predicted(self, message: PredictedLatents) -> None:
        steps: dict[str, list[np.ndarray]] = defaultdict(list)
        for transition in message.transitions:
            steps[transition.view].append(np.asarray(transition.data))
        with self._lock:
            self._imagined[stamp_to_seconds(message.header.stamp)] = {
                view: np.stack(rows) for view, rows in steps.items()
            }

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        with self._lock:
            for status in message.status:
                values = {pair.key: pair.value for pair in status.values}
                self.diagnostics[status.name] = {"message": status.message, **values}

    def _looks(self) -> list[Look]:
        with self._lock:
            stamps = sorted(
                stamp for stamp, images in self._images.items() if len(images) == len(self._views)
            )
            looks = []
            for stamp in stamps:
                chunk = max((start for start in self._imagined if start <= stamp), default=None)
                imagined = self._imagined[chunk] if chunk is not None else {}
                images = {view: self._images[stamp][view] for view in self._views}
                looks.append(
                    Look(stamp - stamps[0], images, dict(self._seen.get(stamp, {})), imagined)
                )
            return looks
