"""The decoder D (eq. 6): the source's patches and a latent transition in, the target frame out.

Letters: B batch, N patches a frame, d width, K latent tokens, D numbers a token, S image side, p patch side.
"""

import torch
from torch import Tensor, nn

from alam_core.latent_action.config import TransitionConfig


class TransitionDecoder(nn.Module):
    """u_omega(h_psi([f_alpha(z_q), f_beta(X_i)])): source patches attend to one another and, across, to the transition's tokens.

    The pixel decoder predicts the change of each patch and starts at zero, so that an untrained model copies the source frame.
    """

    def __init__(self, config: TransitionConfig) -> None:
        super().__init__()
        width = config.width
        self.f_alpha = nn.Linear(config.latent_dim, width)
        self.f_beta = nn.Linear(width, width)
        self.token = nn.Parameter(0.5 * torch.randn(config.latent_tokens, width))
        self.position = nn.Parameter(0.5 * torch.randn(config.patches, width))
        self.cross = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(width, config.heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True),
            config.decoder_layers,
            norm=nn.LayerNorm(width),
        )
        self.pixels = nn.Sequential(nn.Linear(width, 3 * config.patch_size**2), nn.Unflatten(2, (3, config.patch_size, config.patch_size)))
        nn.init.zeros_(self.pixels[0].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.pixels[0].bias)  # type: ignore[arg-type]

    def forward(self, source: Tensor, source_tokens: Tensor, z: Tensor) -> Tensor:
        """source (B, 3, S, S) in [0, 1], its patch tokens (B, N, d), z (B, K, D) -> predicted target (B, 3, S, S), not clamped."""
        transition = self.f_alpha(z) + self.token
        patches = self.pixels(self.cross(self.f_beta(source_tokens) + self.position, transition))  # (B, N, 3, p, p)
        side = source.shape[-1] // patches.shape[-1]
        change = patches.unflatten(1, (side, side)).permute(0, 3, 1, 4, 2, 5).reshape(source.shape)
        return source + change
