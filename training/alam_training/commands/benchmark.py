"""Benchmarks of the data readers, of policies and of training: ``python training/benchmark.py
WHAT``.
"""

import importlib
import sys

from alam_core.config import parse_args
from alam_core.errors import UserError

# Benchmark -> module of alam_training.benchmarks, class of its options, what it measures.
MEASUREMENTS = {
    "data": (
        "data",
        "DataConfig",
        "how fast frames and triplets are read, compared with LeRobot's reader",
    ),
    "policy": (
        "policy",
        "PolicyBenchmarkConfig",
        "latency of a chunk, joint and action-only, and training throughput",
    ),
    "pretraining": (
        "pretraining",
        "PretrainingConfig",
        "stage 1 at the paper's size: parameters, memory, time per step",
    ),
    "scale": (
        "scale",
        "ScaleConfig",
        "how far loss curves differ: two processes from one, a killed and resumed run from an "
        "uninterrupted one",
    ),
    "busy_tests": (
        "busy_tests",
        "BusyTestsConfig",
        "whether the tests pass while other processes load every core",
    ),
}

INTRODUCTION = "\n".join(
    [
        "Run a benchmark. Each writes a file in results/.",
        "",
        *(
            f"  python training/benchmark.py {name:12} {what}"
            for name, (_, _, what) in MEASUREMENTS.items()
        ),
        "",
        "  python training/benchmark.py data --help    options of one benchmark",
    ]
)


def main() -> int:
    if len(sys.argv) == 1 or sys.argv[1] in ("-h", "--help"):
        print(INTRODUCTION)
        return 0
    name = sys.argv[1]
    if name not in MEASUREMENTS:
        raise UserError(f"there is no benchmark '{name}': choose one of {', '.join(MEASUREMENTS)}")
    file, options, what = MEASUREMENTS[name]
    module = importlib.import_module(f"alam_training.benchmarks.{file}")
    return module.main(parse_args(getattr(module, options), f"Measure {what}.", sys.argv[2:]))
