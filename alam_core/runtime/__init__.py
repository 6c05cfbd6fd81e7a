"""From observation to action: what the ROS policy node, the evaluators and the benchmarks all call."""

from alam_core.runtime.replanner import Replanner
from alam_core.runtime.runner import PolicyRunner

__all__ = ["PolicyRunner", "Replanner"]
