"""Draws frame triplets (O_a, O_b, O_c), a < b < c (eq. 3). A draw depends only on the random
generator.

Letters: N frames, E episodes of a source, R (source, episode) rows of a sampler, B batch, S image
side in px.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from alam_core.errors import UserError


class Frames(Protocol):
    """A video source, such as ``FrameStore`` or ``OnDemandFrames`` of ``alam_core.data.frames``."""

    @property
    def array(self) -> Any: ...  # rows (N,) -> uint8 RGB (N, S, S, 3), by array[rows]

    starts: np.ndarray  # int64 (E,), first row of each episode
    lengths: np.ndarray  # int64 (E,)


@dataclass
class GapConfig:
    """Gaps between the frames of a triplet.

    Args:
        kind: "uniform": b - a and c - b are drawn uniformly from 1 to ``frames`` (Appendix A).
            "fixed": both are ``frames`` (the probes' {k, 2k}, Section 4.1).
        frames: the largest or fixed gap, in strides (frames if the stride is 1).
    """

    kind: Literal["uniform", "fixed"] = "uniform"
    frames: int = 16

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise UserError(f"gaps.frames is {self.frames}: it must be 1 or more")


def frames_needed(gaps: GapConfig, stride: int = 1) -> int:
    """Length of the shortest episode that a triplet can be drawn from, in frames."""
    return 2 * stride * (1 if gaps.kind == "uniform" else gaps.frames) + 1


class TripletSampler:
    """Draws triplets from the given episodes of several sources (views of a data set). Episodes are
    drawn in proportion to their length.

    stride: frames of a source per unit of ``gaps``. Episodes that are too short for the smallest
    gaps are left out; in an episode that is too short for the largest gaps, gaps are drawn from
    those that fit. Raises UserError if no episode is left.
    """

    def __init__(
        self, sources: Sequence[Frames], episodes: np.ndarray, gaps: GapConfig, stride: int = 1
    ) -> None:
        self.sources, self.gaps = list(sources), gaps
        least = frames_needed(gaps, stride)
        kept = [np.asarray(episodes)[source.lengths[episodes] >= least] for source in sources]
        self.rows = np.concatenate(
            [np.stack([np.full(len(own), s), own], 1) for s, own in enumerate(kept)]
        )  # (R, 2): source, episode
        if not len(self.rows):
            raise UserError(
                f"no episode has the {least} frames that a triplet needs: choose smaller gaps or "
                "other data"
            )
        self.lengths = np.concatenate(
            [source.lengths[own] for source, own in zip(sources, kept, strict=True)]
        )  # (R,)
        self.starts = np.concatenate(
            [source.starts[own] for source, own in zip(sources, kept, strict=True)]
        )  # (R,)
        self.strides = np.full(len(self.rows), stride)
        self.parts = np.zeros(len(sources), int)  # part that each source belongs to
        # A triplet is drawn by a number in [0, 1): upper end of each row's interval, (R,), and of
        # each part's.
        self._bounds = np.cumsum(self.lengths / self.lengths.sum())
        self._ends = np.array([1.0])

    @classmethod
    def mix(
        cls, samplers: "Sequence[TripletSampler]", weights: Sequence[float]
    ) -> "TripletSampler":
        """One sampler that draws from ``samplers``, which become its parts, with probabilities
        proportional to ``weights``.
        """
        mixed = cls.__new__(cls)
        mixed.gaps = samplers[0].gaps
        mixed.sources = [source for sampler in samplers for source in sampler.sources]
        first = np.cumsum([0, *(len(sampler.sources) for sampler in samplers)])
        mixed.rows = np.concatenate(
            [sampler.rows + [number, 0] for sampler, number in zip(samplers, first, strict=False)]
        )
        mixed.lengths, mixed.starts, mixed.strides = (
            np.concatenate([getattr(sampler, name) for sampler in samplers])
            for name in ("lengths", "starts", "strides")
        )
        mixed.parts = np.repeat(
            np.arange(len(samplers)), [len(sampler.sources) for sampler in samplers]
        )
        mixed._ends = np.cumsum(np.asarray(weights, float) / np.sum(weights))
        lower = [0.0, *mixed._ends[:-1]]
        mixed._bounds = np.concatenate(
            [
                low + (high - low) * sampler._bounds
                for sampler, low, high in zip(samplers, lower, mixed._ends, strict=True)
            ]
        )
        return mixed

    def draw(self, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """``batch`` triplets: the source of each (B,), and its rows in that source (B, 3)."""
        return self._triplets(rng.random(batch), rng)

    def redraw(self, source: int, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        """Another triplet from the same part as ``source``: its source, and its three rows (3,)."""
        part = self.parts[source]
        low = self._ends[part - 1] if part else 0.0
        sources, rows = self._triplets(low + (self._ends[part] - low) * rng.random(1), rng)
        return int(sources[0]), rows[0]

    def episode(self, source: int, row: int) -> int:
        """The episode that a row of a source belongs to."""
        return int(np.searchsorted(self.sources[source].starts, row, side="right")) - 1

    def evenly_spaced(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """At most ``most`` triplets with both gaps ``gaps.frames``, evenly spaced over the
        episodes; the same at every call. The result is as in ``draw``.
        """
        gaps = self.gaps.frames * self.strides
        places = np.maximum(self.lengths - 2 * gaps, 0)  # (R,) first frames to choose from
        total = int(places.sum())
        picked = np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(int))
        row = np.searchsorted(np.cumsum(places), picked, side="right")
        first = self.starts[row] + picked - (np.cumsum(places) - places)[row]
        return self.rows[row, 0], first[:, None] + gaps[row, None] * np.arange(3)

    def frames(self, sources: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Triplets as uint8 RGB (3, B, S, S, 3): all a, all b, all c."""
        return np.stack(
            [self.sources[s].array[own] for s, own in zip(sources, rows, strict=True)], axis=1
        )

    def _triplets(
        self, place: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Triplets from the rows whose intervals contain ``place`` (B,), numbers in [0, 1)."""
        choice = np.minimum(np.searchsorted(self._bounds, place, side="right"), len(self.rows) - 1)
        length, stride = self.lengths[choice], self.strides[choice]
        if self.gaps.kind == "uniform":
            most = np.minimum(self.gaps.frames, (length - 1) // (2 * stride))
            gaps = rng.integers(1, most[:, None] + 1, size=(len(choice), 2))
        else:
            gaps = np.full((len(choice), 2), self.gaps.frames)
        gaps = gaps * stride[:, None]
        first = self.starts[choice] + rng.integers(0, length - gaps.sum(axis=1))
        return self.rows[choice, 0], first[:, None] + np.cumsum(
            np.pad(gaps, ((0, 0), (1, 0))), axis=1
        )
