"""Ctrl-C, SIGTERM and SIGHUP, from the first moment of a process. Imports nothing that is slow."""

import importlib
import os
import signal
from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last one: the terminal was closed


def on_stop_signals(handler: Callable[..., object]) -> None:
    """Handle every one of SIGNALS by ``handler``; SIGHUP stays ignored under ``nohup``."""
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def entry(module: str) -> Callable[[], None]:
    """The entry point of a node: calls ``main()`` of ``module``, whose import takes seconds.

    Until ``main`` creates a ``StopRequest``, a signal ends the process at once, with exit code 0
    and without a traceback.
    """

    def start() -> None:
        on_stop_signals(lambda *_: os._exit(0))
        importlib.import_module(module).main()

    return start


class StopRequest:
    """Whether Ctrl-C, SIGTERM or SIGHUP has asked this process to stop: ``made``.

    interrupts: whether the first request raises KeyboardInterrupt in the main thread, wherever it
    is. Otherwise the request is only recorded, and a running callback is completed.
    """

    def __init__(self) -> None:
        self.made = False
        self.interrupts = True
        on_stop_signals(self._on_signal)

    def _on_signal(self, *_: object) -> None:
        first, self.made = not self.made, True
        if first and self.interrupts:
            raise KeyboardInterrupt
