"""What must be true while the arm is powered: a table of checks, each of which returns a reason if
it fails.

A failed check latches FAULT in the controller. To add a check, add a row here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from alam_core.robots.piper import JOINT_LIMITS
from alam_piper.hardware import CTRL_MODE_CAN, Feedback

ARM_STATUS = {
    1: "emergency stop",
    2: "no solution",
    3: "singularity",
    4: "target over limit",
    5: "joint communication lost",
    6: "brake not released",
    7: "collision",
    8: "overspeed while teaching",
    9: "joint error",
    10: "other error",
    11: "teaching: recording",
    12: "teaching: executing",
    13: "teaching: paused",
    14: "controller too hot",
    15: "brake resistor too hot",
}

# rad by which the measured position of a joint may be outside its range: an arm at rest lies on its
# mechanical stops, and its encoders have a limited accuracy.
MAX_OUTSIDE = 0.05


@dataclass(frozen=True)
class Situation:
    """What the checks look at.

    feedback: the newest, None if none has arrived yet. age: s since the newest was first seen.
    max_age: the largest age allowed, s. missing: what the connection lacks, "" if nothing.
    """

    feedback: Feedback | None
    age: float
    max_age: float
    missing: str = ""


@dataclass(frozen=True)
class Check:
    """A named condition. ``failure`` returns the reason if the condition is not met, else None."""

    name: str
    failure: Callable[[Situation], str | None]


def _feedback(s: Situation) -> str | None:
    if s.feedback is not None and s.age <= s.max_age:
        return None
    problem = (
        "no feedback from the arm yet"
        if s.feedback is None
        else f"no new feedback for {s.age:.3f} s, at most {s.max_age} s allowed"
    )
    return f"{problem}: {s.missing}" if s.missing else problem


def _arm_status(s: Situation) -> str | None:
    code = s.feedback.arm_status if s.feedback else 0
    return None if code == 0 else f"arm status {code}: {ARM_STATUS.get(code, 'unknown')}"


def _drivers(s: Situation) -> str | None:
    return ", ".join(s.feedback.driver_faults) or None if s.feedback else None


def _power(s: Situation) -> str | None:
    off = (
        [f"joint{i + 1}" for i, on in enumerate(s.feedback.drivers_enabled) if not on]
        if s.feedback
        else []
    )
    return f"motor power off: {', '.join(off)}" if off else None


def _control_mode(s: Situation) -> str | None:
    mode = s.feedback.ctrl_mode if s.feedback else CTRL_MODE_CAN
    return None if mode == CTRL_MODE_CAN else f"control mode {mode} is not CAN control"


def _pose(s: Situation) -> str | None:
    if s.feedback is None:
        return None
    joints = s.feedback.positions[:6]
    outside = np.maximum(JOINT_LIMITS[:, 0] - joints, joints - JOINT_LIMITS[:, 1])
    wrong = [f"joint{i + 1} at {joints[i]:.3f} rad" for i in np.flatnonzero(outside > MAX_OUTSIDE)]
    return f"{', '.join(wrong)} is out of its range: is its zero position right?" if wrong else None


FEEDBACK = Check("feedback", _feedback)
HEALTH = (
    FEEDBACK,
    Check("arm_status", _arm_status),
    Check("drivers", _drivers),
)
# Required before the arm is enabled.
START = (*HEALTH, Check("pose", _pose))
# Required once it is enabled.
POWERED = (Check("power", _power), Check("control_mode", _control_mode))


def first_failure(checks: tuple[Check, ...], situation: Situation) -> str | None:
    """``name: reason`` of the first check that fails, None if all pass."""
    for check in checks:
        if reason := check.failure(situation):
            return f"{check.name}: {reason}"
    return None
