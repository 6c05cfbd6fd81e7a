"""Samples without labels: what a policy learns from video tells nothing about actions or states,
and does not change what it learns from the labelled samples.
"""

import pi0_fixtures as published
import pytest
import torch
from policy_fixtures import pi0_policy, random_batch, tiny_policy
from safetensors.torch import save_file

from alam_core.errors import UserError
from alam_core.policy.sequence import ACTION

VIEWS = ("third_person", "wrist")
MAKE = {"small": tiny_policy, "pi0": pi0_policy}


def rows(values, chosen):
    """The samples ``chosen`` of a batch of any nesting."""
    if isinstance(values, dict):
        return {name: rows(value, chosen) for name, value in values.items()}
    return values[chosen]


def shares(policy, **without):
    """Weights of four samples; ``without``: modality -> samples without a target."""
    weights = {}
    for name in policy.layout.modalities:
        has = torch.ones(4)
        has[without.get(name, [])] = 0
        weights[name] = 4 * has / has.sum()
    return weights


@pytest.mark.parametrize("backbone", MAKE)
@pytest.mark.parametrize("process", ["flow", "diffusion"])
@pytest.mark.parametrize("mask", ["past_latents", "block_causal"])
def test_actions_of_video_do_not_matter(backbone, process, mask):
    policy = MAKE[backbone](stateless=True, process=process, mask=mask)
    batch = random_batch(policy, 4, draws=2)
    known = torch.tensor([True, True, False, False])
    given = {"known": known, "shares": shares(policy, action=[2, 3])}
    losses = policy(**batch, **given)
    other = random_batch(policy, 4, seed=1, draws=2)
    batch["targets"][ACTION][2:] = other["targets"][ACTION][2:]
    batch["state"][2:] = other["state"][2:]
    for name, value in policy(**batch, **given).items():
        torch.testing.assert_close(value, losses[name])
    labelled = policy(**rows(batch, slice(2)))  # the same as without the video
    torch.testing.assert_close(losses[ACTION], labelled[ACTION])
    assert not torch.allclose(losses["wrist"], labelled["wrist"])


def test_a_view_without_target_has_no_loss_and_enters_as_noise():
    policy = tiny_policy(VIEWS)
    batch = random_batch(policy, 4)
    given = {"shares": shares(policy, wrist=[1])}
    losses = policy(**batch, **given)
    batch["targets"]["wrist"][1] = 100.0
    for name, value in policy(**batch, **given).items():
        torch.testing.assert_close(value, losses[name])
    assert torch.isfinite(losses["total"])


def test_the_loss_of_shards_is_that_of_the_batch():
    policy = tiny_policy(stateless=True)
    batch = random_batch(policy, 4)
    batch |= {"known": torch.tensor([True, False, True, False])}
    batch |= {"shares": shares(policy, action=[1, 3])}
    whole = policy(**batch)
    parts = [policy(**rows(batch, slice(first, 4, 2))) for first in (0, 1)]
    for name, value in whole.items():
        torch.testing.assert_close(value, (parts[0][name] + parts[1][name]) / 2)


@pytest.mark.parametrize("backbone", MAKE)
def test_the_token_of_an_unknown_state_is_learned(backbone):
    policy = MAKE[backbone](stateless=True)
    batch = random_batch(policy, 4)
    losses = policy(**batch, known=torch.tensor([True, True, False, True]))
    losses["total"].backward()
    gradient = policy.backbone.no_state.grad
    assert gradient is not None and gradient.abs().sum() > 0
    assert not any("no_state" in name for name, _ in MAKE[backbone]().named_parameters())


def test_latents_and_actions_have_times_of_their_own():
    policy = tiny_policy(times="own")
    drawn = policy.draw(3, 50, torch.Generator().manual_seed(0))
    tau, _ = policy._training_times(drawn, {})
    assert torch.equal(tau["wrist"], tau["third_person"])
    together = torch.stack([tau[ACTION].flatten(), tau["wrist"].flatten()])
    assert abs(torch.corrcoef(together)[0, 1]) < 0.3
    common = tiny_policy().draw(3, 50, torch.Generator().manual_seed(0))
    assert torch.equal(common["tau"], drawn["tau"]) and "latent_tau" not in common
    with pytest.raises(UserError, match="needs model.coupling 'joint'"):
        tiny_policy(times="own", coupling="two_stage")


def test_actions_are_inferred_from_finished_latents():
    policy = tiny_policy(times="own", stateless=True)
    batch = random_batch(policy, 3)
    seen = batch["images"], batch["state"], batch["words"]
    latents = {view: batch["targets"][view] for view in VIEWS}

    def infer(latents, **given):
        return policy.sample(*seen, torch.Generator().manual_seed(0), latents=latents, **given)

    actions, returned = infer(latents)
    assert actions.shape == (3, 4, 7)
    assert all(torch.equal(returned[view], latents[view]) for view in VIEWS)
    other = {view: values + 1.0 for view, values in latents.items()}
    assert not torch.allclose(infer(other)[0], actions)
    unknown = infer(latents, known=torch.tensor([True, False, True]))[0]
    torch.testing.assert_close(unknown[::2], actions[::2])
    assert not torch.allclose(unknown[1], actions[1])
    with pytest.raises(UserError, match="--model.times own"):
        tiny_policy().sample(*seen, latents=latents)


def test_published_weights_have_no_token_for_an_unknown_state(tmp_path):
    policy = pi0_policy(stateless=True)
    before = policy.backbone.no_state.clone()
    save_file(published.random_weights(), tmp_path / "model.safetensors")
    policy.load_pretrained(tmp_path)
    assert torch.equal(policy.backbone.no_state, before)
