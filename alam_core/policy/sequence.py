"""The interleaved sequence [z_1^view1, z_1^view2, u_1, ..., z_H^view1, z_H^view2, u_H] (eq. 11) and
its attention mask.

Letters: B batch, H chunk length, H' <= H steps of a shorter chunk, V latent views, M = V + 1
modalities, L = H * M tokens, d token width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

ACTION = "action"  # name of the action's modality
Mask = Literal["own_step", "past_latents", "block_causal"]


@dataclass(frozen=True)
class Layout:
    """Order of the tokens and which of them attend to which.

    ``views``: latent views; if there are none, the sequence consists of actions only. An action
    attends to itself and to every token before it. ``mask`` is what a latent attends to; the paper
    says that the latents of a step attend to each other but not to actions, and leaves earlier
    steps open:

    - "own_step": the latents of its own step.
    - "past_latents": also the latents of earlier steps, so that transitions can form a trajectory
      whose parts add up.
    - "block_causal": also the actions of earlier steps, as in the released code.
    """

    views: tuple[str, ...]
    horizon: int
    mask: Mask = "past_latents"

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities in the order of their tokens within a step; the action comes last."""
        return (*self.views, ACTION)

    @property
    def length(self) -> int:
        return self.horizon * len(self.modalities)

    def pack(self, streams: Mapping[str, Tensor]) -> Tensor:
        """Modality -> (B, H', d) into the sequence (B, H' * M, d). Raises KeyError for a missing
        modality.
        """
        stacked = torch.stack([streams[name] for name in self.modalities], dim=2)  # (B, H', M, d)
        return stacked.flatten(1, 2)

    def unpack(self, sequence: Tensor) -> dict[str, Tensor]:
        """The inverse of ``pack``: (B, H' * M, d) -> modality -> (B, H', d)."""
        steps = sequence.unflatten(1, (-1, len(self.modalities)))  # (B, H', M, d)
        return dict(zip(self.modalities, steps.unbind(2), strict=True))

    def attention_mask(self, actions_see_latents: bool = True) -> Tensor:
        """(L, L) bool, True where the row's token attends to the column's. The upper left (H' * M,
        H' * M) corner is the mask of a shorter chunk.

        The relation is transitive: no number of layers lets a token depend on one that it does not
        attend to. actions_see_latents: False is "block attention" of Appendix F.
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
