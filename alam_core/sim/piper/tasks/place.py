"""The scripted expert of ``piper_place``: reads the true poses and answers every state with the
next set-point.

It keeps almost no memory: what to do follows from where gripper and cube are, so that it also
corrects what noise or a bad policy has spoiled. Its labels are therefore worth imitating from any
state.
"""

import numpy as np

from alam_core.robots.piper import HOME, JOINT_LIMITS, inverse_kinematics
from alam_core.sim.piper.world import CUBE, PLATE_HEIGHT, PLATE_RADIUS, PiperPlace

TILT = 0.3  # rad the gripper leans outwards: keeps joint5 clear of its limit
OPEN, CLOSED = 0.09, 0.0  # m
TRAVEL = 0.12  # m, height of the grasp point on the way
RELEASE = PLATE_HEIGHT + CUBE + 0.006
MAX_JOINT_STEP = (
    0.09  # rad per control step of 0.1 s: below the controller's default limit of 1 rad/s
)
MAX_STEP = 0.032  # m per control step


class PlaceExpert:
    """Expert for one world; ``seed`` varies its speed and grasp height a little (see
    :class:`alam_core.sim.world.Expert`).
    """

    def __init__(self, world: PiperPlace, seed: int = 0) -> None:
        self.world = world
        rng = np.random.default_rng((seed, 7))
        self.speed = rng.uniform(0.85, 1.0)
        self.grasp_height = CUBE + rng.uniform(-0.002, 0.003)
        self.reset()

    def reset(self) -> None:
        self._closing = 0
        self._opening = 0

    def act(self) -> np.ndarray:
        """The next set-point (7,): joints in rad, gripper opening in m."""
        world = self.world
        tcp, cube, plate = world.tcp(), world.cube_position(world.target), world.plate_position()
        opening = float(world.joint_state()[0][6])
        held = opening < 2 * CUBE + 0.01 and np.linalg.norm(tcp - cube) < 0.025
        on_plate = (
            np.hypot(*(cube[:2] - plate[:2])) < PLATE_RADIUS - 0.015
            and cube[2] < PLATE_HEIGHT + CUBE + 0.012
        )
        if on_plate and not (held and self._opening == 0 and cube[2] > RELEASE + 0.004):
            return self._leave(tcp, cube, opening)
        self._opening = 0
        if held and opening < 2 * CUBE + 0.004:
            return self._carry(tcp, plate)
        return self._fetch(tcp, cube, opening)

    def _fetch(self, tcp: np.ndarray, cube: np.ndarray, opening: float) -> np.ndarray:
        """Go above the cube, descend with open fingers, close them."""
        aside = np.hypot(*(cube[:2] - tcp[:2]))
        low = tcp[2] < self.grasp_height + 0.006
        if aside < 0.010 and low:
            return self._towards(tcp, np.array([cube[0], cube[1], self.grasp_height]), CLOSED)
        if opening < OPEN - 0.02 and aside > 0.012:
            return self._towards(tcp, np.array([tcp[0], tcp[1], TRAVEL]), OPEN)
        # A funnel above the cube: the nearer to its axis, the lower the gripper may be.
        height = (
            self.grasp_height
            if aside < 0.006
            else min(TRAVEL, self.grasp_height + max(0.0, (aside - 0.006)) * 4.0)
        )
        if aside > 0.03:
            height = TRAVEL
        return self._towards(tcp, np.array([cube[0], cube[1], height]), OPEN)

    def _carry(self, tcp: np.ndarray, plate: np.ndarray) -> np.ndarray:
        """Lift, go above the plate, lower to where the cube can be let go."""
        aside = np.hypot(*(plate[:2] - tcp[:2]))
        if aside > 0.03:
            goal = tcp if tcp[2] < TRAVEL - 0.04 else plate
            return self._towards(tcp, np.array([goal[0], goal[1], TRAVEL]), CLOSED)
        height = RELEASE if aside < 0.012 else RELEASE + (aside - 0.012) * 4.0
        return self._towards(tcp, np.array([plate[0], plate[1], height]), CLOSED)

    def _leave(self, tcp: np.ndarray, cube: np.ndarray, opening: float) -> np.ndarray:
        """Let go where the gripper is, then rise."""
        self._opening += 1
        if opening < OPEN - 0.025 and tcp[2] < TRAVEL - 0.03:
            return self._towards(tcp, tcp, OPEN)
        return self._towards(tcp, np.array([tcp[0], tcp[1], TRAVEL]), OPEN)

    def _towards(self, tcp: np.ndarray, goal: np.ndarray, opening: float) -> np.ndarray:
        """One control step from the present grasp point towards ``goal``: fast when far, slowing
        down when near.
        """
        error = goal - tcp
        distance = float(np.linalg.norm(error))
        stride = min(MAX_STEP * self.speed, 0.6 * distance)
        point = tcp + error * (stride / distance) if distance > 1e-6 else goal
        joints = self.world.joint_state()[0][:6]
        target = self._joints(point)
        change = target - joints
        change *= min(1.0, MAX_JOINT_STEP / np.abs(change).max())
        return np.append(
            np.clip(joints + change, JOINT_LIMITS[:, 0] + 0.03, JOINT_LIMITS[:, 1] - 0.03),
            opening,
        )

    def _joints(self, point: np.ndarray) -> np.ndarray:
        """Joint angles for a point, leaning out further where joint5 would not allow the usual
        tilt.
        """
        for tilt in (TILT, 0.5, 0.8):
            try:
                return inverse_kinematics(point, tilt)
            except ValueError:
                continue
        return np.array(HOME[:6])  # thrown far off: come home first
