"""Transitions of a frozen image network: exact algebra, nothing of the network is trained."""

from pathlib import Path

import pytest
import torch

from alam_core.errors import UserError
from alam_core.latent_action import TransitionConfig, TransitionModel


def config(latent_dim: int = 256, latent_tokens: int = 4, image_size: int = 32) -> TransitionConfig:
    return TransitionConfig(
        encoder="features",
        decoder="convolutional",
        codebook_size=0,
        warmup_steps=0,
        ramp_steps=0,
        latent_dim=latent_dim,
        latent_tokens=latent_tokens,
        image_size=image_size,
    )


def test_transitions_are_exact_and_only_the_decoder_is_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TransitionModel(config())
    a, b, c = torch.rand(3, 2, 3, 32, 32)
    ab, bc, ac = model.encode(a, b), model.encode(b, c), model.encode(a, c)
    assert ab.shape == (2, 4, 256) and float(ac.abs().max()) > 0.1
    torch.testing.assert_close(ab + bc, ac, atol=1e-5, rtol=1e-5)
    assert model.additive
    model.losses(a, b, c)["total"].backward()
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"decoder"}
    loaded = TransitionModel.from_pretrained(model.save_pretrained(tmp_path / "model"))
    assert torch.equal(loaded.encode(a, b), ab)


def test_features_are_those_of_the_perceptual_distance() -> None:
    """A frame that LPIPS cannot tell from another has no transition; one that it can has."""
    model = TransitionModel(config()).eval()
    a = torch.rand(1, 3, 32, 32)
    assert float(model.encode(a, a).abs().max()) == 0
    assert float(model.encode(a, a.flip(-1)).abs().max()) > 0.1


@pytest.mark.parametrize("sizes", [{"latent_dim": 32}, {"latent_tokens": 3}, {"image_size": 16}])
def test_sizes_that_do_not_fit_alexnet_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(UserError, match="latent_dim 256 and a square|too small for AlexNet"):
        config(**sizes)
