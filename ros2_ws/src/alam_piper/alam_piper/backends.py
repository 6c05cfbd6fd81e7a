"""Which connection to the arm the controller uses, by its parameters."""

from collections.abc import Mapping
from typing import Any

from alam_common.parameters import Parameter
from alam_piper.bus import BusConfig
from alam_piper.hardware import Backend, SdkBackend
from alam_piper.ros_backend import PiperRosNames, RosBackend

BACKENDS = ("piper_sdk", "piper_ros")
_NAMES = PiperRosNames()
BACKEND_PARAMETERS = {
    "backend": Parameter(
        "piper_sdk",
        "piper_sdk: open the CAN bus; piper_ros: use the manufacturer's node, which has opened it",
        choices=BACKENDS,
    ),
    "piper_ros_joint_states": Parameter(
        _NAMES.joint_states, "topic of the joint states, for piper_ros only"
    ),
    "piper_ros_arm_status": Parameter(
        _NAMES.arm_status, "topic of the arm's status, for piper_ros only"
    ),
    "piper_ros_command": Parameter(_NAMES.command, "topic that piper_ros obeys"),
    "piper_ros_enable": Parameter(_NAMES.enable, "service that powers the arm, of piper_ros"),
}


def make_backend(parameters: Mapping[str, Any], bus: BusConfig, namespace: str) -> Backend:
    """The backend that the controller's parameters ask for, not connected yet.

    parameters: the values of BACKEND_PARAMETERS, ``firmware_speed_percent`` and ``gripper_effort``.
    bus: for piper_sdk. namespace: of the controller, in which piper_ros is looked for.
    """
    speed, effort = parameters["firmware_speed_percent"], parameters["gripper_effort"]
    if parameters["backend"] == "piper_sdk":
        return SdkBackend(bus, speed, effort)
    names = PiperRosNames(
        joint_states=parameters["piper_ros_joint_states"],
        arm_status=parameters["piper_ros_arm_status"],
        command=parameters["piper_ros_command"],
        enable=parameters["piper_ros_enable"],
    )
    return RosBackend(names, namespace, speed, effort)
