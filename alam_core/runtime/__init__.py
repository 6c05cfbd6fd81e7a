"""From observation to motion: what the ROS nodes, the evaluator and the benchmarks call.

``runner``: observation in, chunk out. ``planner``: when to plan, and what the new chunk continues
from. ``timeline``: the reference at a time. ``motion``: the set-point, within the arm's limits and
workspace. ``execution``: how chunks become motion in process. ``rollout``: one episode of a world.

``timeline`` and ``motion`` do not import torch: the arm controller runs without it.
"""
