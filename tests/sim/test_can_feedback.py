"""A CAN bus that carries only a part of the arm's feedback, or that fails: what is missing is
named, nothing moves, and the bus can be opened again.
"""

import logging
import time

import can
import numpy as np
import pytest
from can_rig import HOME, PERIOD, CanRig

from alam_core.errors import UserError
from alam_piper.bus import open_bus
from alam_piper.frames import FEEDBACK_FRAMES
from alam_piper.states import State


@pytest.fixture
def rig():
    rig = CanRig()
    yield rig
    rig.close()


def run_until(rig, condition):
    """Run in steps: the SDK decodes frames in a thread of its own."""
    until = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < until, rig.controller.enable()
        rig.run(PERIOD)
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("muted", "named"),
    [
        ([0x2A8], "frames are missing: gripper (0x2a8)"),
        # The SDK alone shows joints 3 and 4 at 0 rad, so that the arm would drive there.
        ([0x2A6], "frames are missing: joint3 and joint4 (0x2a6)"),
        ([0x263, 0x266], "joint3 motor driver (0x263), joint6 motor driver (0x266)"),
        (range(0x251, 0x257), "joint5 velocity (0x255) and 1 more"),
        ([0x2A1], "arm status (0x2a1)"),
        (FEEDBACK_FRAMES, "only other frames are heard on the CAN bus: 0x155"),
        (range(0x800), "nothing is heard on the CAN bus: is the arm powered and connected?"),
    ],
)
def test_missing_parts_of_the_feedback_are_named_and_the_arm_is_not_enabled(rig, muted, named):
    rig.emulator.muted_frames = frozenset(muted)
    other = open_bus(rig.bus_config)
    if named.endswith("0x155"):  # commands of another controller
        other.send(can.Message(arbitration_id=0x155, data=bytes(8), is_extended_id=False))
    run_until(rig, lambda: named in (rig.controller.feedback_problem or ""))
    assert named in rig.controller.enable() and rig.controller.state is State.DISABLED
    assert rig.controller.feedback is None
    rig.emulator.muted_frames = frozenset()
    # What the arm did not answer is asked again, and the other controller is forgotten.
    run_until(rig, lambda: rig.controller.enable() is None)
    rig.enable()
    assert np.abs(rig.plant.joints - HOME).max() < 1e-4
    other.shutdown()


def pull(rig):
    """What python-can does when the adapter is pulled: sending and receiving are errors."""
    bus = rig.backend._arm.GetCanBus()
    bus.recv_bus.shutdown()
    bus.send_bus.shutdown()


def run_pulled(rig, seconds):
    rig.emulator.feedback_frozen = True  # the rig then waits for no feedback
    rig.run(seconds)
    rig.emulator.feedback_frozen = False


class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def test_a_pulled_adapter_is_a_fault_and_the_bus_can_be_opened_again(rig):
    rig.enable()
    rig.offer(1, HOME + [0.6, 0, 0, 0, 0, 0])
    rig.run(0.3)
    sdk = rig.backend._arm.logger.logger
    shown = Lines()
    sdk.addHandler(shown)
    pull(rig)
    run_pulled(rig, 1.0)
    sdk.removeHandler(shown)
    assert rig.controller.state is State.FAULT and rig.controller.is_silent
    assert len(shown.lines) <= 1, shown.lines  # of about 150 errors
    named = "the CAN bus cannot be read: is its adapter plugged in?"
    rig.emulator.feedback_frozen = True
    run_until(rig, lambda: named in rig.controller.reset_fault())
    rig.emulator.feedback_frozen = False

    moved = rig.plant.joints.copy()
    rig.backend.connect()
    assert rig.backend.read() is None  # nothing that was heard before counts
    run_until(rig, lambda: rig.controller.feedback_problem is None)
    assert rig.controller.reset_fault() is None and rig.controller.state is State.HOLDING
    rig.run(0.2)
    assert np.abs(rig.plant.joints - moved).max() < 1e-3 and rig.emulator.power_cuts == 0
    assert rig.controller.enable() is None
    rig.offer(2, HOME)
    rig.run(0.3)
    assert rig.controller.state is State.EXECUTING


