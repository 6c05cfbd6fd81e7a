"""``alam run INSTRUCTION``: sends a task to the running graph and shows how it goes."""

import re
import signal

import rclpy
from alam_msgs.action import ExecuteTask

from alam_common.stopping import on_stop_signals
from alam_core.errors import UserError
from alam_demo.task_client import TaskClient

WAIT = 20.0  # s of wall time for the graph to answer
EVERY = 1.0  # s of ROS time between two lines of progress


def run_task(instruction: str, time_limit: float, enable: bool, namespace: str) -> int:
    """Run one task to its end; Ctrl-C cancels it. Returns 0 if it succeeded, 1 if not, and 130
    after Ctrl-C.

    time_limit: s of ROS time, 0: the policy node's default. enable: enable the arm first.
    namespace: of the graph. Raises UserError if the graph does not answer, the arm is not enabled
    or the goal is rejected.
    """
    shown = 0.0
    warned = ""  # the last warning, without its numbers

    def show(feedback: ExecuteTask.Feedback) -> None:
        nonlocal shown, warned
        kind = re.sub(r"\d+", "", feedback.warning)
        if kind and kind != warned:
            print(f"warning: {feedback.warning}", flush=True)
        warned = kind
        if feedback.elapsed >= shown + EVERY:
            shown = feedback.elapsed
            print(
                f"{feedback.elapsed:5.1f} s, {feedback.chunks} chunks, "
                f"inference {feedback.inference_ms:.0f} ms",
                flush=True,
            )

    if not instruction.strip():
        raise UserError("the instruction is empty")
    rclpy.init(args=[], signal_handler_options=rclpy.SignalHandlerOptions.NO)
    on_stop_signals(signal.default_int_handler)
    try:
        with TaskClient(namespace=namespace) as client:
            arm = client.wait_for_arm(WAIT)
            if arm.state == "FAULT":
                raise UserError(
                    f"the arm is in FAULT ({arm.reason}): remove the cause, run "
                    "'alam arm reset_fault' and 'alam arm enable', then this again"
                )
            if enable:
                client.enable()
            elif arm.state == "DISABLED":
                raise UserError(
                    f"the arm is DISABLED ({arm.reason}); if it may move, run this again with "
                    "--enable"
                )
            try:
                result = client.run_task(instruction, time_limit, show)
            except KeyboardInterrupt:
                client.cancel()
                print("canceled: no chunk follows; the arm holds once the last one has ended")
                return 130
    finally:
        rclpy.try_shutdown()
    verdict = "done" if result.success else "failed"
    print(f"{verdict} after {result.duration:.1f} s, {result.chunks} chunks: {result.reason}")
    return 0 if result.success else 1
