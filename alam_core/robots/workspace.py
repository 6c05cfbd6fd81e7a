"""Where the Piper may be: above a floor, within a box, and clear of itself.

The links are chains of spheres that enclose the shapes of the simulated arm. They keep a clearance
to the base, which is a box and two upright cylinders, and those beyond the wrist to the upper arm
as well. Every other pair of links is adjacent, or out of each other's reach within the joints'
limits; the forearm and the links 4 and 5 meet in the wrist and count as adjacent.

N: number of poses. Poses are (N, 7): joints in rad, opening of the gripper in m. Positions are in m
in the frame ``base_link``.
"""

import functools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from alam_core.errors import UserError
from alam_core.robots.piper import TCP_OFFSET, UPPER_ARM, link_poses

# Chains of spheres: link, centres of the first and the last sphere in the link's frame, number of
# spheres, radius.
_CHAINS = {
    "elbow": (3, (0, 0, -0.03), (0, 0, 0.03), 3, 0.039),
    "forearm": (3, (-0.01, -0.05, 0), (-0.02, -0.21, 0), 7, 0.0335),
    "wrist": (4, (0, 0, -0.03), (0, 0, 0.02), 4, 0.0315),
    "hand": (6, (0, 0, -0.091), (0, 0, 0.015), 7, 0.0296),
    "gripper": (6, (0, -0.052, 0.045), (0, 0.052, 0.045), 5, 0.0358),
    "fingers": (6, (0, 0.009, 0.077), (0, 0.0055, 0.144), 5, 0.0165),  # the left one, closed
}
_BEYOND_WRIST = ("hand", "gripper", "fingers")
_TIP = (0.0045, TCP_OFFSET + 0.014)  # y and z of a closed finger's tip in link 6's frame
_PLATE = (0.085, 0.085, 0.008)  # half the edges of the box on which the base stands
_COLUMNS = ((0.055, 0.0, 0.075), (0.045, 0.078, 0.158))  # radius, lower end, upper end
_UPPER_ARM_RADIUS = 0.036
_SHOULDER_RADIUS = 0.0432  # of a capsule along the axis of joint 2
_SHOULDER = 0.04  # half of its length

REACH = np.array([0.85, 0.85, 0.56, 0.31, 0.31, 0.11, 0.5])
"""(7,): no point of the arm moves further than by ``abs(change of the pose) @ REACH``, in m."""


def _mirrored(points: np.ndarray) -> np.ndarray:
    """Points (S, 3) of the left finger, and those of the right one (2 S, 3)."""
    return np.vstack([points, points * [1, -1, 1]])


_GROUPS = tuple(_CHAINS)
_CENTRES = {
    name: np.linspace(start, end, count) for name, (_, start, end, count, _) in _CHAINS.items()
}
_CENTRES["fingers"] = _mirrored(_CENTRES["fingers"])
_RADII = np.concatenate([np.full(len(_CENTRES[name]), _CHAINS[name][4]) for name in _GROUPS])
_STARTS = np.cumsum([0, *(len(_CENTRES[name]) for name in _GROUPS[:-1])])  # of the groups' spheres
_HAND, _FINGERS = _STARTS[_GROUPS.index("hand")], _STARTS[_GROUPS.index("fingers")]
_TOOL = np.array([[0, 0, TCP_OFFSET], [0, *_TIP], [0, -_TIP[0], _TIP[1]]])  # grasp point, tips
_OF_LINK = {  # points (3, P) in the link's frame; the last three of link 6 are those of the tool
    link: np.vstack(
        [_CENTRES[name] for name in _GROUPS if _CHAINS[name][0] == link] + [_TOOL] * (link == 6)
    ).T.copy()
    for link in (3, 4, 6)
}
# How far each point of link 6 moves along the link's y axis if the gripper opens by 1.
_SIDES = np.concatenate([np.zeros(_FINGERS - _HAND), np.repeat([0.5, -0.5], 5), [0, 0.5, -0.5]])
# Where each rule's values begin: tool and box, tool and floor, groups and floor, groups and base,
# groups and upper arm.
_RULES = np.concatenate(
    [
        [0, 9],
        12 + _STARTS[:-1],
        12 + _FINGERS + _STARTS,
        12 + _FINGERS + len(_RADII) + _STARTS[-len(_BEYOND_WRIST) :] - _HAND,
    ]
)
BOUNDARIES = np.array([0, 1, *range(1 + len(_GROUPS), len(_RULES))])
"""Where the rules of each boundary begin: box, floor, and one for each two links."""
_SELF = 1 + len(_GROUPS)  # the first rule that is about the arm and itself


