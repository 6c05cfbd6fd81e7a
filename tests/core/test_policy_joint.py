"""The joint policy: use of the context, isolation of modalities, strict and exact checkpoints."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from policy_fixtures import random_batch, tiny_policy

from alam_core.checkpoints import load_tensors
from alam_core.errors import UserError
from alam_core.policy.backbone import Context
from alam_core.policy.joint import JointPolicy
from alam_core.policy.sequence import ACTION

VIEWS = [(), ("wrist",), ("third_person", "wrist")]


def times(policy, tau):
    """One time (N,) for all modalities."""
    return dict.fromkeys(policy.layout.modalities, tau.view(-1, 1, 1))


def sample(policy, batch, seed=0, **kwargs):
    return policy.sample(
        batch["images"],
        batch["state"],
        batch["words"],
        torch.Generator().manual_seed(seed),
        **kwargs,
    )


@pytest.mark.parametrize("views", VIEWS)
def test_shapes_for_any_number_of_views(views):
    policy = tiny_policy(views)
    actions, latents = sample(policy, random_batch(policy))
    assert actions.shape == (3, 4, 7)
    assert list(latents) == list(views)
    assert all(stream.shape == (3, 4, 3) for stream in latents.values())


def test_there_is_one_loss_per_modality_and_their_weighted_sum():
    policy = tiny_policy()
    losses = policy(**random_batch(policy, draws=2), weights={"wrist": 0.25})
    assert set(losses) == {"total", "third_person", "wrist", ACTION}
    torch.testing.assert_close(
        losses["total"], losses["third_person"] + 0.25 * losses["wrist"] + losses[ACTION]
    )


def test_an_untrained_policy_predicts_zero_velocity():
    policy = tiny_policy(noise=0.0)
    batch = random_batch(policy, 5, draws=64)
    loss = policy(**batch)[ACTION]
    noise = torch.randn(100_000)
    expected = np.mean(
        [(noise - y).abs().mean().item() for y in batch["targets"][ACTION].flatten()]
    )
    assert loss.item() == pytest.approx(expected, rel=0.02)


VARIANTS = [
    {},
    {"process": "diffusion"},
    {"coupling": "two_stage"},
    {"mask": "block_causal", "shared_noise": True, "projection": "learned"},
]


@pytest.mark.parametrize("model", VARIANTS)
def test_every_parameter_of_the_policy_is_trained(model):
    policy = tiny_policy(**model)
    policy(**random_batch(policy))["total"].backward()
    untouched = [
        name
        for name, p in policy.named_parameters()
        if p.grad is None or not p.grad.abs().max() > 0
    ]
    assert untouched == []


@pytest.mark.parametrize("draws", [1, 3])
def test_draws_sharing_a_context_equal_separate_contexts(draws):
    policy = tiny_policy()
    batch = random_batch(policy)
    context = policy.encode(batch["images"], batch["state"], batch["words"])
    x = {name: torch.randn(3 * draws, 4, width) for name, width in policy.stream_widths().items()}
    tau = torch.rand(3 * draws)
    together = policy.predict(x, times(policy, tau), context)
    for row in range(3 * draws):
        one = row // draws
        alone = policy.predict(
            {name: value[row : row + 1] for name, value in x.items()},
            times(policy, tau[row : row + 1]),
            Context([(key[one : one + 1], value[one : one + 1]) for key, value in context.keys]),
        )
        for name, value in alone.items():
            torch.testing.assert_close(value[0], together[name][row], atol=1e-5, rtol=1e-5)


def test_sampling_with_one_context_equals_encoding_at_every_step():
    policy = tiny_policy()
    batch = random_batch(policy)
    actions, latents = sample(policy, batch)
    generator = torch.Generator().manual_seed(0)
    x = {
        name: torch.randn(3, 4, width, generator=generator)
        for name, width in policy.stream_widths().items()
    }
    with torch.no_grad():
        for i in range(3):
            context = policy.encode(batch["images"], batch["state"], batch["words"])
            v = policy.predict(x, times(policy, torch.full((3,), 1 - i / 3)), context)
            x = {name: x[name] - v[name] / 3 for name in x}
    torch.testing.assert_close(policy.denormalise(x[ACTION], batch["state"]), actions)
    torch.testing.assert_close(x["wrist"], latents["wrist"])


@pytest.mark.parametrize("part", ["third_person", "wrist", "state", "words"])
def test_every_part_of_the_observation_affects_the_actions(part):
    policy = tiny_policy(relative=())
    batch = random_batch(policy)
    before, _ = sample(policy, batch)
    if part in batch["images"]:
        batch["images"][part] = 255 - batch["images"][part]
    elif part == "state":
        batch["state"] = batch["state"] + 1.0
    else:
        batch["words"] = batch["words"].roll(1, 0)
    after, _ = sample(policy, batch)
    assert ((after - before).abs().amax((1, 2)) > 1e-5).all()


def test_latents_do_not_depend_on_the_actions_noise_but_actions_on_the_latents_noise():
    policy = tiny_policy()
    batch = random_batch(policy, 1)
    context = policy.encode(batch["images"], batch["state"], batch["words"])
    x = {name: torch.randn(1, 4, width) for name, width in policy.stream_widths().items()}
    tau = torch.full((1,), 0.5)
    tau = times(policy, tau)
    before = policy.predict(x, tau, context)
    other_action = policy.predict(x | {ACTION: torch.randn(1, 4, 7)}, tau, context)
    for view in ("third_person", "wrist"):
        assert torch.equal(before[view], other_action[view])
    other_latent = policy.predict(x | {"wrist": torch.randn(1, 4, 3)}, tau, context)
    assert (before[ACTION] - other_latent[ACTION]).abs().amax() > 1e-5


def test_relative_joints_move_with_the_state_and_the_gripper_does_not():
    policy = tiny_policy()
    targets, state = torch.randn(2, 4, 7), torch.randn(2, 7)
    moved = policy.denormalise(targets, state + 1.0) - policy.denormalise(targets, state)
    torch.testing.assert_close(moved[..., :6], torch.ones(2, 4, 6))
    assert moved[..., 6].abs().max() == 0


def test_a_state_outside_the_range_of_training_is_seen_at_its_end():
    policy = tiny_policy(relative=())
    batch = random_batch(policy)
    plain, latents = sample(policy, batch)
    low, high = batch["state"].amin(0).numpy(), batch["state"].amax(0).numpy()
    stats = replace(policy.stats, state_range=np.stack([low, high]))
    limited = JointPolicy(policy.config, stats).eval()
    limited.load_state_dict(policy.state_dict())
    inside, same = sample(limited, batch)
    assert torch.equal(inside, plain) and all(torch.equal(same[v], latents[v]) for v in latents)
    far, further = ({**batch, "state": batch["state"] + by} for by in (1e3, 1e4))
    assert torch.equal(sample(limited, far)[0], sample(limited, further)[0])
    assert not torch.allclose(sample(policy, far)[0], sample(policy, further)[0])


@pytest.mark.parametrize("views", VIEWS)
def test_a_checkpoint_acts_bit_equal_in_a_new_process(views, tmp_path):
    policy = tiny_policy(views)
    batch = random_batch(policy)
    folder = policy.save_pretrained(tmp_path / "policy", "# Card\n")
    torch.save(batch, tmp_path / "batch.pt")
    code = (
        "import sys, torch; from alam_core.policy.joint import JointPolicy\n"
        "torch.set_num_threads(1)\n"
        "policy = JointPolicy.from_pretrained(sys.argv[1]); batch = torch.load(sys.argv[2])\n"
        "observed = batch['images'], batch['state'], batch['words']\n"
        "actions, latents = policy.sample(*observed, torch.Generator().manual_seed(5))\n"
        "torch.save([actions, latents], sys.argv[3])"
    )
    subprocess.run(
        [sys.executable, "-c", code, folder, tmp_path / "batch.pt", tmp_path / "out.pt"], check=True
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = sample(policy, batch, 5)
    torch.set_num_threads(threads)
    actions, latents = torch.load(tmp_path / "out.pt")
    assert torch.equal(actions, expected[0])
    assert set(latents) == set(views)
    assert all(torch.equal(latents[view], expected[1][view]) for view in views)


def test_loading_names_what_does_not_fit(tmp_path):
    policy = tiny_policy()
    tensors = dict(policy.state_dict())
    tensors["backbone.position"] = tensors["backbone.position"][:-1]
    with pytest.raises(
        UserError, match=r"backbone.position is \(3, 3, 32\) instead of \(4, 3, 32\)"
    ):
        load_tensors(policy, tensors, "x")

    folder = policy.save_pretrained(tmp_path / "policy")
    stats = json.loads((folder / "stats.json").read_text())
    stats["action"]["mean"] = [row[:6] for row in stats["action"]["mean"]]
    (folder / "stats.json").write_text(json.dumps(stats))
    with pytest.raises(
        UserError,
        match=r"normalisation of the action has shape \(4, 6\), the policy needs \(4, 7\)",
    ):
        JointPolicy.from_pretrained(folder)
    (folder / "stats.json").write_text("{}")
    with pytest.raises(UserError, match=r"stats.json.*incomplete"):
        JointPolicy.from_pretrained(folder)


def test_a_configuration_that_contradicts_itself_is_refused():
    with pytest.raises(UserError, match="relative_joints names joint9"):
        tiny_policy(relative=("joint9",))
    with pytest.raises(UserError, match="view 'side'"):
        tiny_policy(latent_views=("side",))
