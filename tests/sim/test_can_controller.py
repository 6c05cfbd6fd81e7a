"""The controller's guarantees on the emulated arm: at start, in motion, on faults, at shutdown."""

import numpy as np
import pytest
from can_rig import HOME, PERIOD, CanRig, make_chunk

from alam_piper.config import ControllerConfig
from alam_piper.controller import ArmController
from alam_piper.gate import ChunkRejected
from alam_piper.states import State


@pytest.fixture
def rig():
    rig = CanRig()
    yield rig
    rig.close()


def test_nothing_is_sent_before_enable_and_the_set_point_starts_where_the_arm_is(rig):
    rig.run(0.3)
    with pytest.raises(ChunkRejected, match="DISABLED"):
        rig.offer(1, HOME)
    rig.run(0.2)
    assert (
        rig.emulator.joint_commands == 0
        and not rig.emulator.enabled.any()
        and rig.emulator.ctrl_mode == 0
    )
    rig.plant.joints = HOME + 0.3  # moved by hand meanwhile
    rig.emulator.teleport()
    rig.enable()
    assert np.abs(rig.plant.joints - (HOME + 0.3)).max() < 1e-4
    assert rig.emulator.enabled.all() and rig.emulator.ctrl_mode == 1


def test_enable_is_refused_without_feedback_and_given_up_in_time(rig):
    assert "no feedback" in ArmController(ControllerConfig()).enable()
    rig.run(0.1)
    rig.emulator._handlers[0x471] = lambda data: None  # an arm that does not switch on
    assert rig.controller.enable() is None
    rig.run(5.2)
    assert rig.controller.state is State.DISABLED and "power off: joint1" in rig.controller.reason
    assert rig.emulator.joint_commands == 0


def test_a_world_that_was_reset_just_before_enabling_does_not_pull_the_arm_back(rig):
    rig.enable()
    rig.controller.disable()
    rig.run(0.1)
    assert rig.controller.state is State.DISABLED
    rig.plant.joints = HOME + 0.2
    rig.emulator.teleport()
    assert rig.controller.enable() is None  # before any feedback of the new pose
    rig.run(0.2)
    assert rig.controller.state is State.HOLDING
    assert np.abs(rig.plant.joints - (HOME + 0.2)).max() < 1e-4


def test_a_chunk_is_executed_on_time_and_its_end_is_held(rig):
    rig.enable()
    goal = HOME + [0.3, -0.2, 0.1, 0.1, -0.1, 0.2]
    chunk = rig.straight(1, goal, gripper=0.01)
    rig.controller.offer(chunk, "test")
    rig.run(0.5)
    assert np.abs(rig.controller.set_point.position - chunk.at(rig.now)).max() < 0.01
    rig.run(0.49)
    assert rig.controller.state is State.EXECUTING
    rig.run(0.05)
    assert (
        rig.controller.state is State.HOLDING
        and "command" in rig.controller.reason
        and rig.controller.stopped_short
    )
    sent = len(rig.sent)
    rig.run(0.1)
    assert len(rig.sent) == sent + 20  # it continues to send while it holds
    assert np.abs(rig.plant.joints - goal).max() < 1e-3 and abs(rig.plant.gripper - 0.01) < 1e-5
    assert rig.first_of_chunk == [chunk.stamp]
    rig.offer(2, HOME)  # not a latched fault: the next chunk is executed
    assert rig.controller.state is State.EXECUTING
    assert rig.emulator.ignored_commands == 0 and rig.emulator.power_cuts == 0


def test_expired_rows_are_dropped_by_the_clock(rig):
    """A chunk 0.4 s old whose first three rows lead far away: they must never be executed."""
    rig.enable()
    rows = np.tile(np.append(HOME, 0.05), (10, 1))
    rows[:3, 0] = 2.0
    rig.controller.offer(make_chunk(rig.now - 0.405, 1, 0.1, rows), "test")
    rig.run(0.5)
    assert np.abs([point[0] for _, point in rig.sent]).max() < 1e-3


def test_a_new_chunk_takes_over_without_a_jump(rig):
    rig.enable()
    rig.offer(1, HOME + [0.4, 0, 0, 0, 0, 0])
    rig.run(0.3)
    back = np.tile(np.append(HOME, 0.05), (16, 1))
    rig.controller.offer(make_chunk(rig.now - 0.05, 2, 0.1, back), "test")
    rig.run(1.0)
    points = np.array([point for _, point in rig.sent])
    speeds = np.diff(points, axis=0) / PERIOD
    assert np.abs(speeds[:, :6]).max() <= 1.0 + 1e-6
    assert np.abs(np.diff(speeds, axis=0)[:, :6]).max() <= 5.0 * PERIOD + 1e-6
    assert np.abs(rig.plant.joints - HOME).max() < 1e-3


