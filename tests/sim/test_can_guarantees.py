"""What the controller guarantees when something is lost, stuck, late or doubled, on the emulated
arm. Each test fails without the guarantee that its name states.
"""

from collections.abc import Iterator

import can
import numpy as np
import pytest
from can_rig import HOME, PERIOD, CanRig, make_chunk

from alam_core.robots.piper import tcp_position
from alam_piper.bus import open_bus
from alam_piper.checks import ESTOP
from alam_piper.frames import FEEDBACK_FRAMES, POSITION_FRAMES
from alam_piper.gate import ChunkRejected
from alam_piper.states import State

FORWARD = np.array([0.6, 0.0, 0.0, 0.0, 0.0, 0.0])  # rad
EMERGENCY_STOP = 1


@pytest.fixture
def rig() -> Iterator[CanRig]:
    rig = CanRig()
    yield rig
    rig.close()


def start_moving(rig: CanRig) -> None:
    rig.enable()
    rig.offer(1, HOME + FORWARD)
    rig.run(0.4)
    assert rig.controller.state is State.EXECUTING
    assert rig.controller.set_point.velocity[0] > 0.5


# Feedback: every kind of frame has an age of its own.


def test_the_first_set_point_needs_frames_of_every_kind_that_are_newer_than_enable(
    rig: CanRig,
) -> None:
    """The arm is moved by hand while the frame that tells it is lost."""
    rig.run(0.1)
    assert rig.controller.enable() is None
    rig.emulator.muted_frames = frozenset([0x2A5])
    rig.plant.joints = HOME + [0.5, 0, 0, 0, 0, 0]
    rig.emulator.teleport()
    rig.run(0.5)
    assert rig.sent == [] and rig.emulator.joint_commands == 0
    assert rig.controller.state is State.DISABLED
    assert "joint1 and joint2 (0x2a5)" in rig.controller.reason
    assert "joint1 and joint2 (0x2a5)" in (rig.controller.enable() or "")
    rig.emulator.muted_frames = frozenset()
    rig.run(0.1)
    rig.enable()
    assert np.abs(rig.plant.joints - HOME - [0.5, 0, 0, 0, 0, 0]).max() < 1e-4


def test_a_lost_status_frame_does_not_hide_an_emergency_stop_from_enable(rig: CanRig) -> None:
    rig.run(0.1)
    rig.emulator.muted_frames = frozenset([0x2A1])
    rig.emulator.arm_status = EMERGENCY_STOP
    assert rig.controller.enable() is None  # the last status frame is new enough, and good
    rig.run(0.5)
    assert rig.sent == [] and rig.controller.state is State.DISABLED
    assert "arm status (0x2a1)" in rig.controller.reason


@pytest.mark.parametrize("frame", [0x2A1, 0x2A6, 0x2A8, 0x254, 0x263])
def test_one_lost_kind_of_frame_in_motion_is_a_fault_that_names_it(rig: CanRig, frame: int) -> None:
    start_moving(rig)
    lost = rig.now
    rig.emulator.muted_frames = frozenset([frame])
    rig.run(0.16)  # the rarest frames are sent every 0.05 s
    assert rig.controller.state is State.FAULT
    assert f"{FEEDBACK_FRAMES[frame]} ({frame:#x})" in rig.controller.last_fault
    rig.run(0.5)
    assert rig.controller.is_silent and rig.sent[-1][0] < lost + 0.16 + 0.4
    stamp = rig.controller.watch.positions_time
    if frame in POSITION_FRAMES:
        assert stamp is None  # a frozen joint is not published
    else:
        assert stamp == rig.now


def test_the_stamp_of_positions_is_that_of_the_oldest_part(rig: CanRig) -> None:
    rig.run(0.1)
    last = rig.now
    rig.emulator.muted_frames = frozenset([0x2A7])
    rig.run(0.05)
    assert rig.controller.watch.positions_time == last
    rig.run(0.06)
    assert rig.controller.watch.positions_time is None


# Tracking: the arm is where its set-point is.


