"""The codebook q (eq. 5), a bottleneck in pretraining only. Its entries follow the latents by an
exponential moving average (EMA), not by gradients.

Letters: B batch, K latent tokens, D numbers per token.
"""

import torch
from torch import Tensor, distributed, nn
from vector_quantize_pytorch import VectorQuantize

from alam_core.distributed import gather_rows, is_distributed
from alam_core.latent_action.config import TransitionConfig


class Quantizer(nn.Module):
    """EMA vector quantisation with straight-through gradients.

    The codebook is initialised by k-means on the first latents in training. Entries that are hardly
    ever selected are replaced by latents of the current batch. In training mode, each call updates
    the codebook.

    If several processes (ranks) share the batch, rank 0 updates the codebook with the latents of
    all ranks and broadcasts it: the codebook is that of a single process with the whole batch,
    random draws included.
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
            sync_codebook=False,  # its random draws would differ from a single process's
        )

    @property
    def codebook(self) -> Tensor:
        """(codebook_size, D)."""
        return self.vq.codebook

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, K, D) -> z_q (B, K, D), whose gradient goes to z, and code indices (B, K)."""
        # Distances and averages need full precision.
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            if self.training and is_distributed():
                return self._forward_rank(z)
            z_q, codes, _ = self.vq(z)
            return z_q, codes

    def _forward_rank(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``forward`` for this rank's share of the batch."""
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
