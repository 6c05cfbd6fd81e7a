"""What must be true while the arm is powered: a table of checks, each of which returns a reason if
it fails.

A failed check latches FAULT in the controller. To add a check, add a row here.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from alam_core.errors import LISTED, listing
from alam_core.robots.piper import JOINT_LIMITS
from alam_piper.frames import FEEDBACK_FRAMES, frame_names
from alam_piper.hardware import CTRL_MODE_CAN, MOVE_J, Feedback
from alam_piper.startup import ArmLimits

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
EMERGENCY_STOP = 1  # arm status
TEACHING = {  # teach status -> what the arm does; the others mean that it has ended
    1: "records",
    3: "replays a recording",
    4: "paused a recording",
    5: "replays a recording",
    7: "moves to the start of a recording",
    255: "is in an unknown state",
}
MOVE_MODES = {0: "P", MOVE_J: "J", 2: "L", 3: "C"}  # in which the firmware plans the motion
UNPLANNED_MODES = {4: "MIT", 5: "CPV"}

# rad by which the measured position of a joint may be outside its range: an arm at rest lies on its
# mechanical stops, and its encoders have a limited accuracy.
MAX_OUTSIDE = 0.05
# Above these a number in the firmware is not a limit: rad, rad/s, rad/s^2.
LARGEST_ANGLE, LARGEST_SPEED, LARGEST_ACCELERATION = 2 * math.pi, 10.0, 100.0
TRY_AGAIN = "try again, or power-cycle the arm if it stays so"
RESTORE = "restore the limits with the SDK's demo/V2/piper_set_init_default.py"


@dataclass(frozen=True)
class Situation:
    """What the checks look at.

    feedback: the newest, None if none has arrived yet. age: s since the newest was first seen.
    max_age: the largest age allowed, s. missing: what the connection lacks, "" if nothing. ages:
    identifier of a feedback frame -> s since the last one was first seen; without an entry ``age``
    counts. firmware, arm_limits: what the arm told at start, "" and None if it did not.
    foreign_writer: who else sends on the bus, "" if nobody. strict: whether an arm must have told
    its firmware and limits before it is enabled; what it told must be right in any case.
    """

    feedback: Feedback | None
    age: float
    max_age: float
    missing: str = ""
    ages: Mapping[int, float] = field(default_factory=dict)
    firmware: str = ""
    arm_limits: ArmLimits | None = None
    foreign_writer: str = ""
    strict: bool = False


@dataclass(frozen=True)
class Check:
    """A named condition. ``failure`` returns the reason if the condition is not met, else None."""

    name: str
    failure: Callable[[Situation], str | None]


def _feedback(s: Situation) -> str | None:
    ages = {frame: s.ages.get(frame, s.age) for frame in FEEDBACK_FRAMES}
    silent = [frame for frame, age in ages.items() if age > s.max_age]
    if s.feedback is None:
        problem = "no feedback from the arm yet"
    elif silent:
        problem = _silence(silent, ages, s.max_age)
    elif s.age > s.max_age:
        problem = _silence(list(FEEDBACK_FRAMES), {0: s.age}, s.max_age)
    else:
        return None
    return f"{problem}: {s.missing}" if s.missing else problem


def _silence(silent: list[int], ages: Mapping[int, float], max_age: float) -> str:
    """Names the silent frames. If the newest frame of all is old too, the whole arm is silent: the
    rarer frames merely reach the largest age first.
    """
    oldest, newest = max(ages.values()), min(ages.values())
    allowed = f"for {oldest:.3f} s, at most {max_age} s allowed"
    if len(silent) == len(FEEDBACK_FRAMES) or newest > max_age / 2:
        return f"no new feedback {allowed}"
    names = frame_names(silent)
    if len(names) <= LISTED:
        return f"no {', '.join(names)} {allowed}"
    return f"no {len(names)} kinds of feedback {allowed}: {listing(names)}"


def _estop(s: Situation) -> str | None:
    stopped = s.feedback is not None and s.feedback.arm_status == EMERGENCY_STOP
    return "the arm's emergency stop is active: release it at the arm" if stopped else None


def _arm_status(s: Situation) -> str | None:
    code = s.feedback.arm_status if s.feedback else 0
    if code in (0, EMERGENCY_STOP):
        return None
    return f"arm status {code}: {ARM_STATUS.get(code, 'unknown')}"


def _error_code(s: Situation) -> str | None:
    code = s.feedback.error_code if s.feedback else 0
    joints = range(6)
    said = [f"joint{i + 1} does not communicate" for i in joints if code >> i & 1]
    said += [f"joint{i + 1} is beyond its angle limit" for i in joints if code >> (8 + i) & 1]
    said += [f"bit {i}" for i in (6, 7, 14, 15) if code >> i & 1]
    advice = "look at the joint's cable and pose"
    return f"error code {code:#06x}: {', '.join(said)}; {advice}" if said else None


def _teach(s: Situation) -> str | None:
    doing = TEACHING.get(s.feedback.teach_status) if s.feedback else None
    return f"teach mode: the arm {doing}; end it with the teach button" if doing else None


def _gripper(s: Situation) -> str | None:
    faults = s.feedback.gripper_faults if s.feedback else ()
    return f"gripper {', '.join(faults)}: look at the gripper and its cable" if faults else None


def _foreign_writer(s: Situation) -> str | None:
    return s.foreign_writer or None


def _firmware(s: Situation) -> str | None:
    if s.firmware:
        known = s.firmware.startswith("S-V")
        return None if known else f"firmware '{s.firmware}' is not of the form S-V1.8-2"
    return f"the arm has not told its firmware version: {TRY_AGAIN}" if s.strict else None


def _limits(s: Situation) -> str | None:
    limits = s.arm_limits
    if limits is None:
        return f"the arm has not told its motors' limits: {TRY_AGAIN}" if s.strict else None
    for i in range(6):
        lower, upper = limits.lower[i], limits.upper[i]
        pose = s.feedback.positions[i] if s.feedback else None
        speed, acceleration = limits.speed[i], limits.acceleration[i]
        span = f"from {lower:.3f} to {upper:.3f} rad"
        if not (-LARGEST_ANGLE <= lower < upper <= LARGEST_ANGLE):  # also rejects NaN
            wrong = f"{span} is no range"
        elif not 0.0 < speed <= LARGEST_SPEED:
            wrong = f"speed {speed:.3f} rad/s"
        elif not 0.0 < acceleration <= LARGEST_ACCELERATION:
            wrong = f"acceleration {acceleration:.3f} rad/s^2"
        elif pose is not None and not lower - MAX_OUTSIDE <= pose <= upper + MAX_OUTSIDE:
            wrong = f"{span} does not contain its position {pose:.3f} rad"
        else:
            continue
        return f"the firmware's limits of joint{i + 1} are wrong: {wrong}; {RESTORE}"
    return None


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


def _move_mode(s: Situation) -> str | None:
    mode = s.feedback.move_mode if s.feedback else MOVE_J
    if mode in MOVE_MODES:
        return None
    name = UNPLANNED_MODES.get(mode, "unknown")
    return f"move mode {mode} ({name}): stop the program that set it, then disable and enable"


def _pose(s: Situation) -> str | None:
    if s.feedback is None:
        return None
    joints = s.feedback.positions[:6]
    outside = np.maximum(JOINT_LIMITS[:, 0] - joints, joints - JOINT_LIMITS[:, 1])
    wrong = [f"joint{i + 1} at {joints[i]:.3f} rad" for i in np.flatnonzero(outside > MAX_OUTSIDE)]
    return f"{', '.join(wrong)} is out of its range: is its zero position right?" if wrong else None


FEEDBACK = Check("feedback", _feedback)
ESTOP = Check("estop", _estop)
HEALTH = (
    FEEDBACK,
    ESTOP,
    Check("arm_status", _arm_status),
    Check("error_code", _error_code),
    Check("teach", _teach),
    Check("drivers", _drivers),
    Check("gripper", _gripper),
    Check("foreign_writer", _foreign_writer),
)
# Required before the arm is enabled.
START = (
    *HEALTH,
    Check("firmware", _firmware),
    Check("pose", _pose),
    Check("limits", _limits),
)
# Required once it is enabled.
POWERED = (
    Check("power", _power),
    Check("control_mode", _control_mode),
    Check("move_mode", _move_mode),
)


def first_failure(checks: tuple[Check, ...], situation: Situation) -> str | None:
    """``name: reason`` of the first check that fails, None if all pass."""
    for check in checks:
        if reason := check.failure(situation):
            return f"{check.name}: {reason}"
    return None
