"""Starts the graph 'steps' of alam_bringup/graph.py.

Usage: ros2 launch alam_bringup steps.launch.py [name:=value ...]
"""

from alam_bringup.launch_graph import describe


def generate_launch_description():
    return describe("steps")
