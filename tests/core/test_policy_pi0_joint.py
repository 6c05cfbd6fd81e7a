"""The joint policy on pi0: training, acting, checkpoints, and published weights."""

import pi0_fixtures as published
import pytest
import torch
from policy_fixtures import pi0_policy, random_batch, tiny_policy
from safetensors.torch import save_file

from alam_core.errors import UserError
from alam_core.policy.joint import JointPolicy
from alam_core.policy.pi0.config import Pi0Config
from alam_core.policy.sequence import ACTION

VIEWS = ("third_person", "wrist")


def sample(policy, batch, **kwargs):
    return policy.sample(
        batch["images"], batch["state"], batch["words"], torch.Generator().manual_seed(0), **kwargs
    )


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"process": "diffusion", "mask": "block_causal"},
        {"coupling": "two_stage", "given_steps": 2},
    ],
)
def test_it_trains_and_acts(model):
    policy = pi0_policy(**model)
    batch = random_batch(policy, draws=2)
    policy(**batch)["total"].backward()
    assert [name for name, p in policy.named_parameters() if p.grad is None] == []
    actions, latents = sample(
        policy, batch, given=batch["state"][:, None] if model.get("given_steps") else None
    )
    assert actions.shape == (3, 4, 7) and torch.isfinite(actions).all()
    assert all(latents[view].shape == (3, 4, 3) for view in VIEWS)


@pytest.mark.parametrize("part", ["third_person", "wrist", "state"])
def test_every_part_of_the_observation_affects_the_actions(part):
    policy = pi0_policy(relative=())
    batch = random_batch(policy)
    before, _ = sample(policy, batch)
    if part == "state":
        batch["state"] = batch["state"] + 1.0
    else:
        batch["images"][part] = 255 - batch["images"][part]
    assert ((sample(policy, batch)[0] - before).abs().amax((1, 2)) > 1e-6).all()


def test_a_shorter_chunk_is_the_start_of_the_full_one(monkeypatch):
    policy = pi0_policy()
    batch = random_batch(policy)
    noise = {name: torch.randn(3, 4, width) for name, width in policy.stream_widths().items()}
    monkeypatch.setattr(
        policy,
        "_noise",
        lambda like, generator=None: {
            name: noise[name][:, : y.shape[1]] for name, y in like.items()
        },
    )
    torch.testing.assert_close(sample(policy, batch, horizon=2)[0], sample(policy, batch)[0][:, :2])


def test_a_checkpoint_contains_everything_needed_to_act(tmp_path):
    policy = pi0_policy()
    folder = policy.save_pretrained(tmp_path / "policy")
    again = JointPolicy.from_pretrained(folder)
    batch = random_batch(policy)
    assert torch.equal(sample(again, batch)[0], sample(policy, batch)[0])
    assert torch.equal(
        again.tokenizer(["push the red block"]), policy.tokenizer(["push the red block"])
    )


def test_it_loads_published_weights(tmp_path, monkeypatch):
    policy = pi0_policy(noise=0.0)
    weights = published.random_weights()
    save_file(weights, tmp_path / "model.safetensors")
    assert "model.safetensors" in policy.load_pretrained(tmp_path / "model.safetensors")
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda name, allow_patterns: asked.append((name, allow_patterns)) or str(tmp_path),
    )
    assert "somebody/pi0" in policy.load_pretrained("somebody/pi0")
    assert asked == [("somebody/pi0", ["*.safetensors", "*.safetensors.index.json"])]
    assert torch.equal(policy.inputs[ACTION].project.weight, weights["action_in_proj.weight"])
    assert torch.equal(policy.outputs[ACTION].weight, weights["action_out_proj.weight"])
    assert policy.outputs["wrist"].weight.abs().max() == 0  # there are none for latents


def test_published_weights_are_refused_by_another_backbone(tmp_path):
    with pytest.raises(UserError, match="is for pi0, but .* has no published weights"):
        tiny_policy().load_pretrained(tmp_path)


def test_bfloat16_weights_give_nearly_the_same_actions():
    policy = pi0_policy(relative=())
    batch = random_batch(policy)
    expected, _ = sample(policy, batch)
    found, _ = sample(policy.to_bfloat16(), batch)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().mean() < 0.05 * expected.std()


def test_gradient_checkpointing_gives_the_same_gradients_from_less_memory():
    kept, found = [], []
    for again in (False, True):
        policy = pi0_policy(
            pi0=Pi0Config(**{**published.SIZE, "max_words": 12, "gradient_checkpointing": again})
        ).train()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x
        ):
            policy(**random_batch(policy, draws=2))["total"].backward()
        kept.append(sum(sizes))
        found.append([parameter.grad for parameter in policy.parameters()])
    assert all(torch.equal(plain, again) for plain, again in zip(*found, strict=True))
    assert kept[1] < 0.5 * kept[0]
