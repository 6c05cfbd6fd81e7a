"""The arm controller as a real process over DDS, with an emulated arm on a CAN bus over UDP."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from piper_arm import HOME, EmulatedArm
from piper_stage import PATIENCE, Stage
from std_srvs.srv import SetBool, Trigger

from alam_core.robots.piper import JOINT_NAMES


@pytest.fixture
def stage(ros, start_node, can_udp_port):
    arm = EmulatedArm(ros.node, can_udp_port)
    try:
        process = start_node(
            "alam_piper", "arm_controller", {"use_sim_time": True, "can_port": can_udp_port}
        )
        yield Stage(ros, arm, process)
    finally:
        arm.close()


def test_the_node_starts_without_torch():
    """A process that only moves the arm need not hold half a gigabyte of a library."""
    code = "import sys, alam_piper.arm_controller_node; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_enable_execute_hold_and_disable(stage):
    ros, arm = stage.ros, stage.arm
    stage.chunks.publish(stage.chunk(HOME + 0.2))
    stage.wait_for_value("last_rejection", "arm is DISABLED")
    assert arm.emulator.joint_commands == 0 and np.array_equal(arm.plant.joints, HOME)

    answer = stage.enable()
    assert answer.success, answer.message
    assert arm.emulator.enabled.all() and np.abs(arm.plant.joints - HOME).max() < 1e-4

    goal = HOME + [0.3, -0.2, 0.1, 0.1, -0.1, 0.2]
    stage.chunks.publish(stage.chunk(goal, gripper=0.02))
    ros.wait_for(
        lambda: np.abs(arm.plant.joints - goal).max() < 1e-3,
        PATIENCE,
        "the arm to reach the chunk's end",
    )
    ros.wait_for(
        lambda: np.abs(np.array(stage.joint_states[-1].position[:6]) - goal).max() < 1e-3,
        PATIENCE,
        "joint states to show it",
    )
    last = stage.joint_states[-1]
    assert list(last.name) == list(JOINT_NAMES) and len(last.velocity) == 7
    assert (
        0 <= arm.nanoseconds - (last.header.stamp.sec * 10**9 + last.header.stamp.nanosec) < 10**9
    )
    stage.wait_for_value("reason", "the last chunk ended")
    assert (
        stage.value("image_to_can_n") == "1" and float(stage.value("image_to_can_ms_p50")) >= 49.9
    )
    assert stage.value("firmware") == "S-V1.8-2" and stage.value("chunks_accepted") == "1"

    stage.chunks.publish(stage.chunk(HOME, steps=20))
    stage.wait_for_value("state", "EXECUTING")
    hold = ros.call(Trigger, "/alam/arm/hold", Trigger.Request(), PATIENCE)
    assert hold.success
    stage.chunks.publish(stage.chunk(HOME))
    stage.wait_for_value("last_rejection", "hold by request")
    assert stage.enable().success

    answer = stage.enable(False)
    assert answer.success, answer.message
    sent = arm.emulator.joint_commands
    seen = len(stage.joint_states)
    ros.wait_for(
        lambda: len(stage.joint_states) > seen + 10, PATIENCE, "joint states while disabled"
    )
    assert arm.emulator.joint_commands == sent  # silent
    assert (
        arm.emulator.enabled.all()
        and arm.emulator.power_cuts == 0
        and arm.emulator.ignored_commands == 0
    )


def test_bad_chunks_do_not_move_the_arm_and_are_explained(stage):
    assert stage.enable().success
    for change, reason in [
        ({"joint_names": list(JOINT_NAMES[:6]) + ["joint9"]}, "missing joints: gripper"),
        ({"dt": float("nan")}, "dt of nan"),
        ({"steps": 3}, "expected 3 steps"),
        ({"positions": [float("nan")] * 70}, "not a finite number"),
    ]:
        message = stage.chunk(HOME + 0.3)
        for name, value in change.items():
            setattr(message, name, value)
        stage.chunks.publish(message)
        stage.wait_for_value("last_rejection", reason)
    late, early = stage.chunk(HOME + 0.3), stage.chunk(HOME + 0.3)
    early.header.stamp.sec += 5
    stage.chunks.publish(early)
    stage.wait_for_value("last_rejection", "in the future")
    stage.ros.wait_for(
        lambda: (
            stage.arm.nanoseconds * 1e-9
            > late.header.stamp.sec + late.header.stamp.nanosec * 1e-9 + 1.1
        ),
        PATIENCE,
    )
    stage.chunks.publish(late)
    stage.wait_for_value("last_rejection", "s old")
    assert (
        stage.value("chunks_accepted") == "0" and np.abs(stage.arm.plant.joints - HOME).max() < 1e-4
    )


def test_a_chunk_in_degrees_is_refused_and_clamping_is_a_warning(stage):
    assert stage.enable().success
    degrees = stage.chunk(HOME)
    degrees.positions = [10.0, 60.0, -45.0, 5.0, 20.0, -15.0, 40.0] * degrees.steps
    stage.chunks.publish(degrees)
    stage.wait_for_value("last_rejection", "seems to be in degrees")
    stage.ros.wait_for(
        lambda: (
            "joint2 is 60" in stage.status().message
            and stage.status().level == DiagnosticStatus.WARN
        ),
        PATIENCE,
        "the warning",
        again=lambda: stage.chunks.publish(degrees),
    )
    assert np.abs(stage.arm.plant.joints - HOME).max() < 1e-4
    stage.ros.wait_for(
        lambda: (
            "joint5 is clamped from 1.600 to 1.200" in stage.status().message
            and stage.status().level == DiagnosticStatus.WARN
        ),
        PATIENCE,
        "the warning",
        again=lambda: stage.chunks.publish(stage.chunk(HOME + [0, 0, 0, 0, 1.6, 0])),
        every=5.0,
    )


def test_lost_feedback_latches_a_fault_that_can_be_reset(stage):
    ros, arm = stage.ros, stage.arm
    assert stage.enable().success
    stage.chunks.publish(stage.chunk(HOME + [0.5, 0, 0, 0, 0, 0]))
    ros.wait_for(lambda: arm.plant.joints[0] > 0.1, PATIENCE, "the arm to move")
    arm.emulator.feedback_frozen = True
    stage.wait_for_value("state", "FAULT")
    assert (
        "no new feedback" in stage.status().message
        and stage.status().level == DiagnosticStatus.ERROR
    )
    answer = ros.call(Trigger, "/alam/arm/reset_fault", Trigger.Request(), PATIENCE)
    assert not answer.success and "no new feedback" in answer.message
    assert (
        arm.plant.joints[0] < 0.45 and arm.emulator.power_cuts == 0
    )  # it stopped short of the goal, powered
    arm.emulator.feedback_frozen = False
    ros.wait_for(
        lambda: ros.call(Trigger, "/alam/arm/reset_fault", Trigger.Request(), PATIENCE).success,
        PATIENCE,
        "the fault to be reset",
    )
    stage.wait_for_value("state", "HOLDING")
    assert "no new feedback" in stage.value("last_fault")


def test_an_adapter_that_is_pulled_and_plugged_in_again(ros, start, can_udp_port, tmp_path, capfd):
    """The arm holds while the adapter is away; resetting the fault opens the bus again."""
    pulled = tmp_path / "pulled"
    arm = EmulatedArm(ros.node, can_udp_port)
    node = Path(__file__).parent / "pulled_adapter_node.py"
    arguments = ["--ros-args", "-p", "use_sim_time:=true", "-p", f"can_port:={can_udp_port}"]
    try:
        process = start("arm_controller", [sys.executable, str(node), str(pulled), *arguments])
        stage = Stage(ros, arm, process)
        assert stage.enable().success
        stage.chunks.publish(stage.chunk(HOME + [0.9, 0, 0, 0, 0, 0], steps=30))
        ros.wait_for(lambda: arm.plant.joints[0] > 0.1, PATIENCE, "the arm to move")

        def reset() -> Trigger.Response:
            return ros.call(Trigger, "/alam/arm/reset_fault", Trigger.Request(), PATIENCE)

        pulled.touch()
        stage.wait_for_value("state", "FAULT")
        ros.wait_for(
            lambda: "cannot open CAN bus udp_multicast" in reset().message,
            PATIENCE,
            "the absent adapter to be named",
        )
        held = arm.plant.joints.copy()
        assert held[0] < 0.85 and arm.emulator.power_cuts == 0
        pulled.unlink()
        ros.wait_for(lambda: reset().success, PATIENCE, "the bus to be opened again")
        stage.wait_for_value("state", "HOLDING")
        assert np.abs(arm.plant.joints - held).max() < 1e-3 and arm.emulator.enabled.all()
        assert stage.enable().success
        stage.chunks.publish(stage.chunk(HOME))
        stage.wait_for_value("state", "EXECUTING")
        noise = [line for line in capfd.readouterr().out.splitlines() if "send failed" in line]
        assert len(noise) <= 1, noise

        # Pulled while the arm is disabled, which is no fault: enabling opens the bus again.
        assert stage.enable(False).success
        pulled.touch()
        ros.wait_for(
            lambda: "cannot open CAN bus udp_multicast" in stage.enable().message,
            PATIENCE,
            "the absent adapter to be named",
        )
        assert stage.value("state") == "DISABLED"
        pulled.unlink()
        ros.wait_for(lambda: stage.enable().success, PATIENCE, "the arm to be enabled")
    finally:
        arm.close()


def test_a_hold_cancels_an_enabling_that_waits_for_the_bus(stage):
    """While enabling opens the bus again and waits for feedback, a hold must still count."""
    ros, emulator = stage.ros, stage.arm.emulator
    enable = ros.node.create_client(SetBool, "/alam/arm/enable")
    hold = ros.node.create_client(Trigger, "/alam/arm/hold")
    ros.wait_for(
        lambda: enable.service_is_ready() and hold.service_is_ready(), PATIENCE, "the services"
    )
    for _ in range(10):
        emulator.feedback_frozen = True
        ros.wait_for(lambda: "no new feedback" in stage.status().message, PATIENCE, "the silence")
        enabled = enable.call_async(SetBool.Request(data=True))
        ros.wait_for(lambda: any("again" in line for line in stage.process.lines), PATIENCE)
        held = hold.call_async(Trigger.Request())
        ros.wait_for(held.done, PATIENCE, "the hold")
        if not enabled.done():  # else the wait ended first: once more
            break
    emulator.feedback_frozen = False
    ros.wait_for(enabled.done, PATIENCE, "the answer to enable")
    assert not enabled.result().success
    assert emulator.joint_commands == 0 and not emulator.enabled.any()


def test_a_stopped_clock_is_reported_and_the_arm_holds(stage):
    assert stage.enable().success
    stage.chunks.publish(stage.chunk(HOME + [0.9, 0, 0, 0, 0, 0], steps=30))
    stage.wait_for_value("state", "EXECUTING")
    stage.arm.clock_stopped = True
    stage.ros.wait_for(
        lambda: "ROS time stands still" in stage.status().message,
        PATIENCE,
        "the stopped clock in /diagnostics",
    )
    assert stage.value("state") == "HOLDING"
    stage.arm.clock_stopped = False
    stage.chunks.publish(stage.chunk(HOME))
    stage.wait_for_value("state", "EXECUTING")


def test_joint_states_continue_after_the_clock_jumps_back(stage):
    stage.arm.nanoseconds += 1000 * 10**9
    stage.ros.wait_for(lambda: stage.enable().success, PATIENCE, "the arm to be enabled")
    back = 1_000_000_000
    stage.arm.nanoseconds = back  # as if the simulator were restarted
    seen = len(stage.joint_states)
    stage.ros.wait_for(
        lambda: len(stage.joint_states) > seen + 20, 20, "joint states after the jump"
    )
    last = stage.joint_states[-1].header.stamp
    assert (
        last.sec * 10**9 + last.nanosec <= stage.arm.nanoseconds
        and last.sec * 10**9 + last.nanosec > back
    )
    assert stage.value("state") == "HOLDING"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_the_node_and_the_arm_stays_powered(stage, number):
    arm = stage.arm
    assert stage.enable().success
    stage.chunks.publish(stage.chunk(HOME + [0.9, 0, 0, 0, 0, 0], steps=15))
    stage.ros.wait_for(lambda: arm.plant.joints[0] > 0.1, PATIENCE, "the arm to move")
    stage.process.send(number)
    stage.ros.wait_for(lambda: stage.process.poll() is not None, PATIENCE, "the controller to end")
    assert stage.process.poll() == 0
    assert arm.emulator.enabled.all() and arm.emulator.power_cuts == 0
    steps = arm.nanoseconds
    stage.ros.wait_for(lambda: arm.nanoseconds > steps + 5 * 10**7, PATIENCE)
    rest = arm.plant.joints.copy()
    stage.ros.wait_for(lambda: arm.nanoseconds > steps + 5 * 10**8, PATIENCE)
    assert np.array_equal(arm.plant.joints, rest) and rest[0] < 0.85


def run_to_its_end(ros, start_node, parameters):
    process = start_node("alam_piper", "arm_controller", parameters)
    ros.wait_for(lambda: process.poll() is not None, PATIENCE, "the controller to give up")
    return process


def test_a_bus_that_cannot_be_opened_gives_one_line_and_code_2(
    ros, start_node, can_udp_port, capfd
):
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind(("", can_udp_port))
    try:
        process = run_to_its_end(ros, start_node, {"can_port": can_udp_port})
    finally:
        taken.close()
    assert process.poll() == 2
    lines = [line for line in capfd.readouterr().out.splitlines() if "error:" in line]
    assert (
        len(lines) == 1
        and f"udp_multicast 239.74.163.2:{can_udp_port}" in lines[0]
        and "in use" in lines[0]
    )


def test_a_parameter_out_of_range_gives_one_line_and_code_2(ros, start_node, capfd):
    process = run_to_its_end(ros, start_node, {"max_velocity": 50.0})
    assert process.poll() == 2
    output = capfd.readouterr().out
    assert "max_velocity" in output and "0.05 to 3.0" in output and "Traceback" not in output
