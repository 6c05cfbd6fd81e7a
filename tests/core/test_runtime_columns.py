"""A policy's columns are found by name on a robot, whatever their order and names in the data."""

import dataclasses

import numpy as np
import pytest
from policy_fixtures import random_observation, tiny_policy

from alam_core.errors import UserError
from alam_core.policy.joint import JointPolicy
from alam_core.robots.piper import JOINT_NAMES
from alam_core.runtime.columns import match_columns, parse_names_map
from alam_core.runtime.runner import PolicyRunner

GRIPPER_FIRST = [JOINT_NAMES[-1], *JOINT_NAMES[:-1]]
DRIVER = [f"joint_{i}.pos" for i in range(1, 7)] + ["gripper.pos"]  # as LeRobot's robots name them
DRIVER_MAP = [f"{name}={joint}" for name, joint in zip(DRIVER, JOINT_NAMES, strict=True)]


def runner_of(names, state_names=None, **changes):
    """A policy trained on columns of these names."""
    policy = tiny_policy(relative=(), given_steps=2)
    policy.config = dataclasses.replace(
        policy.config,
        joint_names=list(names),
        state_names=list(names if state_names is None else state_names),
        **changes,
    )
    return PolicyRunner(policy)


def test_columns_in_another_order_are_picked_by_name():
    """The policy sees and gives what it would if the robot had the order of its data."""
    plain, fitted = runner_of(GRIPPER_FIRST), runner_of(GRIPPER_FIRST)
    fitted.fit_joints(JOINT_NAMES)
    observation, given = random_observation(), np.arange(14, dtype=np.float32).reshape(2, 7)
    robot = dataclasses.replace(observation, state=np.roll(observation.state, -1))  # gripper last
    assert fitted.joint_names == fitted.state_names == JOINT_NAMES
    for one, other in ((None, None), (given, np.roll(given, -1, 1))):
        wanted = plain.infer(observation, given=one).actions
        actions = fitted.infer(robot, given=other).actions
        assert np.array_equal(actions, np.roll(wanted, -1, 1))
        assert not np.array_equal(actions, fitted.infer(observation, given=other).actions)


def test_an_unusual_state_is_named_whatever_the_order_of_columns():
    runner = runner_of(GRIPPER_FIRST)
    runner.policy.stats.state_mean = np.zeros(7)
    runner.policy.stats.state_std = np.ones(7)
    runner.policy.stats.state_range = np.array([[-1.0] * 7, [1.0] * 7])
    runner.fit_joints(JOINT_NAMES)
    state = np.zeros(7)
    state[JOINT_NAMES.index("joint4")] = 3.0
    robot = dataclasses.replace(random_observation(), state=state)
    assert runner.unusual_states(robot) == "joint4 is 3, 2 outside -1 to 1 (clipped)"


@pytest.mark.parametrize(
    ("names", "state_names", "entries"),
    [
        (JOINT_NAMES, JOINT_NAMES, []),
        (JOINT_NAMES, [], []),  # a checkpoint of an older version
        (DRIVER, DRIVER, DRIVER_MAP),
        (DRIVER, JOINT_NAMES, DRIVER_MAP),
        (
            JOINT_NAMES,
            [f"state.{joint}" for joint in JOINT_NAMES],
            [""] + [f"state.{joint}={joint}" for joint in JOINT_NAMES],
        ),
    ],
)
def test_the_robots_own_order_stays_bit_equal(names, state_names, entries):
    plain, fitted = runner_of(names, state_names), runner_of(names, state_names)
    fitted.fit_joints(JOINT_NAMES, parse_names_map(entries))
    observation = random_observation()
    assert np.array_equal(plain.infer(observation).actions, fitted.infer(observation).actions)


def test_state_and_actions_may_have_different_orders_and_the_state_may_lack_joints():
    config = runner_of(JOINT_NAMES, GRIPPER_FIRST).policy.config
    assert match_columns(config, JOINT_NAMES).state.tolist() == [6, 0, 1, 2, 3, 4, 5]
    assert match_columns(config, JOINT_NAMES).action.tolist() == list(range(7))
    config = runner_of(JOINT_NAMES, JOINT_NAMES[5::-1], state_dim=6).policy.config
    assert match_columns(config, JOINT_NAMES).state.tolist() == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("names", "state_names", "entries", "words"),
    [
        (DRIVER, DRIVER, [], r"actions has joint_1.pos, .* joint_names_map, .*joint_1.pos=joint1"),
        (DRIVER, DRIVER, DRIVER_MAP[:6], "actions has gripper.pos, .*gripper.pos=gripper"),
        (JOINT_NAMES, [*JOINT_NAMES[:6], "joint1.vel"], [], "state has joint1.vel, but"),
        (JOINT_NAMES, [*JOINT_NAMES[:6], "joint1"], [], "state has joint1 twice"),
        ([*JOINT_NAMES[:6], "joint1"], [], [], "actions has joint1 twice"),
        (JOINT_NAMES[:6], [], [], "no actions for gripper"),
        (GRIPPER_FIRST, [], [], "keeps no names of the state"),
        (JOINT_NAMES, JOINT_NAMES, ["joint_1=joint1"], "joint_names_map names joint_1, but"),
        (DRIVER, DRIVER, ["joint_1.pos"], "entry 'joint_1.pos': write"),
        (DRIVER, DRIVER, ["gripper.pos=gripper"] * 2, "names 'gripper.pos' twice"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_are_refused(names, state_names, entries, words):
    runner = runner_of(names, state_names)
    with pytest.raises(UserError, match=words):
        runner.fit_joints(JOINT_NAMES, parse_names_map(entries))
    assert runner.joint_names == tuple(names)  # nothing changed


def test_names_and_instructions_are_kept_in_the_checkpoint(tmp_path):
    policy = tiny_policy()
    policy.config.state_names = GRIPPER_FIRST
    policy.config.instructions = ["null", "[a, b]", "put $HOME on ~/the plate", "Lift 'it'.", "3"]
    folder = policy.save_pretrained(tmp_path / "policy")
    config = JointPolicy.from_pretrained(folder).config
    assert config == policy.config
    with pytest.raises(UserError, match="state_names has 6 names, but the state has 7 numbers"):
        dataclasses.replace(config, state_names=GRIPPER_FIRST[:6])
