"""The AgileX Piper: joint names, limits, gripper, home pose and kinematics.

The only description of the arm: the simulator builds its model from ``LINKS``, controller and
emulator enforce ``JOINT_LIMITS``, data sets and policies name their columns by ``JOINT_NAMES``.
Angles are in rad, lengths in m, poses in the frame ``base_link``.

Sources: the frames in ``LINKS`` are those of the manufacturer's URDF (piper_ros), the modified
Denavit-Hartenberg parameters those of its SDK (piper_sdk). The two tables are rounded differently;
link poses computed from them agree within 0.1 mm. Limits of speed and acceleration are those of
the firmware.

Firmware older than S-V1.6-3 measures joints 2 and 3 from zero positions that differ by 2 degrees.
Functions take ``dh_offset`` for it, named as in the SDK: True (the default) for newer firmware,
False for older.
"""

import math
from dataclasses import dataclass

import numpy as np

JOINT_NAMES = ("joint1", "joint2", "joint3", "joint4", "joint5", "joint6", "gripper")
GRIPPER_STROKE = 0.10  # m, total opening of the newer gripper; the first model opens 0.07 m
TCP_OFFSET = 0.1358  # m along z of link 6, to the grasp point between the finger tips
HOME = (0.0, 1.2053, -0.8554, 0.0, 1.0081, 0.0, 0.09)
"""rad and m: gripper open, 0.14 m above the table, leaning outwards by 0.3 rad."""
MAX_VELOCITY = 3.0  # rad/s per joint
MAX_ACCELERATION = 5.0  # rad/s^2 per joint

SHOULDER_HEIGHT = 0.123  # m, base to the axis of joint 2
UPPER_ARM = 0.28503  # m, joint 2 to joint 3
FOREARM = 0.25075  # m, joint 3 to the wrist centre, along the forearm
ELBOW_OFFSET = 0.021984  # m, joint 3 to the wrist centre, across the forearm
HAND = 0.091  # m, wrist centre to link 6

# Limits of the simulated arm, wide enough to execute demonstrated set-points unchanged. A real arm
# gets the stricter defaults of the controller.
SIMULATED_MAX_VELOCITY = 2.0  # rad/s per joint
SIMULATED_MAX_ACCELERATION = 50.0  # rad/s^2 per joint
SIMULATED_MAX_JERK = 2000.0  # rad/s^3 per joint
SIMULATED_MAX_GRIPPER_VELOCITY = 1.0  # m/s of opening


@dataclass(frozen=True)
class Link:
    """One revolute joint and the link it carries.

    xyz (m) and rpy (rad, fixed axes): the joint's frame in its parent's frame; the joint turns
    about its own z axis. limits: rad. mass: kg.
    """

    xyz: tuple[float, float, float]
    rpy: tuple[float, float, float]
    limits: tuple[float, float]
    mass: float


_HALF_PI = 1.5707963
_UPPER_ZERO = 0.1359  # rad, how far the upper arm is from the horizontal at joint2 = 0
_ELBOW_ZERO = 1.7939  # rad, from upper arm to link 3's x axis at joint3 = 0
LINKS = (
    Link((0, 0, SHOULDER_HEIGHT), (0, 0, 0), (-2.618, 2.618), 0.71),
    Link((0, 0, 0), (_HALF_PI, -_UPPER_ZERO, -3.1415927), (0.0, 3.14), 1.17),
    Link((UPPER_ARM, 0, 0), (0, 0, -_ELBOW_ZERO), (-2.967, 0.0), 0.5),
    Link((-ELBOW_OFFSET, -FOREARM, 0), (_HALF_PI, 0, 0), (-1.745, 1.745), 0.38),
    Link((0, 0, 0), (-_HALF_PI, 0, 0), (-1.22, 1.22), 0.383),
    Link((0, -HAND, 0), (_HALF_PI, 0, 0), (-2.0944, 2.0944), 0.1),
)
JOINT_LIMITS = np.array([link.limits for link in LINKS])  # (6, 2) rad: lower, upper

OLD_ZERO_SHIFT = np.radians([0.0, 2.0, -2.0, 0.0, 0.0, 0.0])
"""rad (6,): joint angles reported by older firmware minus those of newer firmware, same pose."""

