"""The interface ``Backbone``: the network that encodes observations and denoises the interleaved
sequence.

A backbone registers a ``BackboneFactory`` in ``BACKBONES`` under the name that ``model.backbone``
takes; the factory imports the network only when it is used.

Letters: B observations, N sequences, N a multiple of B: sequences i * N / B to (i + 1) * N / B - 1
belong to observation i. H steps of M modalities, L = H * M tokens, C context tokens, d width, h
heads, c size of a head, S image side, W words, F width of an instruction vector.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor, nn

from alam_core.errors import UserError
from alam_core.policy.config import BACKBONES, ModelConfig, PolicyConfig


@dataclass
class Context:
    """An encoded observation, reused by any number of denoising calls.

    keys: keys and values of each layer, (B, h, C, c) each. mask: (B, C) bool, False at padding and
    at tokens of a missing camera; None if every token is valid.
    """

    keys: list[tuple[Tensor, Tensor]]
    mask: Tensor | None = None


class Tokenizer(Protocol):
    """Turns instructions into the text input of a backbone."""

    def __call__(self, instructions: Sequence[str]) -> Tensor:
        """Ids (B, W), int64, or vectors (B, F), float32, depending on the backbone.

        Raises UserError for an instruction that is empty or too long.
        """
        ...

    def files(self) -> dict[str, str | bytes]:
        """Name -> content of the files that a checkpoint must contain to restore the tokenizer."""
        ...


class Backbone(nn.Module, ABC):
    """Encodes an observation once, then denoises sequences conditioned on it.

    Starts with random weights. ``width``: d. ``depth``: number of layers that the sequence passes
    through.
    """

    half_precision: ClassVar[bool] = False  # whether inference with bfloat16 weights is supported
    width: int
    depth: int

    def load_pretrained(self) -> str:
        """Load the pretrained weights of those parts that have some. Called before training starts.

        Returns a message about what was loaded, "" if no part has pretrained weights.
        """
        return ""

    def load_published(
        self, path: str | Path, input_head: nn.Module, output_head: nn.Module
    ) -> None:
        """Load published weights of a whole policy into this backbone and the heads of the action.

        path: a file, a folder, or a name on the model hub. Raises UserError if they do not fit, and
        for a backbone without published weights.
        """
        raise UserError(
            f"'{path}' is for pi0, but this policy's backbone has no published weights: give "
            "--model.backbone pi0"
        )

    @abstractmethod
    def encode(
        self,
        images: Mapping[str, Tensor],
        state: Tensor,
        words: Tensor,
        known: Tensor | None = None,
    ) -> Context:
        """images: view -> (B, 3, S, S) float in [-1, 1]; black if the camera is missing. state: (B,
        state_dim), normalised. words: output of the tokenizer. known: (B,) bool, whether a sample's
        state is known; needs ``model.stateless``. None: all are.
        """

    def denoise(self, tokens: Tensor, tau: Tensor, context: Context, mask: Tensor) -> Tensor:
        """The output of the last layer after the final norm, (N, L, d), which the output heads
        read.

        tokens: (N, L, d). tau: flow time in [0, 1], (N, 1 or H, 1 or M). mask: (L, L) bool, True
        where the row's token may attend to the column's.
        """
        return self.denoise_with_hidden(tokens, tau, context, mask, ())[0]

    @abstractmethod
    def denoise_with_hidden(
        self,
        tokens: Tensor,
        tau: Tensor,
        context: Context,
        mask: Tensor,
        layers: Sequence[int],
    ) -> tuple[Tensor, list[Tensor]]:
        """``denoise``, and the sequence's hidden state after each of ``layers``, (N, L, d) each.

        layers: indices from 0 to ``depth`` - 1, or from -``depth`` to -1. The hidden state is a
        layer's output before the final norm; gradients flow through it. Raises IndexError for a
        layer that does not exist.
        """

    @abstractmethod
    def input_head(self, width: int) -> nn.Module:
        """A module (x (N, H, width), tau (N, 1 or H, 1)) -> tokens (N, H, d) of one modality."""

    @abstractmethod
    def output_head(self, width: int) -> nn.Module:
        """A module tokens (N, H, d) -> (N, H, width) of one modality, initialised to return 0."""


def layer_indices(layers: Sequence[int], depth: int) -> list[int]:
    """``layers`` with negative indices counted from the end. Raises IndexError if out of range."""
    for layer in layers:
        if not -depth <= layer < depth:
            raise IndexError(f"layer {layer} of a backbone with {depth} layers")
    return [layer % depth for layer in layers]


class BackboneFactory(ABC):
    """Checks and builds a backbone, and makes its tokenizer, from a policy's configuration."""

    @staticmethod
    @abstractmethod
    def check(model: ModelConfig) -> None:
        """Raises UserError for settings that do not fit this backbone."""

    @staticmethod
    @abstractmethod
    def build(config: PolicyConfig) -> Backbone:
        """The backbone with random weights."""

    @staticmethod
    @abstractmethod
    def tokenizer(model: ModelConfig, folder: str | Path, from_checkpoint: bool) -> Tokenizer:
        """See ``make_tokenizer``."""


def build_backbone(config: PolicyConfig) -> Backbone:
    """The backbone that a policy's configuration names, with random weights."""
    return BACKBONES.get(config.model.backbone).build(config)


def make_tokenizer(
    model: ModelConfig, folder: str | Path = "", from_checkpoint: bool = False
) -> Tokenizer:
    """The tokenizer of the backbone that ``model`` names.

    folder: the policy's checkpoint if ``from_checkpoint``, otherwise a folder of published weights,
    "" for none. Raises UserError if a file that the tokenizer needs is not found.
    """
    return BACKBONES.get(model.backbone).tokenizer(model, folder, from_checkpoint)