def test_a_stuck_arm_is_a_fault_before_the_set_point_is_far_away(rig: CanRig) -> None:
    rig.enable()
    rig.plant.set_target = lambda *_: None
    rig.offer(1, HOME + FORWARD)
    rig.run(2.0)
    assert rig.controller.state is State.FAULT
    assert "tracking: joint1 is 0.3" in rig.controller.last_fault
    assert abs(rig.controller.set_point.position[0] - HOME[0]) < 0.3 + 0.2 + 0.1
    assert rig.controller.is_silent
    assert rig.controller.reset_fault() is None  # starts again where the arm is
    assert np.abs(rig.controller.set_point.position[:6] - HOME).max() < 1e-4


@pytest.mark.parametrize(("seconds", "trips"), [(0.05, False), (0.2, True)])
def test_measured_positions_that_jump_are_a_fault_unless_they_jump_back(
    rig: CanRig, seconds: float, trips: bool
) -> None:
    rig.enable()
    true_state = rig.plant.state

    def jumped() -> tuple[np.ndarray, np.ndarray, float]:
        joints, velocities, gripper = true_state()
        return joints + [1.5, 0, 0, 0, 0, 0], velocities, gripper

    rig.plant.state = jumped
    rig.run(seconds)
    rig.plant.state = true_state
    rig.run(0.1)
    assert (rig.controller.state is State.FAULT) == trips, rig.controller.reason
    assert rig.controller.last_fault.startswith("tracking") == trips


# Chunks: bounded in time and distance, from one source, supervised on arrival.


def test_a_chunk_longer_than_the_bound_is_refused(rig: CanRig) -> None:
    rig.enable()
    rows = np.tile(np.append(HOME, 0.05), (1000, 1))
    with pytest.raises(ChunkRejected, match="1000.000 s long, at most 5.0 s"):
        rig.controller.offer(make_chunk(rig.now, 1, 1.0, rows), "test")
    with pytest.raises(ChunkRejected, match="5.100 s long"):
        rig.controller.offer(make_chunk(rig.now, 1, 0.1, rows[:51]), "test")
    rig.controller.offer(make_chunk(rig.now, 1, 0.1, rows[:50]), "test")


def test_a_publisher_that_falls_silent_within_a_long_chunk_is_noticed(rig: CanRig) -> None:
    rig.enable()
    rig.offer(1, HOME + FORWARD, steps=48)
    rig.run(2.9)
    assert rig.controller.state is State.EXECUTING
    rig.run(0.2)
    assert rig.controller.state is State.HOLDING
    assert "no new chunk for 3.0" in rig.controller.reason and rig.controller.stopped_short
    rig.offer(2, HOME)
    rig.run(0.1)
    assert rig.controller.state is State.EXECUTING


def test_targets_far_from_the_set_point_are_refused(rig: CanRig) -> None:
    rig.enable()
    rows = np.tile(np.append(HOME, 0.05), (8, 1))
    for jump, message in [(2.5, "joint1 begins 2.500 rad .* at most 0.5"), (0.51, "0.510 rad")]:
        with pytest.raises(ChunkRejected, match=message):
            far = rows + np.array([jump, 0, 0, 0, 0, 0, 0])
            rig.controller.offer(make_chunk(rig.now, 1, 0.1, far), "test")
    rig.run(0.2)
    assert np.abs(rig.plant.joints - HOME).max() < 1e-4
    near = rows + np.array([0.49, 0, 0, 0, 0, 0, 0])
    near[:, 6] = 0.0  # the gripper may jump
    rig.controller.offer(make_chunk(rig.now, 1, 0.1, near), "test")


