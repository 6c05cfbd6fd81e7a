"""From observation to motion: what the ROS nodes, the evaluator and the benchmarks call.

``runner``: observation in, chunk out. ``planner``: when to plan, and what the new chunk continues
from. ``timeline``: the reference at a time. ``motion``: the set-point, within the arm's limits and
workspace. ``execution``: how chunks become motion in process. ``rollout``: one episode of a world.
"""

from alam_core.runtime.execution import ControllerExecution, StepExecution
from alam_core.runtime.planner import Planner
from alam_core.runtime.runner import PolicyRunner
from alam_core.runtime.timeline import Timeline

__all__ = ["ControllerExecution", "Planner", "PolicyRunner", "StepExecution", "Timeline"]
