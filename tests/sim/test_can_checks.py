"""Each check of the arm: what fails, what the line for the user says, and what passes."""

import sys
import threading
from dataclasses import replace

import can
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alam_core.robots.piper import JOINT_LIMITS
from alam_piper.checks import HEALTH, POWERED, START, Situation, first_failure
from alam_piper.emulator import firmware_limits
from alam_piper.frames import FEEDBACK_FRAMES
from alam_piper.hardware import Feedback
from alam_piper.startup import ArmLimits
from alam_piper.writers import BusWriters

HOME = np.array([0.0, 1.57, -1.3485, 0.0, 0.0, 0.0, 0.05])
GOOD = Feedback(1.0, HOME, np.zeros(6), 1, 0, 0, (True,) * 6, ())
FRESH = dict.fromkeys(FEEDBACK_FRAMES, 0.01)
SITUATION = Situation(
    GOOD, 0.01, 0.1, ages=FRESH, firmware="S-V1.8-2", arm_limits=firmware_limits(), strict=True
)


def failure(checks=START + POWERED, feedback: dict | None = None, **changes) -> str | None:
    """The first failure if the good situation and feedback are changed like this."""
    changed = replace(SITUATION, **changes)
    if feedback:
        changed = replace(changed, feedback=replace(GOOD, **feedback))
    return first_failure(checks, changed)


def test_a_good_arm_passes() -> None:
    assert failure() is None


@pytest.mark.parametrize(
    ("silent", "said"),
    [
        ({0x2A8: 0.104}, "no gripper (0x2a8) for 0.104 s, at most 0.1 s allowed"),
        (
            {0x2A6: 0.104, 0x2A1: 0.2},
            "no arm status (0x2a1), joint3 and joint4 (0x2a6) for 0.200 s, at most 0.1 s allowed",
        ),
        (
            dict.fromkeys(range(0x261, 0x267), 0.15),
            "no 6 kinds of feedback for 0.150 s, at most 0.1 s allowed: joint1 motor driver "
            "(0x261), joint2 motor driver (0x262), joint3 motor driver (0x263), "
            "joint4 motor driver (0x264), joint5 motor driver (0x265) and 1 more",
        ),
        (
            dict.fromkeys(FEEDBACK_FRAMES, 0.12),
            "no new feedback for 0.120 s, at most 0.1 s allowed",
        ),
        # The rarest frames reach the largest age first, but no other frame came either.
        (
            dict.fromkeys(FEEDBACK_FRAMES, 0.06) | {0x261: 0.101},
            "no new feedback for 0.101 s, at most 0.1 s allowed",
        ),
    ],
)
def test_silent_frames_are_named(silent: dict[int, float], said: str) -> None:
    assert failure(HEALTH, ages=FRESH | silent) == f"feedback: {said}"


def test_without_ages_that_of_the_newest_feedback_counts() -> None:
    assert failure(ages={}) is None
    assert failure(ages={}, age=0.2).startswith("feedback: no new feedback for 0.200 s")
    assert failure(feedback=None, missing="why") is None
    assert first_failure(START, Situation(None, np.inf, 0.1, "why")) == (
        "feedback: no feedback from the arm yet: why"
    )


@pytest.mark.parametrize(
    ("feedback", "said"),
    [
        ({"arm_status": 1}, "estop: the arm's emergency stop is active"),
        ({"arm_status": 7}, "arm_status: arm status 7: collision"),
        ({"arm_status": 255}, "arm_status: arm status 255: unknown"),
        ({"error_code": 0x0004}, "error_code: error code 0x0004: joint3 does not communicate"),
        ({"error_code": 0x2100}, "joint1 is beyond its angle limit, joint6 is beyond"),
        ({"error_code": 0x8040}, "error code 0x8040: bit 6, bit 15"),
        ({"teach_status": 1}, "teach: teach mode: the arm records"),
        ({"teach_status": 7}, "teach: teach mode: the arm moves to the start"),
        ({"driver_faults": ("joint3 stall_status",)}, "drivers: joint3 stall_status"),
        ({"gripper_faults": ("sensor_status",)}, "gripper: gripper sensor_status"),
        ({"positions": HOME - [0, 1.7, 0, 0, 0, 0, 0]}, "pose: joint2 at -0.130 rad is out of"),
        ({"drivers_enabled": (True,) * 5 + (False,)}, "power: motor power off: joint6"),
        ({"ctrl_mode": 2}, "control_mode: control mode 2 is not CAN control"),
        ({"move_mode": 4}, "move_mode: move mode 4 (MIT)"),
        ({"move_mode": 255}, "move_mode: move mode 255 (unknown)"),
    ],
)
def test_what_the_feedback_reports_is_named(feedback: dict, said: str) -> None:
    assert said in failure(feedback=feedback)