def test_two_publishers_never_share_the_arm(rig: CanRig) -> None:
    rig.enable()
    with pytest.raises(ChunkRejected, match="source is empty"):
        rig.offer(1, HOME, source="")
    rig.offer(1, HOME + FORWARD, source="a")
    for sequence in (2, 2**64 - 1):
        with pytest.raises(ChunkRejected, match="source 'b' is refused .* follows 'a'"):
            rig.offer(sequence, HOME - FORWARD, source="b")
    rig.run(1.2)
    assert rig.controller.state is State.HOLDING  # for less than a second
    with pytest.raises(ChunkRejected, match="source 'b' is refused"):
        rig.offer(3, HOME, source="b")
    rig.offer(4, HOME + FORWARD, source="a")
    rig.run(1.0)
    rig.controller.hold()
    assert rig.controller.enable() is None  # the operator decides: any source
    rig.offer(1, HOME + FORWARD, source="b")
    with pytest.raises(ChunkRejected, match="source 'a' is refused"):
        rig.offer(5, HOME, source="a")
    rig.run(2.2)
    assert rig.controller.state is State.HOLDING  # for more than a second
    rig.offer(1, HOME + FORWARD, source="a")


def test_the_largest_sequence_number_locks_nobody_out_for_long(rig: CanRig) -> None:
    rig.enable()
    rig.offer(2**64 - 1, HOME)
    with pytest.raises(ChunkRejected, match="replayed"):
        rig.offer(5, HOME)
    rig.run(2.2)
    assert rig.controller.state is State.HOLDING
    rig.offer(5, HOME)


# The loop: what happens when it stands still.


@pytest.mark.parametrize("seconds", [0.25, 1.0])
def test_the_set_point_does_not_jump_after_a_stall(rig: CanRig, seconds: float) -> None:
    rig.enable()
    rig.offer(1, HOME + FORWARD, steps=30)
    rig.run(1.0)
    before, sent = rig.controller.set_point.position.copy(), len(rig.sent)
    rig.stall(seconds)
    rig.run(0.5)
    points = np.array([before, *(point for _, point in rig.sent[sent:])])
    speeds = np.diff(points, axis=0)[:, :6] / PERIOD
    assert np.abs(speeds[0]).max() <= 5.0 * PERIOD + 1e-9  # from rest
    assert np.abs(np.diff(speeds, axis=0)).max() <= 5.0 * PERIOD + 1e-9
    assert rig.controller.state is State.EXECUTING  # a stall is no fault
    assert rig.controller.stalls == 1
    assert rig.controller.longest_stall == pytest.approx(seconds + PERIOD)


def test_a_clock_that_jumps_ahead_is_no_lost_feedback(rig: CanRig) -> None:
    rig.enable()
    rig.offer(1, HOME + FORWARD)
    rig.run(0.3)
    rig.now += 3600.0
    rig.run(0.3)
    assert rig.controller.state is State.HOLDING
    assert rig.controller.reason.startswith("command: the last chunk ended")
    assert np.abs(rig.plant.joints - HOME).max() < 0.3


# Emergency stop, power and other writers.


def test_an_emergency_stop_is_left_only_by_a_reset_and_an_enable(rig: CanRig) -> None:
    start_moving(rig)
    rig.emulator.arm_status = EMERGENCY_STOP
    rig.run(1.0)
    assert rig.controller.state is State.FAULT and rig.controller.is_silent
    assert rig.controller.reason.startswith(f"{ESTOP.name}: ")
    assert "cause remains" in (rig.controller.reset_fault() or "")
    rig.emulator.arm_status = 0
    rig.run(0.1)
    assert rig.controller.reset_fault() is None
    assert rig.controller.state is State.DISABLED  # although the arm has power
    sent = len(rig.sent)
    rig.run(0.1)
    assert len(rig.sent) == sent and rig.emulator.enabled.all() and rig.emulator.power_cuts == 0
    rig.enable()


def test_an_emergency_stop_within_another_fault_counts_too(rig: CanRig) -> None:
    start_moving(rig)
    rig.emulator.arm_status = 7
    rig.run(0.5)
    assert "collision" in rig.controller.reason
    rig.emulator.arm_status = EMERGENCY_STOP
    rig.run(0.1)
    assert rig.controller.reason.startswith(f"{ESTOP.name}: ")
    rig.emulator.arm_status = 0
    rig.run(0.1)
    assert rig.controller.reset_fault() is None and rig.controller.state is State.DISABLED


