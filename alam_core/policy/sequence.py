"""The interleaved sequence [z_1^view1, z_1^view2, u_1, ..., z_H^view1, z_H^view2, u_H] (eq. 11) and who may look at whom in it.

Letters: B batch, H chunk length, V latent views, L = H * (V + 1) tokens, d token width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

ACTION = "action"


@dataclass(frozen=True)
class Layout:
    """Order of the tokens. ``views`` may be empty: then the sequence is the actions alone.

    latents_see_past: whether the latents of a step also see those of earlier steps. The paper says that the latents of a step attend
    to each other and are isolated from actions, and leaves earlier latents open. Default True: the transitions form a trajectory
    whose parts must add up, which a token that sees only its own step cannot know.
    """

    views: tuple[str, ...]
    horizon: int
    latents_see_past: bool = True

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the streams in the order they have within a step; the action comes last."""
        return (*self.views, ACTION)

    @property
    def length(self) -> int:
        return self.horizon * len(self.modalities)

    def pack(self, streams: Mapping[str, Tensor]) -> Tensor:
        """One (B, H, d) tensor a modality into the sequence (B, L, d). Raises KeyError for a missing modality."""
        stacked = torch.stack([streams[name] for name in self.modalities], dim=2)  # (B, H, V + 1, d)
        return stacked.flatten(1, 2)

    def unpack(self, sequence: Tensor) -> dict[str, Tensor]:
        """The inverse of ``pack``: (B, L, d) into one (B, H, d) tensor a modality."""
        steps = sequence.unflatten(1, (-1, len(self.modalities)))  # (B, H, V + 1, d)
        return dict(zip(self.modalities, steps.unbind(2), strict=True))

    def attention_mask(self) -> Tensor:
        """(L, L) bool, True where the row's token may look at the column's token.

        A latent sees the latents of its step (and of earlier steps, see ``latents_see_past``), never an action. An action sees every
        token before it and itself. The relation is transitive, so it holds through any number of layers.
        """
        tokens = torch.arange(self.length)
        step = tokens // len(self.modalities)
        is_action = tokens % len(self.modalities) == len(self.views)
        row_step, column_step = step[:, None], step[None, :]
        among_latents = ~is_action[:, None] & ~is_action[None, :]
        allowed_steps = column_step <= row_step if self.latents_see_past else column_step == row_step
        before = tokens[None, :] <= tokens[:, None]
        return (among_latents & allowed_steps) | (is_action[:, None] & before)
