"""The page about the real arm: it explains every check, and what it says about joints is true."""

import re

import numpy as np
import pytest
from docs_commands import ROOT

from alam_core.robots.piper import HOME, JOINT_LIMITS, link_poses, tcp_position
from alam_piper.backends import BACKEND_PARAMETERS
from alam_piper.checks import HEALTH, POWERED, START

PAGE = (ROOT / "docs/real_arm.md").read_text()
REST = np.zeros(6)
UPRIGHT = np.array([0.0, 1.57, -1.35, 0.0, 0.0, 0.0])


def test_every_check_is_explained() -> None:
    explained = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    names = {check.name for check in (*HEALTH, *START, *POWERED)}
    assert names <= explained, names - explained


def test_every_parameter_of_the_second_backend_is_named() -> None:
    assert all(f"`{name}`" in PAGE or f"{name}:=" in PAGE for name in BACKEND_PARAMETERS)


def test_the_table_of_joints_agrees_with_the_arms_limits() -> None:
    rows = re.findall(r"^\| joint(\d) \| (\S+) to (\S+) \|", PAGE, re.MULTILINE)
    assert [int(row[0]) for row in rows] == [1, 2, 3, 4, 5, 6]
    said = np.array([[float(lower), float(upper)] for _, lower, upper in rows])
    assert said == pytest.approx(JOINT_LIMITS, abs=0.006)


def turned(joint: int, start: np.ndarray, by: float = 0.1) -> np.ndarray:
    joints = start.copy()
    joints[joint - 1] += by
    return joints


def test_joints_turn_as_the_table_says() -> None:
    """x is forward, y left, z up."""
    home = np.array(HOME[:6])
    assert tcp_position(turned(1, home))[1] > tcp_position(home)[1] + 0.01

    def elbow(joints: np.ndarray) -> np.ndarray:
        return link_poses(joints)[2][:3, 3]

    assert elbow(turned(2, REST))[2] > elbow(REST)[2] + 0.01  # up,
    assert elbow(turned(2, UPRIGHT))[0] > elbow(UPRIGHT)[0] + 0.01  # then forward
    assert tcp_position(turned(3, UPRIGHT))[2] < tcp_position(UPRIGHT)[2] - 0.01  # folds in
    for joint in (4, 6):  # the axis points from the elbow to the hand: clockwise seen along it
        axis, wrist = link_poses(UPRIGHT)[joint - 1][:3, 2], link_poses(UPRIGHT)[4][:3, 3]
        assert axis @ (wrist - elbow(UPRIGHT)) > 0
    hand = link_poses(turned(5, UPRIGHT))[5][:3, 2]
    assert hand[2] < link_poses(UPRIGHT)[5][2, 2] - 0.05  # tips down
