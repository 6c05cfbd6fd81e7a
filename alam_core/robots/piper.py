"""The AgileX Piper: joint names, limits and kinematics, in one place for all who need them.

The simulator builds its model from ``LINKS``, the controller keeps ``JOINT_LIMITS``, data and
policies name their columns by ``JOINT_NAMES``. Poses are in the frame ``base_link``; radians and
metres. Sources: the maker's URDF and its table of modified Denavit-Hartenberg parameters.
"""

import math
from dataclasses import dataclass

import numpy as np

JOINT_NAMES = ("joint1", "joint2", "joint3", "joint4", "joint5", "joint6", "gripper")
GRIPPER_STROKE = 0.10  # m, total opening of the newer gripper; the first one opens 0.07 m
TCP_OFFSET = 0.1358  # m along z of link 6, to the grasp point between the finger tips
HOME = (0.0, 1.2053, -0.8554, 0.0, 1.0081, 0.0, 0.09)
"""rad and m: open gripper 0.14 m above the table, leaning outwards by 0.3 rad."""
MAX_VELOCITY = 3.0  # rad/s, the firmware's own limit for each joint
MAX_ACCELERATION = 5.0  # rad/s^2, likewise

# Limits of the simulated arm, which executes set-points as they were demonstrated. The gentler
# defaults of a real arm are the controller's.
SIMULATED_MAX_VELOCITY = 2.0  # rad/s per joint
SIMULATED_MAX_ACCELERATION = 50.0  # rad/s^2 per joint
SIMULATED_MAX_GRIPPER_VELOCITY = 1.0  # m/s of opening


@dataclass(frozen=True)
class Link:
    """One revolute joint and the link it carries.

    xyz (m) and rpy (rad, fixed axes): the joint's origin in its parent's frame; it turns about its
    own z axis. limits: rad. mass: kg.
    """

    xyz: tuple[float, float, float]
    rpy: tuple[float, float, float]
    limits: tuple[float, float]
    mass: float


_HALF_PI = 1.5707963
LINKS = (
    Link((0, 0, 0.123), (0, 0, 0), (-2.618, 2.618), 0.71),
    Link((0, 0, 0), (_HALF_PI, -0.1359, -3.1415927), (0.0, 3.14), 1.17),
    Link((0.28503, 0, 0), (0, 0, -1.7939), (-2.967, 0.0), 0.5),
    Link((-0.021984, -0.25075, 0), (_HALF_PI, 0, 0), (-1.745, 1.745), 0.38),
    Link((0, 0, 0), (-_HALF_PI, 0, 0), (-1.22, 1.22), 0.383),
    Link((0, -0.091, 0), (_HALF_PI, 0, 0), (-2.0944, 2.0944), 0.1),
)
JOINT_LIMITS = np.array([link.limits for link in LINKS])  # (6, 2) rad: lower, upper

# Modified Denavit-Hartenberg parameters: twist alpha, length a, joint offset theta0, offset d.
_ALPHA = np.radians([0.0, -90.0, 0.0, 90.0, -90.0, 90.0])
_A = np.array([0.0, 0.0, 0.28503, -0.02198, 0.0, 0.0])
_THETA0 = np.radians([0.0, -172.22, -102.78, 0.0, 0.0, 0.0])
_THETA0_OLD = np.radians([0.0, -174.22, -100.78, 0.0, 0.0, 0.0])
_D = np.array([0.123, 0.0, 0.0, 0.25075, 0.0, 0.091])


