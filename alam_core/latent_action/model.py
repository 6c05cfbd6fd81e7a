"""ALAM's transition model: encoder, codebook and decoder with the five losses (eq. 1 to 9).

Letters: B batch, K latent tokens, D numbers per token, S image side, T transitions. Images are
float in [0, 1], (B, 3, S, S).
"""

import torch
from torch import Tensor

from alam_core.latent_action.config import ENCODER_NETWORKS, TransitionConfig
from alam_core.latent_action.convolutional import ConvolutionalDecoder
from alam_core.latent_action.decoder import TransitionDecoder
from alam_core.latent_action.encoder import PotentialDifference, RelationalEncoder
from alam_core.latent_action.gaussian import Gaussian, GaussianEncoder, gaussian_losses
from alam_core.latent_action.interface import TRANSITION_ENCODERS, TransitionEncoder
from alam_core.latent_action.losses import (
    additivity_residual,
    latent_loss,
    reconstruction_loss,
    reversal_residual,
)
from alam_core.latent_action.perceptual import PerceptualDistance
from alam_core.latent_action.quantizer import Quantizer


@TRANSITION_ENCODERS.register("transition")
class TransitionModel(TransitionEncoder):
    """Latent transitions between frames, and frames from latent transitions.

    Stage 2 uses only ``encode``: the continuous z, before the codebook (Section 3.3).
    """

    kind = "transition"
    config_type = TransitionConfig
    config: TransitionConfig

    def __init__(self, config: TransitionConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: RelationalEncoder | PotentialDifference
        self.encoder = ENCODER_NETWORKS.get(config.encoder)(config)
        self.quantizer = Quantizer(config) if config.codebook_size else None
        self.decoder = {
            "transformer": TransitionDecoder,
            "convolutional": ConvolutionalDecoder,
        }[config.decoder](config)
        self.steps: Tensor  # training steps so far, for the warm-up
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        # In a list, so that its weights are not part of this model's checkpoints; created when a
        # loss first needs it.
        self._perceptual: list[PerceptualDistance] = []

    @property
    def image_size(self) -> int:
        return self.config.image_size

    @property
    def latent_shape(self) -> tuple[int, int]:
        return self.config.latent_tokens, self.config.latent_dim

    @property
    def additive(self) -> bool:
        """True for exact encoders, and if composition consistency (eq. 7) is trained."""
        trained = self.config.variant in ("full", "no_rev") and self.config.losses.add > 0
        return self.encoder.exact or (trained and not isinstance(self.encoder, GaussianEncoder))

    @property
    def codebook_size(self) -> int:
        return self.config.codebook_size

    def encode(self, source: Tensor, target: Tensor) -> Tensor:
        """See ``TransitionEncoder.encode`` (eq. 1, 4)."""
        return self.encoder(torch.stack([source, target]), [(0, 1)])[0].float()

    def decode(self, source: Tensor, z: Tensor) -> Tensor:
        """See ``TransitionEncoder.decode`` (eq. 6, without the codebook)."""
        potential: Tensor | None = None
        if isinstance(self.decoder, ConvolutionalDecoder) and isinstance(
            self.encoder, PotentialDifference
        ):
            potential = self.encoder.potential(source)
        return self._predict(source, z, potential).clamp(0, 1)

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """z (B, K, D) -> z_q (B, K, D) and codes (B, K) (eq. 5); z itself and None during the
        warm-up.
        """
        steps = int(self.steps)
        if (
            self.quantizer is None
            or steps < self.config.warmup_steps
            or (steps == self.config.warmup_steps and not self.training)
        ):
            return z, None
        return self.quantizer(z)

    @property
    def algebra_share(self) -> float:
        """Factor on the weights of the algebraic losses: 0 during the warm-up, then rising linearly
        to 1 over ``ramp_steps``.
        """
        done = int(self.steps) - self.config.warmup_steps
        return (
            min(1.0, max(0.0, done / self.config.ramp_steps))
            if self.config.ramp_steps
            else float(done >= 0)
        )

    def losses(self, a: Tensor, b: Tensor, c: Tensor) -> dict[str, Tensor]:
        """The objective on frame triplets a < b < c, (B, 3, S, S) in [0, 1] each, as scalars.

        "total" is the weighted sum (eq. 9) of "rec", "perc" (eq. 8; only if its weight is above 0),
        "add", "rev" (eq. 7), "vq" (eq. 5) and, for Gaussian transitions, "kl", each on the scale
        that ``LossConfig`` names; the weights of "add" and "rev" are multiplied by
        ``algebra_share``. In training mode, a call counts as a step and updates the codebook.
        """
        config, weights = self.config.losses, self._weights()
        frames = torch.stack([a, b, c])
        forward = [(0, 1), (1, 2)] if self.config.variant == "lam" else [(0, 1), (1, 2), (0, 2)]
        # Eq. 3: three forward pairs and a reversed one.
        pairs = forward if self.config.variant == "lam" else [*forward, (1, 0)]
        potential: Tensor | None = None
        distribution: Gaussian | None = None
        if isinstance(self.encoder, GaussianEncoder):
            distribution = self.encoder.distribution(frames, pairs)
            z = distribution.sample() if self.training else distribution.mean
        elif isinstance(self.encoder, PotentialDifference):
            own = self.encoder.potential(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
            z = torch.stack([own[j] - own[i] for i, j in pairs])  # (T, B, K, D)
            potential = torch.cat([own[i] for i, _ in forward])
        else:
            z = self.encoder(frames, pairs).float()
        z_q, _ = self.quantize(z.flatten(0, 1))
        if self.training:
            self.steps += 1
        source, target = (torch.cat([frames[pair[end]] for pair in forward]) for end in (0, 1))
        prediction = self._predict(source, z_q[: len(source)], potential)

        reference = z.flatten(0, 1)
        terms = {"rec": reconstruction_loss(prediction, target, source, config.reconstruction)}
        if self.quantizer is not None:
            terms["vq"] = latent_loss(reference - z_q.detach(), reference, config.algebra)
        if distribution is not None:
            terms |= gaussian_losses(distribution, self.config.variant != "lam")
        elif self.config.variant != "lam":
            z_ab, z_bc, z_ac, z_ba = z
            terms["add"] = latent_loss(
                additivity_residual(z_ab, z_bc, z_ac), reference, config.algebra
            )
            terms["rev"] = latent_loss(reversal_residual(z_ab, z_ba), reference, config.algebra)
        if config.perc > 0:
            terms["perc"] = self._perceptual_distance(prediction.device)(prediction, target)
        total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        return {"total": total, **terms}

    def _predict(self, source: Tensor, z: Tensor, potential: Tensor | None) -> Tensor:
        """The decoder's image; potential: f of the source, None if the encoder has none."""
        if isinstance(self.decoder, ConvolutionalDecoder):
            return self.decoder(source, z, potential).float()
        return self.decoder(source, z).float()

    def _weights(self) -> dict[str, float]:
        """Weight of each term at the current step, for the row of Table 4 that ``config.variant``
        names.
        """
        config, variant = self.config.losses, self.config.variant
        share = self.algebra_share
        add = 0.0 if variant in ("no_add", "no_rev_add") else share * config.add
        rev = 0.0 if variant in ("no_rev", "no_rev_add") else share * config.rev
        relations = {"add": add, "rev": rev}
        return {
            "rec": config.rec,
            "perc": config.perc,
            **relations,
            "vq": config.vq,
            "kl": config.kl,
        }

    def _perceptual_distance(self, device: torch.device) -> PerceptualDistance:
        if not self._perceptual:
            self._perceptual.append(PerceptualDistance(self.config.losses.perc_net))
        return self._perceptual[0].to(device)
