"""Frame triplets (O_a, O_b, O_c), a < b < c, of eq. 3 from decoded video; the draw is a function of
the generator alone.

Letters: F frames of a source, B batch, S image side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from alam_core.errors import UserError


class Frames(Protocol):
    """Video by its frames: ``FrameStore`` or ``OnDemandFrames`` of ``alam_core.data.frames``, or
    anything like them.
    """

    @property
    def array(self) -> Any: ...  # rows (N,) -> uint8 RGB (N, S, S, 3), by array[rows]

    starts: np.ndarray  # int64 (E,), first row of each episode
    lengths: np.ndarray  # int64 (E,)


@dataclass
class GapConfig:
    """How far apart the frames of a triplet are.

    Args:
        kind: "uniform": b - a and c - b drawn from 1 to ``frames`` (Appendix A). "fixed": both are
            ``frames`` (Section 4.1's {k, 2k}).
        frames: see kind, in frames of the data set, or of its stride where that is not 1.
    """

    kind: Literal["uniform", "fixed"] = "uniform"
    frames: int = 16

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise UserError(f"gaps.frames is {self.frames}: it must be 1 or more")


def frames_needed(gaps: GapConfig, stride: int = 1) -> int:
    """The shortest episode that a triplet can be drawn from, in frames."""
    return 2 * stride * (1 if gaps.kind == "uniform" else gaps.frames) + 1


def split_episodes(episodes: int, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the training and of the held-out episodes, both in ascending order; at least one
    of each.

    Raises UserError where there are fewer than two episodes or the share is not between 0 and 1.
    """
    if episodes < 2:
        raise UserError(
            f"{episodes} episode(s) cannot be split: at least 2 are needed, one of them held out"
        )
    if not 0 < share < 1:
        raise UserError(f"a share of {share} cannot be held out: give one between 0 and 1")
    held = int(np.clip(round(share * episodes), 1, episodes - 1))
    order = np.random.default_rng([seed, episodes]).permutation(episodes)
    return np.sort(order[held:]), np.sort(order[:held])


class TripletSampler:
    """Draws triplets from the given episodes of several sources (views of a data set), each frame
    alike likely to be near.

    stride: frames of the source to one of the gaps' units. Episodes that are too short for the
    shortest gaps are left out; where one is too short for the gaps drawn, they are drawn from what
    fits. Raises UserError when no episode is left.
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
                f"no episode has the {least} frames that a triplet needs: choose smaller gaps or other data"
            )
        self.lengths = np.concatenate(
            [source.lengths[own] for source, own in zip(sources, kept, strict=True)]
        )  # (R,)
        self.starts = np.concatenate(
            [source.starts[own] for source, own in zip(sources, kept, strict=True)]
        )  # (R,)
        self.strides = np.full(len(self.rows), stride)
        self.parts = np.zeros(len(sources), int)  # of each source
        self._bounds = np.cumsum(
            self.lengths / self.lengths.sum()
        )  # (R,) where each row's share of [0, 1) ends
        self._ends = np.array([1.0])  # where each part's ends

    @classmethod
    def mix(
        cls, samplers: "Sequence[TripletSampler]", weights: Sequence[float]
    ) -> "TripletSampler":
        """One sampler that draws from each of ``samplers``, called its parts, with a probability
        proportional to its weight.
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
        """Source of each of ``batch`` triplets (B,), and its three rows in that source's array (B,
        3).
        """
        return self._triplets(rng.random(batch), rng)

    def redraw(self, source: int, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        """Another triplet from the part that ``source`` belongs to: its source and its three rows
        (3,).
        """
        part = self.parts[source]
        low = self._ends[part - 1] if part else 0.0
        sources, rows = self._triplets(low + (self._ends[part] - low) * rng.random(1), rng)
        return int(sources[0]), rows[0]

    def episode(self, source: int, row: int) -> int:
        """The episode that a row of a source belongs to."""
        return int(np.searchsorted(self.sources[source].starts, row, side="right")) - 1

    def spread(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Fixed triplets with both gaps ``gaps.frames``, evenly spread over the episodes, at most
        ``most``: same layout as ``draw``.
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
        """Triplets in the episodes at ``place`` (B,), numbers in [0, 1)."""
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
