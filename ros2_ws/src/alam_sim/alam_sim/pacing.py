"""When the simulator may make its next tick: at most at the requested speed, and at most
``max_lag`` ahead of the nodes that it waits for. And what goes on during a long tick.

Simulated times are integers in ns, times of the steady clock are in s.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class _Listener:
    """A node that the simulator waits for."""

    stamp: int  # ns, stamp of the last observation that it has processed
    waited_since: float | None = None  # s (steady clock), when the simulator began to wait for it
    dropped: bool = False  # whether the simulator has given up waiting for it


class NodeWait:
    """Keeps simulated time at most ``max_lag`` ns ahead of the last observation that each node has
    processed.

    The simulator waits for a node for at most ``patience`` s (steady clock), then no longer waits
    for it until the node reports again.
    """

    def __init__(self, max_lag: int, patience: float) -> None:
        self.max_lag = max_lag
        self.patience = patience
        self._listeners: dict[str, _Listener] = {}

    def heard(self, name: str, stamp: int) -> bool:
        """Record that a node has processed the observation of ``stamp`` (ns). Returns whether the
        node is new, or was dropped before.
        """
        new = name not in self._listeners or self._listeners[name].dropped
        self._listeners[name] = _Listener(stamp)
        return new

    def holding(self, next_time: int, now: float) -> list[str]:
        """The nodes that the simulator must wait for before it advances to ``next_time`` (ns).
        ``now``: s (steady clock).
        """
        names = []
        for name, listener in self._listeners.items():
            if listener.dropped or next_time <= listener.stamp + self.max_lag:
                listener.waited_since = None
                continue
            if listener.waited_since is None:
                listener.waited_since = now
            if now - listener.waited_since > self.patience:
                listener.dropped = True
                continue
            names.append(name)
        return names

    def dropped(self) -> list[str]:
        """The nodes that the simulator no longer waits for."""
        return [name for name, listener in self._listeners.items() if listener.dropped]


class Throttle:
    """Paces ticks of ``tick`` s on the steady clock to ``speed`` times real time; 0: no limit.

    A delay of up to ``slack`` s is caught up with shorter pauses. What exceeds it is not caught up,
    but added to ``lost``.
    """

    def __init__(self, tick: float, speed: float, slack: float = 0.1) -> None:
        self._period = tick / speed if speed > 0 else 0.0
        self._slack = slack
        self._due: float | None = None
        self.lost = 0.0  # s

    def wait(self, now: float) -> float:
        """Seconds until the next tick is due; 0 if it is due now."""
        if self._period == 0.0 or self._due is None:
            return 0.0
        return max(0.0, self._due - now)

    def ticked(self, now: float) -> None:
        """Record that a tick started at ``now``."""
        if self._period == 0.0:
            return
        if self._due is None:
            self._due = now
        late = now - self._due - self._slack
        if late > 0:
            self._due += late
            self.lost += late
        self._due += self._period


@contextmanager
def repeated(action: Callable[[], None], period: float) -> Iterator[None]:
    """A context during which another thread calls ``action`` every ``period`` s. The last call has
    returned when the context ends.
    """
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(period):
            action()

    thread = threading.Thread(target=repeat, name="repeat")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
