"""The decoder D (eq. 6): the source's patches and a latent transition in, the target frame out.

Letters: B batch, N patches of a frame, d width, K latent tokens, D numbers per token, S image side.
"""

import torch
from torch import Tensor, nn

from alam_core.latent_action.config import TransitionConfig
from alam_core.latent_action.layers import SpatialBlock, TokenEmbedding, patchify, unpatchify


class TransitionDecoder(nn.Module):
    """u_omega(h_psi([f_alpha(z_q), f_beta(X_i)])), where h_psi is self-attention over the
    transition's tokens and the source's patches.

    ``config.output`` says what u_omega predicts. "change": the difference to the source frame,
    initialised to 0, so that an untrained model copies the source. "sigmoid": the target frame.
    """

    def __init__(self, config: TransitionConfig) -> None:
        super().__init__()
        self.config = config
        numbers = 3 * config.patch_size**2
        self.f_alpha = nn.Linear(config.latent_dim, config.width)
        self.f_beta = nn.Linear(numbers, config.width)
        self.embed = TokenEmbedding(
            config.width, config.width, config.latent_tokens + config.patches, config.embed_norm
        )
        self.blocks = nn.Sequential(
            *(SpatialBlock(config.width, config.heads) for _ in range(config.decoder_layers))
        )
        self.pixels = nn.Linear(config.width, numbers)
        if config.output == "change":
            nn.init.zeros_(self.pixels.weight)
            nn.init.zeros_(self.pixels.bias)

    def forward(self, source: Tensor, z: Tensor) -> Tensor:
        """source (B, 3, S, S) in [0, 1], z (B, K, D) -> predicted target (B, 3, S, S); with output
        "change" it is not clamped to [0, 1].
        """
        patches = patchify(self.config.input_gain * (source - 0.5), self.config.patch_size)
        tokens = self.blocks(self.embed(torch.cat([self.f_alpha(z), self.f_beta(patches)], dim=1)))
        image = unpatchify(
            self.pixels(tokens[:, z.shape[1] :]), self.config.patch_size, source.shape[-1]
        )
        return source + image if self.config.output == "change" else torch.sigmoid(image)
