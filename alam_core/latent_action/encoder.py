"""The relational encoder E (eq. 1, 4): two frames in, a latent transition out.

Letters: B batch, N patches a frame, d width, K latent tokens, D numbers a token, S image side.
"""

import torch
from torch import Tensor, nn

from alam_core.latent_action.config import TransitionConfig


class PatchTokenizer(nn.Module):
    """f_patch of one frame: images (B, 3, S, S) in [0, 1], or differences of them, to patch tokens (B, N, d)."""

    def __init__(self, config: TransitionConfig, gain: float, centre: float) -> None:
        super().__init__()
        self.gain, self.centre = gain, centre
        self.project = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.project(self.gain * (images - self.centre)).flatten(2).transpose(1, 2)


class RelationalEncoder(nn.Module):
    """g_phi(f_theta([Q || f_patch(O_i, O_j)])^query): queries and the patches of both frames attend to one another, all to all.

    The frames' tokens come from outside, because the decoder needs the source's too and a triplet's frames are each in several pairs.
    """

    def __init__(self, config: TransitionConfig) -> None:
        super().__init__()
        width = config.width
        self.difference = PatchTokenizer(config, config.difference_gain, 0.0) if config.difference_gain > 0 else None
        # Larger than the usual 0.02: with small ones every query reads the same average and z becomes a constant.
        self.queries = nn.Parameter(torch.randn(config.latent_tokens, width))
        self.position = nn.Parameter(0.5 * torch.randn(config.patches, width))
        self.time = nn.Parameter(0.5 * torch.randn(2, 1, width))
        self.transformer = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, config.heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True),
            config.encoder_layers,
            norm=nn.LayerNorm(width),
            enable_nested_tensor=False,
        )
        self.head = nn.Linear(width, config.latent_dim)

    def forward(self, source: Tensor, target: Tensor, source_tokens: Tensor, target_tokens: Tensor) -> Tensor:
        """source, target (B, 3, S, S) in [0, 1] and their patch tokens (B, N, d) -> z (B, K, D)."""
        first = source_tokens + self.position + self.time[0]
        second = target_tokens + self.position + self.time[1]
        if self.difference is not None:
            second = second + self.difference(target - source)
        queries = self.queries.expand(len(first), -1, -1)
        joint = self.transformer(torch.cat([queries, first, second], dim=1))  # (B, K + 2N, d)
        return self.head(joint[:, : queries.shape[1]])
