"""What is executed of the newest chunks: the reference trajectory of an arm, each chunk spliced
onto the previous one, or one row per control step.

Times are seconds on one clock, that of the observations' stamps. A: width of an action.
"""

from collections import deque
from dataclasses import replace

import numpy as np

from alam_core.types import ActionChunk


class Timeline:
    """The reference trajectory of an arm.

    fade: s over which the gap between two chunks is faded out; 0 jumps to the new chunk at once.
    ``chunk``: the newest one, None before the first.
    """

    def __init__(self, fade: float = 0.15) -> None:
        self.fade = fade
        self.chunk: ActionChunk | None = None
        self._path: ActionChunk | None = None  # the chunk, preceded by its last dropped step
        self._gap = np.zeros(0)
        self._spliced = 0.0

    def splice(self, chunk: ActionChunk, now: float, present: np.ndarray) -> None:
        """Continue with ``chunk`` from ``now`` on, without a jump of the reference.

        ``present`` (A,): the set-point, from which the first chunk starts. A later one starts from
        the reference, not from the set-point: a set-point that lags behind under its limits must
        not pull the reference back with every chunk.

        If first rows of ``chunk`` were dropped because the arm had executed them already, the path
        begins at the last dropped step: at the reference at the time when that step was due.
        """
        path = chunk
        if chunk.first_step > 0 and self.chunk is not None:
            last_dropped = self.at(chunk.due(-1))
            path = replace(
                chunk,
                actions=np.vstack([last_dropped, chunk.actions]),
                latents={},
                first_step=chunk.first_step - 1,
            )
        before = present if self.chunk is None else self.at(now)
        self.chunk, self._path = chunk, path
        self._gap = before - path.at(now)
        self._spliced = now

    def at(self, time: float) -> np.ndarray:
        """The reference (A,) at a time. Needs a chunk."""
        assert self._path is not None
        wanted = self._path.at(time)
        left = min(1.0, 1.0 - (time - self._spliced) / self.fade) if self.fade > 0 else 0.0
        if left <= 0.0:
            return wanted
        return wanted + self._gap * (left * left * (3.0 - 2.0 * left))

    def clear(self) -> None:
        """Forget all chunks."""
        self.chunk = self._path = None


class StepTimeline:
    """Which row of the newest chunks is executed in a control step, by the step's time.

    delay_steps: control steps from a chunk's observation until it takes effect.
    """

    def __init__(self) -> None:
        self._chunks: deque[ActionChunk] = deque()  # the one in effect, then the coming ones

    def clear(self) -> None:
        """Forget all chunks."""
        self._chunks.clear()

    def add(self, chunk: ActionChunk, delay_steps: int = 0) -> None:
        """Add the newest chunk, and forget those that are over when it was planned."""
        while len(self._chunks) > 1 and _step(self._chunks[1], chunk.stamp) >= delay_steps:
            self._chunks.popleft()
        self._chunks.append(chunk)

    def at(self, now: float, delay_steps: int = 0) -> tuple[ActionChunk, int] | None:
        """The chunk in effect in the control step that begins at ``now`` (s) and its row, the last
        one after its end. None before the first chunk takes effect.
        """
        in_effect = [chunk for chunk in self._chunks if _step(chunk, now) >= delay_steps]
        if not in_effect:
            return None
        chunk = in_effect[-1]
        row = max(_step(chunk, now) - chunk.first_step, 0)
        return chunk, min(row, len(chunk.actions) - 1)


def _step(chunk: ActionChunk, now: float) -> int:
    """Whole control steps since the chunk's observation."""
    return round((now - chunk.stamp) / chunk.dt)
