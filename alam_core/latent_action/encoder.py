"""The encoder E (eq. 1, 4): frames in, latent transitions z out.

The paper's network and three variations, found by name in ``ENCODER_NETWORKS``. They differ in
which identities of eq. 2, composition and reversal, are exact by construction:

- "relational": z = E(i, j), as in the paper. Neither is exact.
- "residual": z = f(j) - f(i) + E(i, j), f and E being two heads of one network. Neither is exact,
  but training starts at f(j) - f(i), where both are.
- "antisymmetric": z = (E(i, j) - E(j, i)) / 2. Reversal is exact.
- "potential": z = f(j) - f(i), f being the network applied to a single frame. Both are exact.

Letters: F frames of a clip, B batch, T transitions of a call, K latent tokens, D numbers per token,
N patches of a frame, L = K + N, d width, S image side.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from alam_core.latent_action.config import ENCODER_NETWORKS, TransitionConfig
from alam_core.latent_action.layers import SpatioTemporalBlock, TokenEmbedding, patchify

Pair = tuple[int, int]  # indices of the source and the target frame in a clip


class PotentialDifference(nn.Module):
    """z = f(j) - f(i), f being a function of a single frame, the potential: reversal and
    composition are exact.
    """

    exact: ClassVar[bool] = True  # whether transitions add up by construction

    def forward(self, frames: Tensor, pairs: Sequence[Pair]) -> Tensor:
        """Clips (F, B, 3, S, S) in [0, 1] and T pairs of frame indices -> z (T, B, K, D), float32,
        one transition per pair.
        """
        potential = self.potential(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return torch.stack([potential[j] - potential[i] for i, j in pairs])

    @abstractmethod
    def potential(self, images: Tensor) -> Tensor:
        """f of single frames (B, 3, S, S) -> (B, K, D), float32."""


@ENCODER_NETWORKS.register("relational")
class RelationalEncoder(nn.Module):
    """z = E(i, j): a spatio-temporal Transformer over [queries, patches] of two frames; z is read
    out at the target frame's queries (eq. 4).

    Attention in time is causal: the target's tokens attend to the source's, not the reverse. A
    source frame is therefore computed once for all transitions that start from it.
    """

    exact: ClassVar[bool] = False
    relates: ClassVar[bool] = True  # whether frames are encoded in pairs

    def __init__(self, config: TransitionConfig) -> None:
        super().__init__()
        self.config = config
        numbers = 3 * config.patch_size**2
        # The queries have the size of a patch and share its embedding.
        self.queries = nn.Parameter(torch.empty(config.latent_tokens, numbers).uniform_(-1, 1))
        self.embed = TokenEmbedding(
            numbers, config.width, config.latent_tokens + config.patches, config.embed_norm
        )
        sees_change = config.difference_gain > 0 and self.relates
        self.embed_change = nn.Linear(numbers, config.width, bias=False) if sees_change else None
        self.blocks = nn.ModuleList(
            SpatioTemporalBlock(config.width, config.heads) for _ in range(config.encoder_layers)
        )
        self.head = nn.Linear(config.width, config.latent_dim)

    def forward(self, frames: Tensor, pairs: Sequence[Pair]) -> Tensor:
        """Clips (F, B, 3, S, S) in [0, 1] and T pairs of frame indices -> z (T, B, K, D), float32,
        one transition per pair.
        """
        _, target = self._read_out(frames, pairs, sorted({i for i, _ in pairs}))
        return self.head(target).float()

    def _read_out(
        self, frames: Tensor, pairs: Sequence[Pair], alone: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """The last block's output at the queries, twice: for each frame of ``alone``, encoded by
        itself, (len(alone), B, K, d), and for each pair's target, encoded together with its source,
        (T, B, K, d).

        alone: frame indices in ascending order, among them the sources of all pairs.
        """
        batch = frames.shape[1]
        tokens = self._tokens(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])  # (F, B, L, d)
        source = tokens[list(alone)].flatten(0, 1)
        target = tokens[[j for _, j in pairs]]  # (T, B, L, d)
        if self.embed_change is not None:
            change = frames[[j for _, j in pairs]] - frames[[i for i, _ in pairs]]
            patches = patchify(
                self.config.difference_gain * change.flatten(0, 1), self.config.patch_size
            )
            change_tokens = self.embed_change(patches).unflatten(0, target.shape[:2])
            queries, own = target.split([self.config.latent_tokens, self.config.patches], dim=2)
            target = torch.cat([queries, own + change_tokens], dim=2)

        # Index of each target's source in ``source``: (T * B,).
        first = torch.tensor([alone.index(i) for i, _ in pairs], device=frames.device)
        rows = (first[:, None] * batch + torch.arange(batch, device=frames.device)).flatten()
        target = target.flatten(0, 1)
        for block in self.blocks[:-1]:
            source, target = block(source, target, rows)
        source, target = self.blocks[-1](source, target, rows, self.config.latent_tokens)
        return source.unflatten(0, (-1, batch)), target.unflatten(0, (-1, batch))

    def _tokens(self, images: Tensor) -> Tensor:
        """[Q || f_patch(O)] (eq. 4) of images (B, 3, S, S) -> (B, L, d)."""
        patches = patchify(self.config.input_gain * (images - 0.5), self.config.patch_size)
        return self.embed(torch.cat([self.queries.expand(len(images), -1, -1), patches], dim=1))


@ENCODER_NETWORKS.register("residual")
class ResidualEncoder(RelationalEncoder):
    """z = f(j) - f(i) + E(i, j), where f and E are two heads of one network.

    E's head starts at zero, so that the relational part is used only if it lowers the loss.
    """

    def __init__(self, config: TransitionConfig) -> None:
        super().__init__(config)
        self.skip = nn.Linear(config.width, config.latent_dim, bias=False)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, frames: Tensor, pairs: Sequence[Pair]) -> Tensor:
        """See ``RelationalEncoder.forward``."""
        used = sorted({frame for pair in pairs for frame in pair})
        alone, target = self._read_out(frames, pairs, used)
        potential = self.skip(alone).float()  # (U, B, K, D), U frames used
        source_rows = [used.index(i) for i, _ in pairs]
        target_rows = [used.index(j) for _, j in pairs]
        return self.head(target).float() + potential[target_rows] - potential[source_rows]


@ENCODER_NETWORKS.register("antisymmetric")
class AntisymmetricEncoder(RelationalEncoder):
    """z = (E(i, j) - E(j, i)) / 2: reversal is exact."""

    def forward(self, frames: Tensor, pairs: Sequence[Pair]) -> Tensor:
        """See ``RelationalEncoder.forward``."""
        both = sorted({(i, j) for i, j in pairs} | {(j, i) for i, j in pairs})
        z = dict(zip(both, super().forward(frames, both), strict=True))
        return torch.stack([(z[i, j] - z[j, i]) / 2 for i, j in pairs])


@ENCODER_NETWORKS.register("potential")
class PotentialEncoder(PotentialDifference, RelationalEncoder):
    """z = f(j) - f(i), where f is the network applied to a single frame."""

    relates = False

    def __init__(self, config: TransitionConfig) -> None:
        super().__init__(config)
        # With a single frame, attention in time has one key: query and key have no effect.
        for name, weight in self.blocks.named_parameters():
            weight.requires_grad_("temporal.query" not in name and "temporal.key" not in name)

    def potential(self, images: Tensor) -> Tensor:
        """f of single frames (B, 3, S, S) -> (B, K, D)."""
        tokens = self._tokens(images)
        none = tokens[:0]
        for block in self.blocks[:-1]:
            tokens, none = block(tokens, none, none)
        tokens, _ = self.blocks[-1](tokens, none, none, self.config.latent_tokens)
        return self.head(tokens).float()
