"""When a simulator may take its next tick: at most at the requested speed, and never further ahead
of its nodes than ``max_lag``.

Times of the simulation are whole ns, times of the steady clock are s.
"""

from dataclasses import dataclass


@dataclass
class _Listener:
    stamp: int  # ns, newest observation it has processed
    waited_since: float | None = None  # s (steady) since the simulation has stopped for it
    dropped: bool = False


class NodeWait:
    """Keeps the simulation at most ``max_lag`` ns past the newest stamp that each node reported as
    processed.

    A node for which the simulation stopped for ``patience`` s (steady) is dropped, and waited for
    again after its next report.
    """

    def __init__(self, max_lag: int, patience: float) -> None:
        self.max_lag = max_lag
        self.patience = patience
        self._listeners: dict[str, _Listener] = {}

    def heard(self, name: str, stamp: int) -> bool:
        """A node has processed the observation of ``stamp``. Returns True if it is waited for from
        now on.
        """
        new = name not in self._listeners or self._listeners[name].dropped
        self._listeners[name] = _Listener(stamp)
        return new

    def holding(self, next_time: int, now: float) -> list[str]:
        """The nodes for which the simulation may not go to ``next_time`` yet."""
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
        """The nodes that are no longer waited for."""
        return [name for name, listener in self._listeners.items() if listener.dropped]


class Throttle:
    """Spaces ticks on the steady clock: ``speed`` times real time, 0 for no limit.

    A delay of up to ``slack`` s is made up for by shorter breaks; the rest is lost and counted in
    ``lost``.
    """

    def __init__(self, tick: float, speed: float, slack: float = 0.1) -> None:
        self._period = tick / speed if speed > 0 else 0.0
        self._slack = slack
        self._due: float | None = None
        self.lost = 0.0  # s

    def wait(self, now: float) -> float:
        """s until the next tick is due; 0 if it is due now."""
        if self._period == 0.0 or self._due is None:
            return 0.0
        return max(0.0, self._due - now)

    def ticked(self, now: float) -> None:
        """A tick was started at ``now``."""
        if self._period == 0.0:
            return
        if self._due is None:
            self._due = now
        late = now - self._due - self._slack
        if late > 0:
            self._due += late
            self.lost += late
        self._due += self._period
