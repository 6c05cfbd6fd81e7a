"""When camera_sync serves on the wall clock: as soon as a fresh set of frames is complete.

Times are s on one clock that need not be the stamps'.
"""


class Pacing:
    """At most one observation per ``period`` on average, aligned to the arrival of the frames.

    A complete set is served at once, up to a quarter of a period before it is due, so that cameras
    of the same rate are followed in spite of their jitter. A set that is complete earlier than that
    waits for fresher frames, which faster cameras deliver; without any it is served three quarters
    of a period late. An incomplete set is served half a period after its first fresh frame, but not
    before it is a quarter of a period late.
    """

    def __init__(self, period: float) -> None:
        self.period = period
        self.slack = period / 4
        self._due = 0.0
        self._first_fresh: float | None = None  # arrival of the first frame of the coming set
        self._complete = False

    def frame(self, now: float, complete: bool) -> None:
        """A frame arrived. complete: whether the newest frames now form a complete set."""
        if self._due > now + 2 * self.period:  # the clock was set back
            self._due, self._first_fresh = now, None
        if self._first_fresh is None or self._complete:  # a complete set that was early gives way
            self._first_fresh = now
        self._complete = complete

    def may_serve(self, now: float) -> bool:
        """Whether the newest frames are served now."""
        return self._complete and now >= self._due - self.slack

    def deadline(self) -> float | None:
        """When the newest frames are served if no other frame comes; None if none is fresh."""
        if self._first_fresh is None:
            return None
        if self._complete:
            return self._due + 3 * self.slack
        return max(self._first_fresh + self.period / 2, self._due + self.slack)

    def served(self, now: float) -> None:
        """An observation was served, or withheld as stale."""
        self._due = max(self._due + self.period, now + self.period - self.slack)
        self._first_fresh, self._complete = None, False
