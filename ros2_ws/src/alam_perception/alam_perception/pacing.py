"""When camera_sync publishes on the wall clock: as soon as a new set of frames is complete.

Times are in s on one clock, which need not be the clock of the stamps.
"""


class Pacing:
    """Paces observations by the arrival of frames: on average at most one per ``period`` s.

    An observation is due one period after the last one was due, so that a late frame does not put
    off the next one, which arrives on time; after a pause of more than two periods, it is due three
    quarters of a period after the last one. A complete set of frames is published at
    once if it is due in at most a quarter of a period, so that cameras of the same rate are
    followed despite their jitter. A set that is complete earlier waits for newer frames, as faster
    cameras deliver them; if none arrive, it is published three quarters of a period after it was
    due. An incomplete set is published half a period after its first new frame, but at the earliest
    a quarter of a period after it was due.
    """

    def __init__(self, period: float) -> None:
        self.period = period
        self.slack = period / 4
        self._due = 0.0
        self._first_fresh: float | None = None  # arrival of the first new frame of the next set
        self._complete = False

    def frame(self, now: float, complete: bool) -> None:
        """A frame arrived at ``now``. complete: whether the newest frames now form a complete
        set.
        """
        if self._due > now + 2 * self.period:  # the clock was set back
            self._due, self._first_fresh = now, None
        if self._first_fresh is None or self._complete:  # a newer frame replaces an early set
            self._first_fresh = now
        self._complete = complete

    def may_serve(self, now: float) -> bool:
        """Whether to publish the newest frames now."""
        return self._complete and now >= self._due - self.slack

    def deadline(self) -> float | None:
        """When to publish the newest frames if no other frame arrives; None if none is new."""
        if self._first_fresh is None:
            return None
        if self._complete:
            return self._due + 3 * self.slack
        return max(self._first_fresh + self.period / 2, self._due + self.slack)

    def served(self, now: float) -> None:
        """An observation was published at ``now``, or withheld because it was stale."""
        if now - self._due > 2 * self.period:  # after a pause
            self._due = now + self.period - self.slack
        else:
            self._due = max(self._due + self.period, now)
        self._first_fresh, self._complete = None, False
