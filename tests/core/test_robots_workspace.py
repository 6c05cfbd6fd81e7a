"""The Piper's workspace: whatever touches in the simulated arm is refused, known poses are inside,
and a broken rule is named.
"""

import numpy as np
import pytest

from alam_core.errors import UserError
from alam_core.robots.piper import (
    HOME,
    JOINT_LIMITS,
    OLD_ZERO_SHIFT,
    inverse_kinematics,
    tcp_position,
)
from alam_core.robots.workspace import REACH, Workspace

# Bodies of the simulated arm that are adjacent; links 3 and 5 meet in the wrist.
ADJACENT = {frozenset((f"link{i}", f"link{i + 1}")) for i in range(1, 6)} | {
    frozenset(("base_link", "link1")),
    frozenset(("link3", "link5")),
    frozenset(("link6", "finger_left")),
    frozenset(("link6", "finger_right")),
    frozenset(("finger_left", "finger_right")),
}


def random_poses(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    joints = rng.uniform(JOINT_LIMITS[:, 0], JOINT_LIMITS[:, 1], (count, 6))
    return np.column_stack([joints, rng.uniform(0.0, 0.1, count)])


def test_every_pose_in_which_the_simulated_arm_touches_itself_is_refused() -> None:
    try:
        from alam_core.sim.piper.scene import scene_xml
        from alam_core.sim.rendering import mujoco
    except UserError as error:
        pytest.skip(str(error))
    scene = scene_xml("arm", "")
    for geom in ("floor", "table"):
        scene = scene.replace(
            f'<geom name="{geom}"', f'<geom name="{geom}" contype="0" conaffinity="0"'
        )
    arm = '<geom mass="0" contype="0" conaffinity="0"/>'
    assert arm in scene
    model = mujoco.MjModel.from_xml_string(scene.replace(arm, '<geom mass="0"/>'))
    data = mujoco.MjData(model)
    poses = random_poses(6000)
    clear = Workspace(floor=-9.0, lower=(-9,) * 3, upper=(9,) * 3, clearance=0.0).depth(poses) == 0
    touching = 0
    for pose, is_clear in zip(poses, clear, strict=True):
        data.qpos[:6], data.qpos[6:8] = pose[:6], pose[6] / 2
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_collision(model, data)
        pairs = {
            frozenset(model.body(model.geom_bodyid[geom]).name for geom in contact)
            for contact in data.contact.geom
        }
        if pairs - ADJACENT:
            touching += 1
            assert not is_clear, (pose, pairs - ADJACENT)
    assert touching > 200
    assert (~clear).sum() < 1.25 * touching, "the spheres are not much larger than the links"


@pytest.mark.parametrize(
    "pose", [HOME, (0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0.1), (0, 1.57, -1.3485, 0, 0, 0, 0)]
)
def test_home_and_the_poses_of_rest_are_inside(pose: tuple[float, ...]) -> None:
    assert Workspace().violations(np.array(pose)) == ""


def test_poses_of_a_batch_do_not_depend_on_each_other() -> None:
    poses, workspace = random_poses(50), Workspace()
    alone = np.vstack([workspace.beyond(pose[None]) for pose in poses])
    np.testing.assert_allclose(workspace.beyond(poses), alone, atol=1e-12)
    assert alone.shape[1] == len(workspace.rules)
    np.testing.assert_array_equal(workspace.depth(poses), workspace.beyond(poses).max(1).clip(0))


def test_nothing_moves_further_than_the_reach_allows() -> None:
    rng = np.random.default_rng(1)
    poses, workspace = random_poses(2000), Workspace()
    change = rng.normal(0, 0.05, poses.shape) * (rng.random(poses.shape) < 0.3)
    moved = np.abs(workspace.beyond(poses + change) - workspace.beyond(poses)).max(axis=1)
    assert (moved <= np.abs(change) @ REACH + 1e-9).all()


def at_height(height: float, opening: float = 0.05) -> np.ndarray:
    return np.append(inverse_kinematics(np.array([0.3, 0.0, height])), opening)


def test_what_is_broken_is_named_with_its_depth() -> None:
    tip = 0.014  # m, from the grasp point to the fingers' tips
    assert Workspace(floor=0.0).violations(at_height(0.02)) == ""
    low = at_height(tip)
    assert Workspace(floor=0.012).violations(low) == "tool 0.012 m below the floor"
    assert tcp_position(low[:6])[2] == pytest.approx(tip, abs=1e-4)
    narrow = Workspace(lower=(-0.5, -0.2, -0.1), upper=(0.25, 0.2, 0.5))
    assert narrow.violations(at_height(0.1)) == "tool 0.050 m outside the box"
    folded = np.array([0.0, 0.9, -0.1, 0.0, 1.1, 0.0, 0.05])
    assert "base" in Workspace().violations(folded) or "arm" in Workspace().violations(folded)


def test_the_arm_may_touch_itself_only_if_that_is_allowed() -> None:
    folded = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1])
    poses = np.vstack([random_poses(500), folded])
    kept, free = Workspace(), Workspace(self_collision=False)
    touches = kept.beyond(poses)[:, len(kept.rules) - 9 :].max(axis=1) > 0.0
    assert 10 < touches.sum() < 500
    outside = (kept.beyond(poses)[:, : len(kept.rules) - 9] > 0.0).any(axis=1)
    assert np.array_equal(free.depth(poses) > 0.0, outside)


def test_open_fingers_reach_further_down_than_closed_ones_if_the_hand_is_tilted() -> None:
    workspace = Workspace(floor=0.05)
    rolled = np.array([0.0, 1.9, -1.0, 0.0, 0.0, 1.57, 0.0])
    opened = rolled + [0, 0, 0, 0, 0, 0, 0.1]
    column = workspace.rules.index("tool {} m below the floor")
    closed_depth, open_depth = workspace.beyond(np.stack([rolled, opened]))[:, column]
    assert open_depth - closed_depth > 0.03


def test_the_zeros_of_older_firmware_are_taken_into_account() -> None:
    poses = random_poses(20)
    older = poses + np.append(OLD_ZERO_SHIFT, 0.0)
    np.testing.assert_allclose(
        Workspace(dh_offset=False).beyond(older), Workspace().beyond(poses), atol=1e-9
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"floor": float("nan")},
        {"clearance": -0.01},
        {"lower": (0.0, 0.0, 0.0), "upper": (0.1, -0.1, 0.1)},
        {"floor": 0.5, "upper": (0.5, 0.5, 0.4)},
    ],
)
def test_a_workspace_that_cannot_be_is_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match="workspace"):
        Workspace(**wrong)
