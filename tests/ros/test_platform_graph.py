"""The description of the graph: its arguments and their errors, the nodes' parameters, and both
front ends, which must take the same arguments.
"""

import ast
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from alam_bringup import can_bus
from alam_bringup import graph as graphs
from alam_bringup.description import Argument, Graph, NodeSpec, split_assignments
from alam_bringup.graph import GRAPHS, PIPER, environment, find_graph
from alam_bringup.installed import available, has_package, parameter_files
from alam_cli.up import node_command
from alam_core.data.images import resize_images
from alam_core.errors import UserError
from alam_piper.backends import BACKEND_PARAMETERS, BACKENDS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "ros2_ws" / "src"


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    """Arguments with existing folders; that of the policy has a config.json."""
    views = ["third_person", "wrist"]
    config = {"policy": {"model": {"image_size": 64}, "views": views, "state_dim": 4}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return {"checkpoint": str(tmp_path), "encoder": str(tmp_path)}


def nodes(graph: Graph, **texts: str) -> dict[str, NodeSpec]:
    return {node.name: node for node in graph.build(graph.values(texts))}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["simm:=true"], "no argument 'simm'"),
        (["sim:=maybe"], "sim:=maybe is not true or false"),
        (["seed:=1.5"], "not a whole number"),
        (["seed:=-1"], "not between 0 and"),
        (["image_size:=-8"], "not between 0 and 4096"),
        (["wrist_topic:=wrist image"], "wrist_topic:=wrist image is not a ROS name"),
        (["wrist_topic:="], "wrist_topic:= is not a ROS name"),
        (["namespace:=2nd"], "namespace:=2nd is not a ROS name"),
        (["sim"], "not of the form name:=value"),
        (["seed:=1", "seed:=2"], "given twice"),
        (["checkpoint:=/nowhere"], "no folder '/nowhere'"),
        (["sim:=false", "realtime:=true"], "realtime:=true only works with sim:=true"),
        (["backend:=piper_ros"], "backend:=piper_ros only works with sim:=false"),
        (["backend:=other"], "backend:=other is not one of: piper_sdk, piper_ros"),
    ],
)
def test_wrong_arguments_are_named(words: list[str], said: str, folders: dict[str, str]) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        PIPER.build(PIPER.values(folders | split_assignments(words)))
    assert "\n" not in str(caught.value)


def test_unknown_graph_is_named() -> None:
    with pytest.raises(UserError, match="no graph is called 'pipe'"):
        find_graph("pipe")


def test_every_default_is_a_valid_value() -> None:
    for graph in GRAPHS.values():
        texts = {argument.name: argument.default_text for argument in graph.arguments}
        assert graph.values(texts) == graph.defaults()
        assert all(argument.description for argument in graph.arguments)


def test_choices_limit_an_argument() -> None:
    argument = Argument("colour", "red", "which", choices=("red", "blue"))
    assert argument.parse("blue") == "blue"
    with pytest.raises(UserError, match="not one of: red, blue"):
        argument.parse("green")


def test_nothing_real_moves_by_default(folders: dict[str, str]) -> None:
    found = nodes(PIPER, **folders)
    assert "sim" in found
    assert found["arm_controller"].parameters["can_interface"] == "udp_multicast"
    assert all(node.parameters.get("use_sim_time") for name, node in found.items() if name != "sim")


@pytest.mark.parametrize(
    ("graph", "words", "world"),
    [
        ("metaworld", {"task": "push"}, "metaworld/push"),
        ("libero", {"suite": "goal", "task": "3"}, "libero/goal/3"),
        ("steps", {"world": "piper_place"}, "piper_place"),
    ],
)
def test_worlds_of_single_steps_take_size_views_and_state_from_the_policy(
    graph: str, words: dict[str, str], world: str, folders: dict[str, str]
) -> None:
    texts = {"checkpoint": folders["checkpoint"], **words}
    found = nodes(find_graph(graph), **texts)
    assert set(found) == {"sim", "camera_sync", "policy"}
    assert found["sim"].parameters["world"] == world
    names = [f"state_{i}" for i in range(4)]
    assert found["sim"].parameters["state_names"] == names
    sync = found["camera_sync"].parameters
    assert (sync["joints"], sync["image_size"]) == (names, 64)
    assert sync["image_topics"] == ["third_person/color/image_raw", "wrist/color/image_raw"]
    assert "latent_encoder" in nodes(find_graph(graph), **texts, encoder=folders["encoder"])
    with pytest.raises(UserError, match="give the folder of a policy"):
        find_graph(graph).build(find_graph(graph).values(words))


