"""Action chunks on the controller's side: which are refused and why, and where an accepted one
wants the arm at a time.

Letters: H rows of a chunk. Times are seconds on the node's clock. Rows are (7,): six joints in rad,
gripper opening in m.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alam_core.types import JOINT_NAMES

MAX_ROWS = 1000
MAX_DT = 1.0  # s


class ChunkRejected(Exception):
    """A chunk that must not move the arm; the text is the reason."""


@dataclass(frozen=True)
class Chunk:
    """Row i of ``rows`` (H, 7) is due at ``stamp + (i + 1) * dt``."""

    stamp: float
    sequence: int
    dt: float
    rows: np.ndarray

    @property
    def end(self) -> float:
        """When the last row is due."""
        return self.stamp + len(self.rows) * self.dt

    def at(self, time: float) -> np.ndarray:
        """The row (7,) wanted at a time: linear between rows, the first before it is due, the last
        after the end.
        """
        place = (time - self.stamp) / self.dt - 1.0
        last = len(self.rows) - 1
        if place <= 0.0:
            return self.rows[0]
        if place >= last:
            return self.rows[last]
        i = int(place)
        part = place - i
        return (1.0 - part) * self.rows[i] + part * self.rows[i + 1]


def parse_chunk(
    stamp: float,
    sequence: int,
    joint_names: Sequence[str],
    dt: float,
    steps: int,
    positions: Sequence[float],
) -> Chunk:
    """Check the contents of a chunk message and put its columns into the order of JOINT_NAMES.

    Raises ChunkRejected for wrong, missing or repeated names, wrong lengths, a bad dt, or a number
    that is not finite.
    """
    names = list(joint_names)
    if len(set(names)) != len(names):
        raise ChunkRejected(
            f"joint named twice: {', '.join(sorted({n for n in names if names.count(n) > 1}))}"
        )
    if missing := [n for n in JOINT_NAMES if n not in names]:
        raise ChunkRejected(f"missing joints: {', '.join(missing)}")
    if unknown := [n for n in names if n not in JOINT_NAMES]:
        raise ChunkRejected(f"unknown joints: {', '.join(unknown)}")
    if not 1 <= steps <= MAX_ROWS:
        raise ChunkRejected(f"{steps} steps, expected 1 to {MAX_ROWS}")
    if not 0.0 < dt <= MAX_DT:  # also refuses NaN
        raise ChunkRejected(f"dt of {dt} s, expected more than 0 and at most {MAX_DT}")
    if len(positions) != steps * len(names):
        raise ChunkRejected(
            f"{len(positions)} positions, expected {steps} steps x {len(names)} joints"
        )
    rows = np.asarray(positions, dtype=float).reshape(steps, len(names))
    if not np.isfinite(rows).all():
        raise ChunkRejected("a position is not a finite number")
    return Chunk(stamp, sequence, dt, rows[:, [names.index(n) for n in JOINT_NAMES]])


@dataclass(frozen=True)
class ChunkRules:
    """max_age, max_ahead: s a chunk's stamp may lie behind or before the controller's clock."""

    max_age: float = 1.0
    max_ahead: float = 0.1


class ChunkGate:
    """Refuses chunks that are late, early, or replayed."""

    def __init__(self, rules: ChunkRules):
        self._rules = rules
        self.forget()

    def forget(self) -> None:
        """Accept any sequence number next."""
        self._sequence: int | None = None
        self._stamp = 0.0

    def admit(self, chunk: Chunk, now: float, executing: bool) -> None:
        """Raise ChunkRejected or remember the chunk as the newest.

        Sequence numbers must grow. A smaller one is taken for a restarted publisher, and admitted,
        only when no chunk is being executed and its observation is newer than any seen.
        """
        age = now - chunk.stamp
        if age > self._rules.max_age:
            raise ChunkRejected(f"stamp {age:.3f} s old, at most {self._rules.max_age} s allowed")
        if age < -self._rules.max_ahead:
            raise ChunkRejected(
                f"stamp {-age:.3f} s in the future, at most {self._rules.max_ahead} s allowed"
            )
        if now >= chunk.end:
            raise ChunkRejected(
                f"all {len(chunk.rows)} rows expired, the last {now - chunk.end:.3f} s ago"
            )
        if self._sequence is not None and chunk.sequence <= self._sequence:
            restarted = (
                not executing and chunk.sequence < self._sequence and chunk.stamp > self._stamp
            )
            if not restarted:
                raise ChunkRejected(
                    f"sequence {chunk.sequence} replayed, the newest was {self._sequence}"
                )
        self._sequence = chunk.sequence
        self._stamp = chunk.stamp


class Reference:
    """Where the arm is wanted over time: the newest chunk, plus the gap to what was wanted before
    it, faded out.
    """

    def __init__(self, fade: float = 0.15):
        self.fade = fade  # s
        self.chunk: Chunk | None = None
        self._gap = np.zeros(7)
        self._spliced = 0.0

    def splice(self, chunk: Chunk, now: float, present: np.ndarray) -> None:
        """Go on with ``chunk`` from ``now``, continuously.

        The gap is measured to the earlier chunk's reference where there is one, else to ``present``
        (7,), the set-point: a set-point that lags behind under its limits is not re-anchored with
        every chunk.
        """
        before = self.at(now) if self.chunk is not None else present
        self._gap = before - chunk.at(now)
        self._spliced = now
        self.chunk = chunk

    def at(self, time: float) -> np.ndarray:
        """The wanted set-point (7,). Needs a chunk."""
        assert self.chunk is not None
        left = min(1.0, 1.0 - (time - self._spliced) / self.fade)
        wanted = self.chunk.at(time)
        return wanted + self._gap * (left * left * (3.0 - 2.0 * left)) if left > 0.0 else wanted

    def clear(self) -> None:
        self.chunk = None
