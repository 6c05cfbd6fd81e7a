"""From observation to motion: what the ROS nodes, the evaluators and the benchmarks all call.

``runner``: observation in, chunk out. ``planner``: when to plan, and on what the new chunk is
conditioned. ``timeline``: which set-point is wanted at a time. ``motion``: the set-point that is
sent, within the arm's limits. ``rollout``: one episode of a world.
"""

from alam_core.runtime.planner import Planner
from alam_core.runtime.runner import PolicyRunner
from alam_core.runtime.timeline import Timeline

__all__ = ["Planner", "PolicyRunner", "Timeline"]