@pytest.mark.parametrize(
    ("inject", "cause"),
    [
        (lambda e: setattr(e, "feedback_frozen", True), "feedback: no new feedback"),
        (lambda e: setattr(e, "arm_status", 7), "arm_status: arm status 7: collision"),
        (
            lambda e: setattr(e, "driver_bits", [0, 0, 0x10, 0, 0, 0]),
            "drivers: joint3 collision_status",
        ),
        (
            lambda e: setattr(e, "enabled", np.array([True] * 5 + [False])),
            "power: motor power off: joint6",
        ),
        (lambda e: setattr(e, "ctrl_mode", 2), "control_mode: control mode 2"),
    ],
)
def test_a_fault_brakes_latches_and_names_its_cause(rig, inject, cause):
    rig.enable()
    rig.offer(1, HOME + [0.6, 0, 0, 0, 0, 0])
    rig.run(0.4)
    speed = rig.controller.set_point.velocity[0]
    assert speed > 0.5
    before = dict(vars(rig.emulator))
    inject(rig.emulator)
    position, sent = rig.controller.set_point.position[0], len(rig.sent)
    rig.run(0.15 if "feedback" not in cause else 0.11)
    assert rig.controller.state is State.FAULT and cause in rig.controller.last_fault
    rig.run(1.0)
    stopping = np.array([point[0] for _, point in rig.sent[sent:]])
    assert (np.diff(stopping) >= 0).all() and stopping[
        -1
    ] - position < speed * 0.15 + speed**2 / 10 + 0.01
    assert rig.controller.set_point.at_rest
    quiet = len(rig.sent)
    with pytest.raises(ChunkRejected, match="FAULT"):
        rig.offer(2, HOME)
    assert "FAULT" in rig.controller.enable()
    if not cause.startswith(("power", "control_mode")):
        assert "cause remains" in rig.controller.reset_fault()
    rig.run(0.2)
    assert len(rig.sent) == quiet and rig.controller.state is State.FAULT
    assert rig.emulator.power_cuts == 0  # the controller never switches the power off

    for name in ("feedback_frozen", "arm_status", "driver_bits", "enabled", "ctrl_mode"):
        setattr(rig.emulator, name, before[name])
    rig.run(0.1)
    rig.plant.joints = rig.plant.joints + 0.1  # pushed during the fault: it must not jump back
    rig.emulator.teleport()
    rig.run(0.02)
    assert "moved less than 0.1 s ago" in rig.controller.reset_fault()
    rig.run(0.15)
    pushed = rig.plant.joints.copy()
    assert rig.controller.reset_fault() is None and rig.controller.state is State.HOLDING
    rig.run(0.2)
    assert np.abs(rig.plant.joints - pushed).max() < 1e-3
    assert cause in rig.controller.last_fault  # still to be read afterwards
    with pytest.raises(ChunkRejected, match="held .fault reset; call alam/arm/enable"):
        rig.offer(3, HOME)  # a publisher that still sends does not set the arm in motion
    assert rig.controller.enable() is None
    rig.offer(4, HOME)
    rig.run(0.1)
    assert rig.controller.state is State.EXECUTING


@pytest.mark.parametrize(
    ("inject", "cause"),
    [
        (lambda e: setattr(e, "enabled", np.zeros(6, dtype=bool)), "motor power off"),
        (lambda e: setattr(e, "ctrl_mode", 0), "control mode 0"),
    ],
)
def test_after_a_fault_without_power_or_can_mode_the_arm_can_be_enabled_anew(rig, inject, cause):
    rig.enable()
    inject(rig.emulator)
    rig.run(0.2)
    assert rig.controller.state is State.FAULT and cause in rig.controller.reason
    assert (
        rig.controller.reset_fault() is None
        and rig.controller.state is State.DISABLED
        and cause in rig.controller.reason
    )
    quiet = len(rig.sent)
    rig.run(0.2)
    assert len(rig.sent) == quiet
    rig.enable()
    assert rig.emulator.enabled.all() and rig.emulator.ctrl_mode == 1


def test_a_fault_is_not_reset_before_the_arm_rests(rig):
    """A measured pose lags behind the set-point: taken as the new one in mid-motion it would be a
    jump back.
    """
    rig.enable()
    rig.offer(1, HOME + [0.6, 0, 0, 0, 0, 0])
    rig.run(0.4)
    rig.emulator.arm_status = 7
    rig.run(0.02)
    rig.emulator.arm_status = 0
    rig.run(0.015)
    assert rig.controller.state is State.FAULT and rig.controller.set_point.velocity[0] > 0.3
    assert "still braking" in rig.controller.reset_fault()
    rig.run(0.3)
    assert rig.controller.reset_fault() is None
    rig.run(0.1)
    points = np.array([point[0] for _, point in rig.sent])
    assert np.abs(np.diff(points, 2)).max() <= 5.0 * PERIOD**2 + 1e-9


