"""``alam emulate-piper``: an arm for any program, started from a shell and ended with Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from piper_sdk import C_PiperInterface_V2

from alam_core.errors import UserError
from alam_core.robots.piper import HOME
from alam_piper.bus import BusConfig
from alam_piper.emulate import bus_config, parse_fault
from alam_piper.hardware import SdkBackend
from alam_piper.simulated_arm import SimulatedArm

COMMAND = [sys.executable, "-m", "alam_cli.ros", "emulate-piper"]
PATIENCE = 60.0  # s


@pytest.fixture
def port() -> int:
    """A free UDP and TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command and waits until the arm is there."""
    started: list[subprocess.Popen[str]] = []

    def run(*options: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C of a shell reaches a child that does not ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        started.append(process)
        line = process.stdout.readline()
        assert line.startswith("emulated Piper on CAN bus"), line
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], object], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.01)


def end(process: subprocess.Popen[str], number: int = signal.SIGINT) -> str:
    """End the process with a signal. Returns what it printed."""
    process.send_signal(number)
    output = process.stdout.read()
    assert process.wait(PATIENCE) == 0 and "Traceback" not in output, output
    assert output.splitlines()[-1] == "ended"
    return output


def test_the_arm_is_there_once_has_the_fault_and_ends_cleanly(start, port: int) -> None:
    process = start("--can_port", port, "--fault", "estop@0", "--fault", "error_code@1e6")
    second = subprocess.run(
        [*COMMAND, "--can_port", str(port)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert second.returncode == 2 and second.stderr.count("\n") == 1
    assert second.stderr.startswith("error: an arm is already answering on CAN bus udp_multicast")
    backend = SdkBackend(BusConfig(port=port))
    backend.connect()
    try:
        wait_until(backend.read, "feedback")
        wait_until(backend.firmware, "the firmware")
        wait_until(backend.arm_limits, "the limits")
        feedback = backend.read()
        assert feedback.arm_status == 1 and feedback.error_code == 0
        assert np.abs(feedback.positions - HOME).max() < 0.01
        assert backend.foreign_writer() == ""
    finally:
        backend.close()
    assert "emergency stop, faults: estop" in end(process)


def test_the_sdk_alone_drives_the_arm_by_slcan(start, port: int) -> None:
    process = start("--can_interface", "slcan", "--can_port", port)
    channel = f"socket://127.0.0.1:{port}"
    arm = C_PiperInterface_V2(channel, can_auto_init=False)
    arm.CreateCanBus(channel, bustype="slcan", judge_flag=False)
    arm.ConnectPort()
    try:
        wait_until(lambda: arm.GetPiperFirmwareVersion() == "S-V1.8-2", "the firmware")
        wait_until(lambda: arm.GetAllMotorAngleLimitMaxSpd().time_stamp > 0, "the limits")
        wait_until(arm.EnablePiper, "power")
        arm.MotionCtrl_2(1, 1, 100, 0)
        joints = arm.GetArmJointMsgs().joint_state
        goal = [10_000, 75_000, -45_000, 5_000, 50_000, -5_000]

        def there() -> bool:
            arm.JointCtrl(*goal)
            at = [getattr(joints, f"joint_{i}") for i in range(1, 7)]
            return np.abs(np.subtract(at, goal)).max() < 500  # 0.5 degrees

        wait_until(there, "the goal")
    finally:
        arm.DisconnectPort()
    assert "all motors on, control mode 1, speed 100 %" in end(process, signal.SIGTERM)


def test_options_that_are_wrong_are_named() -> None:
    with pytest.raises(UserError, match="fault 'fire' is unknown; the faults are: bus_silence"):
        parse_fault("fire@3")
    for text in ("estop", "estop@", "estop@soon", "estop@-1", "estop@nan"):
        with pytest.raises(UserError, match="write estop@SECONDS, for example estop@10"):
            parse_fault(text)
    assert parse_fault("estop@2.5").start == 2.5
    assert str(bus_config("slcan", "", 4000)) == "slcan socket://127.0.0.1:4000"
    assert str(bus_config("udp_multicast", "", 4000)) == "udp_multicast 239.74.163.2:4000"
    assert str(bus_config("socketcan", "", 4000)) == "socketcan can0"
    assert str(bus_config("slcan", "/dev/ttyACM0", 4000)) == "slcan /dev/ttyACM0"


def test_the_viewer_needs_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delitem(os.environ, name, raising=False)
    with (
        pytest.raises(UserError, match="needs a screen.*leave --viewer out"),
        SimulatedArm().viewer(),
    ):
        pass


def test_the_simulated_arm_holds_still_and_follows_its_target() -> None:
    arm = SimulatedArm()
    for _ in range(200):
        arm.advance()
    joints, velocities, gripper = arm.state()
    assert np.abs(joints - HOME[:6]).max() < 0.01 and np.abs(velocities).max() < 0.01
    assert gripper == pytest.approx(HOME[6], abs=1e-3)
    goal = joints + [0.2, -0.1, 0.1, 0.2, -0.2, 0.3]
    arm.set_target(goal, 0.02)
    assert np.array_equal(arm.state()[0], joints)  # the physics advances in ``advance`` only
    for _ in range(400):
        arm.advance()
    assert np.abs(arm.state()[0] - goal).max() < 0.01
    assert arm.state()[2] == pytest.approx(0.02, abs=1e-3)
