"""A client that runs tasks on a running graph: it resets the world, enables the arm, sends the
goal, records what the nodes publish and waits for the result.

Every wait has a timeout on the wall clock, and its error names what did not answer.
"""

import contextlib
import functools
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
from alam_msgs.msg import ArmStatus, LatentTransition, PredictedLatents, TaskStatus
from alam_msgs.srv import ResetWorld
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from alam_common.messages import image_to_numpy, stamp_to_seconds
from alam_core.errors import UserError
from alam_core.types import VIEWS
from alam_demo.film import FilmFrame

ANSWER = 15.0  # s of wall time without an answer before a request is sent again
ATTEMPTS = 3
SILENCE = 60.0  # s of wall time without feedback after which a running task is cancelled


@dataclass
class TaskResult:
    """The outcome of one task. ``frames`` is empty unless a video is recorded. task, group, steps:
    name of the task, its suite or tier, and control steps of the episode, where the simulator tells
    them.
    """

    seed: int
    instruction: str
    success: bool
    reason: str
    duration: float  # s of ROS time
    wall: float  # s of wall time
    chunks: int
    frames: list[FilmFrame] = field(default_factory=list)
    task: str = ""
    group: str = ""
    steps: int = 0


class TaskClient(Node):
    """A node that runs episodes one after the other. Use it as a context manager; it spins in its
    own thread. ``film``: whether to record images and transitions for a video. ``namespace``: of
    the graph. ``arm``: whether the graph has an arm controller and a latent encoder, as that of the
    Piper, or only a world of single steps and a policy.
    """

    def __init__(
        self,
        film: bool = False,
        views: tuple[str, ...] = VIEWS,
        namespace: str = "",
        arm: bool = True,
    ) -> None:
        super().__init__("task_client", namespace=namespace)
        self._has_arm = arm
        self._judged: TaskStatus | None = None  # the newest judgement
        self._film = film
        self._views = views
        # view -> arrival times of latents on the wall clock, s
        self.latent_times: dict[str, list[float]] = defaultdict(list)
        self.diagnostics: dict[str, dict[str, str]] = {}  # node -> key -> latest value
        self._lock = threading.Lock()
        self._clear()
        self._reset = self.create_client(ResetWorld, "alam/sim/reset")
        self._enable = self.create_client(SetBool, "alam/arm/enable")
        self._reset_fault = self.create_client(Trigger, "alam/arm/reset_fault")
        self._task = ActionClient(self, ExecuteTask, "alam/execute_task")
        self._cancel = self.create_client(CancelGoal, "alam/execute_task/_action/cancel_goal")
        self.create_subscription(LatentTransition, "alam/latents", self._on_latent, 20)
        self.create_subscription(DiagnosticArray, "diagnostics", self._on_diagnostics, 50)
        if film:
            self.create_subscription(
                PredictedLatents, "alam/predicted_latents", self._on_predicted, 10
            )
            for view in views:
                self.create_subscription(
                    Image,
                    f"{view}/color/image_raw",
                    functools.partial(self._on_image, view),
                    qos_profile_sensor_data,
                )
        self.create_subscription(TaskStatus, "alam/task_status", self._on_task_status, 50)
        self._arm: ArmStatus | None = None  # the latest status
        self.create_subscription(ArmStatus, "alam/arm/status", self._on_arm_status, 10)
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

    # -- running tasks ------------------------------------------------------------------------

    def wait_for_graph(self, timeout: float, alive: Callable[[], None] = lambda: None) -> None:
        """Wait until simulator, controller, policy and encoder answer.

        alive: called repeatedly; it may raise an error if a node has died. Raises UserError after
        ``timeout`` s, naming what did not answer.
        """
        latents = self.resolve_topic_name("alam/latents")
        task = self.resolve_topic_name("alam/execute_task")
        ready_checks = {
            f"the simulator ({self._reset.service_name})": self._reset.service_is_ready,
            f"the policy ({task})": self._task.server_is_ready,
        }
        if self._has_arm:
            ready_checks |= {
                f"the arm controller ({self._enable.service_name})": self._enable.service_is_ready,
                f"the latent encoder ({latents})": lambda: bool(self.latent_times),
            }
        deadline = time.monotonic() + timeout
        while waiting := [name for name, ready in ready_checks.items() if not ready()]:
            alive()
            if time.monotonic() > deadline:
                raise UserError(
                    f"no answer within {timeout:.0f} s from {' and '.join(waiting)}; "
                    "see the output of the nodes (log/demo.log)"
                )
            time.sleep(0.05)

    def run_episode(
        self,
        seed: int,
        time_limit: float,
        on_feedback: Callable[[ExecuteTask.Feedback], None] = lambda feedback: None,
        alive: Callable[[], None] = lambda: None,
    ) -> TaskResult:
        """Reset the world to ``seed`` and run its instruction for at most ``time_limit`` s of ROS
        time. Without an arm controller, ``seed`` also determines the policy's noise, as in a direct
        evaluation. Raises UserError if a service does not answer, the world cannot be reset, the
        arm cannot be enabled or the policy rejects the goal.
        """
        if self._has_arm:
            self._call(self._enable, SetBool.Request(data=False))
        reset = self._call(self._reset, ResetWorld.Request(seed=seed))
        if not reset.success:
            raise UserError(f"the world could not be reset: {reset.message}")
        if self._has_arm:
            self._enable_after_reset()
        noise_seed = -1 if self._has_arm else seed
        return self.run_task(reset.instruction, time_limit, on_feedback, seed, noise_seed, alive)

    def enable(self) -> None:
        """Ask once to enable the arm. A refusal is final: someone may have asked to hold the arm
        meanwhile, and only a person resets a fault. Raises UserError with the reason.
        """
        enabled = self._call(self._enable, SetBool.Request(data=True), attempts=1)
        if not enabled.success:
            raise UserError(f"the arm was not enabled: {enabled.message}")

    def _enable_after_reset(self) -> None:
        """Enable the simulated arm of a world that was just reset. Raises UserError if it cannot be
        enabled.
        """
        # Enabling needs fresh feedback from the arm, which may be missing right after a reset.
        # A fault of the episode before costs that episode only.
        for attempt in range(20):
            self._call(self._reset_fault, Trigger.Request())
            enabled = self._call(self._enable, SetBool.Request(data=True))
            if enabled.success:
                break
            time.sleep(0.1 * (attempt + 1))
        else:
            raise UserError(f"the arm could not be enabled: {enabled.message}")

    def run_task(
        self,
        instruction: str,
        time_limit: float,
        on_feedback: Callable[[ExecuteTask.Feedback], None] = lambda feedback: None,
        seed: int = -1,
        noise_seed: int = -1,
        alive: Callable[[], None] = lambda: None,
    ) -> TaskResult:
        """Send a goal to the policy and wait for its end, at most ``time_limit`` s of ROS time; 0:
        the policy node's default. ``seed``: of the simulated episode, -1 if there is none.
        ``noise_seed``: of the policy's noise, -1 for its own. ``alive``: as in ``wait_for_graph``.
        Raises UserError if the policy rejects the goal or is silent.
        """
        self._clear()
        started = time.monotonic()
        last_feedback = [started]

        def feedback(message: ExecuteTask.Impl.FeedbackMessage) -> None:
            last_feedback[0] = time.monotonic()
            on_feedback(message.feedback)

        goal = ExecuteTask.Goal(
            instruction=instruction, time_limit=float(time_limit), seed=noise_seed
        )
        handle = self._send_goal(goal, feedback)
        if not handle.accepted:
            raise UserError("the policy rejected the goal; its log says why")
        future = handle.get_result_async()
        while not future.done():
            alive()
            if time.monotonic() - last_feedback[0] > SILENCE:
                handle.cancel_goal_async()
                raise UserError(
                    f"no feedback for {SILENCE:.0f} s of wall time on '{instruction}'; "
                    "see /diagnostics"
                )
            time.sleep(0.02)
        outcome = future.result()
        result = outcome.result
        success = result.success and outcome.status == GoalStatus.STATUS_SUCCEEDED
        judged = self._judgement(success)
        return TaskResult(
            seed,
            instruction,
            success,
            result.reason,
            result.duration,
            time.monotonic() - started,
            result.chunks,
            self._frames(),
            judged.task,
            judged.group,
            judged.steps,
        )

    def _judgement(self, success: bool) -> TaskStatus:
        """The newest judgement. In a world of single steps, after a success, that one, which may
        still be on its way. Raises UserError if it does not arrive.
        """
        deadline = time.monotonic() + ANSWER
        while success and not self._has_arm and not (self._judged and self._judged.success):
            if time.monotonic() > deadline:
                raise UserError("the policy reports a success that /alam/task_status does not show")
            time.sleep(0.01)
        return self._judged or TaskStatus()

    def cancel(self) -> None:
        """Cancel the running goal, whoever sent it. Raises UserError if the policy is silent."""
        if not self._is_answered(self._cancel.call_async(CancelGoal.Request())):
            raise UserError("the policy did not confirm the cancel; stop the arm by other means")

    def wait_for_arm(self, timeout: float) -> ArmStatus:
        """Wait until policy and arm controller answer. Returns the arm's status. Raises UserError
        after ``timeout`` s.
        """
        deadline = time.monotonic() + timeout
        while self._arm is None or not self._task.server_is_ready():
            if time.monotonic() > deadline:
                silent = "the arm controller" if self._arm is None else "the policy"
                raise UserError(
                    f"no answer from {silent} within {timeout:.0f} s: start the graph first, "
                    "with 'alam up piper' in another shell"
                )
            time.sleep(0.05)
        return self._arm

    def disable(self) -> None:
        """Disable the arm."""
        self._call(self._enable, SetBool.Request(data=False))

    # -- calling services ---------------------------------------------------------------------

    def _call(self, client: rclpy.client.Client, request: object, attempts: int = ATTEMPTS):
        """Call a service and return its response. A response may be lost while nodes discover each
        other, so a request that does no harm when it is repeated is sent up to ``attempts`` times.
        """
        for _ in range(attempts):
            future = client.call_async(request)
            if self._is_answered(future):
                return future.result()
        raise UserError(f"{client.service_name} did not answer within {attempts * ANSWER:.0f} s")

    def _send_goal(self, goal: ExecuteTask.Goal, feedback: Callable[..., None]):
        """Send a goal and return its handle. Without an answer the goal is cancelled, because the
        policy may have accepted it, and sent again.
        """
        for attempt in range(ATTEMPTS):
            future = self._task.send_goal_async(goal, feedback_callback=feedback)
            if self._is_answered(future) and (future.result().accepted or attempt == 0):
                return future.result()
            self._call(self._cancel, CancelGoal.Request())
            time.sleep(0.5)  # the policy needs a moment to end it
        raise UserError(f"the policy accepted no goal within {ATTEMPTS * ANSWER:.0f} s")

    def _is_answered(self, future: Future) -> bool:
        """Wait for at most ``ANSWER`` s. Returns whether the answer arrived."""
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        return done.wait(ANSWER)

    # -- recording ----------------------------------------------------------------------------

    def _clear(self) -> None:
        with self._lock:
            self._images: dict[float, dict[str, np.ndarray]] = defaultdict(dict)
            self._observed: dict[float, dict[str, np.ndarray]] = defaultdict(dict)
            self._predicted: dict[float, dict[str, np.ndarray]] = {}

    def _on_image(self, view: str, message: Image) -> None:
        with self._lock:
            self._images[stamp_to_seconds(message.header.stamp)][view] = image_to_numpy(message)

    def _on_latent(self, message: LatentTransition) -> None:
        with self._lock:
            self.latent_times[message.view].append(time.monotonic())
            if self._film:
                self._observed[stamp_to_seconds(message.to_stamp)][message.view] = np.asarray(
                    message.data
                )

    def _on_predicted(self, message: PredictedLatents) -> None:
        steps: dict[str, list[np.ndarray]] = defaultdict(list)
        for transition in message.transitions:
            steps[transition.view].append(np.asarray(transition.data))
        with self._lock:
            self._predicted[stamp_to_seconds(message.header.stamp)] = {
                view: np.stack(rows) for view, rows in steps.items()
            }

    def _on_task_status(self, message: TaskStatus) -> None:
        self._judged = message

    def _on_arm_status(self, message: ArmStatus) -> None:
        self._arm = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        with self._lock:
            for status in message.status:
                values = {pair.key: pair.value for pair in status.values}
                self.diagnostics[status.name] = {"message": status.message, **values}

    def _frames(self) -> list[FilmFrame]:
        with self._lock:
            stamps = sorted(
                stamp for stamp, images in self._images.items() if len(images) == len(self._views)
            )
            frames = []
            for stamp in stamps:
                chunk = max((start for start in self._predicted if start <= stamp), default=None)
                predicted = self._predicted[chunk] if chunk is not None else {}
                images = {view: self._images[stamp][view] for view in self._views}
                observed = dict(self._observed.get(stamp, {}))
                frames.append(FilmFrame(stamp - stamps[0], images, observed, predicted))
            return frames
