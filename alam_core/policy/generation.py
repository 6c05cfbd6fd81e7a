"""From noise to data: flow matching along straight lines (eq. 12, 13, 15), or diffusion (Table 3).

Flow time tau: 1 is noise, 0 is data. Letters: N sequences, H chunk length, d_m width of modality m.
``Streams`` map a modality to (N, H, d_m).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

ProcessName = Literal["flow", "diffusion"]
Streams = dict[str, Tensor]


class Process(Protocol):
    """How data is corrupted by noise, and what a network predicts in order to reverse it.

    data, noise: (N, H, d_m). tau: (N, 1, 1), or (N, H, 1) if each step has its own time.
    """

    def sample_time(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Random training times (count,), in [0, 1]."""
        ...

    def corrupt(self, data: Tensor, noise: Tensor, tau: Tensor) -> Tensor:
        """x_tau: the data, mixed with noise."""
        ...

    def target(self, data: Tensor, noise: Tensor, tau: Tensor) -> Tensor:
        """What the network predicts from x_tau."""
        ...

    def error(self, predicted: Tensor, target: Tensor) -> Tensor:
        """The loss of each element, in the shape of the arguments."""
        ...

    def step(self, x: Tensor, predicted: Tensor, tau: float, following: float) -> Tensor:
        """x at time ``following`` < ``tau``, from x and the prediction at ``tau``."""
        ...


class FlowMatching:
    """x_tau = tau eps + (1 - tau) y, v = eps - y (eq. 12), L1 (eq. 13), Euler steps (eq. 15)."""

    def sample_time(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """tau = 0.999 xi + 0.001 with xi ~ Beta(1.5, 1), in [0.001, 1].

        Beta(a, 1) has the distribution function x^a, so xi = U^(1/1.5) for a uniform U.
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

    The network predicts v = cos(pi tau / 2) eps - sin(pi tau / 2) y (Salimans and Ho 2022). At tau
    = 1 this is -y; predicting the noise would be trivial there.
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
        # (x, v) at tau is (data, noise) rotated by the angle pi tau / 2.
        turn = 0.5 * math.pi * (tau - following)
        return math.cos(turn) * x - math.sin(turn) * predicted


PROCESSES: dict[ProcessName, type[Process]] = {"flow": FlowMatching, "diffusion": Diffusion}


def make_process(name: ProcessName) -> Process:
    """The process of this name."""
    return PROCESSES[name]()


def time_embedding(tau: Tensor, width: int, shortest: float, longest: float = 4.0) -> Tensor:
    """Sines, then cosines, of times (...) with periods from ``shortest`` to ``longest``: (...,
    width), in float64, which short periods need.
    """
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=tau.device)
    phase = tau.double()[..., None] * (
        2.0 * math.pi / (shortest * (longest / shortest) ** fraction)
    )
    return torch.cat([phase.sin(), phase.cos()], dim=-1)


def sample_noise(
    like: Mapping[str, Tensor],
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Streams:
    """Independent standard normal noise with the shapes, dtypes and devices of ``like``. Several
    generators: one for each sample, which draws what it would draw for that sample alone.
    """
    if isinstance(generator, Sequence):
        samples = [
            sample_noise({name: y[i : i + 1] for name, y in like.items()}, own)
            for i, own in enumerate(generator)
        ]
        return {name: torch.cat([noise[name] for noise in samples]) for name in like}
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
    """From tau = 1 to tau = 0 in ``steps`` equal steps (eq. 15).

    field: (x, tau) -> the network's prediction for some modalities; the others stay unchanged.
    """
    x = dict(noise)
    for i in range(steps):
        tau, following = 1.0 - i / steps, 1.0 - (i + 1) / steps
        predicted = field(x, tau)
        x |= {
            name: process.step(x[name], value, tau, following) for name, value in predicted.items()
        }
    return x
