"""Child processes cannot outlive their parent, even if the parent is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from alam_common.processes import ChildProcess, stop_all

PLAIN = "import time; print('ready', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + PLAIN
HOPELESS = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN);" + STUBBORN


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], object], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def test_reports_lines_and_exit_code() -> None:
    heard: list[tuple[str, str]] = []
    process = ChildProcess(
        "child",
        [sys.executable, "-c", "print('one'); print('two'); raise SystemExit(7)"],
        on_line=lambda *x: heard.append(x),
    )
    assert process.wait(20) == 7
    assert process.last_line() == "two"
    assert heard == [("child", "one"), ("child", "two")]


@pytest.mark.parametrize(
    ("code", "expected"),
    [(PLAIN, -signal.SIGTERM), (STUBBORN, -signal.SIGINT), (HOPELESS, -signal.SIGKILL)],
)
def test_stop_escalates(code: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine Python may need seconds to end after SIGINT.
    patience = 0.5 if code == HOPELESS else 30.0
    monkeypatch.setattr(
        "alam_common.processes.STEPS",
        ((signal.SIGTERM, 0.5), (signal.SIGINT, patience), (signal.SIGKILL, 5.0)),
    )
    process = ChildProcess("child", [sys.executable, "-c", code])
    wait_until(lambda: "ready" in process.lines)
    assert process.stop() == expected


def test_stop_all_leaves_no_grandchild() -> None:
    process = ChildProcess("shell", ["bash", "-c", "sleep 600 & echo $!; wait"])
    wait_until(lambda: process.lines)
    grandchild = int(process.lines[0])
    assert is_alive(grandchild)
    stop_all([process])
    wait_until(lambda: not is_alive(grandchild))


def test_child_dies_with_a_killed_parent() -> None:
    parent_code = (
        "import time\n"
        "from alam_common.processes import ChildProcess\n"
        "print(ChildProcess('child', ['sleep', '600']).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent_code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        os.kill(parent.pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(child))
