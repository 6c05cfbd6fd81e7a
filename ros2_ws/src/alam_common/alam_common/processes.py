"""Child processes that cannot be left behind: each in a process group of its own, output by the
line, stopped in steps.

Stopping sends SIGTERM, then SIGINT, then SIGKILL, to the whole group. (A node ends alike on the
first two once it runs; while it still imports torch, SIGTERM ends it without a page of traceback; a
hung one says where it hangs on SIGINT.) Should the parent itself be killed, the kernel kills the
child (PR_SET_PDEATHSIG). Start children from the main thread: to the kernel the parent is the
thread that forked.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Thread

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
STEPS = (
    (signal.SIGTERM, 6.0),
    (signal.SIGINT, 2.0),
    (signal.SIGKILL, 5.0),
)  # (signal, s to wait after it)


def _die_with(parent: int) -> Callable[[], None]:
    def in_child() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # a shell's background jobs ignore it, and would pass that on
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)

    return in_child


class ChildProcess:
    """A running command. ``on_line`` gets each line of its stdout and stderr together, from a
    thread of its own.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        on_line: Callable[[str, str], None] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.lines: deque[str] = deque(maxlen=1000)
        self._on_line = on_line
        self._popen = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
            env=None if env is None else dict(env),
            process_group=0,
            preexec_fn=_die_with(os.getpid()),
        )
        self.pid = self._popen.pid
        self._reader = Thread(target=self._read, name=f"read {name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            line = line.rstrip("\n")
            self.lines.append(line)
            if self._on_line is not None:
                self._on_line(self.name, line)

    def poll(self) -> int | None:
        """The exit code (negative: the signal that ended it), None while it runs."""
        return self._popen.poll()

    def wait(self, timeout: float) -> int | None:
        """Wait up to ``timeout`` s for the end; the exit code, or None if it still runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._popen.wait(timeout)
        return None

    def send(self, number: int) -> None:
        """Send a signal to the whole group; nothing happens if it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def last_line(self) -> str:
        """The last line that is not empty, once the output has been read to its end if the process
        is over.
        """
        if self.poll() is not None:
            self._reader.join(1.0)
        return next((line for line in reversed(self.lines) if line.strip()), "")

    def stop(self) -> int | None:
        """Stop it in steps; the exit code."""
        stop_all([self])
        return self.poll()


def stop_all(processes: Iterable[ChildProcess]) -> None:
    """Stop several processes together, in steps; what they left in their groups is killed."""
    everyone = list(processes)
    for number, patience in STEPS:
        alive = [process for process in everyone if process.poll() is None]
        for process in alive:
            process.send(number)
        deadline = time.monotonic() + patience
        for process in alive:
            process.wait(max(0.0, deadline - time.monotonic()))
    for process in everyone:
        process.send(signal.SIGKILL)  # grandchildren, if there are any
        process._reader.join(1.0)
