"""``python training/benchmark.py controller_faults``: how the arm controller answers to faults.

The node runs as a process on DDS and on the emulated CAN bus, on the wall clock with its default
parameters (only ``joint_state_divider`` is 1, so that it tells every set-point with its time). Its
set-points are recorded on the wire. Each fault happens several times, at different phases of a
motion of all joints near the default speed limit. A motion is smooth and stays within the limits.

hold_ms: from the fault to the last set-point on the wire that differs from the one before it; of a
stall, the last one before the process continues.

overshoot_rad: the largest distance, of any joint, between the set-point at rest and the set-point
on the wire at the moment when the fault could be known at the earliest. That is the fault itself;
0.1 s later where the age of feedback tells it; the end of the last chunk and 0.2 s if chunks no
longer come; for an arm that does not follow, 0.1 s after it is reported more than 0.3 rad from its
set-point. Braking within the limits takes 0.15 rad and 0.30 s from a steady full speed, and up to
0.32 rad and 0.44 s while a joint still accelerates.

recovered: how often the arm moved again after the cause was taken away, ``reset_fault`` and
``enable`` were called, up to five times, and chunks came again. After a stall neither is called.
Where a chunk must be refused: how often the arm went on with the others. At start: how often it was
enabled then.

starved: repetitions without recovery while the emulated arm or the controller did not run for more
than 0.05 s, as on a busy machine. They say nothing about the controller and are made again, up to
four times.

limits_broken: set-points that break a limit of position, velocity, acceleration, jerk or the
workspace. They are checked as ``/alam/arm/status`` tells them, at full precision and with the times
of their ticks; ``unclaimed`` counts set-points on the wire that it does not tell (none is allowed),
``incomplete`` those of which a frame was lost. Ticks are stamped to 0.3 us, which is taken into
account. wire_velocity_rad_s: the largest speed of a joint by the times of arrival, over 50 ms.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from alam_core.errors import UserError
from alam_core.results import write_result
from alam_demo.controller_fuzz import fuzz
from alam_demo.fault_stage import FaultStage, Records, claimed
from alam_demo.fault_table import FEEDBACK_TIMEOUT, ROWS_BY_NAME, FaultRow
from alam_demo.limit_check import LimitCount, count_broken
from alam_demo.wire import SCALE, in_si_units
from alam_piper.config import ControllerConfig
from alam_piper.parameters import PERIOD
from alam_training.progress import episode_progress

NAME = "controller_faults"
CLOCK_ERROR = 3e-7  # s, of the time between two ticks: a double holds the time since 1970
WINDOW = 0.05  # s over which speed is measured by arrival
TRIES = 5  # of a repetition, if the arm has another fault before it
PHASE = 0.15, 0.55  # s of motion before a fault, shortest and longest
ENABLED = ("HOLDING", "EXECUTING")
MOVING = (*ENABLED, "FAULT")  # states in which set-points are sent


@dataclass
class ControllerFaultsConfig:
    """What to measure.

    Args:
        repetitions: how often each fault happens.
        faults: names of the faults, separated by commas; empty takes all of them, ``none`` none.
        fuzz_messages: number of random messages that are sent to the controller without ROS.
        seed: of the random messages.
        results: folder of the result file.
        save: write controller_faults.json.
    """

    repetitions: int = 20
    faults: str = ""
    fuzz_messages: int = 100_000
    seed: int = 0
    results: str = "results"
    save: bool = True

    def __post_init__(self) -> None:
        if self.repetitions < 1 or self.fuzz_messages < 0:
            raise UserError("repetitions must be at least 1 and fuzz_messages not negative")
        self.names()

    def names(self) -> list[str]:
        """The faults to measure. Raises UserError for an unknown one."""
        if self.faults == "none":
            return []
        names = [name.strip() for name in self.faults.split(",") if name.strip()]
        if unknown := [name for name in names if name not in ROWS_BY_NAME]:
            raise UserError(
                f"fault '{unknown[0]}' is unknown; the faults are: {', '.join(ROWS_BY_NAME)}"
            )
        return names or list(ROWS_BY_NAME)


@dataclass
class RowCount:
    """What the repetitions of one fault showed.

    named: how often the reason of FAULT, or of the refusal, was the expected check. false_faults:
    how often the arm had a fault before the one that was to be measured, or again before it moved
    after it. moved: set-points sent although enabling was refused. starved: repetitions that failed
    while this machine was too busy, and were left out.
    """

    n: int = 0
    hold_ms: list[float] = field(default_factory=list)
    overshoot: list[float] = field(default_factory=list)
    recovered: int = 0
    named: int = 0
    false_faults: int = 0
    moved: int = 0
    starved: int = 0

    def add(self, other: "RowCount") -> None:
        """Add the counts of other repetitions."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def values(self, row: FaultRow) -> dict[str, Any]:
        """For the result file."""
        hold, overshoot = np.array(self.hold_ms), self.overshoot
        values: dict[str, Any] = {
            "n": self.n,
            "hold_ms": {
                "p50": round(float(np.median(hold)), 1),
                "max": round(float(hold.max()), 1),
            }
            if len(hold)
            else None,
            "overshoot_rad": round(max(overshoot), 4) if overshoot else None,
            "recovered": self.recovered,
        }
        if row.why:
            values["why"] = row.why
        if row.check:
            values["named"] = self.named
        if row.expect == "start":
            values |= {"moved_before": self.moved, "why": "the arm is not enabled yet"}
        return values | {"false_faults": self.false_faults, "starved": self.starved}


