"""SIGINT and SIGTERM as a request to save and stop."""

import signal
from typing import Any


class StopSignals:
    """Inside the block, the first SIGINT or SIGTERM only sets ``caught``; a second one has
    its usual effect.
    """

    def __init__(self) -> None:
        self.caught = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._catch)
        except ValueError:  # only the main thread can receive signals
            self._before = {}
        return self

    def _catch(self, *_: object) -> None:
        self.caught = True
        self.__exit__()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
