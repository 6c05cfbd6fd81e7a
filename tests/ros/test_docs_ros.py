"""The documentation's commands for the robot: arguments exist, names exist in the running graph,
and the README's goal, sent to the README's graph, succeeds.

The command line tool ``ros2`` is not part of the PyPI wheels, so its commands are read here and
carried out with rclpy.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from action_msgs.msg import GoalStatus
from alam_msgs.srv import ResetWorld
from docs_commands import Command, commands
from rclpy.action import ActionClient, get_action_names_and_types
from std_srvs.srv import SetBool
from test_platform_cli import ALAM, alam

from alam_bringup.description import split_assignments
from alam_bringup.graph import find_graph
from alam_cli.echo import message_class
from alam_cli.jog import check_distance, joint_index
from alam_cli.ros import make_parser
from alam_common.processes import ChildProcess
from alam_demo.demo import DEMO

SOURCES = Path(__file__).resolve().parents[2] / "ros2_ws/src"
NEEDS_GRAPH = ("topic", "service", "action", "bag", "echo", "run")  # tried in one running graph
ROBOT = commands("robot")


@pytest.mark.parametrize("command", [c for c in ROBOT if c.words[1] not in NEEDS_GRAPH], ids=str)
def test_the_arguments_of_a_robot_command_exist(command: Command) -> None:
    match command.words:
        case ("alam", "up", name, *rest):
            find_graph(name).values(split_assignments(rest))
        case ("alam", "demo", *rest):
            DEMO.values(split_assignments(rest))
        case ("ros2", "launch", package, file, *rest):
            assert (SOURCES / package / "launch" / file).is_file()
            find_graph(file.removesuffix(".launch.py")).values(split_assignments(rest))
        case ("alam", ("arm" | "jog" | "can"), *_):
            options = make_parser().parse_args(command.words[1:])
            if options.command == "jog":
                check_distance(joint_index(options.joint), options.by)
        case ("alam", ("--help" | "doctor") as name):
            done = alam(name)
            assert done.returncode == 0 and not done.stderr, done.stderr
        case _:
            pytest.fail(f"no rule for {command}")


def request(type_name: str, part: str, text: str = "{}") -> Any:
    """The ``Request`` of a service type or the ``Goal`` of an action type, filled from YAML."""
    return getattr(message_class(type_name), part)(**yaml.safe_load(text))


@pytest.mark.slow
def test_the_names_exist_and_the_readmes_goal_succeeds(
    ros, ros_env: dict[str, str], start: Callable[..., ChildProcess]
) -> None:
    up = start("up", [ALAM, "up", "piper", "speed:=0"])

    def names() -> dict[str, list[str]]:
        assert up.poll() is None, up.last_line()
        found = ros.node.get_topic_names_and_types() + ros.node.get_service_names_and_types()
        return dict(found + get_action_names_and_types(ros.node))

    def has(name: str, type_name: str = "") -> None:
        ros.wait_for(
            lambda: (types := names().get(name)) and (not type_name or type_name in types),
            150.0,
            f"{name} {type_name}",
        )

    done: list[str] = []
    for command in [c for c in ROBOT if c.words[1] in NEEDS_GRAPH]:
        match command.words:
            case ("alam", "echo", *rest):
                has(make_parser().parse_args(["echo", *rest]).topic)
                echoed = alam("echo", *rest, "--once", env=ros_env)
                assert echoed.returncode == 0 and next(yaml.safe_load_all(echoed.stdout))
            case ("alam", "run", *rest):
                options = make_parser().parse_args(["run", *rest])
                if command.page != "README.md":
                    continue
                has("/alam/execute_task")
                for _ in range(3):  # on a starved machine observations and answers come late
                    ran = alam("run", *rest, env=ros_env)
                    if not re.search("no observation for|no answer from", ran.stdout + ran.stderr):
                        break
                    reset = ResetWorld.Request(seed=1)
                    assert ros.call(ResetWorld, "/alam/sim/reset", reset).success
                assert ran.returncode == 0 and ran.stdout.splitlines()[-1].startswith("done")
                done.append(options.instruction)
                disable = SetBool.Request(data=False)
                assert ros.call(SetBool, "/alam/arm/enable", disable).success
                assert ros.call(ResetWorld, "/alam/sim/reset", ResetWorld.Request(seed=1)).success
            case ("ros2", "topic", "echo", topic):
                has(topic)
            case ("ros2", "topic", "pub", "--once", topic, type_name, text):
                has(topic, type_name)
                fields = yaml.safe_load(text)
                assert fields.pop("header") == "auto"  # ros2 fills in the time
                message_class(type_name)(**fields)
            case ("ros2", "bag", "record", *rest):
                for topic in (word for word in rest if word.startswith("/")):
                    has(topic)
            case ("ros2", "service", "call", name, type_name, *rest):
                has(name, type_name)
                if command.page == "README.md":
                    message = request(type_name, "Request", *rest)
                    # Enabling needs feedback from the arm that is newer than the reset.
                    call = partial(ros.call, message_class(type_name), name, message)
                    ros.wait_for(lambda call=call: call().success, what=str(command))
            case ("ros2", "action", "send_goal", name, type_name, text):
                has(name, type_name)
                goal = request(type_name, "Goal", text)
                if command.page == "README.md":
                    client = ActionClient(ros.node, message_class(type_name), name)
                    handle = ros.send_goal(client, name, goal)
                    assert handle.accepted
                    future = handle.get_result_async()
                    ros.wait_for(future.done, 200.0, "the goal's end")
                    assert future.result().status == GoalStatus.STATUS_SUCCEEDED, future.result()
                    done.append(goal.instruction)
            case _:
                pytest.fail(f"no rule for {command}")
    assert len(done) == 2