def main(config: ControllerFaultsConfig) -> int:
    """Measure, write the result file and print a table. Returns 0 if no limit was broken, nothing
    crashed and the wire shows no set-point that the controller does not tell.
    """
    console = Console(highlight=False)
    values: dict[str, Any] = {}
    total, counts = LimitCount(), {}
    names = config.names()
    with episode_progress(console) as progress:
        bar = progress.add_task("faults", total=len(names) * config.repetitions, note="")
        if names:
            with FaultStage() as stage:
                wire = Wire()
                for name in names:
                    progress.update(bar, note=name)
                    row = ROWS_BY_NAME[name]
                    counts[name], refused = RowCount(), stage.rejections
                    for k in range(config.repetitions):
                        measure(stage, row, counts[name], k, config.repetitions)
                        progress.update(bar, advance=1)
                    stage.settle()
                    found = wire.check(stage.take())
                    total.add(found)
                    values[name] = counts[name].values(row) | {
                        "chunks_refused": stage.rejections - refused,
                        "limits_broken": found.broken,
                    }
                wire_values = wire.values() | {"incomplete": stage.bus.incomplete}
        bar = progress.add_task("messages", total=config.fuzz_messages, note="")
        fuzzed = fuzz(
            config.fuzz_messages, config.seed, lambda n: progress.update(bar, completed=n)
        )
    result: dict[str, Any] = {}
    if names:
        result = {"faults": values, **total.values(), **wire_values}
    if config.fuzz_messages:
        result["fuzz"] = fuzzed.values()
    console.print(table(values))
    broken = total.broken + fuzzed.limits.broken
    console.print(
        f"limits broken: {total.broken} of {total.set_points} set-points on the wire, "
        f"{fuzzed.limits.broken} of {fuzzed.limits.set_points} by {fuzzed.messages} random "
        f"messages; crashes: {fuzzed.crashes}"
    )
    if config.save:
        path = write_result(NAME, result, [config.seed], config.results)
        console.print(f"result: {path}")
    return 1 if broken or fuzzed.crashes or result.get("unclaimed") else 0


def measure(stage: FaultStage, row: FaultRow, count: RowCount, k: int, of: int) -> None:
    """Repetition ``k`` of ``of`` of one fault. It is made again if the arm does not recover while
    this machine is too busy to emulate it in time.
    """
    for _ in range(TRIES):
        began, trial = time.time(), RowCount()
        _repetition(stage, row, trial, k, of)
        starved = row.expect != "stall" and any(gap > began for gap in stage.gaps)
        if trial.recovered or not starved:
            count.add(trial)
            return
        count.starved += 1
        stage.recover()


def _repetition(stage: FaultStage, row: FaultRow, count: RowCount, k: int, of: int) -> None:
    """Not counted in ``n`` if the arm cannot be brought to move."""
    if row.expect == "start":
        _measure_start(stage, row, count)
        return
    for _ in range(TRIES):
        if stage.move(rising=k % 2 == 0):
            time.sleep(PHASE[0] + (PHASE[1] - PHASE[0]) * (k + 0.5) / of)
            if stage.state == "EXECUTING":
                break
        count.false_faults += stage.state == "FAULT"
        stage.recover()
    else:
        return
    count.n += 1
    began = time.time()
    began = row.begin(stage) or began
    if row.expect == "refuse":
        time.sleep(0.2)
        at = stage.set_point
        moves = stage.until(lambda: np.abs(stage.set_point - at).max() > 0.01, 2.0)
        count.recovered += moves and stage.states_since(began) == {"EXECUTING"}
        row.end(stage)
        return
    if row.expect == "stall":
        resumed = time.time()
        _count_motion(stage, row, count, began, resumed)
        stage.until(lambda: stage.states_since(resumed), 5.0)
        count.recovered += stage.state != "FAULT" and stage.move(rising=k % 2 == 1)
        return
    if stage.until(stage.rests, 10.0):
        _count_motion(stage, row, count, began, np.inf)
    count.named += stage.state == "FAULT" and stage.reason.startswith(f"{row.check}: ")
    row.end(stage)
    count.recovered += _recovers(stage, count, rising=k % 2 == 1)


def _recovers(stage: FaultStage, count: RowCount, rising: bool) -> bool:
    """Whether the arm moves again. It may have another fault meanwhile, on a busy machine above
    all: that is a false fault, and it is recovered from again.
    """
    for _ in range(TRIES):
        if stage.recover() and stage.move(rising):
            return True
        count.false_faults += stage.state == "FAULT"
    return False


