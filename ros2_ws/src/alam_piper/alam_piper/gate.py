"""Which action chunks the controller rejects, and why.

Times are in s on the node's clock. Rows are (7,): six joints in rad, gripper opening in m.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alam_core.robots.piper import JOINT_NAMES
from alam_core.robots.units import likely_units
from alam_core.runtime.motion import MotionLimits
from alam_core.types import ActionChunk

MAX_ROWS = 1000
MAX_DT = 1.0  # s


# By how much a row may exceed the limits before the clamping is news, (7,) rad and m: a policy's
# numbers are never exact, and a gripper rests at the end of its range.
NOISE = np.array([0.01] * 6 + [0.002])


class ChunkRejected(Exception):
    """A chunk must not be executed; the message is the reason."""


def parse_chunk(
    stamp: float,
    sequence: int,
    joint_names: Sequence[str],
    dt: float,
    steps: int,
    positions: Sequence[float],
    first_step: int = 0,
) -> ActionChunk:
    """Check the fields of a chunk message (see ActionChunk.msg) and return it as a chunk with its
    columns in the order of JOINT_NAMES.

    Raises ChunkRejected for wrong, missing or repeated joint names, wrong lengths, a wrong dt, a
    number that is not finite, or a position so far outside a joint's range that its unit must be
    wrong.
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
    if not 0.0 < dt <= MAX_DT:  # also rejects NaN
        raise ChunkRejected(f"dt of {dt} s, expected more than 0 and at most {MAX_DT}")
    if len(positions) != steps * len(names):
        raise ChunkRejected(
            f"{len(positions)} positions, expected {steps} steps x {len(names)} joints"
        )
    rows = np.asarray(positions, dtype=float).reshape(steps, len(names))
    if not np.isfinite(rows).all():
        raise ChunkRejected("a position is not a finite number")
    rows = rows[:, [names.index(n) for n in JOINT_NAMES]]
    if wrong := likely_units(rows):
        raise ChunkRejected(wrong)
    return ActionChunk(rows, dt, stamp, sequence=sequence, first_step=first_step)


def beyond_limits(chunk: ActionChunk, limits: MotionLimits) -> str:
    """Which joints a chunk asks to go beyond their limits, where they are clamped: one line, "" if
    none.
    """
    texts = []
    for name, column, lower, upper, noise in zip(
        JOINT_NAMES, chunk.actions.T, limits.lower, limits.upper, NOISE, strict=True
    ):
        if (low := column.min()) < lower - noise:
            texts.append(f"{name} is clamped from {low:.3f} to {lower:.3f}")
        if (high := column.max()) > upper + noise:
            texts.append(f"{name} is clamped from {high:.3f} to {upper:.3f}")
    return ", ".join(texts)


@dataclass(frozen=True)
class ChunkRules:
    """max_age, max_ahead: s by which a chunk's stamp may be behind or ahead of the controller's
    clock. The last dropped step must not be further ahead than ``max_ahead`` either.
    """

    max_age: float = 1.0
    max_ahead: float = 0.1


class ChunkGate:
    """Rejects chunks that are too old, from the future, expired or repeated, and chunks that lack
    steps which are still to be executed.
    """

    def __init__(self, rules: ChunkRules):
        self._rules = rules
        self.forget()

    def forget(self) -> None:
        """Accept any sequence number next."""
        self._sequence: int | None = None
        self._stamp = 0.0

    def admit(self, chunk: ActionChunk, now: float, executing: bool) -> None:
        """Remember the chunk as the newest, or raise ChunkRejected. executing: whether the arm
        executes a chunk now.

        Sequence numbers must increase. A smaller one means a restarted publisher; it is admitted
        only if no chunk is being executed and the chunk's stamp is newer than that of the last one.
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
                f"all {len(chunk.actions)} rows expired, the last {now - chunk.end:.3f} s ago"
            )
        if chunk.first_step > 0 and (ahead := chunk.due(-1) - now) > self._rules.max_ahead:
            raise ChunkRejected(
                f"first_step {chunk.first_step} drops steps that are due in {ahead:.3f} s, "
                "as if they had been executed"
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
