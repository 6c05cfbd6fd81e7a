"""Which frames of the arm's feedback arrived when.

Feedback is a snapshot of the newest frame of every kind, so a kind that is lost looks like one that
does not change. Each kind therefore has an age of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alam_piper.frames import FEEDBACK_FRAMES, POSITION_FRAMES
from alam_piper.hardware import Backend, Feedback, newer_frames, read_newer
from alam_piper.startup import ArmLimits

# A joint is at rest if its measured speed is at most REST_SPEED (rad/s) and its measured position
# has not left a band of STEADY (rad) for REST_TIME (s).
REST_SPEED, STEADY, REST_TIME = 0.05, 0.02, 0.1


@dataclass(frozen=True)
class Reading:
    """What the connection to the arm shows in one tick.

    feedback: None while there is none. missing: what it lacks, one line for the user. firmware,
    arm_limits, foreign_writer: see ``Backend``.
    """

    feedback: Feedback | None = None
    missing: str = ""
    firmware: str = ""
    arm_limits: ArmLimits | None = None
    foreign_writer: str = ""


def take_reading(
    backend: Backend, than: Feedback | None, patience: float, frames: Sequence[int]
) -> Reading:
    """Read from the arm. Waits for at most ``patience`` s of wall time until every kind in
    ``frames`` is newer than in ``than``.
    """
    feedback = read_newer(backend, than, patience, frames)
    return Reading(
        feedback,
        "" if feedback else backend.missing(),
        backend.firmware(),
        backend.arm_limits(),
        backend.foreign_writer(),
    )


class FeedbackWatch:
    """Keeps the newest feedback, and when each kind of frame last arrived.

    max_age: s above which a kind of frame is stale. ages: frame id -> s since it last arrived,
    infinite before the first. gripper_velocity: m/s.
    """

    def __init__(self, max_age: float) -> None:
        self.max_age = max_age
        self.feedback: Feedback | None = None
        self.ages: dict[int, float] = dict.fromkeys(FEEDBACK_FRAMES, np.inf)
        self.gripper_velocity = 0.0
        self._times: dict[int, float] = dict.fromkeys(FEEDBACK_FRAMES, -np.inf)  # s, ROS time
        self._since_mark: set[int] = set()
        self._anchor = np.full(6, np.nan)  # rad, middle of the band that the joints are in
        self._steady = np.inf  # s since a joint left its band
        self._moved = 0  # the joint that left it last

    def take(self, feedback: Feedback | None, now: float, elapsed: float) -> None:
        """Take over what was read at time ``now`` in s, ``elapsed`` s after the last time. If the
        clock was set back, no frame keeps a time in the future.
        """
        before = self.feedback
        for frame in FEEDBACK_FRAMES:
            self.ages[frame] += elapsed
            self._times[frame] = min(self._times[frame], now)
        self._steady += elapsed
        if feedback is None:
            return
        away = np.abs(feedback.positions[:6] - self._anchor)
        if not (away <= STEADY).all():
            if before is not None:
                self._steady, self._moved = 0.0, int(away.argmax())
            self._anchor = feedback.positions[:6].copy()
        gripper_time = self._times[POSITION_FRAMES[-1]]
        for frame in newer_frames(feedback, before):
            self.ages[frame] = 0.0
            self._times[frame] = now
            self._since_mark.add(frame)
        if before is not None and (dt := self._times[POSITION_FRAMES[-1]] - gripper_time) > 0.0:
            self.gripper_velocity = float(feedback.positions[6] - before.positions[6]) / dt
        self.feedback = feedback

    def mark(self) -> None:
        """From now on, ``all_newer`` counts the frames that arrive after this call."""
        self._since_mark.clear()

    @property
    def all_newer(self) -> bool:
        """Whether every kind of frame arrived since ``mark``."""
        return self._since_mark.issuperset(FEEDBACK_FRAMES)

    @property
    def age(self) -> float:
        """Age in s of the kind of frame that is oldest."""
        return max(self.ages.values())

    @property
    def is_fresh(self) -> bool:
        """Whether no kind of frame is stale."""
        return self.age <= self.max_age

    @property
    def motion(self) -> str:
        """Which joint is measured to move; "" if all are at rest."""
        speeds = np.abs(self.feedback.velocities) if self.feedback else np.zeros(1)
        if (speed := speeds.max()) > REST_SPEED:
            return f"joint{speeds.argmax() + 1} moves at {speed:.2f} rad/s"
        if self._steady < REST_TIME:
            return f"joint{self._moved + 1} moved less than {REST_TIME} s ago"
        return ""

    @property
    def positions_time(self) -> float | None:
        """When the oldest of the frames with the measured positions arrived, in s on the node's
        clock; None if one of them is stale.
        """
        if max(self.ages[frame] for frame in POSITION_FRAMES) > self.max_age:
            return None
        return min(self._times[frame] for frame in POSITION_FRAMES)
