"""Closed-form inverse kinematics of the Piper for a gripper that stays in the vertical plane
through the base axis.

With joint4 = joint6 = 0 the arm is a planar chain turned about the base by joint1. All angles below
are elevations in that plane, counted from the horizontal towards up:

    upper arm   e2 = pi - 0.1359 - q2                      length 0.28503
    forearm     w  = e2 + 1.7939 - q3 + 1.6582             length 0.25171 (shoulder to wrist centre)
    gripper     p  = w - 1.6582 + pi / 2 - q5              length 0.2268  (wrist centre to grasp point)
"""

import math

import numpy as np

from alam_core.sim.piper.model import JOINT_HIGH, JOINT_LOW, TCP_OFFSET

SHOULDER_HEIGHT = 0.123
UPPER_ARM = 0.28503
FOREARM = math.hypot(0.021984, 0.25075)
HAND = 0.091 + TCP_OFFSET
UPPER_ZERO = math.pi - 0.1359
ELBOW_ZERO = 1.7939
FOREARM_ANGLE = math.pi / 2 + math.atan2(0.021984, 0.25075)


def inverse_kinematics(position: np.ndarray, tilt: float = 0.0) -> np.ndarray:
    """Joint angles (6,) in rad that bring the grasp point to ``position`` (3,) in m, base frame.

    tilt: rad by which the gripper leans outwards from pointing straight down. Raises ValueError
    when the point is out of reach or a joint would leave its limits.
    """
    x, y, z = (float(value) for value in position)
    pointing = tilt - math.pi / 2
    radius = math.hypot(x, y) - HAND * math.cos(pointing)
    height = z - SHOULDER_HEIGHT - HAND * math.sin(pointing)
    distance = math.hypot(radius, height)
    cosine = (UPPER_ARM**2 + distance**2 - FOREARM**2) / (2 * UPPER_ARM * distance)
    if abs(cosine) > 1:
        raise ValueError(f"({x:.3f}, {y:.3f}, {z:.3f}) m is out of the arm's reach")
    upper = math.atan2(height, radius) + math.acos(cosine)
    forearm = math.atan2(height - UPPER_ARM * math.sin(upper), radius - UPPER_ARM * math.cos(upper))
    frame3 = forearm - FOREARM_ANGLE
    q2 = UPPER_ZERO - upper
    q3 = upper + ELBOW_ZERO - frame3
    q3 = (q3 + math.pi) % (2 * math.pi) - math.pi
    q5 = frame3 + math.pi / 2 - pointing
    q5 = (q5 + math.pi) % (2 * math.pi) - math.pi
    joints = np.array([math.atan2(y, x), q2, q3, 0.0, q5, 0.0])
    outside = [
        f"joint{i + 1} = {q:.2f}"
        for i, q in enumerate(joints)
        if not JOINT_LOW[i] <= q <= JOINT_HIGH[i]
    ]
    if outside:
        raise ValueError(
            f"({x:.3f}, {y:.3f}, {z:.3f}) m needs {', '.join(outside)} rad, beyond the joint's limits"
        )
    return joints
