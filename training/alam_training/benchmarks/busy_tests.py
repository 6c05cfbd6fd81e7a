"""Do the tests pass on a busy machine? Runs them repeatedly while other processes load every core,
and counts the failures. ``busy_before`` of the result is the load that the tests met: the lowest
use of all cores (%) measured before a run.
"""

import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from alam_core.errors import UserError
from alam_core.results import write_result

ROOT = Path(__file__).resolve().parents[3]
BURN = "while True: pass"
BUSY_WINDOW = 5.0  # seconds over which the load is measured before each run of the tests
PARALLEL = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadgroup")  # as in the Makefile


@dataclass
class BusyTestsConfig:
    """How often to run the tests, and under which load.

    Args:
        ros_runs: runs of tests/ros.
        suite_runs: runs of all tests.
        load: processes that compute without pause, by default one for each core; 0 when trainings
            already load the machine.
        results: folder of the result file.
        save: write busy_tests.json after every run of the tests.
        add: add to the runs that busy_tests.json already counts, after an interruption.
    """

    ros_runs: int = 10
    suite_runs: int = 3
    load: int | None = None
    results: str = "results"
    save: bool = True
    add: bool = False

    def __post_init__(self) -> None:
        if min(self.ros_runs, self.suite_runs, self.load or 0) < 0:
            raise UserError("ros_runs, suite_runs and load must not be negative")


@contextmanager
def loaded(processes: int) -> Iterator[None]:
    """Keep ``processes`` cores busy during the block."""
    burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(processes)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def failed_tests(report: Path) -> list[str]:
    """Names of the tests that failed or had an error, from a JUnit report. Raises UserError if
    pytest wrote no report or ran no test.
    """
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"pytest wrote no report ({error}): run it by hand to see why") from None
    if not cases:
        raise UserError("pytest found no test: run it by hand to see why")
    return [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]


def run_tests(paths: list[str]) -> list[str]:
    """One run of pytest on ``paths``; returns the names of the failed tests."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            *PARALLEL,
            f"--junitxml={report}",
            *paths,
        ]
        subprocess.run(command, cwd=ROOT, check=False)
        return failed_tests(report)


def main(config: BusyTestsConfig) -> int:
    load = len(os.sched_getaffinity(0)) if config.load is None else config.load
    done: Counter[str] = Counter(ros_runs=0, suite_runs=0)
    failures: Counter[str] = Counter()
    busy = 100.0
    counted = Path(config.results) / "busy_tests.json"
    if config.add and counted.is_file():
        values = json.loads(counted.read_text())["values"]
        done.update({kind: values[kind] for kind in done})
        failures.update(values["failed_tests"])
        busy = values["busy_before"]
    jobs = ["ros_runs"] * config.ros_runs + ["suite_runs"] * config.suite_runs
    with loaded(load):
        for number, kind in enumerate(jobs, 1):
            print(f"run {number} of {len(jobs)}, {sum(failures.values())} failures", flush=True)
            busy = min(busy, psutil.cpu_percent(interval=BUSY_WINDOW))
            failures.update(run_tests(["tests/ros"] if kind == "ros_runs" else ["tests"]))
            done[kind] += 1
            values = {
                **done,
                "failures": sum(failures.values()),
                "failed_tests": dict(failures),
                "load": load,
                "busy_before": busy,
            }
            if config.save:
                write_result("busy_tests", values, [], config.results)
    print(f"{sum(failures.values())} failures in {sum(done.values())} runs")
    return 1 if failures else 0
