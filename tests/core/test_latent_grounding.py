"""Grounded transitions: labels change the encoder through z alone, and only if they are valid."""

import torch
from test_latent_model import frames, small

from alam_core.latent_action.grounding import GroundedModel, GroundingConfig


def grounded(weight: float = 1.0, hidden: int = 8) -> GroundedModel:
    torch.manual_seed(0)
    return GroundedModel(small(), GroundingConfig(weight, hidden=hidden), cameras=2, width=3)


def pairs(model: GroundedModel, count: int = 4) -> dict[str, torch.Tensor]:
    first, second, _ = frames(count)
    valid = torch.ones(count, 3, dtype=torch.bool)
    valid[:2, 2] = False  # the first camera's action has two dimensions
    return {
        "first": first,
        "second": second,
        "camera": torch.tensor([0, 0, 1, 1]),
        "action": torch.randn(count, 3, generator=torch.Generator().manual_seed(1)),
        "valid": valid,
    }


def test_the_action_loss_is_the_mean_squared_error_of_the_own_camera_s_decoder() -> None:
    model, triplet = grounded(hidden=0).eval(), frames(2)
    given = pairs(model)
    losses = model(*triplet, **given)
    z = model.transition.encode(given["first"], given["second"]).flatten(1)
    read = torch.stack([model.decoders[int(c)](z[i]) for i, c in enumerate(given["camera"])])
    expected = ((read - given["action"]).square() * given["valid"]).sum() / 10
    torch.testing.assert_close(losses["action"], expected)
    rest = model.transition.losses(*triplet)["total"]
    torch.testing.assert_close(losses["total"], rest + losses["action"])


def test_gradients_reach_the_encoder_but_not_through_invalid_dimensions() -> None:
    model = grounded()
    given = pairs(model)
    model(*frames(2), **given)["action"].backward()
    assert any(
        p.grad is not None and p.grad.abs().sum() > 0 for p in model.transition.encoder.parameters()
    )
    assert all(p.grad is None for p in model.transition.decoder.parameters())
    before = model(*frames(2), **given)["action"]
    given["action"][:2, 2] = 100.0
    torch.testing.assert_close(model(*frames(2), **given)["action"], before)
