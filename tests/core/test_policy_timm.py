"""Image models of timm as the small backbone's image encoder."""

import pytest
import torch
from policy_fixtures import random_batch, tiny_policy

from alam_core.errors import UserError
from alam_core.policy.joint import JointPolicy
from alam_core.policy.small.config import SmallConfig
from alam_core.policy.small.timm_vision import TimmVision

# The first takes images of any size, the second must be told the size.
CONVOLUTIONAL, TRANSFORMER = "resnet10t", "vit_tiny_patch16_224"
CHANNELS_LAST = "swin_tiny_patch4_window7_224"


def policy_with(vision):
    return tiny_policy(
        small=SmallConfig(
            width=32, layers=1, heads=2, mlp_width=32, vision=vision, pretrained=False
        )
    )


@pytest.mark.parametrize(
    ("name", "tokens"), [(CONVOLUTIONAL, 4), (TRANSFORMER, 17), (CHANNELS_LAST, 4)]
)
def test_tokens_of_any_architecture(name, tokens):
    eyes = TimmVision(name, 64, 8, 2)
    out = eyes(torch.rand(3, 3, 64, 64) * 2 - 1, 1)
    assert out.shape == (3, tokens, 8) and eyes.token.in_features == eyes.model.num_features


def test_a_model_that_gives_no_feature_map_is_named():
    with pytest.raises(UserError, match="'efficientvit_b0', which has no feature map "):
        TimmVision("efficientvit_b0", 64, 8, 2)


def test_images_are_normalised_as_the_model_was_trained():
    eyes = TimmVision(CONVOLUTIONAL, 32, 8, 1)
    seen = []
    eyes.model.forward_features = lambda image: seen.append(image) or torch.zeros(1, 512, 1, 1)
    config = eyes.model.pretrained_cfg
    colour = torch.tensor([0.25, 0.5, 0.75]).view(1, 3, 1, 1).expand(1, 3, 32, 32)  # of [0, 1]
    eyes(2 * colour - 1, 0)
    expected = (colour - torch.tensor(config["mean"]).view(3, 1, 1)) / torch.tensor(
        config["std"]
    ).view(3, 1, 1)
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize("view", ["third_person", "wrist"])
def test_both_views_reach_the_actions_and_the_network_learns(view, tmp_path):
    policy = policy_with(CONVOLUTIONAL)
    batch = random_batch(policy)
    policy(**batch)["total"].backward()
    assert all(p.grad is not None for p in policy.backbone.timm.parameters())
    before, _ = policy.sample(
        batch["images"], batch["state"], batch["words"], torch.Generator().manual_seed(0)
    )
    batch["images"][view] = 255 - batch["images"][view]
    after, _ = policy.sample(
        batch["images"], batch["state"], batch["words"], torch.Generator().manual_seed(0)
    )
    assert ((after - before).abs().amax((1, 2)) > 1e-6).all()


def test_a_checkpoint_needs_no_pretrained_weights(tmp_path, monkeypatch):
    policy = policy_with(CONVOLUTIONAL)
    batch = random_batch(policy)
    folder = policy.save_pretrained(tmp_path / "policy")
    monkeypatch.setattr(
        TimmVision, "load_pretrained", lambda self: pytest.fail("tried to load weights")
    )
    again = JointPolicy.from_pretrained(folder)
    arguments = (batch["images"], batch["state"], batch["words"])
    expected, _ = policy.sample(*arguments, torch.Generator().manual_seed(0))
    assert torch.equal(again.sample(*arguments, torch.Generator().manual_seed(0))[0], expected)


def test_without_pretrained_weights_it_says_so_and_starts_from_random_ones(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    eyes = TimmVision("test_resnet.r160_in1k", 32, 8, 1)
    before = {name: tensor.clone() for name, tensor in eyes.model.state_dict().items()}
    monkeypatch.setattr(
        "timm.create_model", lambda *_, **__: (_ for _ in ()).throw(OSError("offline"))
    )
    assert (
        eyes.load_pretrained()
        == "test_resnet.r160_in1k: no pretrained weights (offline); it starts from random weights"
    )
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in eyes.model.state_dict().items()
    )


def test_a_name_that_timm_does_not_have_is_refused():
    with pytest.raises(UserError, match="model.small.vision is 'resnet18x'"):
        TimmVision("resnet18x", 32, 8, 1)
