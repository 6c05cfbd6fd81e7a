"""Measure how fast and how well the machinery works: ``python training/benchmark.py WHAT``."""

import importlib
import sys

from alam_core.config import parse_args
from alam_core.errors import UserError

# What can be measured: in which module of training/benchmarks, with which options, and what it is.
MEASUREMENTS = {
    "data": (
        "data",
        "DataConfig",
        "how fast frames and triplets are read, beside LeRobot's reader",
    ),
    "policy": (
        "policy",
        "PolicyBenchmarkConfig",
        "latency of a chunk, joint beside action-only, and training throughput",
    ),
    "pretraining": (
        "pretraining",
        "PretrainingConfig",
        "stage 1 at the paper's size: parameters, memory, time of a step",
    ),
    "scale": (
        "scale",
        "ScaleConfig",
        "two processes beside one, a killed and resumed run beside an unbroken one",
    ),
    "busy_tests": (
        "busy_tests",
        "BusyTestsConfig",
        "whether the tests pass beside other work on every core",
    ),
}

INTRODUCTION = "\n".join(
    [
        "Measure the machinery. Each writes results/<name>.json.",
        "",
        *(
            f"  python training/benchmark.py {name:12} {what}"
            for name, (_, _, what) in MEASUREMENTS.items()
        ),
        "",
        "  python training/benchmark.py data --help    options of one measurement",
    ]
)


def main() -> int:
    if len(sys.argv) == 1 or sys.argv[1] in ("-h", "--help"):
        print(INTRODUCTION)
        return 0
    name = sys.argv[1]
    if name not in MEASUREMENTS:
        raise UserError(
            f"there is no measurement '{name}': choose one of {', '.join(MEASUREMENTS)}"
        )
    file, options, what = MEASUREMENTS[name]
    module = importlib.import_module(f"alam_training.benchmarks.{file}")
    return module.main(parse_args(getattr(module, options), f"Measure {what}.", sys.argv[2:]))
