"""Measures recent rates and latencies, for diagnostics."""

import time
from collections import deque
from threading import Lock

import numpy as np


class RateMeter:
    """Counts events on the steady clock: their rate over a sliding window of ``window`` s, and the
    time since the last one. Safe to use from several threads.
    """

    def __init__(self, window: float = 2.0) -> None:
        self._window = window  # s
        self._times: deque[float] = deque()
        self._start = time.monotonic()
        self._lock = Lock()
        self.count = 0

    def tick(self) -> None:
        """Count an event now."""
        now = time.monotonic()
        with self._lock:
            self.count += 1
            self._times.append(now)
            while self._times[0] < now - self._window:
                self._times.popleft()

    def rate(self) -> float:
        """Events per second over the window, or over the time since the start if that is
        shorter.
        """
        now = time.monotonic()
        with self._lock:
            recent = sum(moment >= now - self._window for moment in self._times)
            return recent / max(min(self._window, now - self._start), 1e-3)

    def silence(self) -> float:
        """Seconds since the last event, or since the start if there was none."""
        now = time.monotonic()
        with self._lock:
            return now - (self._times[-1] if self._times else self._start)


class Recent:
    """The last ``size`` values of a quantity."""

    def __init__(self, size: int = 200) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> None:
        """Append a value; the oldest one is dropped when there are more than ``size``."""
        self._values.append(value)

    def last(self) -> float:
        """The newest value, 0 if there is none."""
        return self._values[-1] if self._values else 0.0

    def percentile(self, q: float) -> float:
        """The q-th percentile (0 to 100), 0 if there is no value."""
        return float(np.percentile(list(self._values), q)) if self._values else 0.0
