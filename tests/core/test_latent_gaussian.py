"""Gaussian transitions: distributions compose and reverse as sums of random variables do, the
losses by hand, and what the encoder does in training and after it.
"""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from alam_core.errors import UserError
from alam_core.latent_action import LossConfig, TransitionConfig, TransitionModel
from alam_core.latent_action.gaussian import Gaussian, GaussianEncoder, gaussian_losses


def config(losses: LossConfig, codebook_size: int = 0) -> TransitionConfig:
    return TransitionConfig(
        encoder="gaussian",
        image_size=16,
        patch_size=8,
        width=16,
        heads=2,
        encoder_layers=2,
        decoder_layers=1,
        latent_tokens=3,
        latent_dim=4,
        codebook_size=codebook_size,
        warmup_steps=0,
        ramp_steps=0,
        losses=losses,
    )


def model(**losses: float) -> TransitionModel:
    torch.manual_seed(0)
    return TransitionModel(config(LossConfig(**losses)))  # type: ignore[arg-type]


def gaussian(*shape: int, seed: int = 0) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    return Gaussian(
        torch.randn(*shape, generator=generator), torch.rand(*shape, generator=generator) + 0.1
    )


def test_composition_and_reversal_are_those_of_samples() -> None:
    torch.manual_seed(0)
    one, two = gaussian(3, seed=1), gaussian(3, seed=2)
    many = [
        Gaussian(g.mean.expand(200_000, 3), g.deviation.expand(200_000, 3)).sample()
        for g in (one, two)
    ]
    sums = (many[0] + many[1]) / math.sqrt(2)
    composed = one.then(two)
    torch.testing.assert_close(sums.mean(0), composed.mean, atol=0.01, rtol=0)
    torch.testing.assert_close(sums.std(0), composed.deviation, atol=0.01, rtol=0)
    torch.testing.assert_close((-many[0]).mean(0), one.reversed().mean, atol=0.01, rtol=0)
    torch.testing.assert_close(one.reversed().deviation, one.deviation)


def test_unit_normals_compose_to_a_unit_normal() -> None:
    unit = Gaussian(torch.zeros(5), torch.ones(5))
    assert float(unit.then(unit).distance(unit)) == pytest.approx(0, abs=1e-12)


def test_divergence_is_that_of_torch_summed_over_a_transition() -> None:
    transitions = gaussian(2, 6, 3, 4)
    expected = kl_divergence(Normal(transitions.mean, transitions.deviation), Normal(0.0, 1.0))
    torch.testing.assert_close(transitions.divergence(), expected.sum(dim=(-2, -1)).mean())


def test_relations_are_zero_where_they_hold_and_see_the_deviations_too() -> None:
    ab, bc = gaussian(6, 3, 4, seed=1), gaussian(6, 3, 4, seed=2)
    four = [ab, bc, ab.then(bc), ab.reversed()]
    kept = Gaussian(torch.stack([g.mean for g in four]), torch.stack([g.deviation for g in four]))
    losses = gaussian_losses(kept, relations=True)
    assert float(losses["add"]) == pytest.approx(0, abs=1e-10)
    assert float(losses["rev"]) == pytest.approx(0, abs=1e-10)
    wider = kept.deviation.clone()
    wider[2] += 0.3
    wider[3] += 0.2
    losses = gaussian_losses(Gaussian(kept.mean, wider), relations=True)
    assert float(losses["add"]) == pytest.approx(0.09, rel=1e-4)
    assert float(losses["rev"]) == pytest.approx(0.04, rel=1e-4)
    assert set(gaussian_losses(kept, relations=False)) == {"kl"}


def test_z_is_noisy_in_training_and_the_mean_after_it() -> None:
    network = model()
    clip = torch.rand(3, 2, 3, 16, 16)
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(5):  # the decoder copies the source until it is trained
        network.losses(*clip)["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
    noisy = [float(network.losses(*clip)["rec"].detach()) for _ in range(2)]
    assert noisy[0] != noisy[1]
    network.eval()
    assert float(network.losses(*clip)["rec"].detach()) == float(
        network.losses(*clip)["rec"].detach()
    )
    z = network.encode(clip[0], clip[1])
    assert isinstance(network.encoder, GaussianEncoder)
    distribution = network.encoder.distribution(clip, [(0, 1)])
    torch.testing.assert_close(z, distribution.mean[0])
    assert not network.additive  # a sum of transitions is sqrt(2) times the whole


def test_the_total_has_the_kl_term_by_its_weight() -> None:
    network = model(kl=0.3, add=0.05, rev=0.05).eval()
    terms = network.losses(*torch.rand(3, 2, 3, 16, 16))
    expected = terms["rec"] + 0.05 * (terms["add"] + terms["rev"]) + 0.3 * terms["kl"]
    torch.testing.assert_close(terms["total"], expected)


def test_a_codebook_is_refused() -> None:
    with pytest.raises(UserError, match="gaussian needs 0"):
        config(LossConfig(), codebook_size=8)