# Modified Denavit-Hartenberg parameters, newer firmware: twist alpha, length a, offsets theta and d
_ALPHA = np.radians([0.0, -90.0, 0.0, 90.0, -90.0, 90.0])
_A = np.array([0.0, 0.0, UPPER_ARM, -0.02198, 0.0, 0.0])  # the SDK rounds the elbow's offset
_THETA = np.radians([0.0, -172.22, -102.78, 0.0, 0.0, 0.0])
_D = np.array([SHOULDER_HEIGHT, 0.0, 0.0, FOREARM, 0.0, HAND])
_CA, _SA = np.cos(_ALPHA), np.sin(_ALPHA)
_STEPS = np.zeros((6, 4, 4))  # what does not depend on the angles
_STEPS[:, 0, 3] = _A
_STEPS[:, 1, 2], _STEPS[:, 1, 3] = -_SA, -_SA * _D
_STEPS[:, 2, 2], _STEPS[:, 2, 3] = _CA, _CA * _D
_STEPS[:, 3, 3] = 1.0


def link_poses(joints: np.ndarray, dh_offset: bool = True) -> np.ndarray:
    """Forward kinematics: poses of links 1 to 6 for joint angles (..., 6) in rad, as homogeneous
    transforms (..., 6, 4, 4) with translations in m. ``dh_offset``: see the module's docstring.
    """
    theta = joints + _THETA if dh_offset else joints + _THETA - OLD_ZERO_SHIFT
    ct, st = np.cos(theta), np.sin(theta)
    poses = np.empty((*theta.shape, 4, 4))  # first in each link's parent, then in the base
    poses[:] = _STEPS
    poses[..., 0, 0], poses[..., 0, 1] = ct, -st
    poses[..., 1, 0], poses[..., 1, 1] = st * _CA, ct * _CA
    poses[..., 2, 0], poses[..., 2, 1] = st * _SA, ct * _SA
    for i in range(1, len(LINKS)):
        poses[..., i, :, :] = poses[..., i - 1, :, :] @ poses[..., i, :, :]
    return poses


def tcp_position(joints: np.ndarray, dh_offset: bool = True) -> np.ndarray:
    """Positions (..., 3) of the grasp point in m for joint angles (..., 6) in rad. ``dh_offset``:
    see the module's docstring.
    """
    link6 = link_poses(joints, dh_offset)[..., 5, :, :]
    return link6[..., :3, 3] + TCP_OFFSET * link6[..., :3, 2]


def inverse_kinematics(
    position: np.ndarray, tilt: float = 0.0, dh_offset: bool = True
) -> np.ndarray:
    """Joint angles (6,) in rad that bring the grasp point to ``position`` (3,) in m, in closed
    form, with the gripper in the vertical plane through the base axis (joint4 = joint6 = 0).

    tilt: rad by which the gripper leans outwards from pointing straight down. ``dh_offset``: see
    the module's docstring. Raises ValueError if the point is out of reach or a joint would leave
    its limits.
    """
    # In that plane the arm is a chain of three links. Elevation angles, positive upwards:
    #   upper arm  upper = pi - _UPPER_ZERO - q2                (shoulder to elbow)
    #   forearm    forearm = upper + _ELBOW_ZERO - q3 + bend    (elbow to wrist centre)
    #   gripper    pointing = forearm - bend + pi / 2 - q5      (wrist centre to grasp point)
    bend = math.pi / 2 + math.atan2(ELBOW_OFFSET, FOREARM)
    forearm_length = math.hypot(ELBOW_OFFSET, FOREARM)
    hand = HAND + TCP_OFFSET
    x, y, z = (float(value) for value in position)
    pointing = tilt - math.pi / 2
    radius = math.hypot(x, y) - hand * math.cos(pointing)
    height = z - SHOULDER_HEIGHT - hand * math.sin(pointing)
    distance = math.hypot(radius, height)
    cosine = (UPPER_ARM**2 + distance**2 - forearm_length**2) / (2 * UPPER_ARM * distance)
    if abs(cosine) > 1:
        raise ValueError(f"({x:.3f}, {y:.3f}, {z:.3f}) m is out of the arm's reach")
    upper = math.atan2(height, radius) + math.acos(cosine)
    forearm = math.atan2(height - UPPER_ARM * math.sin(upper), radius - UPPER_ARM * math.cos(upper))
    link3 = forearm - bend
    q2 = math.pi - _UPPER_ZERO - upper
    q3 = _wrap(upper + _ELBOW_ZERO - link3)
    q5 = _wrap(link3 + math.pi / 2 - pointing)
    joints = np.array([math.atan2(y, x), q2, q3, 0.0, q5, 0.0])
    if not dh_offset:
        joints += OLD_ZERO_SHIFT
    outside = (joints < JOINT_LIMITS[:, 0]) | (joints > JOINT_LIMITS[:, 1])
    if outside.any():
        angles = ", ".join(f"joint{i + 1} = {joints[i]:.2f}" for i in np.flatnonzero(outside))
        raise ValueError(
            f"({x:.3f}, {y:.3f}, {z:.3f}) m needs {angles} rad, beyond the joint's limits"
        )
    return joints


def _wrap(angle: float) -> float:
    """The angle in [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