def link_poses(joints: np.ndarray, dh_offset: bool = True) -> np.ndarray:
    """Poses of links 1 to 6 for six joint angles (6,) in rad: homogeneous transforms (6, 4, 4), m.

    dh_offset: whether the zeros of joints 2 and 3 lie 2 degrees off those of the first firmware, as
    they do from S-V1.6-3 on.
    """
    theta0 = _THETA0 if dh_offset else _THETA0_OLD
    poses = np.empty((6, 4, 4))
    pose = np.eye(4)
    for i in range(6):
        ct, st = np.cos(joints[i] + theta0[i]), np.sin(joints[i] + theta0[i])
        ca, sa = np.cos(_ALPHA[i]), np.sin(_ALPHA[i])
        pose = pose @ np.array(
            [
                [ct, -st, 0.0, _A[i]],
                [st * ca, ct * ca, -sa, -sa * _D[i]],
                [st * sa, ct * sa, ca, ca * _D[i]],
                [0.0, 0.0, 0.0, 1.0],
            ]
        )
        poses[i] = pose
    return poses


def tcp_position(joints: np.ndarray, dh_offset: bool = True) -> np.ndarray:
    """Position (3,) in m of the grasp point for six joint angles (6,) in rad."""
    link6 = link_poses(joints, dh_offset)[5]
    return link6[:3, 3] + TCP_OFFSET * link6[:3, 2]


# With joint4 = joint6 = 0 the arm is a planar chain turned about the base by joint1. Elevations in
# that plane, counted from the horizontal towards up:
#   upper arm   upper = _UPPER_ZERO - q2
#   forearm     forearm = upper + _ELBOW_ZERO - q3 + _FOREARM_ANGLE   (shoulder to wrist centre)
#   gripper     pointing = forearm - _FOREARM_ANGLE + pi / 2 - q5     (wrist centre to grasp point)
_SHOULDER_HEIGHT = 0.123
_UPPER_ARM = 0.28503
_FOREARM = math.hypot(0.021984, 0.25075)
_HAND = 0.091 + TCP_OFFSET
_UPPER_ZERO = math.pi - 0.1359
_ELBOW_ZERO = 1.7939
_FOREARM_ANGLE = math.pi / 2 + math.atan2(0.021984, 0.25075)


def inverse_kinematics(position: np.ndarray, tilt: float = 0.0) -> np.ndarray:
    """Joint angles (6,) in rad that bring the grasp point to ``position`` (3,) in m, in closed
    form, for a gripper that stays in the vertical plane through the base axis.

    tilt: rad by which the gripper leans outwards from pointing straight down. Raises ValueError
    when the point is out of reach or a joint would leave its limits.
    """
    x, y, z = (float(value) for value in position)
    pointing = tilt - math.pi / 2
    radius = math.hypot(x, y) - _HAND * math.cos(pointing)
    height = z - _SHOULDER_HEIGHT - _HAND * math.sin(pointing)
    distance = math.hypot(radius, height)
    cosine = (_UPPER_ARM**2 + distance**2 - _FOREARM**2) / (2 * _UPPER_ARM * distance)
    if abs(cosine) > 1:
        raise ValueError(f"({x:.3f}, {y:.3f}, {z:.3f}) m is out of the arm's reach")
    upper = math.atan2(height, radius) + math.acos(cosine)
    forearm = math.atan2(
        height - _UPPER_ARM * math.sin(upper), radius - _UPPER_ARM * math.cos(upper)
    )
    frame3 = forearm - _FOREARM_ANGLE
    q2 = _UPPER_ZERO - upper
    q3 = upper + _ELBOW_ZERO - frame3
    q3 = (q3 + math.pi) % (2 * math.pi) - math.pi
    q5 = frame3 + math.pi / 2 - pointing
    q5 = (q5 + math.pi) % (2 * math.pi) - math.pi
    joints = np.array([math.atan2(y, x), q2, q3, 0.0, q5, 0.0])
    lower, upper_limits = JOINT_LIMITS.T
    outside = [
        f"joint{i + 1} = {q:.2f}"
        for i, q in enumerate(joints)
        if not lower[i] <= q <= upper_limits[i]
    ]
    if outside:
        raise ValueError(
            f"({x:.3f}, {y:.3f}, {z:.3f}) m needs {', '.join(outside)} rad, beyond the joint's limits"
        )
    return joints
