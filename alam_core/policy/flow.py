"""Joint flow matching: noise to data along straight lines, all modalities at one common time (eq. 12 to 15).

Streams are dicts modality -> tensor (B, H, d_m). Time tau: 1 is noise, 0 is data.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Streams = dict[str, Tensor]


def sample_time(count: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu") -> Tensor:
    """``count`` times tau = 0.999 xi + 0.001 with xi ~ Beta(1.5, 1), in (0.001, 1]. Shape (count,).

    Beta(a, 1) has the distribution function x^a, so xi = U^(1/1.5).
    """
    uniform = torch.rand(count, generator=generator, device=device)
    return 0.999 * uniform.pow(1.0 / 1.5) + 0.001


def sample_noise(like: Mapping[str, Tensor], generator: torch.Generator | None = None) -> Streams:
    """Independent standard normal noise in the shapes of ``like``."""
    return {name: torch.randn(y.shape, generator=generator, device=y.device, dtype=y.dtype) for name, y in like.items()}


def interpolate(data: Mapping[str, Tensor], noise: Mapping[str, Tensor], tau: Tensor) -> Streams:
    """x_tau = tau * eps + (1 - tau) * y (eq. 12), with tau (B,)."""
    mixed = {}
    for name, y in data.items():
        t = tau.view(-1, *[1] * (y.ndim - 1))
        mixed[name] = t * noise[name] + (1.0 - t) * y
    return mixed


def velocity(data: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> Streams:
    """The target v = eps - y (eq. 12)."""
    return {name: noise[name] - y for name, y in data.items()}


def flow_loss(predicted: Mapping[str, Tensor], target: Mapping[str, Tensor], weights: Mapping[str, float]) -> tuple[Tensor, Streams]:
    """The weighted sum over modalities (eq. 14) and each modality's mean absolute error (eq. 13, as a mean over elements)."""
    parts = {name: (predicted[name].float() - v).abs().mean() for name, v in target.items()}
    total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
    return total, parts


def integrate(field: Callable[[Streams, float], Mapping[str, Tensor]], noise: Mapping[str, Tensor], steps: int) -> Streams:
    """Euler from tau = 1 to tau = 0 in ``steps`` equal steps: x <- x - (1 / steps) * v(x, tau) (eq. 15)."""
    delta = 1.0 / steps
    x = dict(noise)
    for i in range(steps):
        v = field(x, 1.0 - i * delta)
        x = {name: value - delta * v[name] for name, value in x.items()}
    return x
