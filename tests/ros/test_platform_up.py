"""``alam up piper`` with the real nodes and randomly initialised models: it starts, every node
declares its parameters, and it stops.
"""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from alam_msgs.msg import LatentTransition
from rcl_interfaces.srv import ListParameters
from tiny_checkpoints import SIZE, save_tiny_policy, save_tiny_transition

from alam_bringup.graph import PIPER
from alam_common.processes import ChildProcess
from alam_core.types import VIEWS

ALAM = str(Path(__file__).resolve().parents[2] / "ros2_ws/install/alam_cli/lib/alam_cli/alam")
START = 150.0  # s; importing torch and MuJoCo takes long on a busy machine


def group_of(pid: int) -> list[int]:
    """The running processes (not zombies) of a process group."""
    alive = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, group = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(group) == pid and state not in ("Z", "X"):
                alive.append(int(entry.name))
    return alive


def used_names(ros, node: str, namespace: str) -> set[str]:
    """Names of the topics, services and actions that a node uses, without their kind."""
    publishers = ros.node.get_publisher_names_and_types_by_node(node, namespace, True)
    subscriptions = ros.node.get_subscriber_names_and_types_by_node(node, namespace, True)
    return {name.split("/", 1)[1] for name, _ in publishers + subscriptions}


@pytest.mark.slow
def test_the_whole_graph_starts_and_stops(
    tmp_path: Path, ros, start: Callable[..., ChildProcess]
) -> None:
    save_tiny_policy(tmp_path / "policy")
    save_tiny_transition(tmp_path / "transition")
    folders = {"checkpoint": str(tmp_path / "policy"), "encoder": str(tmp_path / "transition")}
    texts = folders | {"image_size": str(SIZE), "camera_size": str(SIZE), "speed": "0"}
    texts["namespace"] = "left"
    latents = ros.collect(LatentTransition, "/left/alam/latents")
    up = start("up", [ALAM, "up", "piper", *(f"{name}:={text}" for name, text in texts.items())])

    def both_views() -> bool:
        assert up.poll() is None, up.last_line()
        return {message.view for message in latents} == set(VIEWS)

    ros.wait_for(both_views, START, "latents of both views")
    nodes = PIPER.build(PIPER.values(texts))
    for node in nodes:  # ROS ignores a parameter that a node does not declare
        declared = ros.call(
            ListParameters, f"/left/{node.name}/list_parameters", ListParameters.Request(), START
        ).result.names
        assert set(node.parameters) <= set(declared), node.name
    names: set[str] = set()

    def clock_and_action() -> bool:
        names.update(*(used_names(ros, node.name, "/left") for node in nodes))
        return {"left/clock", "left/alam/execute_task/_action/status"} <= names

    ros.wait_for(clock_and_action, what="the clock and the action within the namespace")
    outside = {name for name in names if not name.startswith("left/")}
    assert outside <= {"rosout", "parameter_events"}

    started = next(line for line in up.lines if "started sim" in line)
    groups = [int(number) for number in re.findall(r"\((\d+)\)", started)]
    assert len(groups) == len(nodes) and all(map(group_of, groups))
    os.kill(groups[[node.name for node in nodes].index("policy")], signal.SIGKILL)
    ros.wait_for(
        lambda: any("policy ended (killed by SIGKILL)" in line for line in up.lines),
        what="the report that the policy died",
    )
    assert up.poll() is None
    os.kill(up.pid, signal.SIGINT)
    assert up.wait(60) == 1
    assert not any(map(group_of, groups))
