"""Gaussian transitions, after DLAM (arXiv 2607.27138): the encoder predicts a mean and a standard
deviation, and composition and reversal are relations between distributions.

Letters: F frames of a clip, B batch, T transitions, K latent tokens, D numbers per token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alam_core.latent_action.config import ENCODER_NETWORKS, TransitionConfig
from alam_core.latent_action.encoder import Pair, RelationalEncoder

MAX_LOG_DEVIATION = 3.0  # the log of a deviation is kept within -3 and 3 by a tanh


@dataclass
class Gaussian:
    """Independent normal distributions: mean and deviation, (..., K, D) each."""

    mean: Tensor
    deviation: Tensor

    def sample(self) -> Tensor:
        """One value of each, with gradients to both parameters."""
        return self.mean + self.deviation * torch.randn_like(self.deviation)

    def then(self, following: "Gaussian") -> "Gaussian":
        """The composed transition: the sum of two independent ones, divided by sqrt(2), so that two
        of unit variance make one of unit variance.
        """
        deviation = (self.deviation.square() + following.deviation.square()).sqrt()
        return Gaussian((self.mean + following.mean) / 2**0.5, deviation / 2**0.5)

    def reversed(self) -> "Gaussian":
        """The distribution of -z."""
        return Gaussian(-self.mean, self.deviation)

    def distance(self, other: "Gaussian") -> Tensor:
        """Squared 2-Wasserstein distance per number, averaged: a scalar."""
        mean, deviation = self.mean - other.mean, self.deviation - other.deviation
        return (mean.square() + deviation.square()).mean()

    def divergence(self) -> Tensor:
        """KL divergence from the unit normal distribution, in nats, summed over the K * D numbers
        of a transition and averaged over the rest: a scalar.
        """
        variance = self.deviation.square()
        per_number = 0.5 * (self.mean.square() + variance - 1.0 - variance.log())
        return per_number.sum(dim=(-2, -1)).mean()


@ENCODER_NETWORKS.register("gaussian")
class GaussianEncoder(RelationalEncoder):
    """z ~ N(mean, deviation^2), both read out as the paper's z is. Outside training z is the mean.

    Transitions of adjacent spans do not add up: their sum over sqrt(2) is the whole transition.
    """

    def __init__(self, config: TransitionConfig) -> None:
        super().__init__(config)
        self.log_deviation = nn.Linear(config.width, config.latent_dim)

    def distribution(self, frames: Tensor, pairs: Sequence[Pair]) -> Gaussian:
        """Clips (F, B, 3, S, S) in [0, 1] and T pairs of frame indices -> the distributions of
        their transitions, (T, B, K, D).
        """
        _, target = self._read_out(frames, pairs, sorted({i for i, _ in pairs}))
        log_deviation = self.log_deviation(target).float() / MAX_LOG_DEVIATION
        return Gaussian(
            self.head(target).float(), (MAX_LOG_DEVIATION * torch.tanh(log_deviation)).exp()
        )


def gaussian_losses(transitions: Gaussian, relations: bool) -> dict[str, Tensor]:
    """Losses of transitions (T, B, K, D): "kl", and with ``relations``, for which the T pairs are
    those of eq. 3 (ab, bc, ac, ba), "add" and "rev" (eq. 7 between distributions).
    """
    terms = {"kl": transitions.divergence()}
    if relations:
        ab, bc, ac, ba = (
            Gaussian(mean, deviation)
            for mean, deviation in zip(transitions.mean, transitions.deviation, strict=True)
        )
        terms["add"] = ab.then(bc).distance(ac)
        terms["rev"] = ab.reversed().distance(ba)
    return terms
