"""Every fault that the emulated arm can have is caught by the check that the table names, brakes
the arm, and can be cleared.
"""

import time

import numpy as np
import pytest
from can_rig import HOME, PERIOD, CanRig

from alam_core.errors import UserError
from alam_piper.checks import POWERED, START
from alam_piper.config import ControllerConfig
from alam_piper.faults import FAULTS, find_fault
from alam_piper.states import State

NAMES = {check.name for check in (*START, *POWERED)}
IN_MOTION = [name for name, fault in FAULTS.items() if not fault.at_start]
AT_START = [name for name, fault in FAULTS.items() if fault.at_start]
SAID_AT_START = {
    "leader": "the arm is set up as a leader (it sends 0x3a1): make it a follower",
    "firmware_unknown": "the arm has not told its firmware version",
    "corrupt_limits": "joint3 are wrong: from 0.000 to 0.000 rad is no range",
}


def run_until(rig: CanRig, condition) -> None:
    """Run in steps until the condition holds: the SDK decodes frames in a thread of its own, and
    queries are repeated after a pause of wall time.
    """
    until = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < until, rig.controller.reason
        rig.run(PERIOD)
        time.sleep(0.001)


def test_each_check_of_the_arm_has_a_fault() -> None:
    without = {"pose", "control_mode"}  # a pose is given, and the teach button changes the mode
    assert NAMES - {fault.check for fault in FAULTS.values()} == without
    assert {fault.check for fault in FAULTS.values()} - NAMES == {"tracking"}
    with pytest.raises(UserError, match="'none' is unknown; the faults are: bus_silence, "):
        find_fault("none")


@pytest.mark.parametrize("name", IN_MOTION)
def test_a_fault_in_motion_is_caught_by_its_check(name: str) -> None:
    rig, fault = CanRig(), FAULTS[name]
    try:
        rig.enable()
        rig.offer(1, HOME + [0.6, -0.6, 0, 0, 0, 0])
        rig.run(0.3)
        assert rig.controller.state is State.EXECUTING
        fault.inject(rig.emulator)
        run_until(rig, lambda: rig.controller.state is State.FAULT)
        assert rig.controller.reason.startswith(f"{fault.check}: ")
        assert "\n" not in rig.controller.reason and len(rig.controller.reason) < 250
        run_until(rig, lambda: rig.controller.is_silent)
        assert np.abs(rig.controller.set_point.velocity).max() == 0.0
        assert rig.emulator.power_cuts == 0
        fault.clear(rig.emulator)
        rig.run(0.1)  # until all feedback is new
        run_until(rig, lambda: rig.controller.reset_fault() is None)
        left = State.DISABLED if fault.check == "estop" else State.HOLDING
        assert rig.controller.state is left
    finally:
        rig.close()


@pytest.mark.parametrize("name", AT_START)
def test_an_arm_with_a_fault_at_start_is_not_enabled(name: str) -> None:
    fault = FAULTS[name]
    rig = CanRig(fault=fault)
    try:
        run_until(rig, lambda: (rig.controller.enable() or "").startswith(f"{fault.check}: "))
        rig.run(0.1)
        assert SAID_AT_START[name] in rig.controller.enable()
        assert rig.controller.state is State.DISABLED
        assert rig.emulator.joint_commands == 0 and not rig.emulator.enabled.any()
        fault.clear(rig.emulator)
        rig.backend.connect()  # asks again
        run_until(rig, lambda: rig.controller.enable() is None)
        run_until(rig, lambda: rig.controller.state is State.HOLDING)
    finally:
        rig.close()


def test_a_stuck_joint_and_a_jump_are_seen_in_the_feedback() -> None:
    rig = CanRig()
    try:
        rig.enable()
        FAULTS["feedback_jump"].inject(rig.emulator)
        rig.run(0.05)
        assert rig.controller.feedback.positions[0] == pytest.approx(HOME[0] + 0.5, abs=1e-3)
        FAULTS["feedback_jump"].clear(rig.emulator)
        FAULTS["stuck_joint"].inject(rig.emulator)
        rig.offer(1, HOME + [0.3, -0.3, 0, 0, 0, 0])
        rig.run(0.6)
        assert rig.plant.joints[0] > HOME[0] + 0.1
        assert rig.plant.joints[1] == pytest.approx(HOME[1], abs=1e-4)
        FAULTS["stuck_joint"].clear(rig.emulator)
        rig.run(0.6)
        assert rig.plant.joints[1] < HOME[1] - 0.25
    finally:
        rig.close()


def test_a_part_of_the_feedback_that_falls_silent_is_named() -> None:
    rig = CanRig()
    try:
        rig.enable()
        rig.emulator.muted_frames = frozenset((0x2A6,))
        rig.run(0.09)
        assert rig.controller.state is State.HOLDING
        run_until(rig, lambda: rig.controller.state is State.FAULT)
        assert rig.controller.reason.startswith("feedback: no joint3 and joint4 (0x2a6) for 0.10")
    finally:
        rig.close()


def test_nothing_is_asked_once_set_points_are_sent() -> None:
    """The arm did not tell its firmware, and a controller that is not strict drives it anyway."""
    rig = CanRig(config=ControllerConfig(strict=False), fault=FAULTS["firmware_unknown"])
    asked: list[bytes] = []
    rig.emulator._handlers[0x4AF] = asked.append
    try:
        run_until(rig, lambda: len(asked) >= 2)  # once at connecting, then again
        rig.enable()
        before, until = len(asked), time.monotonic() + 1.2
        while time.monotonic() < until:
            rig.run(PERIOD)
            time.sleep(0.01)
        assert len(asked) == before and rig.emulator.joint_commands > 50
    finally:
        rig.close()
