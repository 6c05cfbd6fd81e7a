"""The algebraic losses: eq. 7 on every scale, and the invariances of each scale."""

import pytest
import torch
from torch import Tensor

from alam_core.latent_action.losses import (
    STILL,
    additivity_residual,
    latent_loss,
    reconstruction_loss,
    reversal_residual,
)
from alam_core.latent_action.measures import (
    constant_share,
    effective_dims,
    perplexity,
    psnr,
    relative_error,
)

FORMS = ("paper", "relative", "whitened")


def latents(seed: int, batch: int = 64, tokens: int = 3, dim: int = 4) -> Tensor:
    return torch.randn(batch, tokens, dim, generator=torch.Generator().manual_seed(seed))


def potentials() -> tuple[Tensor, Tensor, Tensor]:
    return latents(1), latents(2), latents(3)


@pytest.mark.parametrize("form", FORMS)
def test_differences_of_a_potential_have_no_algebraic_loss(form: str) -> None:
    a, b, c = potentials()
    add = latent_loss(additivity_residual(b - a, c - b, c - a), b - a, form)
    rev = latent_loss(reversal_residual(b - a, a - b), b - a, form)
    assert float(add) < 1e-10 and float(rev) == 0


@pytest.mark.parametrize("form", FORMS)
def test_any_violation_of_the_algebra_has_a_loss(form: str) -> None:
    a, b, c = potentials()
    assert float(latent_loss(additivity_residual(b - a, c - b, 0.9 * (c - a)), b - a, form)) > 1e-3
    assert float(latent_loss(reversal_residual(b - a, b - a), b - a, form)) > 1


def test_paper_form_is_the_squared_norm_by_hand() -> None:
    residual = torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]])
    assert float(latent_loss(residual, residual, "paper")) == pytest.approx((5 + 9) / 2)


def test_constant_latents_are_off_by_their_own_size() -> None:
    z = torch.ones(8, 3, 4)
    assert float(latent_loss(additivity_residual(z, z, z), z, "relative")) == pytest.approx(1)
    assert float(latent_loss(reversal_residual(z, z), z, "relative")) == pytest.approx(4)


def test_shrinking_satisfies_the_paper_form_only() -> None:
    z, residual = latents(4), latents(5)
    for form, gain in (("paper", 1e-4), ("relative", 1.0), ("whitened", 1.0)):
        ratio = float(latent_loss(0.01 * residual, 0.01 * z, form) / latent_loss(residual, z, form))
        assert ratio == pytest.approx(gain, rel=1e-3)


def test_stretching_a_clean_direction_satisfies_the_relative_form_only() -> None:
    z, residual = latents(6, 4000), latents(7, 4000)
    residual[:, :, 0] = 0  # the algebra holds along the first direction alone
    stretch = torch.tensor([30.0, 1, 1, 1])

    def ratio(form: str) -> float:
        return float(
            latent_loss(residual * stretch, z * stretch, form) / latent_loss(residual, z, form)
        )

    assert ratio("relative") < 0.01
    assert ratio("whitened") > 0.3  # 1, apart from the shrinkage


def test_a_constant_has_a_large_whitened_loss_and_a_relative_loss_of_at_most_its_share() -> None:
    z = latents(10)
    sizes = {
        form: [
            float(latent_loss(reversal_residual(z + c, -z + c), torch.cat([z + c, c - z]), form))
            for c in (1, 10, 100)
        ]
        for form in FORMS
    }
    assert sizes["whitened"][0] < 0.02 * sizes["whitened"][1] < 0.0005 * sizes["whitened"][2]
    assert max(sizes["relative"]) <= 4


def test_no_gradient_rewards_stretching_under_whitening() -> None:
    z, residual = latents(11, 4000), latents(12, 4000)
    residual[:, :, 0] = 0
    stretch = torch.tensor(3.0, requires_grad=True)
    along = torch.tensor([1.0, 0, 0, 0])
    scale = stretch * along + (1 - along)
    latent_loss(residual * scale, z * scale, "whitened").backward()
    assert abs(float(stretch.grad)) < 1e-3  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
