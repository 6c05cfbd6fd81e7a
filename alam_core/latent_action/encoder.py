"""The encoder E (eq. 1, 4): frames in, latent transitions out; relational as in the paper, or with
the algebra of eq. 2 by construction.

Letters: F frames of a clip, B batch, T transitions asked for, K latent tokens, D numbers a token, N
patches a frame, d width, S image side.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from alam_core.latent_action.config import TransitionConfig
from alam_core.latent_action.layers import SpatioTemporalBlock, TokenEmbedding, patchify

Pair = tuple[int, int]  # numbers of source and target frame in a clip


class TransitionEncoder(nn.Module):
    """Spatio-temporal Transformer over [queries, patches] of two frames; z is read at the target
    frame's queries (eq. 4).

    Attention in time is causal: the target's tokens see the source's, not the other way round. A
    source frame is therefore computed once for all transitions that start from it.

    ``config.encoder`` says how z is made of it: "relational": z = E(i, j), as released. Nothing is
    exact. "residual": z = f(j) - f(i) + E(i, j), f and E being two heads of one network. Nothing is
    exact, but what is exact is easy to reach. "antisymmetric": z = (E(i, j) - E(j, i)) / 2, exact
    under reversal. "potential": z = f(j) - f(i), where f is the same network on a single frame:
    exact under reversal and composition.
    """

    def __init__(self, config: TransitionConfig) -> None:
        super().__init__()
        self.config = config
        numbers = 3 * config.patch_size**2
        self.queries = nn.Parameter(
            torch.empty(config.latent_tokens, numbers).uniform_(-1, 1)
        )  # in the space of patches, embedded alike
        self.embed = TokenEmbedding(
            numbers, config.width, config.latent_tokens + config.patches, config.embed_norm
        )
        sees_change = config.difference_gain > 0 and config.encoder != "potential"
        self.embed_change = nn.Linear(numbers, config.width, bias=False) if sees_change else None
        self.blocks = nn.ModuleList(
            SpatioTemporalBlock(config.width, config.heads) for _ in range(config.encoder_layers)
        )
        if config.encoder == "potential":  # over one frame attention in time has nothing to choose
            for name, weight in self.blocks.named_parameters():
                weight.requires_grad_("temporal.query" not in name and "temporal.key" not in name)
        self.head = nn.Linear(config.width, config.latent_dim)
        self.skip = (
            nn.Linear(config.width, config.latent_dim, bias=False)
            if config.encoder == "residual"
            else None
        )
        if (
            self.skip is not None
        ):  # start at the exact part alone; what the relational part adds, it has to be worth
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def forward(self, frames: Tensor, pairs: Sequence[Pair]) -> Tensor:
        """Clips (F, B, 3, S, S) in [0, 1], pairs of frame numbers -> z (T, B, K, D), one transition
        a pair.
        """
        if self.config.encoder == "potential":
            potential = self.potential(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
            return torch.stack([potential[j] - potential[i] for i, j in pairs])
        if self.config.encoder in ("relational", "residual"):
            return self._relate(frames, pairs)
        ordered = sorted({(i, j) for i, j in pairs} | {(j, i) for i, j in pairs})
        z = dict(zip(ordered, self._relate(frames, ordered), strict=True))
        return torch.stack([(z[i, j] - z[j, i]) / 2 for i, j in pairs])

    def potential(self, images: Tensor) -> Tensor:
        """f of single frames (B, 3, S, S) -> (B, K, D)."""
        tokens = self._tokens(images)
        none = tokens[:0]
        for block in self.blocks[:-1]:
            tokens, none = block(tokens, none, none)
        tokens, _ = self.blocks[-1](tokens, none, none, self.config.latent_tokens)
        return self.head(tokens).float()

    def _relate(self, frames: Tensor, pairs: Sequence[Pair]) -> Tensor:
        """E(i, j) of each pair: (F, B, 3, S, S) -> (T, B, K, D)."""
        batch = frames.shape[1]
        used = sorted(
            {frame for pair in pairs for frame in (pair if self.skip is not None else pair[:1])}
        )
        tokens = self._tokens(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])  # (F, B, L, d)
        source = tokens[used].flatten(0, 1)
        target = tokens[[j for _, j in pairs]]  # (T, B, L, d)
        if self.embed_change is not None:
            change = frames[[j for _, j in pairs]] - frames[[i for i, _ in pairs]]
            patches = patchify(
                self.config.difference_gain * change.flatten(0, 1), self.config.patch_size
            )
            change_tokens = self.embed_change(patches).unflatten(0, target.shape[:2])
            target = torch.cat(
                [
                    target[:, :, : self.config.latent_tokens],
                    target[:, :, self.config.latent_tokens :] + change_tokens,
                ],
                dim=2,
            )

        def rows(numbers: Sequence[int]) -> Tensor:
            """Where these frames of every clip stand in ``source``: (T * B,)."""
            places = torch.tensor([used.index(number) for number in numbers], device=frames.device)
            return (places[:, None] * batch + torch.arange(batch, device=frames.device)).flatten()

        of = rows([i for i, _ in pairs])
        target = target.flatten(0, 1)
        for block in self.blocks[:-1]:
            source, target = block(source, target, of)
        source, target = self.blocks[-1](source, target, of, self.config.latent_tokens)
        z = self.head(target).float()
        if self.skip is not None:
            potential = self.skip(source).float()
            z = z + potential[rows([j for _, j in pairs])] - potential[of]
        return z.unflatten(0, (len(pairs), batch))

    def _tokens(self, images: Tensor) -> Tensor:
        """[Q || f_patch(O)] (eq. 4) of images (B, 3, S, S) -> (B, K + N, d)."""
        patches = patchify(self.config.input_gain * (images - 0.5), self.config.patch_size)
        return self.embed(torch.cat([self.queries.expand(len(images), -1, -1), patches], dim=1))