def test_images_are_resized_once_to_the_policys_size(folders: dict[str, str]) -> None:
    assert nodes(PIPER, **folders)["camera_sync"].parameters["image_size"] == 64
    given = nodes(PIPER, **folders, image_size="128")
    assert given["camera_sync"].parameters["image_size"] == 128
    image = np.zeros((64, 64, 3), np.uint8)
    assert resize_images(image, 64).base is image  # the policy has nothing to resize


@pytest.mark.parametrize("text", ["", "{", '{"kind": "transition", "transition": {}}'])
def test_a_folder_without_a_policy_is_named(
    text: str, folders: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").unlink()
    if text:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="checkpoint: .*policy") as caught:
        nodes(PIPER, **folders)
    assert "\n" not in str(caught.value)


def test_real_mode_uses_the_can_interface_and_no_simulator(folders: dict[str, str]) -> None:
    found = nodes(PIPER, **folders, sim="false", can_port="can7")
    assert "sim" not in found
    arm = found["arm_controller"].parameters
    assert (arm["can_interface"], arm["can_channel"]) == ("socketcan", "can7")
    assert not any(node.parameters.get("use_sim_time") for node in found.values())


def test_the_backend_is_the_controllers(folders: dict[str, str]) -> None:
    given = nodes(PIPER, **folders, sim="false", backend="piper_ros")["arm_controller"].parameters
    assert given["backend"] == "piper_ros" and given["backend"] in BACKENDS
    argument = next(argument for argument in PIPER.arguments if argument.name == "backend")
    assert argument.choices == BACKENDS
    assert BACKEND_PARAMETERS["backend"].default == argument.default


def test_real_time_simulation_runs_on_the_wall_clock(folders: dict[str, str]) -> None:
    found = nodes(PIPER, **folders, realtime="true")
    assert found["sim"].parameters["realtime"] is True
    # Only there may feedback be missing for longer: the emulated arm shares a busy machine.
    assert found["arm_controller"].parameters["feedback_timeout"] == 1.0
    for texts in ({}, {"sim": "false"}):
        assert (
            "feedback_timeout" not in nodes(PIPER, **folders, **texts)["arm_controller"].parameters
        )
    assert not any(node.parameters.get("use_sim_time") for node in found.values())