def enabling(rig):
    rig.run(0.05)
    assert rig.controller.enable() is None


def held(rig):
    rig.enable()
    rig.controller.hold()
    rig.run(0.1)


def pulled_before(rig):
    rig.enable()
    pull(rig)
    run_pulled(rig, 0.5)
    rig.backend.connect()
    run_until(rig, lambda: rig.controller.feedback_problem is None)
    assert rig.controller.reset_fault() is None
    rig.run(0.1)


@pytest.mark.parametrize(
    ("before", "powered"),
    [
        (lambda rig: rig.run(0.1), False),
        (enabling, False),
        (lambda rig: rig.enable(), True),
        (held, True),
        (pulled_before, True),
    ],
    ids=["disabled", "enabling", "holding", "held by request", "a second time"],
)
def test_the_bus_can_be_opened_again_whatever_the_arm_did(rig, before, powered):
    before(rig)
    pull(rig)
    run_pulled(rig, 0.5)
    assert rig.controller.state is (State.FAULT if powered else State.DISABLED)
    assert "no new feedback" in rig.controller.enable()
    where = rig.plant.joints.copy()
    rig.backend.connect()
    run_until(rig, lambda: rig.controller.feedback_problem is None)
    assert rig.controller.reset_fault() is None
    assert rig.controller.state is (State.HOLDING if powered else State.DISABLED)
    rig.enable()
    assert np.abs(rig.plant.joints - where).max() < 1e-3 and rig.emulator.power_cuts == 0


def test_opening_a_bus_again_sends_no_command(rig):
    rig.run(0.1)
    for _ in range(3):
        rig.backend.connect()
    run_until(rig, lambda: rig.controller.feedback_problem is None)
    assert rig.emulator.joint_commands == 0 and not rig.emulator.enabled.any()
    assert rig.emulator.ctrl_mode == 0


def test_a_bus_that_cannot_be_opened_again_leaves_the_controller_silent(rig, monkeypatch):
    rig.enable()
    pull(rig)
    run_pulled(rig, 0.5)

    def absent(*_, **__):
        raise OSError("No such device")

    with monkeypatch.context() as patch:
        patch.setattr(can, "Bus", absent)
        with pytest.raises(UserError, match="cannot open CAN bus virtual .*: No such device"):
            rig.backend.connect()
    run_pulled(rig, 0.2)
    assert "the CAN bus is not open" in rig.controller.reset_fault()
    assert rig.backend.firmware() == ""
    rig.backend.connect()
    run_until(rig, lambda: rig.controller.feedback_problem is None)
    assert rig.controller.reset_fault() is None


def test_a_frame_that_is_too_short_counts_for_nothing(rig):
    run_until(rig, lambda: rig.controller.feedback_problem is None)
    rig.emulator.muted_frames = frozenset((0x2A6,))
    with open_bus(rig.bus_config) as other:
        for length in (0, 4, 7):
            data = bytes(length)
            other.send(can.Message(arbitration_id=0x2A6, data=data, is_extended_id=False))
        other.send(can.Message(arbitration_id=0x2A6, data=bytes(8), is_extended_id=True))
    rig.run(0.2)
    assert rig.backend.missing() == ""  # the bus does not fail
    assert "no joint3 and joint4 (0x2a6)" in rig.controller.enable()
    assert np.abs(rig.controller.feedback.positions[:6] - HOME).max() < 1e-3


def test_an_impossible_position_is_shown_and_not_dropped(rig):
    """The SDK drops positions beyond 3000 degrees, so that the last one would look new."""
    rig.run(0.1)
    rig.emulator.shift[0] = 60.0
    run_until(rig, lambda: rig.controller.feedback.positions[0] > 50.0)
    assert "joint1 at 60.000 rad is out of its range" in rig.controller.enable()


def test_counts_rise_over_connections(rig):
    rig.run(0.1)
    before = rig.backend.read().counts
    assert len(before) == len(FEEDBACK_FRAMES) and min(before) > 0
    rig.backend.connect()
    run_until(rig, lambda: rig.backend.read() is not None)
    assert all(new > old for new, old in zip(rig.backend.read().counts, before, strict=True))
