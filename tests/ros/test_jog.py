"""``alam arm`` and ``alam jog`` as real processes, with the real controller and an emulated arm: a
joint moves by what was asked, and nothing moves if the arm is not ready or the motion not small.
"""

import signal
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from piper_arm import HOME, EmulatedArm
from sensor_msgs.msg import JointState
from test_platform_cli import ALAM, alam

from alam_cli.jog import DT, PEAK_SLIDE, PEAK_TURN, check_distance, check_goal, joint_index, plan
from alam_core.errors import UserError


@pytest.fixture
def arm(ros, start_node: Callable, can_udp_port: int):
    emulated = EmulatedArm(ros.node, can_udp_port)
    try:
        # this test's process steps the arm, and may wait long for a busy machine
        parameters = {"use_sim_time": True, "can_port": can_udp_port, "feedback_timeout": 1.0}
        start_node("alam_piper", "arm_controller", parameters)
        states = ros.collect(JointState, "/joint_states")
        ros.wait_for(lambda: states, 120, "joint states")
        yield emulated
    finally:
        emulated.close()


@pytest.mark.slow
def test_one_joint_moves_by_what_was_asked_and_the_arm_holds(
    ros, start: Callable, ros_env: dict[str, str], arm: EmulatedArm
) -> None:
    refused = alam("jog", "--joint", "1", "--by", "0.05", env=ros_env)
    assert refused.returncode == 2 and "the arm is DISABLED" in refused.stderr
    assert arm.emulator.joint_commands == 0

    enabled = alam("arm", "enable", env=ros_env)
    assert (enabled.returncode, enabled.stdout) == (0, "done: enabled, no chunk yet\n")
    moved = start("jog", [ALAM, "jog", "--joint", "2", "--by", "-0.15"])
    ros.wait_for(lambda: moved.poll() is not None, 120, "the end of alam jog")
    assert moved.wait(1) == 0, moved.last_line()
    assert arm.plant.joints == pytest.approx(HOME + [0, -0.15, 0, 0, 0, 0], abs=1e-3)
    assert "joint2 is measured at 1.4" in moved.last_line()

    # Ctrl-C in the middle: the arm holds where it is.
    moved = start("jog", [ALAM, "jog", "--joint", "joint6", "--by", "0.2"])
    ros.wait_for(lambda: arm.plant.joints[5] > 0.02, 120, "joint6 to move")
    moved.send(signal.SIGINT)
    ros.wait_for(lambda: moved.poll() is not None, 120, "the end of alam jog")
    assert moved.wait(1) == 130 and "the arm holds" in moved.last_line()
    assert arm.plant.joints[5] < 0.19
    refused = alam("jog", "--joint", "6", "--by", "0.1", env=ros_env)
    assert refused.returncode == 2 and "arm is held" in refused.stderr

    reset = alam("arm", "reset_fault", env=ros_env)
    assert reset.returncode == 0
    # What is beyond the gripper's range is refused; a motion that a hold ends early is told.
    assert alam("arm", "enable", env=ros_env).returncode == 0
    for _ in range(11):
        moved = alam("jog", "--joint", "gripper", "--by", "0.02", env=ros_env)
        if moved.returncode:
            break
    assert moved.returncode == 2 and "is outside its range" in moved.stderr
    moved = start("jog", [ALAM, "jog", "--joint", "6", "--by", "-0.2"])
    ros.wait_for(lambda: any("moves from" in line for line in moved.lines), 120, "joint6 to move")
    assert alam("arm", "hold", env=ros_env).returncode == 0
    ros.wait_for(lambda: moved.poll() is not None, 120, "the end of alam jog")
    if moved.poll():  # else the motion had ended before the hold
        assert "hold by request" in moved.last_line()
    assert alam("arm", "hold", env=ros_env).returncode == 0
    disabled = alam("arm", "disable", env=ros_env)
    assert disabled.returncode == 0 and "disabled by request" in disabled.stdout
    cut = alam("arm", "power_off", "--confirm", "the arm is supported", env=ros_env)
    assert cut.returncode == 0 and "power of the motors was cut" in cut.stdout
    assert not arm.emulator.enabled.any()
    arm.emulator.arm_status = 7
    refused = alam("arm", "enable", env=ros_env)
    assert refused.returncode == 1 and "collision" in refused.stdout


def test_power_off_needs_the_words_that_confirm_it() -> None:
    for confirm in ([], ["--confirm", "yes"]):
        refused = alam("arm", "power_off", *confirm)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1
        assert '--confirm "the arm is supported"' in refused.stderr
    refused = alam("arm", "hold", "--confirm", "the arm is supported")
    assert refused.returncode == 2 and "--confirm is for power_off" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--joint", "7", "--by", "0.1"], "no joint '7'; the joints are 1 to 6 and gripper"),
        (["--joint", "1", "--by", "0.21"], "at most 0.2 rad either way"),
        (["--joint", "1", "--by", "nan"], "at most 0.2 rad either way"),
        (["--joint", "gripper", "--by", "0.05"], "at most 0.02 m either way"),
        (["--joint", "1", "--by", "0"], "and not 0"),
    ],
)
def test_a_motion_that_is_not_small_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_distance(joint_index(words[1]), float(words[3]))


@pytest.mark.parametrize(
    ("joint", "start", "by", "said"),
    [
        ("5", 1.1, 0.2, "joint5 is at 1.100 rad, and 1.300 is outside its range, -1.220 to 1.220"),
        ("gripper", 0.09, 0.02, "gripper is at 0.090 m, and 0.110 is outside its range, 0.000 to"),
    ],
)
def test_a_motion_out_of_the_range_is_refused(
    joint: str, start: float, by: float, said: str
) -> None:
    index = joint_index(joint)
    check_goal(index, start, start - by)
    with pytest.raises(UserError, match=said):
        check_goal(index, start, start + by)


@settings(derandomize=True, deadline=None)
@given(
    index=st.integers(0, 6),
    share=st.floats(-1.0, 1.0).filter(lambda share: abs(share) > 1e-3),
    start=st.lists(st.floats(-1.0, 1.0), min_size=7, max_size=7),
)
def test_a_plan_moves_one_joint_slowly_from_rest_to_rest(
    index: int, share: float, start: list[float]
) -> None:
    by = share * (0.02 if index == 6 else 0.2)
    rows = plan(np.array(start), index, by)
    speeds = np.diff(rows, axis=0, prepend=[start]) / DT  # (T, 7)
    assert rows[-1, index] - start[index] == pytest.approx(by)
    assert not np.delete(speeds, index, axis=1).any()
    assert np.abs(speeds[:, index]).max() <= 1.01 * (PEAK_SLIDE if index == 6 else PEAK_TURN)
    assert (speeds[:, index] * np.sign(by) >= -1e-9).all()
    assert abs(speeds[0, index]) < 0.35 * abs(speeds[:, index]).max()
    assert not speeds[-1, index]
