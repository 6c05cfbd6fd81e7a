"""Graphs of nodes: which nodes run together and with which parameters, given a graph's arguments.

Plain data; this module does not import ROS. Two front ends start a graph: ``launch/*.launch.py``
(needs the ROS package ``launch``) and ``alam up`` (works everywhere).
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alam_core.errors import UserError
from alam_core.files import expand_path
from alam_core.robots.piper import (
    SIMULATED_MAX_ACCELERATION,
    SIMULATED_MAX_GRIPPER_VELOCITY,
    SIMULATED_MAX_VELOCITY,
)

Values = dict[str, Any]  # argument name -> value of the argument's type
CAN_GROUP = "239.74.163.2"  # multicast group of the emulated CAN bus
# UDP port of the emulated bus in ROS domain 0. Domain n uses this + n, so that graphs in different
# domains on one host have separate buses.
CAN_BASE_PORT = 43113


@dataclass(frozen=True)
class Argument:
    """An argument of a graph, given as name:=value. The default determines its type.

    choices: the allowed values; empty: any. bounds: smallest and largest allowed number. folder:
    whether the value must be an existing folder, absolute or relative to the working directory or
    the project's root.
    """

    name: str
    default: bool | int | float | str
    description: str
    choices: tuple[str, ...] = ()
    bounds: tuple[float, float] | None = None
    folder: bool = False

    @property
    def default_text(self) -> str:
        """The default as it is written on the command line."""
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)

    def parse(self, text: str) -> bool | int | float | str:
        """Convert a text to a value of the argument's type. Raises UserError if it is not valid."""
        value: bool | int | float | str = text
        try:
            if isinstance(self.default, bool):
                value = {"true": True, "1": True, "false": False, "0": False}[text.lower()]
            elif isinstance(self.default, (int, float)):
                value = type(self.default)(text)
        except (KeyError, ValueError):
            kind = (
                "true or false"
                if isinstance(self.default, bool)
                else {int: "a whole number", float: "a number"}[type(self.default)]
            )
            raise UserError(
                f"{self.name}:={text} is not {kind} (default: {self.default_text})"
            ) from None
        if self.choices and text not in self.choices:
            raise UserError(f"{self.name}:={text} is not one of: {', '.join(self.choices)}")
        if self.bounds and not self.bounds[0] <= float(value) <= self.bounds[1]:
            raise UserError(
                f"{self.name}:={text} is not between {self.bounds[0]:g} and {self.bounds[1]:g}"
            )
        if self.name.endswith("_topic") and not text.startswith("/"):
            raise UserError(
                f"{self.name}:={text} is not an absolute topic name: it must begin with '/'"
            )
        return value


@dataclass(frozen=True)
class NodeSpec:
    """One node, run as a process.

    If a required node fails (exit code above 0: a wrong checkpoint, a port in use), the whole graph
    stops. If a node is killed by a signal or exits with 0, the others continue: the arm holds its
    position and reports the reason on /diagnostics.
    """

    package: str
    executable: str
    name: str
    parameters: Values = field(default_factory=dict)
    required: bool = True


@dataclass(frozen=True)
class Graph:
    """A set of nodes that depends on arguments.

    build: returns the nodes, given the value of every argument. Raises UserError, for example for a
    missing checkpoint.
    """

    name: str
    description: str
    arguments: tuple[Argument, ...]
    build: Callable[[Values], list[NodeSpec]]

    def defaults(self) -> Values:
        return {argument.name: argument.default for argument in self.arguments}

    def help(self) -> str:
        """The description of the graph, and one line per argument with its default."""
        names = [f"  {argument.name}:={argument.default_text}" for argument in self.arguments]
        width = max(map(len, names)) + 2
        lines = [
            f"{name:<{width}}{argument.description}"
            for name, argument in zip(names, self.arguments, strict=True)
        ]
        return "\n".join([f"{self.name}: {self.description}", *lines])

    def values(self, texts: Mapping[str, str]) -> Values:
        """The value of every argument: parsed from ``texts`` (argument name -> text), or the
        default. Raises UserError for an unknown name or a wrong value.
        """
        known = {argument.name: argument for argument in self.arguments}
        for name in texts:
            if name not in known:
                raise UserError(
                    f"'{self.name}' has no argument '{name}'; its arguments are: {', '.join(known)}"
                )
        return self.defaults() | {name: known[name].parse(text) for name, text in texts.items()}


