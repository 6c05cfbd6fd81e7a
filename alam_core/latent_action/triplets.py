"""Frame triplets (O_a, O_b, O_c), a < b < c, of eq. 3 from decoded video; the draw is a function of the generator alone.

Letters: F frames of a source, B batch, S image side.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from alam_core.errors import UserError


class Frames(Protocol):
    """Decoded video: ``alam_core.data.frames.FrameStore``, or anything like it."""

    array: np.ndarray  # uint8 RGB (F, S, S, 3)
    starts: np.ndarray  # int64 (E,), first row of each episode
    lengths: np.ndarray  # int64 (E,)


@dataclass
class GapConfig:
    """How far apart the frames of a triplet are.

    Args:
        kind: "uniform": b - a and c - b drawn from 1 to ``frames`` (Appendix A). "fixed": both are ``frames`` (Section 4.1's {k, 2k}).
        frames: see kind, in frames of the data set.
    """

    kind: str = "uniform"
    frames: int = 16

    def __post_init__(self) -> None:
        if self.kind not in ("uniform", "fixed"):
            raise UserError(f"gaps.kind is '{self.kind}': choose uniform or fixed")
        if self.frames < 1:
            raise UserError(f"gaps.frames is {self.frames}: it must be 1 or more")


def split_episodes(episodes: int, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the training and of the held-out episodes, both in ascending order; at least one of each.

    Raises UserError where there are fewer than two episodes or the share is not between 0 and 1.
    """
    if episodes < 2:
        raise UserError(f"{episodes} episode(s) cannot be split: at least 2 are needed, one of them held out")
    if not 0 < share < 1:
        raise UserError(f"a share of {share} cannot be held out: give one between 0 and 1")
    held = int(np.clip(round(share * episodes), 1, episodes - 1))
    order = np.random.default_rng([seed, episodes]).permutation(episodes)
    return np.sort(order[held:]), np.sort(order[:held])


class TripletSampler:
    """Draws triplets from the given episodes of several sources (views of a data set), each frame alike likely to be near.

    Episodes of fewer than three frames are left out; where one is too short for the gaps drawn, they are drawn from what fits.
    Raises UserError when no episode is left.
    """

    def __init__(self, sources: list[Frames], episodes: np.ndarray, gaps: GapConfig) -> None:
        self.sources, self.gaps = sources, gaps
        least = 3 if gaps.kind == "uniform" else 2 * gaps.frames + 1
        rows = [(s, e) for s, source in enumerate(sources) for e in episodes if source.lengths[e] >= least]
        if not rows:
            raise UserError(f"no episode has the {least} frames that a triplet needs: choose smaller gaps or other data")
        self.rows = np.array(rows)  # (source, episode)
        self.lengths = np.array([sources[s].lengths[e] for s, e in rows])
        self.share = self.lengths / self.lengths.sum()

    def draw(self, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Source of each of ``batch`` triplets (B,), and its three rows in that source's array (B, 3)."""
        choice = rng.choice(len(self.rows), size=batch, p=self.share)
        length = self.lengths[choice]
        if self.gaps.kind == "uniform":
            most = np.minimum(self.gaps.frames, (length - 1) // 2)
            gaps = rng.integers(1, most[:, None] + 1, size=(batch, 2))
        else:
            gaps = np.full((batch, 2), self.gaps.frames)
        first = rng.integers(0, length - gaps.sum(axis=1))
        starts = np.array([self.sources[s].starts[e] for s, e in self.rows[choice]])
        return self.rows[choice, 0], (starts + first)[:, None] + np.cumsum(np.pad(gaps, ((0, 0), (1, 0))), axis=1)

    def spread(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Fixed triplets with both gaps ``gaps.frames``, evenly spread over the episodes, at most ``most``: same layout as ``draw``."""
        gap = self.gaps.frames
        rows = [
            (source, self.sources[source].starts[episode] + first)
            for (source, episode), length in zip(self.rows, self.lengths, strict=True)
            for first in range(0, length - 2 * gap)
        ]
        picked = np.array(rows)[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))]
        return picked[:, 0], picked[:, 1:] + gap * np.arange(3)

    def frames(self, sources: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Triplets as uint8 RGB (3, B, S, S, 3): all a, all b, all c."""
        return np.stack([[self.sources[s].array[row] for s, row in zip(sources, column, strict=True)] for column in rows.T])