def test_power_is_cut_only_when_the_arm_is_known_to_be_at_rest(rig: CanRig) -> None:
    assert "at rest is unknown" in (rig.controller.power_off() or "")
    start_moving(rig)
    assert "EXECUTING" in (rig.controller.power_off() or "")
    rig.controller.hold()
    assert "still brakes" in (rig.controller.power_off() or "")
    rig.run(0.5)
    rig.plant._velocities = np.array([0.0, 0.2, 0.0, 0.0, 0.0, 0.0])
    rig.plant.set_target = lambda *_: None
    rig.run(0.1)
    assert "joint2 moves at 0.20 rad/s" in (rig.controller.power_off() or "")
    rig.plant._velocities = np.zeros(6)
    rig.run(0.1)
    assert rig.emulator.power_cuts == 0 and rig.controller.state is State.HOLDING
    assert rig.controller.power_off() is None
    rig.backend.power_off()
    sent = len(rig.sent)
    rig.run(0.2)
    assert rig.emulator.power_cuts == 1 and not rig.emulator.enabled.any()
    assert rig.controller.state is State.DISABLED and len(rig.sent) == sent


def test_a_second_program_that_commands_the_arm_is_refused_and_a_fault(rig: CanRig) -> None:
    other = open_bus(rig.bus_config)
    command = can.Message(arbitration_id=0x155, data=bytes(8), is_extended_id=False)
    rig.run(0.1)
    other.send(command)
    rig.run(0.05)
    assert "another program" in (rig.controller.enable() or "")
    other.shutdown()


def test_a_second_program_that_commands_the_moving_arm_is_a_fault(rig: CanRig) -> None:
    other = open_bus(rig.bus_config)
    start_moving(rig)
    other.send(can.Message(arbitration_id=0x151, data=bytes(8), is_extended_id=False))
    rig.run(0.05)
    assert rig.controller.state is State.FAULT and "another program" in rig.controller.last_fault
    other.shutdown()


# Where the arm may be, and what is said.


def test_a_chunk_below_the_table_stops_above_it_and_says_so(rig: CanRig) -> None:
    rig.enable()
    down = HOME + [0.0, 1.3, 0.0, 0.0, 0.0, 0.0]
    assert tcp_position(down)[2] < -0.1
    rig.offer(1, down, steps=20)
    rig.run(1.9)
    assert rig.controller.state is State.EXECUTING
    assert "floor" in rig.controller.blocked and "floor" in rig.controller.explanation
    heights = [tcp_position(point[:6])[2] for _, point in rig.sent]
    assert -0.001 < min(heights) < 0.1
    rig.run(0.5)
    assert rig.controller.blocked == ""  # HOLDING asks for nothing


def test_every_transition_is_told_with_its_reason(rig: CanRig) -> None:
    start_moving(rig)
    rig.emulator.arm_status = 7
    rig.run(0.5)
    rig.emulator.arm_status = 0
    rig.run(0.05)
    assert rig.controller.reset_fault() is None
    rig.controller.hold()
    rig.controller.disable()
    rig.run(0.1)
    changes = [line.split(": ")[0] for line in rig.transitions]
    assert changes == [
        "DISABLED -> ENABLING",
        "ENABLING -> HOLDING",
        "HOLDING -> EXECUTING",
        "EXECUTING -> FAULT",
        "FAULT -> HOLDING",
        "HOLDING -> HOLDING",
        "HOLDING -> HOLDING",
        "HOLDING -> DISABLED",
    ]
    assert all(line.split(": ", 1)[1] for line in rig.transitions)


def test_a_fault_is_not_reset_while_the_arm_moves(rig: CanRig) -> None:
    """The set-point would start at rest from a pose that the arm has left already."""
    start_moving(rig)
    rig.emulator.arm_status = 7
    rig.run(1.0)
    rig.emulator.arm_status = 0
    true_state = rig.plant.state
    rig.plant.state = lambda: (true_state()[0], np.full(6, 0.3), true_state()[2])
    rig.run(0.1)
    assert rig.controller.reset_fault() == "joint1 moves at 0.30 rad/s, try again"
    assert rig.controller.state is State.FAULT and rig.controller.is_silent
    rig.plant.state = true_state
    rig.run(0.1)
    assert rig.controller.reset_fault() is None and rig.controller.state is State.HOLDING
