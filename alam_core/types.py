"""What crosses the borders between worlds, policies and robots.

Letters used in shapes: H_img, W image height and width; A action width; H chunk length.
Units are radians, metres and seconds; images are uint8 RGB.
"""

from dataclasses import dataclass, field

import numpy as np

VIEWS = ("third_person", "wrist")
JOINT_NAMES = ("joint1", "joint2", "joint3", "joint4", "joint5", "joint6", "gripper")


@dataclass
class Observation:
    """One synchronised look at the world.

    images: view name -> uint8 RGB (H_img, W, 3). state: float32 (S,), for an arm its joint
    positions in rad followed by the gripper's opening in m. instruction: what the arm is asked to
    do, in words. stamp: s, on whatever clock the source uses; only differences matter.
    """

    images: dict[str, np.ndarray]
    state: np.ndarray
    instruction: str = ""
    stamp: float = 0.0


@dataclass
class ActionChunk:
    """What a policy wants to happen next.

    actions: float32 (H, A); row i is the set-point to be reached at ``stamp + (i + 1) * dt``.
    stamp: s, the stamp of the observation it was computed from. latents: view name -> float32 (H,
    D), the transitions imagined beside the actions; empty for a policy without latents.
    """

    actions: np.ndarray
    dt: float
    stamp: float = 0.0
    latents: dict[str, np.ndarray] = field(default_factory=dict)