def split_assignments(words: Iterable[str]) -> dict[str, str]:
    """Argument name -> text, from words in ROS notation (``sim:=false``) or option notation
    (``--sim false``, ``--sim=false``).

    Raises UserError for a word in another notation, an option without a value and a repeated name.
    """
    texts: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            name, separator, text = word[2:].partition("=")
            if not separator and (text := next(rest, "")) == "":
                raise UserError(f"'{word}' needs a value: {word} VALUE")
        else:
            name, separator, text = word.partition(":=")
            if not separator or not name:
                raise UserError(f"'{word}' is not of the form name:=value or --name value")
        if name in texts:
            raise UserError(f"argument '{name}' is given twice")
        texts[name] = text
    return texts


def root() -> Path:
    """The project's root folder, which paths like checkpoints/... are relative to: ALAM_ROOT, which
    setup.bash sets, or else found from the place of this file.
    """
    return Path(os.environ.get("ALAM_ROOT") or Path(__file__).resolve().parents[4])


def folder(name: str, text: str) -> str:
    """The absolute path of the existing folder ``text``, the value of the argument ``name``; ``~``
    and variables in it are replaced. Raises UserError if there is no such folder.
    """
    try:
        given = Path(expand_path(text))
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    candidates = list(dict.fromkeys([Path.cwd() / given, root() / given]))
    for candidate in candidates:
        if candidate.is_dir():
            return str(candidate)
    raise UserError(
        f"{name}: no folder '{text}' (looked for {', '.join(map(str, candidates))}); "
        f"give one with {name}:=FOLDER"
    )


def policy_image_size(checkpoint: str) -> int:
    """Side in px of the square images that a policy was trained on, read from its folder.

    Raises UserError if the folder is not that of a policy.
    """
    file = Path(checkpoint) / "config.json"
    try:
        return int(json.loads(file.read_text())["policy"]["model"]["image_size"])
    except OSError:
        raise UserError(
            f"checkpoint: '{checkpoint}' is not the folder of a policy: it has no config.json"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"checkpoint: {file} is not the configuration of a policy: it has no image size "
            "(is it a transition encoder?)"
        ) from None


def environment(values: Values, config: Path) -> dict[str, str]:
    """Environment variables that every node of a graph needs.

    config: folder of the Fast DDS profiles. Without ``network`` the local profile keeps DDS on this
    host; the comment in that file explains why the discovery range is SYSTEM_DEFAULT.
    """
    profile, reach = ("network", "SUBNET") if values["network"] else ("local", "SYSTEM_DEFAULT")
    return {
        "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp",
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(config / f"fastdds_{profile}.xml"),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": reach,
        "CAN_CONFIG": os.environ.get("CAN_CONFIG", '{"hop_limit": 0}'),
        "MUJOCO_GL": os.environ.get("MUJOCO_GL") or "egl",
        "PYTHONUNBUFFERED": "1",
    }


def domain() -> int:
    """The ROS domain of this shell. Raises UserError if ROS_DOMAIN_ID is not a valid domain."""
    text = os.environ.get("ROS_DOMAIN_ID") or "0"
    if not (text.isdecimal() and int(text) <= 232):
        raise UserError(f"ROS_DOMAIN_ID={text} is not a whole number from 0 to 232")
    return int(text)


