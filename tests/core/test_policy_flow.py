"""Flow matching: its times, its targets, and that the exact velocity carries noise to the data."""

import numpy as np
import pytest
import torch

from alam_core.policy import flow


def test_times_follow_the_shifted_beta_distribution():
    tau = flow.sample_time(200_000, torch.Generator().manual_seed(0)).double()
    assert tau.min() > 0.001
    assert tau.max() <= 1.0
    for x in (0.1, 0.3, 0.6, 0.9):  # P(xi <= x) = x^1.5 for Beta(1.5, 1)
        assert abs((tau <= 0.999 * x + 0.001).double().mean() - x**1.5) < 0.005


def test_interpolation_ends_and_velocity_is_its_derivative():
    data, noise = {"action": torch.randn(5, 3, 2)}, {"action": torch.randn(5, 3, 2)}
    assert torch.equal(flow.interpolate(data, noise, torch.ones(5))["action"], noise["action"])
    assert torch.equal(flow.interpolate(data, noise, torch.zeros(5))["action"], data["action"])
    low, high = (flow.interpolate(data, noise, torch.full((5,), t))["action"] for t in (0.25, 0.75))
    torch.testing.assert_close((high - low) / 0.5, flow.velocity(data, noise)["action"])


def test_each_sample_has_its_own_time():
    tau = torch.tensor([0.0, 0.5, 1.0])
    mixed = flow.interpolate({"u": torch.zeros(3, 2, 1)}, {"u": torch.ones(3, 2, 1)}, tau)["u"]
    torch.testing.assert_close(mixed[:, :, 0], tau[:, None].expand(3, 2))


def test_loss_is_the_weighted_sum_of_mean_absolute_errors():
    predicted = {"z": torch.zeros(2, 3, 4), "action": torch.zeros(2, 3, 5)}
    target = {"z": torch.full((2, 3, 4), -2.0), "action": torch.full((2, 3, 5), 3.0)}
    total, parts = flow.flow_loss(predicted, target, {"z": 0.5, "action": 1.0})
    assert parts["z"] == 2.0
    assert parts["action"] == 3.0
    assert total == 4.0


def test_integration_goes_from_noise_to_data_in_equal_steps():
    seen = []

    def field(x, tau):
        seen.append(tau)
        return {"u": torch.ones_like(x["u"])}

    end = flow.integrate(field, {"u": torch.zeros(1, 1, 1)}, 4)["u"]
    assert seen == [1.0, 0.75, 0.5, 0.25]
    assert end.item() == pytest.approx(-1.0)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_the_exact_velocity_of_one_point_lands_on_it_in_any_number_of_steps(steps):
    point = torch.tensor([2.0, -1.0, 0.5])
    noise = torch.randn(64, 1, 3, generator=torch.Generator().manual_seed(0))
    # E[eps - y | x_tau] with a single y: eps = (x - (1 - tau) y) / tau.
    end = flow.integrate(lambda x, tau: {"u": (x["u"] - point) / tau}, {"u": noise}, steps)["u"]
    torch.testing.assert_close(end, point.expand_as(end), atol=1e-5, rtol=0)


def test_the_exact_velocity_of_a_gaussian_mixture_lands_on_it():
    means, weights, std = torch.tensor([-2.0, 1.0]), torch.tensor([0.3, 0.7]), 0.25

    def field(x, tau):
        value = x["u"]  # (N, 1, 1)
        variance = tau**2 + (1 - tau) ** 2 * std**2  # of x given the component
        logits = weights.log() - (value - (1 - tau) * means) ** 2 / (2 * variance)
        component = logits.softmax(-1)
        residual = value - (1 - tau) * means
        noise = tau * residual / variance
        data = means + (1 - tau) * std**2 * residual / variance
        return {"u": (component * (noise - data)).sum(-1, keepdim=True)}

    noise = torch.randn(20_000, 1, 1, generator=torch.Generator().manual_seed(0))
    samples = flow.integrate(field, {"u": noise}, 200)["u"].flatten().numpy()
    left = samples[samples < -0.5]
    right = samples[samples >= -0.5]
    assert len(left) / len(samples) == pytest.approx(0.3, abs=0.02)
    assert np.mean(left) == pytest.approx(-2.0, abs=0.03)
    assert np.mean(right) == pytest.approx(1.0, abs=0.03)
    assert np.std(left) == pytest.approx(std, abs=0.03)
    assert np.std(right) == pytest.approx(std, abs=0.03)
