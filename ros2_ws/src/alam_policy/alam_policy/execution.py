"""Keeps track of what the arm executes, according to its status messages. The policy node
conditions new chunks on it.

Times are s on the node's clock (ROS time). A: width of an action.
"""

import threading
from collections import deque

import numpy as np

from alam_core.runtime.planner import Upcoming
from alam_core.types import ActionChunk

EXECUTING = "EXECUTING"  # state of the arm, see ArmStatus.msg
FRESH = 0.5  # s of ROS time after which a status is too old to use
TAKE_UP = 0.25  # s of ROS time within which the arm should begin to execute a chunk after sending
KEPT = (
    4  # number of chunks to remember; unless it rejected some, the arm executes one of the last 2
)


class Execution:
    """Remembers the last chunks sent, and which of them the arm executes according to its status.

    The inference thread adds chunks, the ROS thread adds statuses.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # With the time of sending.
        self._sent: deque[tuple[ActionChunk, float]] = deque(maxlen=KEPT)
        self._delays: list[float] = []
        # Sequence number and time of sending of the chunks sent after the last one executed.
        self._waiting: deque[tuple[int, float]] = deque()
        self._passed_over = 0  # chunks of this goal that were sent before one that was executed
        self._taken_up = 0  # sequence number of the newest sent chunk that the arm has executed
        self._state = ""
        self._sequence = 0
        self._stamp = -np.inf

    @property
    def arm_state(self) -> str:
        """The state in the last status of the arm, "" before the first one."""
        return self._state

    def sent(self, chunk: ActionChunk, now: float) -> None:
        """Record that a chunk was sent at time ``now``."""
        with self._lock:
            self._sent.append((chunk, now))
            self._waiting.append((chunk.sequence, now))

    def reported(self, state: str, sequence: int, stamp: float) -> None:
        """Record the arm's status at ``stamp``: its state, and the number of the chunk that it
        executes, 0 if none.
        """
        with self._lock:
            self._state, self._sequence, self._stamp = state, sequence, stamp
            chunk = self._find(sequence) if state == EXECUTING else None
            if chunk is not None and sequence > self._taken_up:
                self._taken_up = sequence
                self._delays.append(stamp - chunk.stamp)
                while self._waiting and self._waiting[0][0] <= sequence:
                    self._passed_over += self._waiting.popleft()[0] < sequence

    def new_delays(self) -> list[float]:
        """The delays from observation to splice, in s, that were measured since the last call."""
        with self._lock:
            delays, self._delays = self._delays, []
            return delays

    def upcoming(self, now: float) -> Upcoming | None:
        """What the arm will execute unless a new chunk arrives: a function from a time to the
        action (A,). None if it executes none of the chunks sent, or if its last status is too old.
        """
        with self._lock:
            fresh = abs(now - self._stamp) <= FRESH
            chunk = self._find(self._sequence) if fresh and self._state == EXECUTING else None
            return None if chunk is None else chunk.at

    def ignores_newest(self, now: float) -> bool:
        """Whether the arm reports, ``TAKE_UP`` s or more after the newest chunk was sent, that it
        executes another one or none: it rejected the chunk, or stopped.
        """
        with self._lock:
            if not self._sent or abs(now - self._stamp) > FRESH:
                return False
            newest, sent_at = self._sent[-1]
            executes = self._state == EXECUTING and self._sequence == newest.sequence
            return self._stamp > sent_at + TAKE_UP and not executes

    def begin(self) -> None:
        """A goal begins: only its chunks count in ``ignored``."""
        with self._lock:
            self._waiting.clear()
            self._passed_over = 0

    def ignored(self) -> tuple[int, int]:
        """How many chunks of this goal the arm has not executed ``TAKE_UP`` s or more after they
        were sent, according to its status: the newest ones in a row, and all of them.
        """
        with self._lock:
            row = sum(self._stamp > sent_at + TAKE_UP for _, sent_at in self._waiting)
            return row, row + self._passed_over

    def _find(self, sequence: int) -> ActionChunk | None:
        return next((chunk for chunk, _ in self._sent if chunk.sequence == sequence), None)
