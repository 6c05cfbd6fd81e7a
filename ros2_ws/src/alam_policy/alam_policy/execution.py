"""What the arm executes, by its own reports: the policy node conditions new chunks on it.

Times are s on the node's clock (ROS time). A: width of an action.
"""

import threading
from collections import deque

import numpy as np

from alam_core.runtime.planner import Upcoming
from alam_core.types import ActionChunk

EXECUTING = "EXECUTING"  # state of the arm, see ArmStatus.msg
FRESH = 0.5  # s of ROS time for which a report counts
TAKE_UP = 0.25  # s of ROS time within which the arm is expected to execute a chunk that was sent
KEPT = 4  # chunks; the arm executes one of the newest two unless it refused some


class Execution:
    """Remembers the chunks that were sent and which of them the arm reports to execute.

    Chunks are added by the thread that plans, reports by the thread that serves ROS.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # With the time of sending.
        self._sent: deque[tuple[ActionChunk, float]] = deque(maxlen=KEPT)
        self._delays: list[float] = []
        self._taken_up = 0  # the newest of the sent chunks that was reported, by sequence number
        self._state = ""
        self._sequence = 0
        self._stamp = -np.inf

    @property
    def arm_state(self) -> str:
        """The state that the arm reported last, empty before the first report."""
        return self._state

    def sent(self, chunk: ActionChunk, now: float) -> None:
        """A chunk was sent at time ``now``."""
        with self._lock:
            self._sent.append((chunk, now))

    def reported(self, state: str, sequence: int, stamp: float) -> None:
        """The arm's status at ``stamp``: its state and the chunk that it executes, 0 if none."""
        with self._lock:
            self._state, self._sequence, self._stamp = state, sequence, stamp
            chunk = self._find(sequence) if state == EXECUTING else None
            if chunk is not None and sequence > self._taken_up:
                self._taken_up = sequence
                self._delays.append(stamp - chunk.stamp)

    def new_delays(self) -> list[float]:
        """The delays, from observation to splice in s, that were reported since the last call."""
        with self._lock:
            delays, self._delays = self._delays, []
            return delays

    def upcoming(self, now: float) -> Upcoming | None:
        """The set-points that the arm executes unless a new chunk arrives: action (A,) by time.
        None if it executes none of the chunks sent, or its last report is too old.
        """
        with self._lock:
            fresh = abs(now - self._stamp) <= FRESH
            chunk = self._find(self._sequence) if fresh and self._state == EXECUTING else None
            return None if chunk is None else chunk.at

    def ignores_newest(self, now: float) -> bool:
        """Whether the arm reports, clearly after the newest chunk was sent, that it executes
        another one or none: it refused the chunk, or stopped.
        """
        with self._lock:
            if not self._sent or abs(now - self._stamp) > FRESH:
                return False
            newest, sent_at = self._sent[-1]
            executes = self._state == EXECUTING and self._sequence >= newest.sequence
            return self._stamp > sent_at + TAKE_UP and not executes

    def _find(self, sequence: int) -> ActionChunk | None:
        return next((chunk for chunk, _ in self._sent if chunk.sequence == sequence), None)
