"""``python training/benchmark.py controller_loop``: how well the arm controller's loop keeps time.

The whole graph runs as ``alam up piper realtime:=true``, one task after the other, while another
program computes beside it. Once a minute a line tells what was seen.

jitter_ms: deviation of the interval between two ticks from 5 ms, on the steady clock. ``p50`` and
``p99`` are medians of what the controller reports over 20 s each, ``p99_worst`` is the worst of
these, ``max`` the largest deviation since the start. missed: ticks of the 200 a second that did not
take place, counted by the status that is told at every fourth tick. stalls: gaps of more than four
periods. false_faults: how often the arm went to FAULT, since nothing is broken. memory_growth_mib:
of the controller's resident memory, from a minute after the start (a third of the time, if that is
sooner) to the end.
"""

import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rclpy
from alam_msgs.msg import ArmStatus
from rich.console import Console

from alam_bringup.folders import root
from alam_bringup.graph import PIPER, environment
from alam_bringup.installed import config_folder
from alam_common.messages import stamp_to_seconds
from alam_common.processes import ChildProcess
from alam_core.data.lerobot import LeRobotWriter
from alam_core.errors import UserError
from alam_core.results import write_result
from alam_core.robots.piper import HOME, JOINT_NAMES
from alam_core.types import VIEWS
from alam_demo.task_client import TaskClient
from alam_piper.parameters import PERIOD
from alam_training.benchmarks.busy_tests import BURN

NAME = "controller_loop"
STATUS_EVERY = 4  # ticks between two regular statuses, the controller's default
START_LIMIT = 180.0  # s of wall time until all nodes must answer
WARM_UP = 60.0  # s after which the controller's memory is first read
SAMPLE = 20.0  # s over which the controller reports its jitter
EVERY = 60.0  # s between two lines
TASK_LIMIT = 15.0  # s of a task
SIZE, LENGTH = 64, 60  # of the generated data: px of an image, frames of an episode


@dataclass
class ControllerLoopConfig:
    """What to measure.

    Args:
        minutes: how long.
        beside: what computes beside the graph: a small training, a process that computes without
            pause, or nothing.
        results: folder of the result file.
        save: write controller_loop.json.
    """

    minutes: float = 30.0
    beside: Literal["train", "burn", "none"] = "train"
    results: str = "results"
    save: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.minutes < 1e6:
            raise UserError("minutes must be positive")


@dataclass
class LoopRecord:
    """What was seen of the controller's loop. Jitter in ms, memory in MiB."""

    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    false_faults: int = 0
    values: dict[str, str] = field(default_factory=dict)  # the controller's last diagnostics
    episodes: int = 0
    successes: int = 0
    seconds: float = 0.0
    _told: tuple[str, str, int] | None = None  # the last status
    _first: float = 0.0  # s, stamp of the first status
    _last: float = 0.0  # s, stamp of the last regular one
    _regular: int = 0  # number of those after the first

    def number(self, key: str) -> float:
        """A value of the last diagnostics, nan if there is none."""
        try:
            return float(self.values[key])
        except (KeyError, ValueError):
            return math.nan

    def take_status(self, message: ArmStatus) -> None:
        """Count ticks and faults. A status that tells news may be one beside the regular ones, so
        ``missed`` is right to within one tick for each change of the state.
        """
        stamp = stamp_to_seconds(message.header.stamp)
        told = (message.state, message.reason, message.sequence)
        if self._told is None:
            self._first = self._last = stamp
        elif message.state == "FAULT" != self._told[0]:
            self.false_faults += 1
        if self._told == told and stamp > self._last:
            self._regular += 1
            self._last = stamp
        self._told = told

    @property
    def missed(self) -> int:
        """Ticks that did not take place."""
        expected = round((self._last - self._first) / PERIOD)
        return max(0, expected - STATUS_EVERY * self._regular)

    def result(self, config: ControllerLoopConfig) -> dict[str, Any]:
        """For the result file."""
        jitter = {
            "p50": _median(self.p50),
            "p99": _median(self.p99),
            "p99_worst": round(max(self.p99), 3) if self.p99 else None,
            "max": _finite(self.number("jitter_ms_max")),
        }
        grown = self.memory[-1] - self.memory[0] if len(self.memory) > 1 else None
        return {
            "minutes": round(self.seconds / 60.0, 2),
            "beside": config.beside,
            "jitter_ms": jitter,
            "missed": self.missed,
            "memory_growth_mib": None if grown is None else round(grown, 2),
            "memory_mib": round(self.memory[-1], 1) if self.memory else None,
            "false_faults": self.false_faults,
            "chunks_accepted": _whole(self.number("chunks_accepted")),
            "chunks_rejected": _whole(self.number("chunks_rejected")),
            "stalls": _whole(self.number("stalls")),
            "longest_stall_ms": _finite(self.number("longest_stall_ms")),
            "episodes": self.episodes,
            "successes": self.successes,
        }

    def line(self) -> str:
        """What a line of a minute says."""
        growth = self.memory[-1] - self.memory[0] if self.memory else math.nan
        return (
            f"{self.seconds / 60.0:6.1f} min: jitter {_last(self.p50)} ms p50, "
            f"{_last(self.p99)} p99, {self.number('jitter_ms_max'):.1f} max; "
            f"{self.missed} missed, {self.number('stalls'):.0f} stalls, "
            f"{self.false_faults} false faults, "
            f"{self.number('chunks_rejected'):.0f} chunks rejected; memory {growth:+.1f} MiB; "
            f"{self.successes} of {self.episodes} tasks done"
        )


