"""Graphs of nodes: which nodes run together and with which parameters, given a graph's arguments.

Plain data; this module does not import ROS. Two front ends start a graph: ``launch/*.launch.py``
(needs the ROS package ``launch``) and ``alam up`` (works everywhere).
"""

import os
import zlib
from dataclasses import replace
from pathlib import Path

from alam_bringup.description import Argument, Graph, NodeSpec, Values
from alam_bringup.folders import folder, read_policy
from alam_bringup.worlds import LIBERO, METAWORLD, NAMESPACE, NETWORK, SPEED, STEPS
from alam_core.errors import UserError
from alam_core.robots.piper import (
    SIMULATED_MAX_ACCELERATION,
    SIMULATED_MAX_GRIPPER_VELOCITY,
    SIMULATED_MAX_JERK,
    SIMULATED_MAX_VELOCITY,
)

CAN_GROUP = "239.74.163.2"  # multicast group of the emulated CAN bus
CAN_BASE_PORT = 43113  # UDP port of the emulated bus in ROS domain 0
DOMAINS = 233
# s without feedback before a fault, of an emulated arm on the wall clock: it shares the machine
# with all other nodes. A real arm keeps the controller's default of 0.1 s.
STARVED_FEEDBACK_TIMEOUT = 1.0


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
    if not (text.isdecimal() and int(text) < DOMAINS):
        raise UserError(f"ROS_DOMAIN_ID={text} is not a whole number from 0 to 232")
    return int(text)


def can_port(namespace: str) -> int:
    """The UDP port of the emulated CAN bus of a graph, so that graphs in different domains or
    namespaces on one host have separate buses. (Two namespaces share a port by a chance of 1 in 90;
    the second simulator then ends with an error.)
    """
    block = 1 + zlib.crc32(namespace.encode()) % 90 if namespace else 0
    return CAN_BASE_PORT + DOMAINS * block + domain()


def _build_piper(values: Values) -> list[NodeSpec]:
    sim = values["sim"]
    if values["realtime"] and not sim:
        raise UserError(
            "realtime:=true only works with sim:=true: a real arm always runs on the wall clock"
        )
    if sim and values["backend"] != "piper_sdk":
        raise UserError(
            f"backend:={values['backend']} only works with sim:=false: the simulated arm has no "
            "node of the manufacturer"
        )
    checkpoint, encoder = (
        folder("checkpoint", values["checkpoint"]),
        folder("encoder", values["encoder"]),
    )
    views = ["third_person", "wrist"]
    topics = [values[f"{view}_topic"] for view in views]
    clock = {"use_sim_time": sim and not values["realtime"]}
    namespace = values["namespace"].strip("/")
    port = values["can_udp_port"] or can_port(namespace)
    if sim:
        can = {"can_interface": "udp_multicast", "can_channel": CAN_GROUP, "can_port": port}
    else:
        can = {"can_interface": "socketcan", "can_channel": values["can_port"]}
        if values["backend"] != "piper_sdk":
            can["backend"] = values["backend"]
    # The simulated arm may move as fast as the scripted expert demonstrates; a real arm keeps the
    # controller's lower default limits.
    motion = (
        {
            "max_velocity": SIMULATED_MAX_VELOCITY,
            "max_acceleration": SIMULATED_MAX_ACCELERATION,
            "max_jerk": SIMULATED_MAX_JERK,
            "max_gripper_velocity": SIMULATED_MAX_GRIPPER_VELOCITY,
        }
        if sim
        else {}
    )
    if values["realtime"]:  # a busy machine keeps the emulated arm from running, which is no fault
        motion["feedback_timeout"] = STARVED_FEEDBACK_TIMEOUT
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
                "image_size": values["image_size"] or read_policy(checkpoint).image_size,
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
    return [replace(node, namespace=namespace and f"/{namespace}") for node in nodes]


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
        SPEED,
        Argument(
            "seed",
            1,
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
            "third_person/color/image_raw",
            "image topic of the camera on the tripod, in the namespace unless it begins with '/'",
            ros_name=True,
        ),
        Argument(
            "wrist_topic",
            "wrist/color/image_raw",
            "image topic of the camera on the wrist",
            ros_name=True,
        ),
        Argument("can_port", "can0", "CAN interface of the real arm"),
        Argument(
            "backend",
            "piper_sdk",
            "real arm only: piper_sdk, or piper_ros to go through the manufacturer's node",
            choices=("piper_sdk", "piper_ros"),
        ),
        Argument(
            "can_udp_port",
            0,
            "UDP port of the emulated CAN bus; 0: one for each ROS domain and namespace",
            bounds=(0, 65535),
        ),
        Argument(
            "realsense",
            True,
            "real arm only: start realsense2_camera nodes if that package is installed",
        ),
        Argument("third_person_serial", "", "serial number of the RealSense on the tripod"),
        Argument("wrist_serial", "", "serial number of the RealSense on the wrist"),
        NAMESPACE,
        NETWORK,
    ),
    _build_piper,
)
GRAPHS = {graph.name: graph for graph in (PIPER, METAWORLD, LIBERO, STEPS)}


def find_graph(name: str) -> Graph:
    """The graph with that name. Raises UserError for an unknown name."""
    if name not in GRAPHS:
        raise UserError(f"no graph is called '{name}'; the graphs are: {', '.join(GRAPHS)}")
    return GRAPHS[name]
