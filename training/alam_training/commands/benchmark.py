"""Benchmarks of the data readers, of policies, of training and of the arm controller: ``python
training/benchmark.py WHAT``.
"""

import importlib
import sys

from alam_core.config import parse_args
from alam_core.errors import UserError, one_line

# Benchmark -> module, class of its options, what it measures.
MEASUREMENTS = {
    "data": (
        "alam_training.benchmarks.data",
        "DataConfig",
        "how fast frames and triplets are read, compared with LeRobot's reader",
    ),
    "policy": (
        "alam_training.benchmarks.policy",
        "PolicyBenchmarkConfig",
        "latency of a chunk, joint and action-only, and training throughput",
    ),
    "pretraining": (
        "alam_training.benchmarks.pretraining",
        "PretrainingConfig",
        "stage 1 at the paper's size: parameters, memory, time per step",
    ),
    "scale": (
        "alam_training.benchmarks.scale",
        "ScaleConfig",
        "how far loss curves differ: two processes from one, a killed and resumed run from an "
        "uninterrupted one",
    ),
    "evaluation": (
        "alam_training.benchmarks.evaluation",
        "EvaluationConfig",
        "episodes per minute of an evaluation: serial, batched, several workers, a Ray cluster",
    ),
    "ros_parity": (
        "alam_training.benchmarks.ros_parity",
        "ParityConfig",
        "whether episodes through ROS are those of a direct evaluation, action by action",
    ),
    "busy_tests": (
        "alam_training.benchmarks.busy_tests",
        "BusyTestsConfig",
        "whether the tests pass while other processes load every core",
    ),
    "controller_faults": (
        "alam_demo.controller_faults",
        "ControllerFaultsConfig",
        "how the arm controller answers to faults and to random messages",
    ),
    "controller_loop": (
        "alam_demo.controller_loop",
        "ControllerLoopConfig",
        "how well the arm controller's loop keeps time while the whole graph runs",
    ),
}

INTRODUCTION = "\n".join(
    [
        "Run a benchmark. Each writes a file in results/.",
        "",
        *(
            f"  python training/benchmark.py {name:17} {what}"
            for name, (_, _, what) in MEASUREMENTS.items()
        ),
        "",
        "  python training/benchmark.py data --help         options of one benchmark",
    ]
)


def main() -> int:
    if len(sys.argv) == 1 or sys.argv[1] in ("-h", "--help"):
        print(INTRODUCTION)
        return 0
    name = sys.argv[1]
    if name not in MEASUREMENTS:
        raise UserError(f"there is no benchmark '{name}': choose one of {', '.join(MEASUREMENTS)}")
    path, options, what = MEASUREMENTS[name]
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        if path.startswith("alam_training."):
            raise
        raise UserError(
            f"the benchmark '{name}' needs the built workspace ({one_line(error)}): "
            "make setup && source setup.bash"
        ) from None
    return module.main(parse_args(getattr(module, options), f"Measure {what}.", sys.argv[2:]))
