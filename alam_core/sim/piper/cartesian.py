"""Moves the Piper's grasp point by one control step towards a point, for scripted experts.

Shared by the experts of all tasks. Positions are (3,) in m, frame ``base_link``.
"""

import numpy as np

from alam_core.robots.piper import HOME, JOINT_LIMITS, inverse_kinematics
from alam_core.sim.piper.world import PiperWorld

# Angles in rad by which the gripper may lean outwards. The first keeps joint5 clear of its limit;
# the others are for points that it does not reach.
TILTS = (0.3, 0.5, 0.8)
# rad per control step of 0.1 s, below the controller's default limit of 1 rad/s
MAX_JOINT_STEP = 0.09
MAX_STEP = 0.032  # m per control step
MARGIN = 0.03  # rad kept to the joint limits


def step_towards(
    world: PiperWorld, goal: np.ndarray, opening: float, speed: float = 1.0
) -> np.ndarray:
    """The action (7,) that moves the grasp point towards ``goal`` (3,), slower near the goal.

    opening: of the gripper, m. speed: fraction of ``MAX_STEP``.
    """
    tcp = world.tcp()
    error = goal - tcp
    distance = float(np.linalg.norm(error))
    stride = min(MAX_STEP * speed, 0.6 * distance)
    point = tcp + error * (stride / distance) if distance > 1e-6 else goal
    joints = world.joint_state()[0][:6]
    change = _joint_angles(point) - joints
    change *= min(1.0, MAX_JOINT_STEP / np.abs(change).max())
    lower, upper = JOINT_LIMITS.T
    return np.append(np.clip(joints + change, lower + MARGIN, upper - MARGIN), opening)


def _joint_angles(point: np.ndarray) -> np.ndarray:
    """Joint angles (6,) in rad for a grasp point, with the smallest tilt that reaches it."""
    for tilt in TILTS:
        try:
            return inverse_kinematics(point, tilt)
        except ValueError:
            continue
    return np.array(HOME[:6])  # out of reach: return home first