@dataclass(frozen=True)
class Workspace:
    """The part of space that the arm may use.

    floor: m, height below which nothing of the arm may go: neither the grasp point nor the finger
    tips nor any link from the elbow on. The default is the surface that the arm stands on; the
    finger tips of the demonstrated task piper_place stay 0.006 m above it. lower, upper: m, corners
    of the box that the grasp point and the finger tips must stay in; the default holds all that
    they reach. clearance: m between links that are not adjacent, kept if ``self_collision``.
    dh_offset: which firmware the joint angles come from, see ``alam_core.robots.piper``.

    Raises UserError for a box without volume and for values that are not finite.
    """

    floor: float = 0.0
    lower: tuple[float, float, float] = (-0.85, -0.85, -0.85)
    upper: tuple[float, float, float] = (0.85, 0.85, 1.0)
    clearance: float = 0.01
    self_collision: bool = True
    dh_offset: bool = True

    def __post_init__(self) -> None:
        values = (self.floor, self.clearance, *self.lower, *self.upper)
        if not all(math.isfinite(value) for value in values) or self.clearance < 0:
            raise UserError(
                f"workspace: floor {self.floor}, box {self.lower} to {self.upper} and clearance "
                f"{self.clearance} must be finite, the clearance not negative"
            )
        if not all(low < high for low, high in zip(self.lower, self.upper, strict=True)):
            raise UserError(
                f"workspace: the box from {self.lower} to {self.upper} is empty: each lower "
                "coordinate must be below the upper one"
            )
        if self.floor >= self.upper[2]:
            raise UserError(
                f"workspace: the floor at {self.floor} m is not below the top of the box at "
                f"{self.upper[2]} m"
            )

    @property
    def rules(self) -> tuple[str, ...]:
        """What each column of ``beyond`` measures; {} stands for the depth in m."""
        near = f"closer than {self.clearance:g} m to the"
        return (
            "tool {} m outside the box",
            "tool {} m below the floor",
            *(f"{name} {{}} m below the floor" for name in _GROUPS[:-1]),
            *(f"{name} {near} base, by {{}} m" for name in _GROUPS),
            *(f"{name} {near} upper arm, by {{}} m" for name in _BEYOND_WRIST),
        )

    def depth(self, poses: np.ndarray) -> np.ndarray:
        """How far each of N poses is outside the workspace (N,) in m, 0 inside."""
        return self.beyond(poses).max(axis=1).clip(0.0)

    def violations(self, pose: np.ndarray) -> str:
        """The rules that a pose (7,) breaks, in one line; "" if none."""
        beyond = self.beyond(pose[None])[0]
        return ", ".join(
            rule.format(f"{depth:.3f}")
            for rule, depth in zip(self.rules, beyond, strict=True)
            if depth > 0.0
        )

    def beyond(self, poses: np.ndarray) -> np.ndarray:
        """How far N poses are beyond each rule (N, R) in m: negative values are distances left."""
        links = link_poses(poses[:, :6], self.dh_offset)
        spheres, tool = _points(links, poses[:, 6])
        heights = spheres[:, 2, :_FINGERS]  # the fingers' tips are those of the tool
        low = self.floor + _RADII[:_FINGERS] - heights
        near = self.clearance + _RADII - _distance_to_base(spheres)
        to_arm = _distance_to_upper_arm(spheres[..., _HAND:], links)
        near_arm = self.clearance + _RADII[_HAND:] - to_arm
        outside = np.maximum(tool - self._upper, self._lower - tool)  # (N, 3, 3)
        every = np.concatenate(
            [outside.reshape(-1, 9), self.floor - tool[:, 2], low, near, near_arm], axis=1
        )
        beyond = np.maximum.reduceat(every, _RULES, axis=1)
        if not self.self_collision:
            beyond[:, _SELF:] = -np.inf
        return beyond

    @cached_property
    def _lower(self) -> np.ndarray:
        return np.array(self.lower)[:, None]

    @cached_property
    def _upper(self) -> np.ndarray:
        return np.array(self.upper)[:, None]


def _points(links: np.ndarray, opening: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the spheres (N, 3, S) and points of the tool (N, 3, 3), last axis: which point."""
    points = [
        links[:, link - 1, :3, :3] @ local + links[:, link - 1, :3, 3:]
        for link, local in _OF_LINK.items()
    ]
    points[-1] += links[:, 5, :3, 1:2] * (opening[:, None, None] * _SIDES)
    every = np.concatenate(points, axis=2)
    return every[..., :-3], every[..., -3:]


def _distance_to_base(points: np.ndarray) -> np.ndarray:
    """Distance (N, S) in m of points (N, 3, S) to base and link 1, negative inside. Neither shape
    depends on the angle of joint 1.
    """
    size = np.abs(points)
    radial = np.sqrt(np.square(points[:, :2]).sum(axis=1))
    plate = _signed(
        size[:, 0] - _PLATE[0], size[:, 1] - _PLATE[1], np.abs(points[:, 2] - _PLATE[2]) - _PLATE[2]
    )
    lower, upper = (
        _signed(radial - radius, np.abs(points[:, 2] - (low + high) / 2) - (high - low) / 2)
        for radius, low, high in _COLUMNS
    )
    return np.minimum(np.minimum(lower, upper), plate)


def _signed(*excess: np.ndarray) -> np.ndarray:
    """Distance to a convex shape from how far a point exceeds it in orthogonal directions."""
    inside = functools.reduce(np.maximum, excess)
    squares = functools.reduce(np.add, (np.square(np.maximum(part, 0.0)) for part in excess))
    return np.sqrt(squares) + np.minimum(inside, 0.0)


def _distance_to_upper_arm(points: np.ndarray, links: np.ndarray) -> np.ndarray:
    """Distance (N, S) in m of points (N, 3, S) to link 2, negative inside."""
    axis = links[:, 1, :3, 2:3] * _SHOULDER  # along the axis of joint 2
    from_shoulder = points - links[:, 1, :3, 3:]
    arm = _distance_to_segment(from_shoulder, links[:, 2, :3, 3:] - links[:, 1, :3, 3:], UPPER_ARM)
    joint = _distance_to_segment(from_shoulder + axis, 2 * axis, 2 * _SHOULDER)
    return np.minimum(arm - _UPPER_ARM_RADIUS, joint - _SHOULDER_RADIUS)


def _distance_to_segment(points: np.ndarray, end: np.ndarray, length: float) -> np.ndarray:
    """Distance (N, S) of points (N, 3, S) to the segments from the origin to ``end`` (N, 3, 1)."""
    along = (points * end).sum(axis=1) / length**2
    nearest = np.minimum(np.maximum(along, 0.0), 1.0)[:, None] * end
    return np.sqrt(np.square(points - nearest).sum(axis=1))