def _count_motion(
    stage: FaultStage, row: FaultRow, count: RowCount, began: float, end: float
) -> None:
    """Count how long and how far the set-point moved after a fault, until ``end`` at most."""
    last = stage.last_change(end)
    count.hold_ms.append(max(0.0, last - began) * 1000.0)
    if row.why:
        return
    known, rest = stage.at(row.known(stage, began)), stage.at(end)
    if known is not None and rest is not None:
        away = np.abs((np.array(rest) - np.array(known)) / SCALE)
        count.overshoot.append(float(away[:6].max()))


def _measure_start(stage: FaultStage, row: FaultRow, count: RowCount) -> None:
    """The arm has the fault when the controller opens the bus, which it does again for an
    ``enable`` if it does not hear the arm.
    """
    count.n += 1
    stage.stream.stop()
    stage.until(lambda: stage.set_enabled(False).success, 10.0)
    time.sleep(0.02)  # for the last set-point
    before = len(stage.bus.set_points)
    row.begin(stage)
    refused = _enable(stage, row.check != "feedback")
    count.named += not refused.success and f"{row.check}: " in refused.message
    count.moved += len(stage.bus.set_points) - before
    row.end(stage)
    enabled = stage.until(lambda: _enable(stage, row.check != "feedback").success, 30.0)
    stage.until(lambda: len(stage.bus.set_points) > before, 5.0)
    first = stage.bus.set_points[before:][:1]
    away = [np.abs(np.array(units) / SCALE - stage.pose)[:6].max() for _, units in first]
    count.recovered += int(enabled and bool(away) and away[0] < 0.001)


def _enable(stage: FaultStage, anew: bool) -> Any:
    """Call ``enable``. anew: while the arm is silent, as after its power was off: the controller
    then opens the bus again and asks for firmware and limits.
    """
    if not anew:
        return stage.set_enabled(True)
    stage.change(lambda emulator: setattr(emulator, "feedback_frozen", True))
    time.sleep(1.5 * FEEDBACK_TIMEOUT)
    answer = stage.request_enable()
    time.sleep(0.1)
    stage.change(lambda emulator: setattr(emulator, "feedback_frozen", False))
    stage.until(answer.done, 20.0, "the answer to enable")
    return answer.result()


class Wire:
    """Checks what was recorded: the set-points that the controller tells, and that the wire shows
    no others.
    """

    def __init__(self) -> None:
        config = ControllerConfig()
        assert config.workspace is not None
        self._limits, self._workspace = config.limits, config.workspace
        self._set_points = self._unclaimed = 0
        self._fastest = 0.0  # rad/s

    def check(self, records: Records) -> LimitCount:
        """Check what was recorded of one fault. It starts and ends at rest."""
        known = claimed(records)
        self._unclaimed += sum(units not in known for _, units in records.wire)
        self._set_points += len(records.wire)
        self._fastest = max(self._fastest, speed_by_arrival(*in_si_units(records.wire)))
        times, points, fresh = sent(records.status)
        return count_broken(
            times, points, fresh, self._limits, self._workspace, PERIOD, CLOCK_ERROR
        )

    def values(self) -> dict[str, Any]:
        """For the result file."""
        return {
            "wire_set_points": self._set_points,
            "unclaimed": self._unclaimed,
            "wire_velocity_rad_s": round(self._fastest, 3),
        }


def sent(
    status: Sequence[tuple[int, str, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times (N,) in s since the first, set-points (N, 7), and which of them start anew (N,), of the
    ticks in which the arm was enabled.
    """
    times, points, fresh = [], [], []
    newest, before = -1, "DISABLED"
    for stamp, state, point in status:
        if stamp <= newest:  # told again within a tick
            continue
        newest = stamp
        if state in MOVING:
            times.append((stamp - status[0][0]) * 1e-9)
            points.append(point)
            fresh.append(before not in ENABLED and state in ENABLED)  # also when a fault is reset
        before = state
    return np.array(times), np.array(points).reshape(-1, 7), np.array(fresh, dtype=bool)


def speed_by_arrival(times: np.ndarray, points: np.ndarray) -> float:
    """The largest speed of a joint in rad/s over WINDOW by the times of arrival (N,) of set-points
    (N, 7); pauses are left out.
    """
    if len(times) < 2:
        return 0.0
    later = np.searchsorted(times, times + WINDOW)
    first = np.flatnonzero(later < len(times))
    later = later[first]
    spans = times[later] - times[first]
    moved = np.abs(points[later] - points[first])[:, :6].max(axis=1)
    whole = spans < 2 * WINDOW
    return float((moved[whole] / spans[whole]).max(initial=0.0))


def table(values: dict[str, dict[str, Any]]) -> Table:
    """The faults as a table for the terminal."""
    shown = Table()
    shown.add_column("fault", no_wrap=True)
    for head in ("n", "hold p50 (ms)", "max", "overshoot (rad)", "recovered", "broken"):
        shown.add_column(head, justify="right")
    for name, value in values.items():
        hold = value["hold_ms"] or {"p50": "-", "max": "-"}
        cells = (hold["p50"], hold["max"], value["overshoot_rad"], value["recovered"])
        texts = ["-" if cell is None else str(cell) for cell in cells]
        shown.add_row(name, str(value["n"]), *texts, str(value["limits_broken"]))
    return shown
