"""Evaluation where a policy meets a world: sizes, protocols, columns by name, instructions."""

import dataclasses

import numpy as np
import pytest
from policy_fixtures import tiny_policy
from world_fixtures import BlobWorld, DrivenBlobWorld, make_blobs

from alam_core.errors import UserError
from alam_core.robots.piper import JOINT_NAMES
from alam_core.runtime.runner import PolicyRunner
from alam_core.sim.profiles import LiberoProfile
from alam_training.commands.evaluate import evaluate
from alam_training.episodes.evaluation import EvaluateConfig, episodes


@pytest.fixture(scope="module")
def blob_policy(tmp_path_factory):
    return tiny_policy().save_pretrained(tmp_path_factory.mktemp("policy") / "policy")


def test_a_world_that_does_not_fit_the_policy_is_refused(blob_policy):
    class Other(BlobWorld):
        action_dim = 4

    with pytest.raises(UserError, match="give a policy trained on its data"):
        evaluate(
            EvaluateConfig(str(blob_policy), "blob", 1, workers=0, replan_every=4),
            lambda name, size: Other(name, size),
        )


def test_a_protocol_sets_the_episodes_and_refuses_other_numbers():
    config = EvaluateConfig(world="metaworld/mt50", protocol="evo1")
    assert config.seeds == range(500) and config.profile().max_steps == 400
    assert dataclasses.replace(config, policy="a").seeds == range(500)
    assert EvaluateConfig(world="libero/goal/3", protocol="openpi").seeds == range(50)
    assert EvaluateConfig().seeds == range(1000, 1050)
    for given in ({"episodes": 50}, {"first_seed": 1000}):
        with pytest.raises(UserError, match="plays 500 episodes in 'metaworld/mt50', from seed 0"):
            dataclasses.replace(config, **(dict(episodes=None, first_seed=None) | given))
    for wrong, message in (
        ({"world": "piper_place", "protocol": "evo1"}, "only metaworld and libero"),
        ({"world": "metaworld", "protocol": "openpi"}, "only libero"),
        ({"world": "metaworld", "protocol": "openvla"}, "there are: alam, evo1, lerobot, openpi"),
        ({"world": "piper_place", "rendering": "full"}, "leave out --rendering full"),
    ):
        with pytest.raises(UserError, match=message):
            EvaluateConfig(**wrong)


def test_a_view_that_the_protocol_does_not_show_is_an_error(blob_policy):
    config = EvaluateConfig(str(blob_policy), "metaworld/push", protocol="evo1", workers=0)
    with pytest.raises(UserError, match="needs the view 'wrist', which the protocol 'evo1' does"):
        list(episodes(config, make_blobs))


def test_the_profile_reaches_the_world_and_the_tasks_are_played_one_after_another(blob_policy):
    asked, seeds = [], []

    class Recording(BlobWorld):
        def reset(self, seed):
            seeds.append(seed)
            return super().reset(seed)

    def make(*arguments):
        asked.append(arguments)
        return Recording(*arguments[:2])

    config = EvaluateConfig(
        str(blob_policy), "libero/spatial", 12, 0, 4, workers=0, rendering="full"
    )
    results = list(episodes(config, make))
    assert seeds == [0, 10, 1, 11, *range(2, 10)] and len(results) == 12
    ((name, size, profile),) = asked
    assert (name, size) == ("libero/spatial", 32)
    assert profile == LiberoProfile(rendering="full")
    list(episodes(dataclasses.replace(config, rendering=None), make))
    assert len(asked[1]) == 2  # a world that takes no profile is not given one


def make_driven_blobs(name, image_size):
    return DrivenBlobWorld(name, image_size)


@pytest.mark.parametrize("workers", [0, 1])
def test_execution_by_a_controller_needs_a_world_that_can_be_driven(blob_policy, tmp_path, workers):
    config = EvaluateConfig(
        str(blob_policy), "blob", 3, 0, 2, workers=workers, delay_steps=2, execution="controller"
    )
    values = evaluate(config, make_driven_blobs)
    assert (values["successes"], values["execution"], values["mean_steps"]) == (
        1,
        "controller",
        3.0,
    )
    assert "execution" not in evaluate(dataclasses.replace(config, execution="steps"), make_blobs)
    with pytest.raises(UserError, match="leave out --execution controller"):
        evaluate(config, make_blobs)


class JointBlobs(DrivenBlobWorld):
    """A driven world whose state tells the joints apart; it keeps the actions."""

    def reset(self, seed):
        self.actions = []
        observation = super().reset(seed)
        observation.state = np.linspace(-0.1, 0.1, 7, dtype=np.float32)
        return observation

    def step(self, action, render=True):
        self.actions.append(action)
        return super().step(action, render)


def named_policy(folder, names, state_names=None, instructions=()):
    policy = tiny_policy(relative=())
    policy.config = dataclasses.replace(
        policy.config,
        joint_names=list(names),
        state_names=list(names if state_names is None else state_names),
        instructions=list(instructions),
    )
    return str(policy.save_pretrained(folder))


def test_columns_are_taken_by_name_in_a_world_of_the_arm(tmp_path):
    """A policy of data with the gripper first does what it would if the world had that order."""
    world = JointBlobs()
    policy = named_policy(tmp_path / "policy", [JOINT_NAMES[-1], *JOINT_NAMES[:-1]])
    list(episodes(EvaluateConfig(policy, "blob", 1, 0, 4, workers=0), lambda *_: world))
    done = world.actions
    start = world.reset(0)
    start.state = np.roll(start.state, 1)  # in the order of the data
    wanted = PolicyRunner.from_pretrained(policy).infer(start, 0).actions
    np.testing.assert_allclose(done, np.roll(wanted, -1, 1)[: len(done)], atol=1e-6)


def test_joints_of_other_names_need_a_map(tmp_path):
    names = [f"joint_{i}.pos" for i in range(7)]
    entries = [f"{name}={joint}" for name, joint in zip(names, JOINT_NAMES, strict=True)]
    config = EvaluateConfig(named_policy(tmp_path / "policy", names), "blob", 1, 0, 4, workers=0)
    with pytest.raises(UserError, match="policy' in the world 'blob': .* has joint_0.pos.*_map"):
        list(episodes(config, DrivenBlobWorld))
    config.joint_names_map = entries
    assert len(list(episodes(config, DrivenBlobWorld))) == 1
    with pytest.raises(UserError, match="have no names: leave out --joint_names_map"):
        list(episodes(config, make_blobs))


@pytest.mark.parametrize(
    ("trained", "warnings"), [("Push the red  blob.", 0), ("lift the blob", 1), ("", 0)]
)
def test_an_instruction_that_is_unknown_is_told_once(tmp_path, capsys, trained, warnings):
    policy = named_policy(tmp_path / "policy", JOINT_NAMES, instructions=[trained] * bool(trained))
    results = list(episodes(EvaluateConfig(policy, "blob", 2, 0, 4, workers=0), make_blobs))
    told = "not trained on 'push the red blob', only on 'lift the blob'"
    assert capsys.readouterr().err.count(told) == warnings
    assert all((told in result.unknown) == bool(warnings) for result in results)
