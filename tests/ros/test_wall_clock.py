"""The nodes continue when the wall clock is set back (by hand or by NTP) while they run, and when
other processes keep them from running for a while.
"""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from alam_msgs.msg import ArmStatus, Observation
from piper_arm import HOME, EmulatedArm
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool
from test_perception_nodes import SIZE, Robot

from alam_core.robots.piper import JOINT_LIMITS
from alam_core.runtime.motion import SetPoint, make_limits
from alam_piper.arm_controller_node import ArmControllerNode
from alam_piper.parameters import PERIOD

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(id, now);
  if (id == CLOCK_REALTIME && access(getenv("SET_BACK"), F_OK) == 0) now->tv_sec -= 3600;
  return result;
}
"""


@pytest.fixture
def set_back(tmp_path: Path) -> tuple[dict[str, str], Callable[[], None]]:
    """An environment, and a function: once that is called, processes in the environment see the
    wall clock set back by an hour.
    """
    source, library, switch = tmp_path / "shim.c", tmp_path / "shim.so", tmp_path / "set_back"
    source.write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "SET_BACK": str(switch)}, switch.touch


def test_the_arm_controller_goes_on_when_the_clock_is_set_back(
    ros, start_node: Callable, can_udp_port: int, set_back
) -> None:
    env, turn = set_back
    arm = EmulatedArm(ros.node, can_udp_port)
    try:
        states = ros.collect(JointState, "/joint_states")
        start_node(
            "alam_piper",
            "arm_controller",
            {"can_port": can_udp_port, "feedback_timeout": 2.0},
            env=env,
        )  # a busy machine
        ros.wait_for(lambda: states, 120, "joint states")
        ros.wait_for(
            lambda: ros.call(SetBool, "/alam/arm/enable", SetBool.Request(data=True)).success,
            60,
            "the arm to be enabled",
        )
        before = states[-1].header.stamp.sec
        turn()
        ros.wait_for(
            lambda: states[-1].header.stamp.sec < before - 3000, what="the new time in joint states"
        )
        sent = arm.emulator.joint_commands
        ros.wait_for(
            lambda: arm.emulator.joint_commands > sent + 200, what="commands after the jump"
        )
        assert arm.emulator.ignored_commands == 0
    finally:
        arm.close()


def test_a_controller_that_was_starved_takes_no_old_feedback_for_lost_feedback(
    ros, start_node: Callable, can_udp_port: int
) -> None:
    arm = EmulatedArm(ros.node, can_udp_port)
    try:
        states = ros.collect(JointState, "/joint_states")
        status = ros.collect(ArmStatus, "/alam/arm/status", 50)
        process = start_node(
            "alam_piper", "arm_controller", {"can_port": can_udp_port, "feedback_timeout": 1.0}
        )
        ros.wait_for(lambda: states, 120, "joint states")
        ros.wait_for(
            lambda: ros.call(SetBool, "/alam/arm/enable", SetBool.Request(data=True)).success,
            60,
            "the arm to be enabled",
        )
        for _ in range(5):
            resumed = arm.nanoseconds + 1_500_000_000
            process.send(signal.SIGSTOP)  # as if other processes took all of the processor
            ros.wait_for(lambda until=resumed: arm.nanoseconds > until, 60, "the arm to go on")
            process.send(signal.SIGCONT)
            status.clear()
            ros.wait_for(lambda: len(status) > 10, 60, "the status after the pause")
            assert {message.state for message in status} == {"HOLDING"}, status[0].reason
    finally:
        arm.close()


def test_camera_sync_goes_on_when_the_clock_is_set_back(
    ros, start_node: Callable, set_back
) -> None:
    env, turn = set_back
    robot = Robot(ros)
    robot.wall = True
    start_node(
        "alam_perception", "camera_sync", {"image_size": SIZE, "max_age": 1.0e5}, env=env
    )  # cameras keep the old clock here
    robot.wait_until_connected()
    robot.tick_until(lambda _: True, delay=0)
    turn()

    def after(observation: Observation) -> bool:
        return observation.image_ages[0] < -3000

    for _ in range(3):
        robot.tick_until(after, delay=0)
        robot.observations.clear()


@pytest.mark.parametrize(("silence", "moves"), [(0.0, True), (0.5, False)])
def test_ending_does_not_set_an_arm_in_motion_that_has_stopped(
    silence: float, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped, for example by Ctrl-Z, and is then ended."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    set_point = SetPoint(make_limits(JOINT_LIMITS))
    set_point.seed(np.append(HOME, 0.05))
    for _ in range(60):
        set_point.follow(set_point.position + [1.0, 0, 0, 0, 0, 0, 0], PERIOD)
    last, sent = set_point.position.copy(), []
    node = SimpleNamespace(
        _controller=SimpleNamespace(set_point=set_point),
        _times=SimpleNamespace(last_tick=time.monotonic() - silence),
        _simulated_time=False,
        _backend=SimpleNamespace(write=sent.append, close=lambda: None),
    )
    ArmControllerNode.close(node)
    assert set_point.at_rest
    assert bool(np.abs(set_point.position - last).max() > 0.05) == bool(sent) == moves