@pytest.mark.parametrize(
    "request_, when", [("hold", "before"), ("hold", "in"), ("disable", "before"), ("disable", "in")]
)
def test_a_hold_or_disable_outlasts_a_fault(rig, request_, when):
    rig.enable()
    rig.offer(1, HOME + [0.6, 0, 0, 0, 0, 0])
    rig.run(0.3)
    if when == "before":
        getattr(rig.controller, request_)()
    rig.emulator.arm_status = 7
    rig.run(0.02)
    assert rig.controller.state is State.FAULT
    if when == "in":
        getattr(rig.controller, request_)()
    rig.emulator.arm_status = 0
    rig.run(0.5)
    assert rig.controller.reset_fault() is None and rig.controller.state is State.HOLDING
    with pytest.raises(ChunkRejected, match="held"):
        rig.offer(2, HOME)
    assert rig.controller.enable() is None
    rig.offer(3, HOME)
    assert rig.controller.state is State.EXECUTING


def test_a_hold_ends_an_enabling_under_way(rig):
    rig.run(0.1)
    assert rig.controller.enable() is None
    rig.run(0.01)
    assert rig.controller.state is State.ENABLING
    rig.controller.hold()
    rig.run(0.5)
    assert rig.controller.state is State.DISABLED and "hold by request" in rig.controller.reason
    assert rig.emulator.joint_commands == 0


def test_an_arm_that_another_program_left_powered_in_another_mode_is_put_into_ours(rig):
    rig.emulator.enabled[:] = True
    rig.emulator.ctrl_mode, rig.emulator.move_mode, rig.emulator.speed_percent = 1, 0, 5
    rig.enable()
    rig.offer(1, HOME + [0.3, 0, 0, 0, 0, 0])
    rig.run(1.5)
    assert (
        rig.emulator.ignored_commands == 0
        and np.abs(rig.plant.joints - HOME - [0.3, 0, 0, 0, 0, 0]).max() < 1e-3
    )


def test_an_arm_on_its_stops_can_be_enabled_and_one_far_outside_its_range_cannot():
    # Joints 2 and 3 are a little beyond their limits, as encoders sometimes report.
    rest = np.array([0.0, -0.01, 0.008, 0.0, 0.0, 0.0])
    rig = CanRig(rest, gripper=-0.0004)
    rig.enable()
    rig.run(0.2)
    assert rig.controller.state is State.HOLDING and rig.emulator.ignored_commands == 0
    assert np.abs(rig.plant.joints).max() < 1e-4 and rig.plant.gripper == 0.0
    rig.close()
    rig = CanRig(rest + [0.0, -0.3, 0.0, 0.0, 0.0, 0.0])
    rig.run(0.1)
    assert "joint2 at -0.310 rad is out of its range" in rig.controller.enable()
    rig.close()


def test_disable_in_motion_brakes_then_falls_silent_with_the_motors_on(rig):
    rig.enable()
    rig.offer(1, HOME + [0.6, 0, 0, 0, 0, 0])
    rig.run(0.4)
    rig.controller.disable()
    with pytest.raises(ChunkRejected, match="held"):
        rig.offer(2, HOME)
    rig.run(0.4)
    assert rig.controller.state is State.DISABLED
    quiet = len(rig.sent)
    points = np.array([point[0] for _, point in rig.sent])
    assert np.abs(np.diff(points, 2)).max() <= 5.0 * PERIOD**2 + 1e-9
    rig.run(0.3)
    assert len(rig.sent) == quiet and rig.emulator.enabled.all() and rig.emulator.power_cuts == 0


def test_a_hold_by_request_lasts_until_enable(rig):
    rig.enable()
    rig.offer(1, HOME + [0.6, 0, 0, 0, 0, 0])
    rig.run(0.3)
    rig.controller.hold()
    rig.run(0.5)
    held = rig.plant.joints.copy()
    with pytest.raises(ChunkRejected, match="held"):
        rig.offer(2, HOME)
    rig.run(0.5)
    assert rig.controller.state is State.HOLDING and np.array_equal(rig.plant.joints, held)
    assert rig.controller.enable() is None
    rig.offer(3, HOME)
    assert rig.controller.state is State.EXECUTING


def test_a_clock_that_jumps_back_holds_and_does_not_keep_old_sequences(rig):
    rig.enable()
    rig.offer(700, HOME + [0.6, 0, 0, 0, 0, 0])
    rig.run(0.3)
    rig.now = 5.0
    rig.run(0.3)
    assert rig.controller.state is State.HOLDING and "clock jumped back" in rig.controller.reason
    rig.offer(1, HOME)
    rig.run(0.1)
    assert rig.controller.state is State.EXECUTING
