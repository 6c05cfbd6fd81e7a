"""The Piper's kinematics: they agree with the SDK, with the URDF's frames and with MuJoCo, for both
generations of firmware, and the inverse inverts the forward kinematics.
"""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from alam_core.errors import UserError
from alam_core.robots.piper import (
    HOME,
    JOINT_LIMITS,
    LINKS,
    OLD_ZERO_SHIFT,
    TCP_OFFSET,
    inverse_kinematics,
    link_poses,
    tcp_position,
)

both_firmwares = pytest.mark.parametrize("dh_offset", [True, False])


def random_joints(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(JOINT_LIMITS[:, 0], JOINT_LIMITS[:, 1], (count, 6))


def newer(joints: np.ndarray, dh_offset: bool) -> np.ndarray:
    """The angles at which newer firmware has the same pose."""
    return joints if dh_offset else joints - OLD_ZERO_SHIFT


@both_firmwares
def test_forward_kinematics_agrees_with_the_sdk(dh_offset: bool) -> None:
    sdk = pytest.importorskip("piper_sdk").C_PiperForwardKinematics(int(dh_offset))
    for joints in random_joints(300):
        ours = link_poses(joints, dh_offset)[:, :3, 3] * 1000.0
        assert ours == pytest.approx(np.array(sdk.CalFK(list(joints)))[:, :3], abs=1e-3)  # mm


@both_firmwares
def test_forward_kinematics_agrees_with_the_frames_of_the_urdf(dh_offset: bool) -> None:
    for joints in random_joints(50):
        pose = np.eye(4)
        for link, angle, ours in zip(
            LINKS, newer(joints, dh_offset), link_poses(joints, dh_offset), strict=True
        ):
            step = np.eye(4)
            turn = Rotation.from_euler("xyz", link.rpy) * Rotation.from_euler("z", angle)
            step[:3, :3], step[:3, 3] = turn.as_matrix(), link.xyz
            pose = pose @ step
            assert np.linalg.norm(pose[:3, 3] - ours[:3, 3]) < 1e-4
            assert np.abs(pose[:3, :3] - ours[:3, :3]).max() < 3e-4


@both_firmwares
def test_forward_kinematics_agrees_with_the_simulated_arm(dh_offset: bool) -> None:
    try:
        from alam_core.sim.piper.scene import scene_xml
        from alam_core.sim.rendering import mujoco
    except UserError as error:
        pytest.skip(str(error))
    model = mujoco.MjModel.from_xml_string(scene_xml("empty_table", ""))
    data = mujoco.MjData(model)
    for joints in random_joints(300):
        data.qpos[:6] = newer(joints, dh_offset)
        mujoco.mj_kinematics(model, data)
        poses = link_poses(joints, dh_offset)
        for i in range(6):
            assert np.linalg.norm(data.body(f"link{i + 1}").xpos - poses[i, :3, 3]) < 2e-4
        tcp = tcp_position(joints, dh_offset)
        assert np.linalg.norm(data.site("tcp").xpos - tcp) < 2e-4


def test_known_poses() -> None:
    assert link_poses(np.zeros(6))[5, :3, 3] == pytest.approx([0.0561, 0.0, 0.2133], abs=1e-4)
    home = np.array(HOME[:6])
    assert np.linalg.norm(tcp_position(home) - link_poses(home)[5, :3, 3]) == pytest.approx(
        TCP_OFFSET
    )
    assert tcp_position(home)[2] == pytest.approx(0.14, abs=2e-3)


def test_the_zeros_of_older_firmware_are_two_degrees_away() -> None:
    joints = np.array(HOME[:6])
    older = joints + np.radians([0, 2, -2, 0, 0, 0])
    np.testing.assert_allclose(link_poses(older, False), link_poses(joints), atol=1e-12)
    assert np.linalg.norm(tcp_position(joints, False) - tcp_position(joints)) > 5e-3


@both_firmwares
@pytest.mark.parametrize("tilt", [0.0, 0.15, 0.3])
def test_inverse_kinematics_inverts_forward_kinematics(tilt: float, dh_offset: bool) -> None:
    rng = np.random.default_rng(1)
    reached = 0
    for _ in range(200):
        radius, angle, z = rng.uniform(0.2, 0.4), rng.uniform(-1, 1), rng.uniform(0.01, 0.13)
        goal = np.array([radius * np.cos(angle), radius * np.sin(angle), z])
        try:
            joints = inverse_kinematics(goal, tilt, dh_offset)
        except ValueError:
            continue
        reached += 1
        assert (joints >= JOINT_LIMITS[:, 0]).all() and (joints <= JOINT_LIMITS[:, 1]).all()
        assert np.linalg.norm(tcp_position(joints, dh_offset) - goal) < 2e-4
        downwards = -link_poses(joints, dh_offset)[5, 2, 2]
        assert np.arccos(downwards) == pytest.approx(tilt, abs=1e-3)
    assert reached > 50


def test_an_unreachable_point_is_an_error() -> None:
    with pytest.raises(ValueError, match="out of the arm's reach"):
        inverse_kinematics(np.array([0.9, 0.0, 0.1]))
    with pytest.raises(ValueError, match="joint5"):
        inverse_kinematics(np.array([0.3, 0.0, 0.3]))