def _finite(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


def _whole(value: float) -> int | None:
    return int(value) if math.isfinite(value) else None


def _median(values: list[float]) -> float | None:
    return round(float(np.median(values)), 3) if values else None


def _last(values: list[float]) -> str:
    return f"{values[-1]:.2f}" if values else "-"


def main(config: ControllerLoopConfig) -> int:
    """Measure and write the result file. Returns 0 if the arm had no fault."""
    values = PIPER.values({"realtime": "true"})
    PIPER.build(values)  # reports a missing checkpoint now
    os.environ |= environment(values, config_folder())
    console = Console(highlight=False)
    log = root() / "log" / f"{NAME}.log"
    log.parent.mkdir(exist_ok=True)
    record = LoopRecord()
    with ExitStack() as stack:
        file = stack.enter_context(log.open("w", buffering=1))
        console.print(f"starting the graph (its log: {log.relative_to(root())}) ...")
        command = [sys.executable, "-m", "alam_cli", "up", "piper", "realtime:=true"]
        graph = ChildProcess("graph", command, lambda _, line: print(line, file=file))
        stack.callback(graph.stop)
        beside = stack.enter_context(work(config.beside))
        rclpy.init(args=[])
        stack.callback(rclpy.try_shutdown)
        client = stack.enter_context(TaskClient())

        def alive() -> None:
            for process in filter(None, (graph, beside)):
                if process.poll() is not None:
                    raise UserError(f"{process.name} ended: {process.last_line()} (log: {log})")

        client.wait_for_graph(START_LIMIT, alive)
        client.enable()
        pid = find_process("arm_controller", graph.pid)
        stack.enter_context(watching(client, record, pid, config.minutes * 60.0, console))
        until, seed = time.monotonic() + config.minutes * 60.0, 1000
        while (left := until - time.monotonic()) > 0.0:
            alive()
            done = client.run_episode(seed, max(1.0, min(TASK_LIMIT, left)))
            record.episodes += 1
            record.successes += done.success
            seed += 1
    result = record.result(config)
    console.print(record.line())
    if config.save:
        path = write_result(NAME, result, [1000, seed - 1], config.results)
        console.print(f"result: {path}")
    return 1 if record.false_faults else 0


@contextmanager
def watching(
    client: TaskClient, record: LoopRecord, pid: int, seconds: float, console: Console
) -> Iterator[None]:
    """Record what the controller reports, in a thread, until the block ends."""
    ended = threading.Event()
    client.create_subscription(ArmStatus, "alam/arm/status", record.take_status, 50)
    begun = time.monotonic()
    warm = min(WARM_UP, seconds / 3.0)

    def sample(at: float) -> None:
        record.values = dict(client.diagnostics.get("arm_controller", {}))
        record.seconds = at
        if at >= warm:
            record.memory.append(resident_mib(pid))

    def watch() -> None:
        reported, said = begun, begun
        while not ended.wait(1.0):
            now = time.monotonic()
            sample(now - begun)
            if now - reported >= min(SAMPLE, seconds / 3.0) and "jitter_ms_p50" in record.values:
                record.p50.append(record.number("jitter_ms_p50"))
                record.p99.append(record.number("jitter_ms_p99"))
                reported = now
            if now - said >= EVERY:
                console.print(record.line())
                said = now

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        sample(time.monotonic() - begun)


@contextmanager
def work(beside: str) -> Iterator[ChildProcess | None]:
    """Another program that computes until the block ends; None for ``none``."""
    if beside == "none":
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", BURN]
        if beside == "train":
            write_data(Path(folder) / "data")
            command = [
                *(sys.executable, str(root() / "training" / "finetune.py")),
                *("--data", f"{folder}/data", "--run", f"{folder}/run", "--batch", "8"),
                *("--model.image_size", str(SIZE), "--model.horizon", "8"),
                *("--loop.steps", "1000000", "--loop.cpu", "true"),
            ]
        process = ChildProcess(beside, command)
        try:
            yield process
        finally:
            process.stop()


def write_data(folder: Path) -> None:
    """A small LeRobot data set of random images and motions."""
    rng = np.random.default_rng(0)
    names = list(JOINT_NAMES)
    sizes = {view: (SIZE, SIZE) for view in VIEWS}
    with LeRobotWriter(folder, 10.0, sizes, names, names, "piper") as writer:
        for _ in range(4):
            images = {
                view: rng.integers(0, 256, (LENGTH, SIZE, SIZE, 3), dtype=np.uint8)
                for view in VIEWS
            }
            walk = np.cumsum(rng.normal(0.0, 0.01, (LENGTH + 1, 7)), axis=0)
            walk[:, 6] = 0.0
            states = (np.array(HOME) + walk).astype(np.float32)
            writer.add_episode(images, states[:-1], states[1:], "move the arm")


def find_process(name: str, ancestor: int) -> int:
    """The process whose command line names ``name``, among the descendants of a process. Raises
    UserError if there is none.
    """
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rsplit(")")[-1].split()[1]
            )
            if name in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    for process in sorted(found, reverse=True):
        parent = process
        while parent in parents and parent != ancestor:
            parent = parents[parent]
        if parent == ancestor and process != ancestor:
            return process
    raise UserError(f"there is no process '{name}' in the graph")


def resident_mib(pid: int) -> float:
    """The resident memory of a process in MiB. Raises UserError if it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        raise UserError("the arm controller has ended") from None
    return (
        next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS")) / 1024
    )