def _build_piper(values: Values) -> list[NodeSpec]:
    sim = values["sim"]
    if values["realtime"] and not sim:
        raise UserError(
            "realtime:=true only works with sim:=true: a real arm always runs on the wall clock"
        )
    checkpoint, encoder = (
        folder("checkpoint", values["checkpoint"]),
        folder("encoder", values["encoder"]),
    )
    views = ["third_person", "wrist"]
    topics = [values[f"{view}_topic"] for view in views]
    clock = {"use_sim_time": sim and not values["realtime"]}
    port = values["can_udp_port"] or CAN_BASE_PORT + domain()
    if sim:
        can = {"can_interface": "udp_multicast", "can_channel": CAN_GROUP, "can_port": port}
    else:
        can = {"can_interface": "socketcan", "can_channel": values["can_port"]}
    # The simulated arm may move as fast as the scripted expert demonstrates; a real arm keeps the
    # controller's lower default limits.
    motion = (
        {
            "max_velocity": SIMULATED_MAX_VELOCITY,
            "max_acceleration": SIMULATED_MAX_ACCELERATION,
            "max_gripper_velocity": SIMULATED_MAX_GRIPPER_VELOCITY,
        }
        if sim
        else {}
    )
    nodes = []
    if sim:
        nodes.append(
            NodeSpec(
                "alam_sim",
                "sim_node",
                "sim",
                {
                    name: values[name]
                    for name in ("world", "seed", "camera_size", "realtime", "speed")
                }
                | {"can_channel": CAN_GROUP, "can_port": port},
            )
        )
    elif values["realsense"]:
        for view in views:
            camera = {"serial_no": values[f"{view}_serial"], "enable_depth": False}
            nodes.append(
                NodeSpec(
                    "realsense2_camera", "realsense2_camera_node", view, camera, required=False
                )
            )
    nodes += [
        NodeSpec(
            "alam_perception",
            "camera_sync",
            "camera_sync",
            {
                "views": views,
                "image_topics": topics,
                "image_size": values["image_size"] or policy_image_size(checkpoint),
            }
            | clock,
        ),
        NodeSpec(
            "alam_perception", "latent_encoder", "latent_encoder", {"checkpoint": encoder} | clock
        ),
        NodeSpec(
            "alam_policy",
            "policy",
            "policy",
            {"checkpoint": checkpoint, "seed": values["seed"]} | clock,
        ),
        NodeSpec("alam_piper", "arm_controller", "arm_controller", can | clock | motion),
    ]
    return nodes


PIPER = Graph(
    "piper",
    "An AgileX Piper arm with two cameras, in MuJoCo (sim:=true, the default) or real (sim:=false)",
    (
        Argument("sim", True, "simulate the arm and its cameras; false: drive the real arm"),
        Argument(
            "realtime",
            False,
            "simulate on the wall clock instead of waiting for slow nodes",
        ),
        Argument(
            "speed",
            1.0,
            "upper limit of simulated time relative to the wall clock; 0: no limit",
            bounds=(0, 100),
        ),
        Argument(
            "seed",
            0,
            "seed of the first simulated episode and of the policy's noise",
            bounds=(0, 2**31 - 1),
        ),
        Argument("world", "piper_place", "name of the simulated world"),
        Argument(
            "camera_size",
            0,
            "width and height in pixels of the simulated cameras' images; 0: the world's default",
            bounds=(0, 2048),
        ),
        Argument(
            "checkpoint", "checkpoints/piper_place/policy", "folder of the policy", folder=True
        ),
        Argument(
            "encoder",
            "checkpoints/piper_place/transition",
            "folder of the transition encoder",
            folder=True,
        ),
        Argument(
            "image_size",
            0,
            "width and height in pixels of observed images; 0: the size that the policy needs",
            bounds=(0, 4096),
        ),
        Argument(
            "third_person_topic",
            "/third_person/color/image_raw",
            "image topic of the camera on the tripod",
        ),
        Argument("wrist_topic", "/wrist/color/image_raw", "image topic of the camera on the wrist"),
        Argument("can_port", "can0", "CAN interface of the real arm"),
        Argument(
            "can_udp_port",
            0,
            f"UDP port of the emulated CAN bus; 0: {CAN_BASE_PORT} + ROS_DOMAIN_ID",
            bounds=(0, 65535),
        ),
        Argument(
            "realsense",
            True,
            "real arm only: start realsense2_camera nodes if that package is installed",
        ),
        Argument("third_person_serial", "", "serial number of the RealSense on the tripod"),
        Argument("wrist_serial", "", "serial number of the RealSense on the wrist"),
        Argument("network", False, "open DDS to other hosts; false: only this host"),
    ),
    _build_piper,
)
GRAPHS = {graph.name: graph for graph in (PIPER,)}


def find_graph(name: str) -> Graph:
    """The graph with that name. Raises UserError for an unknown name."""
    if name not in GRAPHS:
        raise UserError(f"no graph is called '{name}'; the graphs are: {', '.join(GRAPHS)}")
    return GRAPHS[name]
