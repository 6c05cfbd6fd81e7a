"""What the arm controller answers and reports, as a real process over DDS: services that have
nothing to do, power, emergency stop, a second publisher, lost frames.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from alam_msgs.msg import ArmStatus
from alam_msgs.srv import PowerOff
from diagnostic_msgs.msg import DiagnosticStatus
from piper_arm import HOME, EmulatedArm
from piper_stage import PATIENCE, Stage
from std_srvs.srv import Trigger

FORWARD = np.array([0.9, 0.0, 0.0, 0.0, 0.0, 0.0])  # rad


@pytest.fixture
def stage(ros, start_node: Callable, can_udp_port: int) -> Iterator[Stage]:
    arm = EmulatedArm(ros.node, can_udp_port)
    try:
        parameters = {"use_sim_time": True, "can_port": can_udp_port}
        yield Stage(ros, arm, start_node("alam_piper", "arm_controller", parameters))
    finally:
        arm.close()


def trigger(stage: Stage, name: str) -> Trigger.Response:
    return stage.ros.call(Trigger, f"/alam/arm/{name}", Trigger.Request(), PATIENCE)


def power_off(stage: Stage, confirm: str) -> PowerOff.Response:
    request = PowerOff.Request(confirm=confirm)
    return stage.ros.call(PowerOff, "/alam/arm/power_off", request, PATIENCE)


def test_answers_say_what_is_so_and_transitions_are_logged(stage: Stage) -> None:
    ros, emulator = stage.ros, stage.arm.emulator
    answer = trigger(stage, "reset_fault")
    assert answer.success and answer.message == "there is no fault; the arm is DISABLED"
    answer = trigger(stage, "hold")
    assert answer.success and answer.message == "the arm is not enabled; nothing moves"
    assert stage.enable().success
    assert trigger(stage, "reset_fault").message == "there is no fault; the arm is HOLDING"
    emulator.arm_status = 7
    stage.wait_for_value("state", "FAULT")
    assert "collision" in trigger(stage, "reset_fault").message
    emulator.arm_status = 0
    ros.wait_for(lambda: trigger(stage, "reset_fault").success, PATIENCE, "the reset")
    assert "hold by request" in trigger(stage, "hold").message
    for change in (
        "DISABLED -> ENABLING: waiting for motor power",
        "ENABLING -> HOLDING: enabled",
        "HOLDING -> FAULT: arm_status: arm status 7: collision",
        "FAULT -> HOLDING: fault reset",
        "HOLDING -> HOLDING: hold by request",
    ):
        ros.wait_for(
            lambda text=change: any(text in line for line in stage.process.lines),
            PATIENCE,
            f"'{change}' in the log",
        )


def test_power_is_cut_only_at_rest_and_when_confirmed(stage: Stage) -> None:
    arm = stage.arm
    assert stage.enable().success
    for confirm in ("", "yes"):
        answer = power_off(stage, confirm)
        assert not answer.success and "the arm drops without power" in answer.message
    stage.chunks.publish(stage.chunk(HOME + FORWARD, steps=25))
    stage.wait_for_value("state", "EXECUTING")
    answer = power_off(stage, PowerOff.Request.CONFIRMATION)
    assert not answer.success and "EXECUTING" in answer.message
    assert trigger(stage, "hold").success
    assert arm.emulator.enabled.all() and arm.emulator.power_cuts == 0
    stage.ros.wait_for(
        lambda: power_off(stage, PowerOff.Request.CONFIRMATION).success,
        PATIENCE,
        "the arm to be at rest",
    )
    stage.ros.wait_for(lambda: not arm.emulator.enabled.any(), PATIENCE, "the power to be cut")
    stage.wait_for_value("state", "DISABLED")
    assert "powered off by request" in stage.value("reason")
    assert stage.enable().success  # from the pose in which the arm is now


def test_power_that_stays_on_is_told(stage: Stage) -> None:
    assert stage.enable().success
    stage.arm.emulator._cut_power = lambda motors: None
    answer = power_off(stage, PowerOff.Request.CONFIRMATION)
    assert not answer.success
    assert "still reports power of joint1, joint2" in answer.message


def test_an_emergency_stop_needs_a_reset_and_an_enable(stage: Stage) -> None:
    emulator = stage.arm.emulator
    assert stage.enable().success
    emulator.arm_status = 1
    stage.wait_for_value("state", "FAULT")
    assert stage.value("last_fault").startswith("estop: ")
    assert not trigger(stage, "reset_fault").success
    emulator.arm_status = 0
    stage.ros.wait_for(lambda: trigger(stage, "reset_fault").success, PATIENCE, "the reset")
    stage.wait_for_value("state", "DISABLED")
    assert "emergency stop" in stage.value("reason")
    assert stage.enable().success


def test_a_second_publisher_is_refused_and_reported(stage: Stage) -> None:
    ros, arm = stage.ros, stage.arm
    assert stage.enable().success
    first = stage.chunk(HOME + FORWARD, steps=28, source="first")
    stage.chunks.publish(first)
    ros.wait_for(lambda: arm.plant.joints[0] > 0.05, PATIENCE, "the arm to move")
    ros.wait_for(
        lambda: (
            "source 'second' is refused while the arm follows 'first'" in stage.status().message
            and stage.status().level == DiagnosticStatus.WARN
        ),
        PATIENCE,
        "the warning",
        again=lambda: stage.chunks.publish(stage.chunk(HOME, source="second")),
    )
    ros.wait_for(lambda: arm.plant.joints[0] > 0.8, PATIENCE, "the first publisher's goal")


def test_a_lost_joint_frame_is_a_fault_and_a_frozen_joint_is_not_published(stage: Stage) -> None:
    ros, arm = stage.ros, stage.arm
    assert stage.enable().success
    stage.chunks.publish(stage.chunk(HOME + FORWARD, steps=25))
    ros.wait_for(lambda: arm.plant.joints[0] > 0.1, PATIENCE, "the arm to move")
    arm.emulator.muted_frames = frozenset([0x2A6])
    lost = arm.nanoseconds
    stage.wait_for_value("state", "FAULT")
    assert "joint3 and joint4 (0x2a6)" in stage.value("last_fault")
    status = ros.collect(ArmStatus, "/alam/arm/status", 50)
    ros.wait_for(lambda: len(status) > 20, PATIENCE, "the status to go on")
    last = stage.joint_states[-1].header.stamp
    assert last.sec * 10**9 + last.nanosec <= lost + 50_000_000  # of messages on their way
    arm.emulator.muted_frames = frozenset()
    seen = len(stage.joint_states)
    ros.wait_for(lambda: len(stage.joint_states) > seen + 5, PATIENCE, "joint states again")


def test_a_stuck_arm_is_a_fault(stage: Stage) -> None:
    assert stage.enable().success
    stage.arm.plant.set_target = lambda *_: None
    stage.chunks.publish(stage.chunk(HOME + FORWARD, steps=15))
    stage.wait_for_value("last_fault", "tracking: joint1 is 0.3")
    assert stage.status().level == DiagnosticStatus.ERROR
