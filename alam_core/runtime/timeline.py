"""Where an arm is wanted over time: the newest chunk, spliced onto what was wanted before it.

Times are seconds on one clock, that of the observations' stamps. A: width of an action.
"""

import numpy as np

from alam_core.types import ActionChunk


class Timeline:
    """The reference trajectory of an arm.

    fade: s over which the gap between two chunks is faded out; 0 jumps to the new chunk at once.
    ``chunk``: the newest, None while there is none.
    """

    def __init__(self, fade: float = 0.15) -> None:
        self.fade = fade
        self.chunk: ActionChunk | None = None
        self._gap = np.zeros(0)
        self._spliced = 0.0

    def splice(self, chunk: ActionChunk, now: float, present: np.ndarray) -> None:
        """Go on with ``chunk`` from ``now``, continuously.

        The gap is measured to the earlier chunk's reference where there is one, else to ``present``
        (A,), the set-point: a set-point that lags behind under its limits is not re-anchored with
        every chunk.
        """
        before = self.at(now) if self.chunk is not None else present
        self._gap = before - chunk.at(now)
        self._spliced = now
        self.chunk = chunk

    def at(self, time: float) -> np.ndarray:
        """The wanted set-point (A,). Needs a chunk."""
        assert self.chunk is not None
        wanted = self.chunk.at(time)
        left = min(1.0, 1.0 - (time - self._spliced) / self.fade) if self.fade > 0 else 0.0
        if left <= 0.0:
            return wanted
        return wanted + self._gap * (left * left * (3.0 - 2.0 * left))

    def clear(self) -> None:
        self.chunk = None
