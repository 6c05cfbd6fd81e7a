"""The manufacturer's SDK, unmodified, against the emulated arm: what it reads, through its own
getters, is what the arm has, and its own calls move the arm.
"""

import itertools
import threading
import time

import numpy as np
import pytest
from can_rig import HOME
from piper_sdk import C_PiperInterface_V2

from alam_core.robots.piper import JOINT_LIMITS
from alam_piper.bus import BusConfig
from alam_piper.emulator import ArmEmulator, KinematicPlant, end_pose, open_emulator_bus
from alam_piper.faults import FAULTS

_names = itertools.count()


def wait_until(condition) -> None:
    until = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


class SdkRig:
    """An emulated arm that a thread steps, and the SDK as a user opens it."""

    def __init__(self) -> None:
        channel = f"sdk{next(_names)}"
        self.plant = KinematicPlant(HOME, 0.05)
        self._bus = open_emulator_bus(BusConfig("virtual", channel), listen=0.0)
        self.emulator = ArmEmulator(self._bus, self.plant)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.arm = C_PiperInterface_V2(channel, can_auto_init=False)
        self.arm.CreateCanBus(channel, bustype="virtual", judge_flag=False)
        self.arm.EnableFkCal()
        self.arm.ConnectPort()
        wait_until(lambda: self.arm.GetArmJointMsgs().time_stamp > 0)

    def _run(self) -> None:
        while not self._stop.wait(0.004):
            self.emulator.step(0.005)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.arm.DisconnectPort()
        self._bus.shutdown()


@pytest.fixture
def rig():
    rig = SdkRig()
    yield rig
    rig.close()


def test_firmware_and_limits_are_told(rig: SdkRig) -> None:
    arm = rig.arm

    def firmware() -> bool:  # the SDK drops a reply that comes before its call returns
        arm.SearchPiperFirmwareVersion()
        time.sleep(0.05)
        return arm.GetPiperFirmwareVersion() == "S-V1.8-2"

    wait_until(firmware)
    wait_until(lambda: arm.GetAllMotorMaxAccLimit().time_stamp > 0)
    for joint in range(6):
        # The SDK keeps one object for all motors, which holds the last reply.
        arm.SearchMotorMaxAngleSpdAccLimit(joint + 1, 1)
        arm.SearchMotorMaxAngleSpdAccLimit(joint + 1, 2)
        limits = arm.GetAllMotorAngleLimitMaxSpd().all_motor_angle_limit_max_spd.motor[joint + 1]
        most = arm.GetAllMotorMaxAccLimit().all_motor_max_acc_limit.motor[joint + 1]
        wait_until(lambda a=limits, b=most, n=joint + 1: a.motor_num == b.joint_motor_num == n)
        lower, upper = np.degrees(JOINT_LIMITS[joint]) * 10
        assert limits.min_angle_limit == pytest.approx(lower, abs=1)
        assert limits.max_angle_limit == pytest.approx(upper, abs=1)
        assert limits.max_joint_spd == 3000 and most.max_joint_acc == 500


def test_the_arm_is_enabled_moved_and_read(rig: SdkRig) -> None:
    arm = rig.arm
    wait_until(arm.EnablePiper)
    assert arm.GetArmEnableStatus() == [True] * 6
    arm.MotionCtrl_2(1, 1, 50, 0)
    arm.GripperCtrl(30_000, 1000, 0x01, 0)
    wait_until(lambda: arm.GetArmStatus().arm_status.ctrl_mode == 1)
    assert arm.GetArmStatus().arm_status.mode_feed == 1
    goal = [10_000, 80_000, -70_000, 5_000, 20_000, -15_000]
    arm.JointCtrl(*goal)
    state = arm.GetArmJointMsgs().joint_state
    wait_until(lambda: [getattr(state, f"joint_{i}") for i in range(1, 7)] == goal)
    gripper = arm.GetArmGripperMsgs().gripper_state
    wait_until(lambda: gripper.grippers_angle == 30_000)
    bits = gripper.foc_status
    assert bits.driver_enable_status and bits.homing_status and not bits.sensor_status

    # Degrees and mm of the SDK's kinematics, and what the arm itself reports of its end.
    expected = end_pose(np.radians(np.array(goal) / 1000.0))
    pose = arm.GetArmEndPoseMsgs().end_pose
    axes = ("X_axis", "Y_axis", "Z_axis", "RX_axis", "RY_axis", "RZ_axis")
    wait_until(lambda: [getattr(pose, axis) for axis in axes] == expected)
    wait_until(lambda: np.allclose(np.array(arm.GetFK()[-1]) * 1000.0, expected, atol=60))

    motors = arm.GetArmHighSpdInfoMsgs()
    wait_until(lambda: motors.motor_2.pos == round(np.radians(80.0) * 1000))
    driver = arm.GetArmLowSpdInfoMsgs().motor_3
    assert (driver.vol, driver.foc_temp, driver.motor_temp) == (240, 30, 30)
    assert driver.foc_status.driver_enable_status and not driver.foc_status.collision_status


def test_speeds_are_reported_while_the_arm_moves(rig: SdkRig) -> None:
    arm = rig.arm
    wait_until(arm.EnablePiper)
    arm.MotionCtrl_2(1, 1, 10, 0)  # 0.3 rad/s
    arm.JointCtrl(40_000, 90_000, -77_000, 0, 0, 0)
    motors = arm.GetArmHighSpdInfoMsgs()
    wait_until(lambda: motors.motor_1.motor_speed == 300)
    assert arm.GetArmStatus().arm_status.motion_status == 1  # not there yet


def test_faults_are_what_the_sdk_calls_by_the_same_name(rig: SdkRig) -> None:
    status = rig.arm.GetArmStatus().arm_status
    slow, gripper = rig.arm.GetArmLowSpdInfoMsgs(), rig.arm.GetArmGripperMsgs().gripper_state
    reported = {
        "estop": lambda: status.arm_status.name == "EMERGENCY_STOP",
        "collision": lambda: (
            status.arm_status.name == "COLLISION_OCCURRED"
            and slow.motor_2.foc_status.collision_status
        ),
        "error_code": lambda: status.err_status.communication_status_joint_3,
        "teach_button": lambda: (
            status.ctrl_mode.name == "TEACHING_MODE"
            and status.teach_status.name == "START_RECORDING"
        ),
        "driver_error": lambda: slow.motor_3.foc_status.driver_error_status,
        "overheating": lambda: slow.motor_4.foc_status.motor_overheating,
        "gripper_fault": lambda: gripper.foc_status.sensor_status,
        "mit_mode": lambda: status.mode_feed.name == "MOVE_M",
    }
    for name, condition in reported.items():
        wait_until(lambda condition=condition: not condition())
        FAULTS[name].inject(rig.emulator)
        wait_until(condition)
        FAULTS[name].clear(rig.emulator)


def test_the_emergency_stop_and_teaching_are_commands_too(rig: SdkRig) -> None:
    arm, status = rig.arm, rig.arm.GetArmStatus().arm_status
    arm.EmergencyStop(1)
    wait_until(lambda: status.arm_status == 1)
    arm.EmergencyStop(2)
    wait_until(lambda: status.arm_status == 0)
    arm.MotionCtrl_1(0, 0, 1)
    wait_until(lambda: status.teach_status == 1)
    arm.MotionCtrl_1(0, 0, 2)
    wait_until(lambda: status.teach_status == 0)
