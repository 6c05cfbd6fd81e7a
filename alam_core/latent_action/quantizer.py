"""The codebook q (eq. 5), a bottleneck of pretraining only: entries follow the latents by a moving
average, not by gradients.

Letters: B batch, K latent tokens, D numbers a token.
"""

import torch
from torch import Tensor, distributed, nn
from vector_quantize_pytorch import VectorQuantize

from alam_core.distributed import gather_rows, is_distributed
from alam_core.latent_action.config import TransitionConfig


class Quantizer(nn.Module):
    """EMA vector quantisation with straight-through gradients.

    k-means on the first latents that come in training places the codebook. Entries that hardly any
    latent chooses are moved onto latents of the current batch. In training mode each call moves the
    codebook.

    Where the batch is spread over several processes, the first one does so with the latents of all
    and the others follow it: the codebook, its random draws included, is the one that a single
    process would have.
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
            sync_codebook=False,  # it would draw other samples than a single process does
        )

    @property
    def codebook(self) -> Tensor:
        """(codebook_size, D)."""
        return self.vq.codebook

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, K, D) -> z_q (B, K, D), whose gradient goes to z, and code indices (B, K)."""
        with torch.autocast(
            z.device.type, enabled=False
        ):  # distances and averages in full precision
            z = z.float()
            if self.training and is_distributed():
                return self._together(z)
            z_q, codes, _ = self.vq(z)
            return z_q, codes

    def _together(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``forward`` of this rank's share of the batch."""
        rank, ranks = distributed.get_rank(), distributed.get_world_size()
        everyone = gather_rows(z)
        if rank == 0:
            z_q, codes, _ = self.vq(everyone)
            z_q = z_q.contiguous()
        else:
            z_q, codes = (
                torch.empty_like(everyone),
                torch.empty(everyone.shape[:-1], dtype=torch.long, device=z.device),
            )
        for tensor in (z_q, codes, *self.vq.buffers()):
            distributed.broadcast(tensor, 0)
        return z + (z_q[rank::ranks] - z).detach(), codes[rank::ranks]
