"""The codebook q (eq. 5), a bottleneck of pretraining only: entries follow the latents by a moving average, not by gradients.

Letters: B batch, K latent tokens, D numbers a token.
"""

from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

from alam_core.latent_action.config import TransitionConfig


class Quantizer(nn.Module):
    """EMA vector quantisation with straight-through gradients.

    k-means on the first latents that come in training places the codebook. Entries that hardly any latent chooses are moved onto
    latents of the current batch. In training mode each call moves the codebook.
    """

    def __init__(self, config: TransitionConfig) -> None:
        super().__init__()
        self.vq = VectorQuantize(
            config.latent_dim,
            config.codebook_size,
            decay=config.codebook_decay,
            kmeans_init=True,
            threshold_ema_dead_code=0.02,
            rotation_trick=False,
        )

    @property
    def codebook(self) -> Tensor:
        """(codebook_size, D)."""
        return self.vq.codebook

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, K, D) -> z_q (B, K, D), whose gradient goes to z, and code indices (B, K)."""
        z_q, codes, _ = self.vq(z)
        return z_q, codes
