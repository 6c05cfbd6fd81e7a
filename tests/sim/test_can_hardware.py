"""The real SDK against the emulator: units, firmware, power, what the emulated firmware refuses."""

import time

import can
import numpy as np
import pytest
from can_rig import HOME, CanRig

from alam_core.errors import UserError
from alam_core.robots.piper import JOINT_LIMITS
from alam_piper.bus import BusConfig, claim_bus, open_bus
from alam_piper.emulator import ArmEmulator, KinematicPlant, open_emulator_bus
from alam_piper.hardware import SdkBackend
from alam_piper.startup import FIRMWARE_QUERY, StartupAnswers


def wait_until(condition):
    """Poll until the condition holds: the SDK's thread reads the frames of a step one by one."""
    until = time.monotonic() + 5.0
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.fixture
def rig():
    rig = CanRig()
    yield rig
    rig.close()


def test_set_points_and_feedback_keep_their_values_on_the_wire(rig):
    rng = np.random.default_rng(1)
    rig.enable()
    half_unit = np.radians(0.0005) + 1e-9
    for _ in range(50):
        wanted = np.append(rng.uniform(JOINT_LIMITS[:, 0], JOINT_LIMITS[:, 1]), rng.uniform(0, 0.1))
        rig.backend.write(wanted)
        rig.emulator.step(10.0)  # s, time enough to arrive
        wait_until(
            lambda wanted=wanted: (
                np.abs(rig.backend.read().positions - wanted).max() <= 2 * half_unit
            )
        )
        assert np.abs(rig.plant.joints - wanted[:6]).max() <= half_unit
        assert abs(rig.plant.gripper - wanted[6]) <= 0.5e-6 + 1e-12
    assert rig.emulator.ignored_commands == 0


def test_a_bus_has_one_controller_on_this_computer():
    """On a real bus the second one would not be heard: the sockets do not loop frames back."""
    config = BusConfig("socketcan", "no_such_can")
    first = claim_bus(config)
    with pytest.raises(UserError, match="no_such_can is in use by another arm controller"):
        SdkBackend(config).connect()
    claim_bus(BusConfig("socketcan", "another_can")).close()
    first.close()
    second = SdkBackend(config)
    with pytest.raises(UserError, match="is the adapter plugged in"):
        second.connect()
    with pytest.raises(UserError, match="in use"):
        claim_bus(config)
    second.close()
    claim_bus(config).close()


def test_firmware_and_limits_are_answered(rig):
    rig.run(0.1)
    assert rig.backend.firmware() == "S-V1.8-2"
    told = rig.backend.arm_limits()
    assert np.abs(told.lower - JOINT_LIMITS[:, 0]).max() < np.radians(0.05) + 1e-9
    assert np.abs(told.upper - JOINT_LIMITS[:, 1]).max() < np.radians(0.05) + 1e-9
    assert told.speed == pytest.approx([3.0] * 6) and told.acceleration == pytest.approx([5.0] * 6)
    arm = rig.backend._arm
    # One by one: the SDK's getters for all motors at once return the last answer six times.
    for i in range(6):
        limits = arm.GetCurrentMotorAngleLimitMaxVel().current_motor_angle_limit_max_vel
        acceleration = arm.GetCurrentMotorMaxAccLimit().current_motor_max_acc_limit
        arm.SearchMotorMaxAngleSpdAccLimit(i + 1, 1)
        arm.SearchMotorMaxAngleSpdAccLimit(i + 1, 2)
        rig.emulator.step(0.005)
        wait_until(
            lambda limits=limits, acc=acceleration, i=i: (
                limits.motor_num == acc.joint_motor_num == i + 1
            )
        )
        low, high = np.degrees(JOINT_LIMITS[i])
        assert limits.min_angle_limit == pytest.approx(low * 10, abs=1)
        assert limits.max_angle_limit == pytest.approx(high * 10, abs=1)
        assert limits.max_joint_spd == 3000 and acceleration.max_joint_acc == 500


def test_answers_are_put_together_from_their_frames():
    answers = StartupAnswers()
    for data in (b"H-V1.2-1", b"....S-V1", FIRMWARE_QUERY, b".8-22509"):  # our query between them
        assert answers.firmware == ""
        answers.take(0x4AF, data)
    assert answers.firmware == "S-V1.8-2"
    answers.take(0x4AF, b"S-V1.10-")  # a minor number of two digits, and no patch yet
    assert answers.firmware == "S-V1.8-2"
    answers.take(0x4AF, b"3.......")
    assert answers.firmware == "S-V1.10-3"
    for motor in range(1, 7):
        assert answers.limits is None and not answers.complete
        answers.take(0x47C, bytes((motor, 0x01, 0xF4, 0, 0, 0, 0, 0)))
        answers.take(0x473, bytes((motor, 0x05, 0xDC, 0xFF, 0xF6, 0x0B, 0xB8, 0)))
    limits = answers.limits
    assert answers.complete and limits.lower == pytest.approx([-np.radians(1.0)] * 6)
    assert limits.upper == pytest.approx([np.radians(150.0)] * 6)
    assert limits.speed == pytest.approx([3.0] * 6)
    assert limits.acceleration == pytest.approx([5.0] * 6)


