"""Grounded transitions: the few action labels there are also train the encoder.

A small decoder reads the mean action between two frames from their transition alone; it sees
neither frame nor state, so that what it needs must be in z. Source: "CLAM: Continuous Latent Action
Models" (arXiv 2505.04999), which trains it together with the encoder. The algebra of z is not
touched: with an exact encoder it stays exact.

Letters: B triplets, L labelled pairs, C cameras with labels, K latent tokens, D numbers per token,
A action width, S image side.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from alam_core.errors import UserError
from alam_core.latent_action.interface import TransitionEncoder


@dataclass
class GroundingConfig:
    """How action labels train the encoder.

    Args:
        weight: weight of the action loss; 0: labels are not used.
        labelled: use the labels of only this many episodes of each instruction; 0 uses all of the
            training set.
        pairs: labelled pairs of frames in a step, for each triplet of the batch.
        hidden: width of the decoder's hidden layer; 0: a linear decoder.
        relative_joints: action dimensions that are taken as differences to the state at the first
            frame, as in training/finetune.py.
    """

    weight: float = 0.0
    labelled: int = 0
    pairs: float = 0.5
    hidden: int = 128
    relative_joints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.weight < 0 or self.labelled < 0 or self.hidden < 0 or self.pairs <= 0:
            raise UserError(
                "grounding: weight, labelled and hidden must not be negative, pairs above 0"
            )


class GroundedModel(nn.Module):
    """A transition model and a decoder of actions for each camera of each source with labels. Only
    the transition model is kept after training.
    """

    def __init__(
        self, transition: TransitionEncoder, config: GroundingConfig, cameras: int, width: int
    ) -> None:
        """cameras: C. width: A, of the widest action."""
        super().__init__()
        self.transition, self.weight = transition, config.weight
        numbers = transition.latent_size

        def decoder() -> nn.Module:
            if not config.hidden:
                return nn.Linear(numbers, width)
            return nn.Sequential(
                nn.Linear(numbers, config.hidden), nn.SiLU(), nn.Linear(config.hidden, width)
            )

        self.decoders = nn.ModuleList(decoder() for _ in range(cameras))

    def forward(
        self,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        first: Tensor,
        second: Tensor,
        camera: Tensor,
        action: Tensor,
        valid: Tensor,
    ) -> dict[str, Tensor]:
        """The transition model's losses on the triplets a < b < c, (B, 3, S, S) each, and "action",
        the mean squared error of normalised actions, which ``total`` includes.

        first, second: labelled pairs, (L, 3, S, S). camera: (L,) int, which decoder reads them.
        action: (L, A), normalised; valid: (L, A) bool, False beyond an action's own width.
        """
        losses = self.transition.losses(a, b, c)
        z = self.transition.encode(first, second).flatten(1)  # (L, K * D)
        # All decoders read all pairs, so that each has a gradient in every process.
        read = torch.stack([decoder(z) for decoder in self.decoders])  # (C, L, A)
        own = read[camera, torch.arange(len(camera), device=camera.device)].float()
        error = (own - action).square() * valid
        losses["action"] = error.sum() / valid.sum().clamp_min(1)
        losses["total"] = losses["total"] + self.weight * losses["action"]
        return losses