def test_latents_that_are_not_finite_make_a_loss_that_is_not(form: str) -> None:
    """The training loop reports such a loss; an error in the factorisation would hide the cause."""
    z = latents(13)
    z[0, 0, 0] = torch.nan
    z.requires_grad_()
    loss = latent_loss(z, z, form)
    loss.backward()
    assert loss.isnan()


@pytest.mark.parametrize("form", FORMS)
def test_latents_without_any_variance_have_a_finite_loss_and_gradient(form: str) -> None:
    for value in (0.0, 3.0):
        z = torch.full((4, 2, 8), value, requires_grad=True)
        loss = latent_loss(reversal_residual(z, z), z, form)
        loss.backward()
        assert loss.isfinite() and z.grad is not None and z.grad.isfinite().all()


def test_relative_and_whitened_agree_on_isotropic_latents() -> None:
    z, residual = latents(8, 20_000), latents(9, 20_000)
    assert float(latent_loss(residual, z, "relative")) == pytest.approx(1, rel=0.02)
    assert float(latent_loss(residual, z, "whitened")) == pytest.approx(1 / 1.01, rel=0.02)


def test_relative_reconstruction_is_one_for_copying_and_paper_form_is_a_sum() -> None:
    source, target = torch.rand(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert float(reconstruction_loss(source, target, source, "relative")) == pytest.approx(
        1, abs=STILL / 0.02
    )
    assert float(reconstruction_loss(target, target, source, "relative")) == 0
    expected = sum(float((s - t).norm() ** 2) for s, t in zip(source, target, strict=True)) / 4
    assert float(reconstruction_loss(source, target, source, "paper")) == pytest.approx(
        expected, rel=1e-4
    )


def test_relative_reconstruction_weights_small_and_large_changes_equally() -> None:
    source = torch.full((2, 3, 8, 8), 0.5)
    change = torch.tensor([0.4, 0.2]).reshape(2, 1, 1, 1)
    halves = [
        float(reconstruction_loss(source + change * share, source + change, source, "relative"))
        for share in torch.eye(2)[:, :, None, None, None]
    ]
    assert halves[0] == pytest.approx(halves[1], rel=0.05) and halves[0] == pytest.approx(
        0.5, rel=0.05
    )


def test_measures_tell_a_constant_a_line_and_a_full_space_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    full = torch.randn(5000, 6, generator=generator)
    line = torch.randn(5000, 1, generator=generator) * torch.ones(6)
    assert effective_dims(full) == pytest.approx(6, rel=0.05)
    assert effective_dims(line) == pytest.approx(1, rel=1e-3)
    assert constant_share(full) < 0.01 and constant_share(full + 100) > 0.99
    assert effective_dims(full + 100) == pytest.approx(6, rel=0.05)
    assert relative_error(0.1 * full, full) == pytest.approx(0.1)


@pytest.mark.parametrize("samples", [2, 5, 200])
def test_effective_dims_are_those_of_the_covariance_for_few_and_many_samples_at_any_scale(
    samples: int,
) -> None:
    z = (
        torch.randn(samples, 20, generator=torch.Generator().manual_seed(samples)).double()
        * torch.linspace(0.1, 2, 20)
        + 5
    )
    eigenvalues = torch.linalg.eigvalsh(torch.cov(z.T))
    expected = float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    assert effective_dims(z) == pytest.approx(expected) and effective_dims(
        1e-7 * z
    ) == pytest.approx(expected)


def test_perplexity_and_psnr_by_hand() -> None:
    assert perplexity(torch.tensor([0, 1, 2, 3]), 8) == pytest.approx(4)
    assert perplexity(torch.zeros(10, dtype=torch.long), 8) == pytest.approx(1)
    assert psnr(torch.full((2, 3, 4, 4), 0.6), torch.full((2, 3, 4, 4), 0.5)) == pytest.approx(
        20, abs=1e-3
    )
