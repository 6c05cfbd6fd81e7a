"""What the controller reports on /diagnostics: how well its loop keeps time, and whether a person
has to look at the arm.
"""

import math
import time

from alam_common.diagnostics import ERROR, OK, WARN
from alam_common.meters import RateMeter, Recent
from alam_core.robots.piper import tcp_position
from alam_piper.controller import ArmController
from alam_piper.states import State

NEWS = 2.0  # s for which a rejected chunk is a warning


class LoopTimes:
    """Measures the loop. period: s between two ticks. jitter: whether to measure the deviation from
    it, which means something on the wall clock only.
    """

    def __init__(self, period: float, jitter: bool) -> None:
        self.last_tick = time.monotonic()  # s
        self._period = period
        self._measures_jitter = jitter
        self._rate = RateMeter()
        self._jitter = Recent(4000)  # ms
        self._jitter_max = 0.0
        self._image_to_can = Recent(1000)  # ms
        self._image_to_can_count = 0

    def tick(self) -> float:
        """Record that a tick starts now. Returns the s since the one before."""
        now = time.monotonic()
        since = now - self.last_tick
        if self._measures_jitter and self._rate.count:
            jitter = abs(since - self._period) * 1000.0
            self._jitter.add(jitter)
            self._jitter_max = max(self._jitter_max, jitter)
        self.last_tick = now
        self._rate.tick()
        return since

    def sent_first_of_chunk(self, age: float) -> None:
        """Record that the first set-point of a chunk was sent, ``age`` s after its observation."""
        self._image_to_can_count += 1
        self._image_to_can.add(age * 1000.0)

    def values(self) -> dict[str, object]:
        """The measured values by name."""
        jitter = self._measures_jitter
        return {
            "loop_rate_hz": self._rate.rate(),
            "jitter_ms_p50": self._jitter.percentile(50) if jitter else math.nan,
            "jitter_ms_p99": self._jitter.percentile(99) if jitter else math.nan,
            "jitter_ms_max": self._jitter_max if jitter else math.nan,
            "image_to_can_ms_p50": self._image_to_can.percentile(50),
            "image_to_can_ms_p99": self._image_to_can.percentile(99),
            "image_to_can_n": self._image_to_can_count,
        }


def judge(controller: ArmController, clock_stopped: str) -> tuple[bytes, str]:
    """Level and message. clock_stopped: that ROS time stands still, "" if it does not."""
    message = f"{controller.state}: {controller.reason}"
    warnings = [clock_stopped, controller.clamped, controller.blocked]
    if controller.state is not State.FAULT and not clock_stopped:
        warnings.append(controller.feedback_problem or "")
    if controller.now is not None and controller.now - controller.last_rejection_time < NEWS:
        warnings.append(f"chunk rejected: {controller.last_rejection}")
    said = [text for text in warnings if text]
    level = (
        ERROR
        if controller.state is State.FAULT
        else WARN
        if said or controller.stopped_short
        else OK
    )
    return level, "; ".join([message, *said])


def values(controller: ArmController, now: float) -> dict[str, object]:
    """The controller's values by name. now: s on the node's clock."""
    last_chunk, feedback = controller.last_chunk_time, controller.feedback
    tcp = () if feedback is None else tcp_position(feedback.positions[:6])
    return {
        "state": controller.state,
        "reason": controller.reason,
        "last_fault": controller.last_fault or "none",
        "command_age_s": math.nan if last_chunk is None else now - last_chunk,
        "feedback_age_s": controller.watch.age,
        "tracking_error_rad": controller.tracking.error,
        "chunks_accepted": controller.accepted,
        "chunks_rejected": controller.rejected,
        "last_rejection": controller.last_rejection or "none",
        "stalls": controller.stalls,
        "longest_stall_ms": controller.longest_stall * 1000.0,
        "position_clamps": controller.set_point.position_clamps,
        "velocity_clamps": controller.set_point.velocity_clamps,
        "tcp_m": " ".join(f"{x:.3f}" for x in tcp) or "unknown",
    }
