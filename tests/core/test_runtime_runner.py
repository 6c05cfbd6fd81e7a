"""One observation in, one chunk out; a bad observation raises an error that names the problem."""

import numpy as np
import pytest
import torch
from policy_fixtures import HORIZON, LATENT, random_observation, tiny_policy

from alam_core.errors import UserError
from alam_core.runtime.runner import PolicyRunner


@pytest.fixture(scope="module")
def runner():
    return PolicyRunner(tiny_policy())


def test_a_chunk_has_the_stamp_the_step_and_latents_in_the_encoders_space(runner):
    chunk = runner.infer(random_observation())
    assert chunk.actions.shape == (HORIZON, 7)
    assert chunk.actions.dtype == np.float32
    assert (chunk.stamp, chunk.dt) == (12.5, 0.1)
    assert {view: z.shape for view, z in chunk.latents.items()} == {
        view: (HORIZON, LATENT) for view in ("third_person", "wrist")
    }
    assert int(np.prod(runner.latent_shape)) == LATENT


def test_the_seed_determines_the_chunk(runner):
    observation = random_observation()
    one, same, other = (runner.infer(observation, seed).actions for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    generator = torch.Generator().manual_seed(1)
    assert np.array_equal(one, runner.infer(observation, generator).actions)
    # The generator continues.
    assert not np.array_equal(one, runner.infer(observation, generator).actions)


def test_latents_come_in_the_encoders_own_space(runner):
    projection = runner.policy.stats.latents["wrist"]
    z = runner.infer(random_observation()).latents["wrist"]
    np.testing.assert_allclose(projection.transitions(projection.project(z)), z, atol=1e-4)


def test_a_policy_without_latents_generates_none():
    assert PolicyRunner(tiny_policy(())).infer(random_observation()).latents == {}


def test_a_larger_image_is_resized_as_in_training(runner):
    small = random_observation()
    large = random_observation()
    large.images = {
        view: np.kron(image, np.ones((3, 3, 1), np.uint8)) for view, image in small.images.items()
    }
    assert np.array_equal(runner.infer(small).actions, runner.infer(large).actions)


def test_inference_does_not_change_the_observation(runner):
    observation, before = random_observation(), random_observation()
    runner.infer(observation)
    assert np.array_equal(observation.state, before.state)
    assert all(
        np.array_equal(observation.images[view], before.images[view]) for view in before.images
    )


def spoil(name):
    observation = random_observation()
    if name == "view":
        del observation.images["wrist"]
    elif name == "float image":
        observation.images["wrist"] = observation.images["wrist"] / 255.0
    elif name == "grey image":
        observation.images["third_person"] = observation.images["third_person"][..., 0]
    elif name == "nan":
        observation.state[3] = np.nan
    elif name == "width":
        observation.state = observation.state[:6]
    elif name == "empty":
        observation.instruction = " "
    elif name == "long":
        observation.instruction = "please " * 40
    return observation


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("view", "no image of view 'wrist'.*it has: third_person"),
        ("float image", "view 'wrist' is float64"),
        ("grey image", r"view 'third_person' is uint8 \(32, 32\)"),
        ("nan", "not finite at index 3"),
        ("width", r"shape \(6,\), this policy needs \(7,\)"),
        ("empty", "instruction is empty"),
        ("long", "40 words"),
    ],
)
def test_a_bad_observation_raises_an_error_that_names_the_problem(runner, name, message):
    with pytest.raises(UserError, match=message):
        runner.infer(spoil(name))


def test_from_pretrained(tmp_path, runner):
    runner.policy.save_pretrained(tmp_path / "policy")
    loaded = PolicyRunner.from_pretrained(tmp_path / "policy")
    assert np.array_equal(
        loaded.infer(random_observation()).actions, runner.infer(random_observation()).actions
    )
    with pytest.raises(UserError, match="no checkpoint at"):
        PolicyRunner.from_pretrained(tmp_path / "nothing")


def test_a_missing_device_raises_a_one_line_error():
    with pytest.raises(UserError, match="the device 'gpu' cannot be used .* choose cpu or cuda"):
        PolicyRunner(tiny_policy(), "gpu")


def test_a_chunk_says_how_long_each_latent_takes(runner):
    assert runner.infer(random_observation()).latent_dt == 0  # as long as a step
    policy = tiny_policy()
    policy.config.latent_dt = 0.4
    chunk = PolicyRunner(policy).infer(random_observation())
    assert chunk.latent_dt == 0.4 and chunk.drop(2).latents["wrist"].shape[0] == 4
