"""Where the arm's links are: forward kinematics of the Piper from its published modified
Denavit-Hartenberg parameters.
"""

import numpy as np

JOINT_LIMITS = np.array(
    [(-2.618, 2.618), (0.0, 3.14), (-2.967, 0.0), (-1.745, 1.745), (-1.22, 1.22), (-2.0944, 2.0944)]
)  # (6, 2) rad

# Newer firmware (joints 2 and 3 with the 2 degree offset): twist alpha, length a, joint offset
# theta0, offset d.
_ALPHA = np.radians([0.0, -90.0, 0.0, 90.0, -90.0, 90.0])
_A = np.array([0.0, 0.0, 0.28503, -0.02198, 0.0, 0.0])
_THETA0 = np.radians([0.0, -172.22, -102.78, 0.0, 0.0, 0.0])
_D = np.array([0.123, 0.0, 0.0, 0.25075, 0.0, 0.091])

TCP_OFFSET = 0.1358  # m along z of link 6, to the point between the finger tips


def link_poses(joints: np.ndarray) -> np.ndarray:
    """Poses of links 1 to 6 in ``base_link`` for six joint angles (6,) in rad, as homogeneous
    transforms (6, 4, 4) in m.
    """
    poses = np.empty((6, 4, 4))
    pose = np.eye(4)
    for i in range(6):
        ct, st = np.cos(joints[i] + _THETA0[i]), np.sin(joints[i] + _THETA0[i])
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


def tcp_position(joints: np.ndarray) -> np.ndarray:
    """Position (3,) in m of the tool centre point in ``base_link`` for six joint angles (6,) in
    rad.
    """
    link6 = link_poses(joints)[5]
    return link6[:3, 3] + TCP_OFFSET * link6[:3, 2]
