"""Child processes that cannot outlive their parent and whose output is read line by line.

Each child leads its own process group. Stopping it sends SIGTERM, then SIGINT, then SIGKILL to the
whole group. A node handles SIGTERM and SIGINT alike, at every moment (see ``stopping``). If the
parent is killed, the kernel kills the child (PR_SET_PDEATHSIG). Start children from the main
thread: the kernel kills a child when the thread that started it ends.
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
# (signal, s to wait for the end after it), in the order of sending.
STEPS = ((signal.SIGTERM, 6.0), (signal.SIGINT, 2.0), (signal.SIGKILL, 5.0))


def _die_with(parent: int) -> Callable[[], None]:
    """A function for the child to call before it executes its command: the kernel then kills it if
    ``parent`` dies.
    """

    def in_child() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # A background job of a shell ignores SIGINT, and its child would inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if os.getppid() != parent:  # the parent died before prctl was called
            os._exit(1)

    return in_child


class ChildProcess:
    """A running command. A thread calls ``on_line(name, line)`` for each line of its stdout and
    stderr. ``lines``: the last 1000 lines.
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
        """The exit code, negative for the signal that ended the process, or None while it runs."""
        return self._popen.poll()

    def wait(self, timeout: float) -> int | None:
        """Wait at most ``timeout`` s for the end. Returns the exit code, or None if it still
        runs.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._popen.wait(timeout)
        return None

    def send(self, number: int) -> None:
        """Send a signal to the whole process group; does nothing if the group has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def last_line(self) -> str:
        """The last non-empty line of output, "" if there is none. Once the process has ended, all
        of its output is taken into account.
        """
        if self.poll() is not None:
            self._reader.join(1.0)
        return next((line for line in reversed(self.lines) if line.strip()), "")

    def stop(self) -> int | None:
        """Stop the process with increasingly strong signals and return its exit code."""
        stop_all([self])
        return self.poll()


def stop_all(processes: Iterable[ChildProcess]) -> None:
    """Stop several processes at the same time, with increasingly strong signals. Processes that are
    then still left in their groups are killed.
    """
    children = list(processes)
    for number, patience in STEPS:
        alive = [process for process in children if process.poll() is None]
        for process in alive:
            process.send(number)
        deadline = time.monotonic() + patience
        for process in alive:
            process.wait(max(0.0, deadline - time.monotonic()))
    for process in children:
        process.send(signal.SIGKILL)  # remaining grandchildren
        process._reader.join(1.0)
