"""Every parameter of every node has a description, so that ``ros2 param describe`` documents it."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
from rclpy.node import Node
from tiny_checkpoints import save_tiny_policy, save_tiny_transition

from alam_common.parameters import Parameter, declare_parameters
from alam_core.errors import UserError
from alam_core.robots.piper import JOINT_LIMITS
from alam_core.runtime.motion import SetPoint, make_limits
from alam_piper.parameters import LONGEST_STOP, PARAMETERS, PERIOD, make_config, stopping_time

INSTALL = Path(__file__).resolve().parents[2] / "ros2_ws" / "install"
ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides.")
NUMBERS = (ParameterType.PARAMETER_INTEGER, ParameterType.PARAMETER_DOUBLE)


@pytest.mark.parametrize(
    ("velocity", "acceleration", "jerk", "allowed"),
    [(3.0, 5.0, 50.0, True), (3.0, 50.0, 5.0, False), (1.0, 0.5, 50.0, False)],
)
def test_limits_under_which_the_arm_brakes_too_slowly_are_refused(
    velocity: float, acceleration: float, jerk: float, allowed: bool
) -> None:
    set_point = SetPoint(make_limits(JOINT_LIMITS, velocity, acceleration, jerk))
    set_point.limits.upper[0], set_point.limits.lower[0] = 100.0, -100.0
    where = np.array([0.0, 1.5, -1.5, 0.0, 0.0, 0.0, 0.05])
    set_point.seed(where)
    while set_point.velocity[0] < 0.999 * velocity or abs(set_point.acceleration[0]) > 1e-3:
        set_point.follow(where + [50.0, 0, 0, 0, 0, 0, 0], PERIOD)
    ticks = 0
    while not set_point.at_rest:
        set_point.brake(PERIOD)
        ticks += 1
    assert ticks * PERIOD == pytest.approx(stopping_time(velocity, acceleration, jerk), abs=0.02)
    assert (ticks * PERIOD < LONGEST_STOP) == allowed

    values = {name: parameter.default for name, parameter in PARAMETERS.items()}
    values |= {"max_velocity": velocity, "max_acceleration": acceleration, "max_jerk": jerk}
    if allowed:
        assert make_config(values).limits.velocity[0] == velocity
    else:
        with pytest.raises(UserError, match=r"would take \d.\d s to brake from [13] rad/s"):
            make_config(values)


def test_every_parameter_is_described_and_every_number_has_a_range(
    start_node: Callable, ros, can_udp_port: int, tmp_path: Path
) -> None:
    save_tiny_policy(tmp_path / "policy")
    save_tiny_transition(tmp_path / "transition")
    nodes = {
        "camera_sync": ("alam_perception", {}),
        "latent_encoder": ("alam_perception", {"checkpoint": str(tmp_path / "transition")}),
        "policy": ("alam_policy", {"checkpoint": str(tmp_path / "policy")}),
        "arm_controller": ("alam_piper", {"can_port": can_udp_port}),
        "sim_node": ("alam_sim", {"can_port": can_udp_port, "camera_size": 48}),
    }
    for name, (package, parameters) in nodes.items():
        start_node(package, name, parameters)
    for name, (_, parameters) in nodes.items():
        listed = ros.call(ListParameters, f"/{name}/list_parameters", ListParameters.Request(), 180)
        ours = [p for p in listed.result.names if not p.startswith(ROS_OWN)]
        assert len(ours) >= 4 and set(parameters) <= set(ours)
        request = DescribeParameters.Request(names=ours)
        described = ros.call(DescribeParameters, f"/{name}/describe_parameters", request)
        for parameter in described.descriptors:
            assert parameter.description, f"{name}: {parameter.name} has no description"
            if parameter.type in NUMBERS:
                bounds = [*parameter.integer_range, *parameter.floating_point_range]
                assert len(bounds) == 1, f"{name}: {parameter.name} has no range"
                assert bounds[0].from_value < bounds[0].to_value
            # Only the simulator's fault injection may be set while the node runs.
            assert parameter.read_only != (parameter.name == "muted_views"), parameter.name

        # What is read once is refused while the node runs, instead of changing nothing.
        names = [*ours, "use_sim_time"]
        got = ros.call(GetParameters, f"/{name}/get_parameters", GetParameters.Request(names=names))
        values = dict(zip(names, got.values, strict=True))
        values["use_sim_time"].bool_value = not values["use_sim_time"].bool_value
        if "muted_views" in values:
            values["muted_views"].string_value = "wrist"
        wanted = [ParameterMessage(name=key, value=value) for key, value in values.items()]
        answer = ros.call(
            SetParameters, f"/{name}/set_parameters", SetParameters.Request(parameters=wanted)
        )
        for key, result in zip(names, answer.results, strict=True):
            assert result.successful == (key == "muted_views"), f"{name}: {key}"
            assert result.successful or "read-only" in result.reason, f"{name}: {key}"
        again = ros.call(
            GetParameters, f"/{name}/get_parameters", GetParameters.Request(names=names)
        )
        kept = dict(zip(names, again.values, strict=True))
        assert kept["use_sim_time"].bool_value is False
        assert "muted_views" not in kept or kept["muted_views"].string_value == "wrist"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-r", "__ns:=left"], "wrong ROS arguments: .*'-r __ns:=left'"),
        (["-r", "alam/latents"], "wrong ROS arguments: .*'-r alam/latents'"),
        (["--params-file", "/nowhere.yaml"], "wrong ROS arguments: .*/nowhere.yaml"),
        (["-p", "max_velocty:=0.2"], "no parameter 'max_velocty'; did you mean 'max_velocity'"),
        (["-p", "workspace_min:=[0.0, 0.0]"], "'workspace_min' must be a list of 3 floats, each"),
        (["-p", "workspace_max:=[0.1, 9.0, 1.0]"], "each -2.0 to 2.0, not \\[0.1, 9.0, 1.0\\]"),
        (["-p", "workspace_min:=[0.9, 0.0, 0.0]"], "workspace: the box .* is empty"),
    ],
)
def test_wrong_ros_arguments_give_one_line_and_code_2(
    arguments: list[str], said: str, start: Callable
) -> None:
    """Also a misspelt speed limit, which ROS would ignore."""
    node = INSTALL / "alam_piper/lib/alam_piper/arm_controller"
    process = start("arm_controller", [str(node), "--ros-args", *arguments])
    assert process.wait(60) == 2
    process.last_line()  # waits for all of the output
    errors = [line for line in process.lines if line.startswith("error:")]
    assert len(errors) == 1 and re.search(said, errors[0])
    assert not any("Traceback" in line for line in process.lines)


@pytest.mark.parametrize("default", [1, 1.0])
def test_a_number_needs_a_range(default: float) -> None:
    with pytest.raises(AssertionError, match="how fast"):
        Parameter(default, "how fast").descriptor()


def test_a_path_may_hold_the_home_folder_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    class GivenParameters:
        """Has the parameters as the user gave them."""

        _parameter_overrides: dict[str, object] = {}

        def get_name(self) -> str:
            return "policy"

        def set_descriptor(self, *_: object) -> None:
            """Takes the description of use_sim_time, which ROS declares."""

        def declare_parameter(self, name: str, *_: object) -> SimpleNamespace:
            return SimpleNamespace(value=given[name])

    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("NOWHERE", raising=False)
    table = {"checkpoint": Parameter("", "folder", path=True), "topic": Parameter("", "topic")}
    node = cast(Node, GivenParameters())
    given = {"checkpoint": "~/policy", "topic": "~/image"}  # a topic's ~ is the node's name
    assert declare_parameters(node, table) == {
        "checkpoint": "/home/somebody/policy",
        "topic": "~/image",
    }
    given["checkpoint"] = "$NOWHERE/policy"
    with pytest.raises(UserError, match=r"policy: parameter 'checkpoint': .*\$NOWHERE is not set"):
        declare_parameters(node, table)
