"""Draws frame triplets (O_a, O_b, O_c), a < b < c (eq. 3). A draw depends only on the random
generator.

A sampler draws from one or several sources (data sets), each of which has one or several views.
Letters: N frames, E episodes of a view, R (view, episode) pairs of a sampler, B batch, S image side
in px.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from alam_core.errors import UserError


class Frames(Protocol):
    """The frames of one view, such as ``FrameStore`` or ``OnDemandFrames`` of
    ``alam_core.data.frames``.
    """

    @property
    def array(self) -> Any: ...  # rows (N,) -> uint8 RGB (N, S, S, 3), by array[rows]
    @property
    def size(self) -> int: ...  # S

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
    """Draws triplets from the given episodes of one source. Episodes are drawn in proportion to
    their length.

    views: frames of each view. stride: frames per unit of ``gaps``. Episodes that are too short for
    the smallest gaps are left out; in an episode that is too short for the largest gaps, gaps are
    drawn from those that fit. Raises UserError if no episode is left.
    """

    def __init__(
        self, views: Sequence[Frames], episodes: np.ndarray, gaps: GapConfig, stride: int = 1
    ) -> None:
        self.views, self.gaps = list(views), gaps
        least = frames_needed(gaps, stride)
        kept = [np.asarray(episodes)[view.lengths[episodes] >= least] for view in views]
        self.pairs = np.concatenate(
            [np.stack([np.full(len(own), v), own], 1) for v, own in enumerate(kept)]
        )  # (R, 2): view, episode
        if not len(self.pairs):
            raise UserError(
                f"no episode has the {least} frames that a triplet needs: choose smaller gaps or "
                "other data"
            )
        self.lengths = np.concatenate(
            [view.lengths[own] for view, own in zip(views, kept, strict=True)]
        )  # (R,)
        self.starts = np.concatenate(
            [view.starts[own] for view, own in zip(views, kept, strict=True)]
        )  # (R,)
        self.strides = np.full(len(self.pairs), stride)
        self.sources = np.zeros(len(views), int)  # index of the source that each view belongs to
        # A random number in [0, 1) chooses a pair. Each pair and each source has an interval:
        # upper ends of the pairs' intervals, (R,), and of the sources' intervals.
        self._bounds = np.cumsum(self.lengths / self.lengths.sum())
        self._ends = np.array([1.0])

    @classmethod
    def mix(
        cls, samplers: "Sequence[TripletSampler]", weights: Sequence[float]
    ) -> "TripletSampler":
        """One sampler that draws from the sources of ``samplers``, one each, with probabilities
        proportional to ``weights``.
        """
        mixed = cls.__new__(cls)
        mixed.gaps = samplers[0].gaps
        mixed.views = [view for sampler in samplers for view in sampler.views]
        first = np.cumsum([0, *(len(sampler.views) for sampler in samplers)])
        mixed.pairs = np.concatenate(
            [sampler.pairs + [number, 0] for sampler, number in zip(samplers, first, strict=False)]
        )
        mixed.lengths, mixed.starts, mixed.strides = (
            np.concatenate([getattr(sampler, name) for sampler in samplers])
            for name in ("lengths", "starts", "strides")
        )
        mixed.sources = np.repeat(
            np.arange(len(samplers)), [len(sampler.views) for sampler in samplers]
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
        """``batch`` triplets: the view of each (B,), and its rows in that view (B, 3)."""
        return self._triplets(rng.random(batch), rng)

    def redraw(self, view: int, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        """Another triplet from the source that ``view`` belongs to: its view, and its rows (3,)."""
        source = self.sources[view]
        low = self._ends[source - 1] if source else 0.0
        views, rows = self._triplets(low + (self._ends[source] - low) * rng.random(1), rng)
        return int(views[0]), rows[0]

    def episode(self, view: int, row: int) -> int:
        """The episode that a row of a view belongs to."""
        return int(np.searchsorted(self.views[view].starts, row, side="right")) - 1

    def evenly_spaced(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """At most ``most`` triplets with both gaps ``gaps.frames``, evenly spaced over the
        episodes; the same at every call. The result is as in ``draw``.
        """
        gaps = self.gaps.frames * self.strides
        places = np.maximum(self.lengths - 2 * gaps, 0)  # (R,) first frames to choose from
        total = int(places.sum())
        picked = np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(int))
        pair = np.searchsorted(np.cumsum(places), picked, side="right")
        first = self.starts[pair] + picked - (np.cumsum(places) - places)[pair]
        return self.pairs[pair, 0], first[:, None] + gaps[pair, None] * np.arange(3)

    def frames(self, views: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Triplets as uint8 RGB (3, B, S, S, 3): all a, all b, all c."""
        return np.stack(
            [self.views[v].array[own] for v, own in zip(views, rows, strict=True)], axis=1
        )

    def _triplets(
        self, place: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Triplets from the pairs whose intervals contain ``place`` (B,), numbers in [0, 1)."""
        choice = np.minimum(np.searchsorted(self._bounds, place, side="right"), len(self.pairs) - 1)
        length, stride = self.lengths[choice], self.strides[choice]
        if self.gaps.kind == "uniform":
            most = np.minimum(self.gaps.frames, (length - 1) // (2 * stride))
            gaps = rng.integers(1, most[:, None] + 1, size=(len(choice), 2))
        else:
            gaps = np.full((len(choice), 2), self.gaps.frames)
        gaps = gaps * stride[:, None]
        first = self.starts[choice] + rng.integers(0, length - gaps.sum(axis=1))
        return self.pairs[choice, 0], first[:, None] + np.cumsum(
            np.pad(gaps, ((0, 0), (1, 0))), axis=1
        )
