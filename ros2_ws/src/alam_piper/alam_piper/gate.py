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
MIN_DT, MAX_DT = 0.001, 1.0  # s


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
    if not MIN_DT <= dt <= MAX_DT:  # also rejects NaN
        raise ChunkRejected(f"dt of {dt} s, expected {MIN_DT} to {MAX_DT}")
    if len(positions) != steps * len(names):
        raise ChunkRejected(
            f"{len(positions)} positions, expected {steps} steps x {len(names)} joints"
        )
    rows = np.asarray(positions, dtype=float).reshape(steps, len(names))
    if not np.isfinite(rows).all():
        raise ChunkRejected("a position is not a finite number")
    rows = rows[:, [names.index(n) for n in JOINT_NAMES]]
    with np.errstate(over="ignore"):  # of positions near the largest float
        wrong = likely_units(rows)
    if wrong:
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
    clock. The last dropped step must not be further ahead than ``max_ahead`` either. max_duration:
    s from the stamp to the last row. max_start_jump: rad between a joint's set-point and the
    chunk's position for the present; the gripper may jump.
    """

    max_age: float = 1.0
    max_ahead: float = 0.1
    max_duration: float = 5.0
    max_start_jump: float = 0.5


class ChunkGate:
    """Rejects chunks that are too old, from the future, expired, too long or repeated, chunks that
    lack steps which are still to be executed, chunks that begin far from the set-point, and chunks
    of another source than the one being followed.
    """

    def __init__(self, rules: ChunkRules):
        self._rules = rules
        self._source = ""
        self._sequence: int | None = None

    def forget(self) -> None:
        """Accept any source and any sequence number next."""
        self._source = ""
        self._sequence = None

    def admit(self, chunk: ActionChunk, source: str, now: float, set_point: np.ndarray) -> None:
        """Remember the chunk as the newest of its source, or raise ChunkRejected.

        source: who published it. set_point: the present one (7,).
        """
        self._check_times(chunk, now)
        if not source:
            raise ChunkRejected("source is empty; fill in a name that only this publisher has")
        if self._sequence is not None and source != self._source:
            raise ChunkRejected(
                f"source {source[:60]!r} is refused while the arm follows {self._source[:60]!r}; "
                "hold the arm or stop one of them"
            )
        if self._sequence is not None and chunk.sequence <= self._sequence:
            raise ChunkRejected(
                f"sequence {chunk.sequence} replayed, the newest was {self._sequence}"
            )
        jumps = np.abs(chunk.at(now) - set_point)[:6]
        joint = int(jumps.argmax())
        if not jumps[joint] <= self._rules.max_start_jump:
            raise ChunkRejected(
                f"{JOINT_NAMES[joint]} begins {jumps[joint]:.3f} rad from its set-point, "
                f"at most {self._rules.max_start_jump} rad allowed"
            )
        self._source = source
        self._sequence = chunk.sequence

    def _check_times(self, chunk: ActionChunk, now: float) -> None:
        rules = self._rules
        age = now - chunk.stamp
        if age > rules.max_age:
            raise ChunkRejected(f"stamp {age:.3f} s old, at most {rules.max_age} s allowed")
        if age < -rules.max_ahead:
            raise ChunkRejected(
                f"stamp {-age:.3f} s in the future, at most {rules.max_ahead} s allowed"
            )
        if now >= chunk.end:
            raise ChunkRejected(
                f"all {len(chunk.actions)} rows expired, the last {now - chunk.end:.3f} s ago"
            )
        if chunk.first_step > 0 and (ahead := chunk.due(-1) - now) > rules.max_ahead:
            raise ChunkRejected(
                f"first_step {chunk.first_step} drops steps that are due in {ahead:.3f} s, "
                "as if they had been executed"
            )
        if (duration := chunk.end - chunk.stamp) > rules.max_duration + 1e-6:
            raise ChunkRejected(
                f"{duration:.3f} s long, at most {rules.max_duration} s allowed; send shorter "
                "chunks more often"
            )