@pytest.mark.parametrize(
    "feedback",
    [{"teach_status": 2}, {"teach_status": 6}, {"move_mode": 0}, {"move_mode": 2}, {"stamp": 0.0}],
)
def test_what_is_no_fault_passes(feedback: dict) -> None:
    assert failure(feedback=feedback) is None


def test_an_arm_must_have_told_what_it_is_and_be_alone() -> None:
    other = "another program sends commands on this bus (0x155): stop it"
    assert failure(HEALTH, foreign_writer=other) == f"foreign_writer: {other}"
    assert failure(firmware="").startswith("firmware: the arm has not told its firmware")
    assert failure(firmware="", strict=False) is None
    assert failure(firmware="V2", strict=False).startswith("firmware: firmware 'V2' is not")
    assert failure(arm_limits=None).startswith("limits: the arm has not told its motors' limits")
    assert failure(arm_limits=None, strict=False) is None


def limits(joint: int, **values: float) -> ArmLimits:
    """Good limits with some of one joint's values changed."""
    changed = firmware_limits()
    for name, value in values.items():
        getattr(changed, name)[joint - 1] = value
    return changed


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (limits(3, lower=0, upper=0, speed=0), "joint3 are wrong: from 0.000 to 0.000 rad is no"),
        (
            limits(1, lower=1.0, upper=-1.0),
            "joint1 are wrong: from 1.000 to -1.000 rad is no",
        ),
        (limits(2, upper=np.radians(3276.7)), "joint2 are wrong: from 0.000 to 57.189 rad is no"),
        (limits(6, lower=np.nan), "joint6 are wrong: from nan to 2.094 rad is no range"),
        (limits(4, speed=0.0), "joint4 are wrong: speed 0.000 rad/s"),
        (limits(5, speed=65.535), "joint5 are wrong: speed 65.535 rad/s"),
        (limits(5, acceleration=0.0), "joint5 are wrong: acceleration 0.000 rad/s^2"),
        (limits(5, acceleration=655.35), "joint5 are wrong: acceleration 655.350 rad/s^2"),
        (limits(5, acceleration=np.nan), "joint5 are wrong: acceleration nan rad/s^2"),
        (limits(2, upper=1.2), "from 0.000 to 1.200 rad does not contain its position 1.570 rad"),
    ],
)
def test_corrupt_limits_are_named_with_their_values(wrong: ArmLimits, said: str) -> None:
    for strict in (True, False):  # what the arm told must be right in any case
        found = failure(arm_limits=wrong, strict=strict)
        assert found.startswith("limits: ") and said in found


numbers = st.floats(allow_nan=True, allow_infinity=True)


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 6), numbers, numbers, numbers, numbers)
def test_only_limits_that_an_arm_can_have_pass(joint, lower, upper, speed, acceleration) -> None:
    told = limits(joint, lower=lower, upper=upper, speed=speed, acceleration=acceleration)
    if failure(arm_limits=told) is None:
        assert -2 * np.pi <= lower <= HOME[joint - 1] + 0.05 and lower < upper
        assert HOME[joint - 1] - 0.05 <= upper <= 2 * np.pi
        assert 0 < speed <= 10 and 0 < acceleration <= 100


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 0xFFFF))
def test_every_bit_of_the_error_code_is_named(code: int) -> None:
    said = failure(feedback={"error_code": code})
    if code == 0:
        assert said is None
    else:
        assert said.count("joint") - 1 + said.count("bit ") == code.bit_count(), said


def test_limits_around_the_joints_own_ranges_pass() -> None:
    lower, upper = JOINT_LIMITS.T
    wide = ArmLimits(lower - 0.1, upper + 0.1, np.full(6, 3.0), np.full(6, 5.0))
    assert failure(arm_limits=wide) is None


def test_a_frame_that_is_sent_again_is_our_own_all_the_time():
    """The reader's thread judges the first copy of a frame while the next one is being sent."""

    class Bus:
        def SendCanMessage(self, frame: int, data: list[int]) -> None:
            pass

    bus, writers = Bus(), BusWriters()
    writers.watch(bus)  # type: ignore[arg-type]
    data = [1, 2, 3, 4, 5, 6, 7, 8]
    bus.SendCanMessage(0x156, data)
    done = threading.Event()

    def send() -> None:
        for _ in range(200_000):
            bus.SendCanMessage(0x156, data)
        done.set()

    message = can.Message(arbitration_id=0x156, data=data, is_extended_id=False)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threading.Thread(target=send).start()
        while not done.is_set():
            writers.accept(message, is_feedback=False)
    finally:
        done.wait()
        sys.setswitchinterval(interval)
    assert writers.foreign() == ""
    message.data[0] = 9
    writers.accept(message, is_feedback=False)
    assert "another program sends commands on this bus (0x156)" in writers.foreign()
