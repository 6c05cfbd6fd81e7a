"""The codebook q (eq. 5), a bottleneck of pretraining only: entries follow the latents by a moving average, not by gradients.

Letters: B batch, K latent tokens, D numbers a token.
"""

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

from alam_core.latent_action.config import TransitionConfig


class Quantizer(nn.Module):
    """EMA vector quantisation with straight-through gradients.

    For the first ``vq_start`` training steps latents pass unchanged; then k-means on a batch of them places the codebook.
    Entries that hardly any latent chooses are moved onto latents of the current batch.
    """

    def __init__(self, config: TransitionConfig) -> None:
        super().__init__()
        self.start = config.vq_start
        self.vq = VectorQuantize(
            config.latent_dim,
            config.codebook_size,
            decay=config.codebook_decay,
            kmeans_init=True,
            threshold_ema_dead_code=0.02,
            rotation_trick=False,
        )
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def codebook(self) -> Tensor:
        """(codebook_size, D)."""
        return self.vq.codebook

    @property
    def bypassed(self) -> bool:
        done = int(self.steps)
        return done < self.start if self.training else done <= self.start

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """z (B, K, D) -> z_q (B, K, D), whose gradient goes to z, and code indices (B, K); (z, None) while bypassed.

        In training mode the step is counted and the codebook moves.
        """
        bypassed = self.bypassed
        if self.training:
            self.steps += 1
        if bypassed:
            return z, None
        z_q, codes, _ = self.vq(z)
        return z_q, codes