def test_graphs_in_two_domains_have_two_can_buses(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = []
    for domain in ("3", "4"):
        monkeypatch.setenv("ROS_DOMAIN_ID", domain)
        found = nodes(PIPER, **folders)
        assert found["sim"].parameters["can_port"] == found["arm_controller"].parameters["can_port"]
        ports.append(found["sim"].parameters["can_port"])
    assert ports[0] != ports[1]
    assert nodes(PIPER, **folders, can_udp_port="50000")["sim"].parameters["can_port"] == 50000


@pytest.mark.parametrize("text", ["abc", "-1", "233", "1.5"])
def test_a_wrong_domain_is_named(
    text: str, folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", text)
    with pytest.raises(
        UserError, match=f"ROS_DOMAIN_ID={re.escape(text)} is not a whole number from 0 to 232"
    ):
        nodes(PIPER, **folders)


def test_camera_drivers_are_optional(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(can_bus, "find_problem", lambda name: None)  # an arm is heard
    serials = {"third_person_serial": "1", "wrist_serial": "2"}
    built = list(nodes(PIPER, **folders, sim="false", **serials).values())
    startable, notes = available(built)
    cameras = [node for node in built if node.package == "realsense2_camera"]
    assert [node.name for node in cameras] == ["third_person", "wrist"]
    if has_package("realsense2_camera"):
        assert startable == built and not notes
    else:
        assert not any(node in startable for node in cameras)
        assert len(notes) == 1 and "realsense2_camera" in notes[0]


def test_relative_folders_are_found_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints" / "x").mkdir(parents=True)
    monkeypatch.setenv("ALAM_ROOT", str(tmp_path))
    monkeypatch.chdir("/")
    assert graphs.folder("checkpoint", "checkpoints/x") == str(tmp_path / "checkpoints" / "x")


def test_a_folder_may_be_named_by_the_home_folder_or_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "policy").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in ("~/policy", "$HOME/policy", "${HOME}/policy"):
        assert graphs.folder("checkpoint", text) == str(tmp_path / "policy")
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(UserError, match=r"^checkpoint: .*the variable \$NOWHERE is not set"):
        graphs.folder("checkpoint", "$NOWHERE/policy")


def test_network_opens_dds_to_other_machines() -> None:
    config = Path("/config")
    closed = environment(PIPER.values({}), config)
    opened = environment(PIPER.values({"network": "true"}), config)
    assert closed["FASTRTPS_DEFAULT_PROFILES_FILE"].endswith("fastdds_local.xml")
    assert opened["FASTRTPS_DEFAULT_PROFILES_FILE"].endswith("fastdds_network.xml")
    assert opened["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SUBNET"


def test_parameters_keep_their_types(tmp_path: Path, folders: dict[str, str]) -> None:
    import yaml

    node = nodes(PIPER, **folders, third_person_serial="0123")["camera_sync"]
    command = node_command(node, tmp_path, tmp_path)
    file = command[command.index("--params-file") + 1]
    assert yaml.safe_load(Path(file).read_text()) == {"/**": {"ros__parameters": node.parameters}}


def test_a_namespace_holds_for_every_node(tmp_path: Path, folders: dict[str, str]) -> None:
    for text in ("left", "/left"):
        found = nodes(PIPER, **folders, namespace=text)
        assert {node.namespace for node in found.values()} == {"/left"}
    assert "__ns:=/left" in node_command(found["policy"], tmp_path, tmp_path)
    ports = {nodes(PIPER, **folders, namespace=n)["sim"].parameters["can_port"] for n in "ab"}
    assert len(ports) == 2  # two emulated CAN buses


@pytest.mark.parametrize(
    ("text", "namespace", "said"),
    [
        ("/**: {ros__parameters: {max_velocity: 0.2}}", "left", ""),
        ("arm_controller: {ros__parameters: {max_velocity: 0.2}}", "", ""),
        ("/left/arm_controller: {ros__parameters: {max_velocity: 0.2}}", "left", ""),
        ("arm_controller: {ros__parameters: {max_velocity: 0.2}}", "left", "has arm_controller"),
        ("arm_controler: {ros__parameters: {max_velocity: 0.2}}", "", "has arm_controler"),
        ("max_velocity: 0.2", "", "has max_velocity instead of '/**'"),
        ("", "", "has nothing"),
        ("max_velocity: [", "", "is not YAML"),
    ],
)
def test_a_parameter_file_that_ros_would_ignore_is_refused(
    text: str, namespace: str, said: str, folders: dict[str, str], tmp_path: Path
) -> None:
    """A lower speed limit must not be ignored without a word."""
    node = nodes(PIPER, **folders, namespace=namespace)["arm_controller"]
    file = tmp_path / "arm_controller.yaml"
    file.write_text(text)
    if not said:
        assert parameter_files(node, tmp_path) == [str(file)]
        return
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        parameter_files(node, tmp_path)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


def strings_of_node(package: str, executable: str) -> set[str]:
    """Every string in a node's module, which includes the names of its parameters."""
    entries = (SOURCES / package / package / "entry.py").read_text()
    match = re.search(rf'^{executable} = entry\("([\w.]+)"\)', entries, re.MULTILINE)
    assert match, f"{package} has no executable {executable}"
    module = SOURCES / package / Path(*match[1].split("."))
    files = (module.with_suffix(".py"), module.with_name("parameters.py"))
    strings = {
        item.value
        for file in files
        if file.is_file()
        for item in ast.walk(ast.parse(file.read_text()))
        if isinstance(item, ast.Constant) and isinstance(item.value, str)
    }
    return strings | {"use_sim_time"}


@pytest.mark.parametrize("sim", ["true", "false"])
def test_nodes_know_every_parameter_they_are_given(sim: str, folders: dict[str, str]) -> None:
    """ROS ignores a parameter that the node does not declare, so ROS would not report a misspelt
    one.
    """
    for node in nodes(PIPER, **folders, sim=sim).values():
        if (SOURCES / node.package).is_dir():
            unknown = set(node.parameters) - strings_of_node(node.package, node.executable)
            assert not unknown, f"{node.name} does not know {unknown}"


def test_both_front_ends_take_the_same_arguments() -> None:
    """The launch file names only the graph; what it declares comes from the description that ``alam
    up --help`` prints.
    """
    for graph in GRAPHS.values():
        file = SOURCES / "alam_bringup" / "launch" / f"{graph.name}.launch.py"
        assert f'describe("{graph.name}")' in file.read_text()
        printed = subprocess.run(
            ["alam", "up", "--help"],
            capture_output=True,
            text=True,
            check=True,
            stdin=subprocess.DEVNULL,
        ).stdout
        for argument in graph.arguments:
            assert f"{argument.name}:={argument.default_text}" in printed


def test_launch_description_declares_the_same_arguments() -> None:
    pytest.importorskip("launch_ros", reason="the ROS package launch is not installed here")
    from alam_bringup.launch_graph import describe

    for graph in GRAPHS.values():
        declared = {
            argument.name: argument for argument in describe(graph.name).get_launch_arguments()
        }
        assert set(declared) == {argument.name for argument in graph.arguments}
        for argument in graph.arguments:
            assert (
                "".join(part.text for part in declared[argument.name].default_value)
                == argument.default_text
            )
