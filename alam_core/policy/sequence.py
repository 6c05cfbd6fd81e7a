"""The interleaved sequence [z_1^view1, z_1^view2, u_1, ..., z_H^view1, z_H^view2, u_H] (eq. 11) and
who may look at whom in it.

Letters: B batch, H chunk length, V latent views, M = V + 1 modalities, L = H * M tokens, d token
width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from alam_core.errors import UserError

ACTION = "action"
MASKS = ("own_step", "past_latents", "block_causal")


@dataclass(frozen=True)
class Layout:
    """Order and visibility of the tokens. ``views`` may be empty: then the sequence is the actions
    alone.

    An action sees every token before it and itself. What a latent sees is ``mask``, where the paper
    says that the latents of a step attend to each other and are isolated from actions, and leaves
    earlier steps open:
        "own_step": the latents of its step. "past_latents": those of earlier steps too, so that
        transitions can form a trajectory whose parts add up. "block_causal": all of the earlier
        steps, their actions too, as in the released code.
    """

    views: tuple[str, ...]
    horizon: int
    mask: str = "past_latents"

    def __post_init__(self) -> None:
        if self.mask not in MASKS:
            raise UserError(f"mask is '{self.mask}': choose one of {', '.join(MASKS)}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the streams in the order they have within a step; the action comes last."""
        return (*self.views, ACTION)

    @property
    def length(self) -> int:
        return self.horizon * len(self.modalities)

    def pack(self, streams: Mapping[str, Tensor]) -> Tensor:
        """One (B, H', d) tensor a modality into the sequence (B, H' * M, d), H' <= H. Raises
        KeyError for a missing modality.
        """
        stacked = torch.stack([streams[name] for name in self.modalities], dim=2)  # (B, H', M, d)
        return stacked.flatten(1, 2)

    def unpack(self, sequence: Tensor) -> dict[str, Tensor]:
        """The inverse of ``pack``: (B, H' * M, d) into one (B, H', d) tensor a modality."""
        steps = sequence.unflatten(1, (-1, len(self.modalities)))  # (B, H', M, d)
        return dict(zip(self.modalities, steps.unbind(2), strict=True))

    def attention_mask(self, actions_see_latents: bool = True) -> Tensor:
        """(L, L) bool, True where the row's token may look at the column's token; its corner (H' *
        M, H' * M) is that of a shorter chunk.

        The relation is transitive, so it holds through any number of layers. actions_see_latents:
        False is the intervention of Appendix F that cuts the actions off.
        """
        tokens = torch.arange(self.length)
        step = tokens // len(self.modalities)
        is_action = tokens % len(self.modalities) == len(self.views)
        from_action, to_action = is_action[:, None], is_action[None, :]
        same, earlier = step[:, None] == step[None, :], step[None, :] < step[:, None]
        latents_see = {
            "own_step": ~to_action & same,
            "past_latents": ~to_action & (same | earlier),
            "block_causal": earlier | (~to_action & same),
        }[self.mask]
        actions_see = (same | earlier) & (to_action | actions_see_latents)
        return torch.where(from_action, actions_see, latents_see)
