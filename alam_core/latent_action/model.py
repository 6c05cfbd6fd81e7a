"""The transition model of stage 1: encoder, codebook and decoder with the five losses (eq. 1 to 9).

Letters: B batch, K latent tokens, D numbers a token, S image side. Images inside are float in [0,
1], (B, 3, S, S).
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from alam_core.checkpoints import load_tensors, read_checkpoint, save_checkpoint
from alam_core.config import from_dict, to_dict
from alam_core.latent_action.config import TransitionConfig
from alam_core.latent_action.decoder import TransitionDecoder
from alam_core.latent_action.encoder import TransitionEncoder
from alam_core.latent_action.losses import (
    additivity_residual,
    latent_loss,
    reconstruction_loss,
    reversal_residual,
)
from alam_core.latent_action.perceptual import PerceptualDistance
from alam_core.latent_action.quantizer import Quantizer

KIND = "transition"


class TransitionModel(nn.Module):
    """Latent transitions between frames, and frames from latent transitions.

    Downstream only ``encode`` is used: the continuous z, before the codebook. Calling the model is
    ``losses``.
    """

    def __init__(self, config: TransitionConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = TransitionEncoder(config)
        self.quantizer = Quantizer(config)
        self.decoder = TransitionDecoder(config)
        self.steps: Tensor
        self.register_buffer(
            "steps", torch.zeros((), dtype=torch.long)
        )  # of training, for the warm-up
        # In a list, so that its weights are no part of this model's checkpoints; made by the first
        # loss that needs it.
        self._perceptual: list[PerceptualDistance] = []

    @property
    def latent_size(self) -> int:
        """Numbers in a transition: K * D."""
        return self.config.latent_tokens * self.config.latent_dim

    def encode(self, source: Tensor, target: Tensor) -> Tensor:
        """Transition from ``source`` to ``target``, (B, 3, S, S) in [0, 1] each -> continuous z (B,
        K, D) (eq. 1, 4).
        """
        return self.encoder(torch.stack([source, target]), [(0, 1)])[0].float()

    def decode(self, source: Tensor, z: Tensor) -> Tensor:
        """Frame that z (B, K, D) leads to from ``source`` (B, 3, S, S) -> (B, 3, S, S) in [0, 1]
        (eq. 6, without the codebook).
        """
        return self.decoder(source, z).float().clamp(0, 1)

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """z (B, K, D) -> z_q (B, K, D) and codes (B, K) (eq. 5); z itself and None while the
        warm-up lasts.
        """
        steps = int(self.steps)
        if steps < self.config.warmup_steps or (
            steps == self.config.warmup_steps and not self.training
        ):
            return z, None
        return self.quantizer(z)

    @property
    def algebra_share(self) -> float:
        """Share of their weights that the algebraic losses have by now: 0 during the warm-up, then
        rising to 1 along the ramp.
        """
        done = int(self.steps) - self.config.warmup_steps
        return (
            min(1.0, max(0.0, done / self.config.ramp_steps))
            if self.config.ramp_steps
            else float(done >= 0)
        )

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> dict[str, Tensor]:
        """``losses``, under the name that DDP and autocast act on."""
        return self.losses(a, b, c)

    def losses(self, a: Tensor, b: Tensor, c: Tensor) -> dict[str, Tensor]:
        """The objective on frame triplets a < b < c, (B, 3, S, S) in [0, 1] each, as scalars.

        "total" is the weighted sum (eq. 9) of "rec", "perc" (eq. 8; where it has weight), "add",
        "rev" (eq. 7) and "vq" (eq. 5), each on the scale of ``LossConfig``, add and rev times
        ``algebra_share``. In training mode the step is counted and the codebook moves.
        """
        config, weights = self.config.losses, self._weights()
        frames = torch.stack([a, b, c])
        forward = [(0, 1), (1, 2)] if self.config.variant == "lam" else [(0, 1), (1, 2), (0, 2)]
        pairs = (
            forward if self.config.variant == "lam" else [*forward, (1, 0)]
        )  # eq. 3: three forward pairs, one reversed
        z = self.encoder(frames, pairs).float()  # (T, B, K, D)
        z_q, _ = self.quantize(z.flatten(0, 1))
        if self.training:
            self.steps += 1
        source, target = (torch.cat([frames[pair[end]] for pair in forward]) for end in (0, 1))
        prediction = self.decoder(source, z_q[: len(source)]).float()

        reference = z.flatten(0, 1)
        terms = {
            "rec": reconstruction_loss(prediction, target, source, config.reconstruction),
            "vq": latent_loss(reference - z_q.detach(), reference, config.algebra),
        }
        if self.config.variant != "lam":
            z_ab, z_bc, z_ac, z_ba = z
            terms["add"] = latent_loss(
                additivity_residual(z_ab, z_bc, z_ac), reference, config.algebra
            )
            terms["rev"] = latent_loss(reversal_residual(z_ab, z_ba), reference, config.algebra)
        if config.perc > 0:
            terms["perc"] = self._perceptual_distance(prediction.device)(prediction, target)
        total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        return {"total": total, **terms}

    def _weights(self) -> dict[str, float]:
        """Weight of each term at the present step, for the row of Table 4 that ``config.variant``
        names.
        """
        config, variant = self.config.losses, self.config.variant
        share = self.algebra_share
        add = 0.0 if variant in ("no_add", "no_rev_add") else share * config.add
        rev = 0.0 if variant in ("no_rev", "no_rev_add") else share * config.rev
        return {"rec": config.rec, "perc": config.perc, "add": add, "rev": rev, "vq": config.vq}

    def save_pretrained(self, folder: str | Path, card: str = "") -> Path:
        """Write a model folder (see ``alam_core.checkpoints``); ``card`` is its README.md."""
        return save_checkpoint(
            folder, self, {"kind": KIND, "model": to_dict(self.config)}, card=card
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "TransitionModel":
        """Read a model folder, in eval mode on the CPU. Raises UserError naming what is missing or
        does not fit.
        """
        checkpoint = read_checkpoint(folder, KIND)
        model = cls(
            from_dict(TransitionConfig, checkpoint.config.get("model", {}), f"{folder}/config.json")
        )
        load_tensors(model, checkpoint.tensors, folder)
        return model.eval()

    def _perceptual_distance(self, device: torch.device) -> PerceptualDistance:
        if not self._perceptual:
            self._perceptual.append(PerceptualDistance(self.config.losses.perc_net))
        return self._perceptual[0].to(device)
