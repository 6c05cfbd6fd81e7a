"""From noise to data: flow matching along straight lines (eq. 12 to 15), or diffusion in its place
(Table 3).

Time tau: 1 is noise, 0 is data. Letters: N sequences, H chunk length; streams are dicts modality ->
(N, H, d_m).
"""

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from alam_core.errors import UserError

Streams = dict[str, Tensor]


class Process(Protocol):
    """How data is turned into noise, and what a network learns in order to turn it back.

    ``tau`` broadcasts to the data: (N, 1, 1), or (N, H, 1) where steps have times of their own.
    """

    def sample_time(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Training times (count,)."""
        ...

    def corrupt(self, data: Tensor, noise: Tensor, tau: Tensor) -> Tensor:
        """x_tau."""
        ...

    def target(self, data: Tensor, noise: Tensor, tau: Tensor) -> Tensor:
        """What the network is to predict from x_tau."""
        ...

    def error(self, predicted: Tensor, target: Tensor) -> Tensor:
        """The loss of each number, in the shape of the arguments."""
        ...

    def step(self, x: Tensor, predicted: Tensor, tau: float, following: float) -> Tensor:
        """x at time ``following`` < ``tau`` from x at ``tau``."""
        ...


class FlowMatching:
    """x_tau = tau * eps + (1 - tau) * y, v = eps - y (eq. 12), L1 (eq. 13), Euler steps (eq. 15)."""

    def sample_time(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """tau = 0.999 xi + 0.001 with xi ~ Beta(1.5, 1), in (0.001, 1]: Beta(a, 1) has the
        distribution function x^a, so xi = U^(1/1.5).
        """
        return 0.999 * torch.rand(count, generator=generator).pow(1.0 / 1.5) + 0.001

    def corrupt(self, data: Tensor, noise: Tensor, tau: Tensor) -> Tensor:
        return tau * noise + (1.0 - tau) * data

    def target(self, data: Tensor, noise: Tensor, tau: Tensor) -> Tensor:
        return noise - data

    def error(self, predicted: Tensor, target: Tensor) -> Tensor:
        return (predicted - target).abs()

    def step(self, x: Tensor, predicted: Tensor, tau: float, following: float) -> Tensor:
        return x - (tau - following) * predicted


class Diffusion:
    """x_tau = cos(pi tau / 2) y + sin(pi tau / 2) eps: variance preserving, cosine schedule;
    squared error; DDIM steps.

    The network predicts v = cos * eps - sin * y (Salimans and Ho 2022), which is well defined at
    pure noise, where the noise itself says nothing about the data.
    """

    def sample_time(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(count, generator=generator)

    def corrupt(self, data: Tensor, noise: Tensor, tau: Tensor) -> Tensor:
        angle = 0.5 * math.pi * tau
        return angle.cos() * data + angle.sin() * noise

    def target(self, data: Tensor, noise: Tensor, tau: Tensor) -> Tensor:
        angle = 0.5 * math.pi * tau
        return angle.cos() * noise - angle.sin() * data

    def error(self, predicted: Tensor, target: Tensor) -> Tensor:
        return (predicted - target).square()

    def step(self, x: Tensor, predicted: Tensor, tau: float, following: float) -> Tensor:
        turn = (
            0.5 * math.pi * (tau - following)
        )  # (x, v) at tau is (data, noise) turned by the angle of tau
        return math.cos(turn) * x - math.sin(turn) * predicted


PROCESSES: dict[str, type[Process]] = {"flow": FlowMatching, "diffusion": Diffusion}


def make_process(name: str) -> Process:
    """Raises UserError for a name that is not in PROCESSES."""
    if name not in PROCESSES:
        raise UserError(f"model.process is '{name}': choose one of {', '.join(PROCESSES)}")
    return PROCESSES[name]()


def time_embedding(tau: Tensor, width: int, shortest: float, longest: float = 4.0) -> Tensor:
    """Sines, then cosines, of times (...) with periods from ``shortest`` to ``longest``, (...,
    width) in float64: short periods need it.
    """
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=tau.device)
    phase = tau.double()[..., None] * (
        2.0 * math.pi / (shortest * (longest / shortest) ** fraction)
    )
    return torch.cat([phase.sin(), phase.cos()], dim=-1)


def sample_noise(like: Mapping[str, Tensor], generator: torch.Generator | None = None) -> Streams:
    """Independent standard normal noise in the shapes of ``like``."""
    return {
        name: torch.randn(y.shape, generator=generator, device=y.device, dtype=y.dtype)
        for name, y in like.items()
    }


def integrate(
    process: Process,
    field: Callable[[Streams, float], Mapping[str, Tensor]],
    noise: Mapping[str, Tensor],
    steps: int,
) -> Streams:
    """From tau = 1 to tau = 0 in ``steps`` equal steps. A stream that ``field`` says nothing of
    stays as it is.
    """
    x = dict(noise)
    for i in range(steps):
        tau, following = 1.0 - i / steps, 1.0 - (i + 1) / steps
        predicted = field(x, tau)
        x |= {
            name: process.step(x[name], value, tau, following) for name, value in predicted.items()
        }
    return x