def test_velocities_and_driver_states_arrive(rig):
    rig.enable()
    rig.offer(1, HOME + [0.4, 0, 0, 0, 0, 0])
    rig.run(0.5)
    feedback = rig.backend.read()
    assert (
        feedback.velocities[0] == pytest.approx(0.5, abs=0.05)
        and abs(feedback.velocities[1]) < 0.01
    )
    assert (
        all(feedback.drivers_enabled) and feedback.ctrl_mode == 1 and feedback.driver_faults == ()
    )
    rig.emulator.driver_bits[2] = 0x10
    rig.run(0.1)
    assert rig.backend.read().driver_faults == ("joint3 collision_status",)


def command(frame, data):
    return can.Message(arbitration_id=frame, data=data, is_extended_id=False)


def test_the_emulator_ignores_motion_without_power_or_mode_and_out_of_range():
    config = BusConfig("virtual", "refusals")
    bus, mine = open_emulator_bus(config, listen=0.0), open_bus(config)
    emulator = ArmEmulator(bus, KinematicPlant(HOME))
    point = [command(0x155 + i, bytes(8)) for i in range(3)]  # all joints to 0

    def send(*messages):
        for message in messages:
            mine.send(message)
        emulator.step(0.005)

    power = command(0x471, [7, 2, 0, 0, 0, 0, 0, 0])
    mode = command(0x151, [1, 1, 50, 0, 0, 0, 0, 0])
    send(*point)
    send(power, *point)
    assert emulator.ignored_commands == 2 and np.array_equal(emulator.plant.joints, HOME)
    send(mode, *point)
    assert emulator.ignored_commands == 2
    # The firmware's speed limit.
    assert np.abs(emulator.plant.joints - HOME).max() == pytest.approx(0.5 * 3.0 * 0.005)
    emulator.teleport()
    # 1000 degrees.
    send(command(0x155, (1_000_000).to_bytes(4, "big") + bytes(4)), point[1], point[2])
    assert emulator.ignored_commands == 3 and emulator.arm_status == 4
    moved = emulator.plant.joints.copy()
    send(command(0x471, [7, 1, 0, 0, 0, 0, 0, 0]), *point)
    assert (
        emulator.ignored_commands == 4
        and np.array_equal(emulator.plant.joints, moved)
        and emulator.power_cuts == 1
    )
    bus.shutdown()
    mine.shutdown()


def test_a_short_or_unknown_frame_does_nothing():
    config = BusConfig("virtual", "noise")
    bus, mine = open_emulator_bus(config, listen=0.0), open_bus(config)
    emulator = ArmEmulator(bus, KinematicPlant(HOME))
    rng = np.random.default_rng(0)
    for _ in range(300):
        length = int(rng.integers(0, 8))
        mine.send(
            command(
                int(rng.integers(0x100, 0x500)),
                rng.integers(0, 256, length, dtype=np.uint8).tobytes(),
            )
        )
    emulator.step(0.005)
    assert not emulator.enabled.any() and np.array_equal(emulator.plant.joints, HOME)
    bus.shutdown()
    mine.shutdown()


def test_a_second_arm_on_the_bus_is_refused():
    config = BusConfig("virtual", "twins")
    first, second = open_bus(config), open_bus(config)
    emulator = ArmEmulator(first, KinematicPlant(HOME))
    original = can.Bus

    def chatty(*args, **kwargs):  # the first arm speaks as soon as the second one listens
        bus = original(*args, **kwargs)
        emulator.step(0.005)
        return bus

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(can, "Bus", chatty)
        with pytest.raises(UserError, match="already answering on CAN bus virtual twins"):
            open_emulator_bus(config, listen=2.0)
    first.shutdown()
    second.shutdown()


def test_a_bus_that_cannot_be_opened_is_named():
    with pytest.raises(UserError, match="CAN interface 'telepathy' is unknown"):
        BusConfig("telepathy")
    with pytest.raises(UserError, match="cannot open CAN bus socketcan no_such_can0"):
        SdkBackend(BusConfig("socketcan", "no_such_can0")).connect()
