"""Flow matching and diffusion: training times, targets, and that exact predictions integrate to the
data.
"""

import math

import numpy as np
import pytest
import torch

from alam_core.config import from_dict
from alam_core.errors import UserError
from alam_core.policy.config import ModelConfig
from alam_core.policy.generation import PROCESSES, Diffusion, FlowMatching, integrate, make_process

flow = FlowMatching()


def test_times_of_flow_matching_follow_the_shifted_beta_distribution():
    tau = flow.sample_time(200_000, torch.Generator().manual_seed(0)).double()
    assert tau.min() > 0.001
    assert tau.max() <= 1.0
    for x in (0.1, 0.3, 0.6, 0.9):  # P(xi <= x) = x^1.5 for Beta(1.5, 1)
        assert abs((tau <= 0.999 * x + 0.001).double().mean() - x**1.5) < 0.005


@pytest.mark.parametrize("name", PROCESSES)
def test_corruption_goes_from_data_to_noise(name):
    process = make_process(name)
    data, noise = torch.randn(5, 3, 2), torch.randn(5, 3, 2)
    torch.testing.assert_close(
        process.corrupt(data, noise, torch.ones(5, 1, 1)), noise, atol=1e-6, rtol=0
    )
    assert torch.equal(process.corrupt(data, noise, torch.zeros(5, 1, 1)), data)
    tau = torch.rand(5, 3, 1)
    mixed = process.corrupt(data, noise, tau)
    for row in range(5):  # each step has its own time
        for step in range(3):
            alone = process.corrupt(
                data[row : row + 1, step : step + 1],
                noise[row : row + 1, step : step + 1],
                tau[row : row + 1, step : step + 1],
            )
            torch.testing.assert_close(mixed[row, step], alone[0, 0])


def test_the_velocity_is_the_derivative_of_the_line():
    data, noise = torch.randn(5, 3, 2), torch.randn(5, 3, 2)
    low, high = (flow.corrupt(data, noise, torch.full((5, 1, 1), t)) for t in (0.25, 0.75))
    torch.testing.assert_close((high - low) / 0.5, flow.target(data, noise, torch.rand(5, 1, 1)))


def test_diffusion_preserves_variance_and_predicts_its_own_derivative():
    process, angle = Diffusion(), 0.5 * math.pi
    data, noise = torch.randn(200_000, 1, 1), torch.randn(200_000, 1, 1)
    for t in (0.2, 0.5, 0.9):
        assert process.corrupt(data, noise, torch.full((1, 1, 1), t)).var().item() == pytest.approx(
            1.0, abs=0.02
        )
    few = data[:9].double(), noise[:9].double()
    low, high = (
        process.corrupt(*few, torch.full((9, 1, 1), t, dtype=torch.double))
        for t in (0.4999, 0.5001)
    )
    slope = (high - low) / 0.0002 / angle
    torch.testing.assert_close(
        slope,
        process.target(*few, torch.full((9, 1, 1), 0.5, dtype=torch.double)),
        atol=1e-6,
        rtol=0,
    )


def test_errors_are_those_of_the_paper():
    predicted, target = torch.tensor([0.0, 1.0]), torch.tensor([-2.0, 4.0])
    assert flow.error(predicted, target).tolist() == [2.0, 3.0]
    assert Diffusion().error(predicted, target).tolist() == [4.0, 9.0]


def test_integration_goes_from_noise_to_data_in_equal_steps():
    seen = []

    def field(x, tau):
        seen.append(tau)
        return {"u": torch.ones_like(x["u"])}

    end = integrate(
        flow, field, {"u": torch.zeros(1, 1, 1), "still": torch.full((1, 1, 1), 7.0)}, 4
    )
    assert seen == [1.0, 0.75, 0.5, 0.25]
    assert end["u"].item() == pytest.approx(-1.0)
    assert end["still"].item() == 7.0  # the field predicted nothing for it


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_the_exact_prediction_of_one_point_lands_on_it_in_any_number_of_steps(name, steps):
    process, point = make_process(name), torch.tensor([2.0, -1.0, 0.5])
    noise = torch.randn(64, 1, 3, generator=torch.Generator().manual_seed(0))

    def field(x, time):
        tau = torch.full((64, 1, 1), time)
        zero = torch.zeros_like(x["u"])
        scale = process.corrupt(zero, zero + 1, tau)  # how much noise there is in x
        residual = (x["u"] - process.corrupt(point.expand_as(x["u"]), zero, tau)) / scale
        return {"u": process.target(point.expand_as(x["u"]), residual, tau)}

    end = integrate(process, field, {"u": noise}, steps)["u"]
    torch.testing.assert_close(end, point.expand_as(end), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_exact_prediction_of_a_gaussian_mixture_lands_on_it(name):
    process = make_process(name)
    means, weights, std = torch.tensor([-2.0, 1.0]), torch.tensor([0.3, 0.7]), 0.25

    def field(x, time):
        tau, value = torch.full((1, 1, 1), time), x["u"]  # (N, 1, 1)
        one, zero = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)
        signal, amount = process.corrupt(one, zero, tau), process.corrupt(zero, one, tau)
        variance = amount**2 + signal**2 * std**2  # of x given the component
        residual = value - signal * means
        component = (weights.log() - residual**2 / (2 * variance)).softmax(-1)
        noise = amount * residual / variance
        data = means + signal * std**2 * residual / variance
        return {"u": (component * process.target(data, noise, tau)).sum(-1, keepdim=True)}

    noise = torch.randn(20_000, 1, 1, generator=torch.Generator().manual_seed(0))
    samples = integrate(process, field, {"u": noise}, 200)["u"].flatten().numpy()
    left = samples[samples < -0.5]
    assert len(left) / len(samples) == pytest.approx(0.3, abs=0.02)
    assert np.mean(left) == pytest.approx(-2.0, abs=0.03)
    assert np.std(left) == pytest.approx(std, abs=0.03)


def test_an_unknown_process_is_refused():
    with pytest.raises(UserError, match="f.json: process is 'gan': choose one of flow, diffusion"):
        from_dict(ModelConfig, {"process": "gan"}, "f.json")
