"""The parameters of the node ``arm_controller``, and the settings made of them."""

import math
from collections.abc import Mapping
from typing import Any

from alam_common.parameters import Parameter
from alam_core.errors import UserError
from alam_core.robots.piper import JOINT_LIMITS, MAX_VELOCITY
from alam_core.robots.workspace import Workspace
from alam_core.runtime.motion import make_limits
from alam_piper.backends import BACKEND_PARAMETERS
from alam_piper.bus import INTERFACES
from alam_piper.config import ControllerConfig
from alam_piper.gate import ChunkRules

PERIOD = 0.005  # s between ticks of the loop
LONGEST_STOP = 1.5  # s that a joint may take to brake from its full speed
SPACE = Workspace()
PARAMETERS = {
    **BACKEND_PARAMETERS,
    "can_interface": Parameter("udp_multicast", "python-can interface", choices=INTERFACES),
    "can_channel": Parameter(
        "239.74.163.2", "CAN channel: can0, a multicast address, or socket://host:port"
    ),
    "can_port": Parameter(43113, "UDP port, for udp_multicast only", 0, 65535),
    "max_velocity": Parameter(
        1.0,
        "rad/s, limit of each joint; never more than firmware_speed_percent allows",
        0.05,
        MAX_VELOCITY,
    ),
    "max_acceleration": Parameter(
        5.0, "rad/s^2, limit of each joint; the firmware of a real arm allows 5", 0.5, 50.0
    ),
    "max_jerk": Parameter(50.0, "rad/s^3, limit of each joint", 5.0, 5000.0),
    "gripper_stroke": Parameter(
        0.10, "m, full opening: 0.07 for the older gripper, 0.10 for the newer one", 0.01, 0.10
    ),
    "max_gripper_velocity": Parameter(0.3, "m/s, limit of the opening", 0.01, 1.0),
    "gripper_effort": Parameter(1.0, "N*m, grip effort", 0.0, 5.0),
    "firmware_speed_percent": Parameter(
        100, "speed limit in the arm's firmware, percent of 3 rad/s", 1, 100
    ),
    "workspace_min": Parameter(
        list(SPACE.lower), "m, lowest x, y and z of the tool in base_link", -2.0, 2.0
    ),
    "workspace_max": Parameter(
        list(SPACE.upper), "m, highest x, y and z of the tool in base_link", -2.0, 2.0
    ),
    "floor": Parameter(SPACE.floor, "m, height below which no part of the arm may go", -1.0, 1.0),
    "self_collision": Parameter(True, "whether to keep the arm away from itself"),
    "max_start_jump": Parameter(
        0.5, "rad between a joint's set-point and a new chunk's present position", 0.01, 3.0
    ),
    "max_tracking_error": Parameter(
        0.3,
        "rad between a joint and its set-point; more for feedback_timeout is a fault",
        0.02,
        3.0,
    ),
    "command_timeout": Parameter(
        0.2, "s after the last row of a chunk after which the arm holds", 0.02, 5.0
    ),
    "chunk_timeout": Parameter(
        3.0, "s after the arrival of a chunk after which the arm holds without a new one", 0.1, 60.0
    ),
    "feedback_timeout": Parameter(
        0.1, "s without a new frame of any kind of feedback before a fault", 0.02, 2.0
    ),
    "max_chunk_age": Parameter(1.0, "s, largest age of a chunk's observation", 0.05, 10.0),
    "max_chunk_duration": Parameter(
        5.0, "s, largest time from a chunk's observation to its last row", 0.1, 60.0
    ),
    "splice_fade": Parameter(
        0.15, "s over which the difference between two chunks is faded out", 0.005, 1.0
    ),
    "realtime_priority": Parameter(
        20,
        "SCHED_FIFO priority of the loop and the CAN reader, on the wall clock only and if "
        "permitted; 0: none",
        0,
        90,
    ),
    "joint_state_divider": Parameter(
        4, "joint_states and alam/arm/status are published on every n-th tick", 1, 200
    ),
}


def stopping_time(velocity: float, acceleration: float, jerk: float) -> float:
    """s that a joint takes to brake from a steady ``velocity`` within its limits."""
    if velocity * jerk >= acceleration**2:
        return velocity / acceleration + acceleration / jerk
    return 2.0 * math.sqrt(velocity / jerk)


def make_config(p: Mapping[str, Any]) -> ControllerConfig:
    """The controller's settings for the values ``p`` of PARAMETERS. Raises UserError for a
    workspace without room, and for limits under which the arm brakes too slowly.
    """
    # A set-point that the firmware cannot follow would be a tracking error.
    velocity = min(p["max_velocity"], MAX_VELOCITY * p["firmware_speed_percent"] / 100.0)
    stop = stopping_time(velocity, p["max_acceleration"], p["max_jerk"])
    if stop > LONGEST_STOP:
        raise UserError(
            f"the arm would take {stop:.1f} s to brake from {velocity:g} rad/s, at most "
            f"{LONGEST_STOP} s allowed: lower max_velocity, or raise max_acceleration "
            f"({p['max_acceleration']:g} rad/s^2) or max_jerk ({p['max_jerk']:g} rad/s^3)"
        )
    return ControllerConfig(
        limits=make_limits(
            JOINT_LIMITS,
            velocity=velocity,
            acceleration=p["max_acceleration"],
            jerk=p["max_jerk"],
            gripper_stroke=p["gripper_stroke"],
            gripper_velocity=p["max_gripper_velocity"],
        ),
        workspace=Workspace(
            floor=p["floor"],
            lower=tuple(p["workspace_min"]),
            upper=tuple(p["workspace_max"]),
            self_collision=p["self_collision"],
        ),
        rules=ChunkRules(
            max_age=p["max_chunk_age"],
            max_duration=p["max_chunk_duration"],
            max_start_jump=p["max_start_jump"],
        ),
        period=PERIOD,
        command_timeout=p["command_timeout"],
        chunk_timeout=p["chunk_timeout"],
        feedback_timeout=p["feedback_timeout"],
        max_tracking_error=p["max_tracking_error"],
        fade=p["splice_fade"],
        strict=p["backend"] == "piper_sdk",  # the other does not tell firmware and limits
    )
