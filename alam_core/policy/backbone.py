"""What a policy sees and thinks with, behind one interface: the small backbone and pi0 (eq. 13's
network but for its ends).

Letters: B observations, N sequences, N a multiple of B: sequences i * draws .. (i + 1) * draws - 1
belong to observation i. H steps of M modalities, L = H * M tokens, C context tokens, d width, h
heads, c numbers a head.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


@dataclass
class Context:
    """What an observation leaves behind for any number of denoising calls.

    keys: keys and values of each layer, (B, h, C, c) each. mask: (B, C) bool, False where a token
    is padding or of a missing camera; None where all are there.
    """

    keys: list[tuple[Tensor, Tensor]]
    mask: Tensor | None = None


class Tokenizer(Protocol):
    """Reads instructions for a backbone."""

    def __call__(self, instructions: Sequence[str]) -> Tensor:
        """Ids (B, W), int64, or vectors (B, F), as the backbone takes them. Raises UserError for an
        instruction that is empty or too long.
        """
        ...

    def files(self) -> dict[str, str | bytes]:
        """Name -> content of what a checkpoint must keep to read instructions by."""
        ...


class Backbone(nn.Module, ABC):
    """Encodes an observation once, then denoises the interleaved sequence beside it. ``width``: d,
    of a token of the sequence.
    """

    width: int

    def load_pretrained(self) -> str:
        """Put pretrained weights into the parts that have some, before training begins. Returns in
        words what was found, "" without any.
        """
        return ""

    @abstractmethod
    def encode(self, images: Mapping[str, Tensor], state: Tensor, words: Tensor) -> Context:
        """images: view -> (B, 3, S, S) float in [-1, 1]. state: (B, state_dim), normalised. words:
        of its tokenizer.
        """

    @abstractmethod
    def denoise(self, tokens: Tensor, tau: Tensor, context: Context, mask: Tensor) -> Tensor:
        """tokens (N, L, d), tau (N, 1 or H, 1 or M), mask (L, L) bool: the row may look at the
        column -> (N, L, d).
        """

    @abstractmethod
    def input_head(self, width: int) -> nn.Module:
        """A module (x (N, H, width), tau (N, 1 or H, 1)) -> tokens (N, H, d) of one modality."""

    @abstractmethod
    def output_head(self, width: int) -> nn.Module:
        """A module tokens (N, H, d) -> (N, H, width) of one modality, 0 at the start."""
