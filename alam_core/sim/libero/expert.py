"""A scripted expert for LIBERO's suites spatial and object: pick up the named object and put it
where the task says. It reads the objects' true shapes and the goal.

Grasps are tried one after another, those with the most room for the fingers first: across the
object where it is narrow enough, else on its rim. Lengths are in m, positions in the world's frame.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from alam_core.errors import UserError
from alam_core.sim.libero.simulator import LiberoSimulator

SUITES = ("spatial", "object")  # that consist of picking up and placing
OPENING = 0.072  # the widest object that fits between the open fingers
FINGER = 0.047  # from the grasp point to the middle of an open finger
TIP = 0.01  # from the grasp point down to the tips of the fingers
PALM = 0.03  # how far the fingers reach down beside an object before the palm touches it
ROOM = 0.01  # more room below the fingers is no better
YAWS = np.deg2rad([0, 90, 45, -45])  # of the hand, about the vertical
DOWN = Rotation.from_euler("x", np.pi)  # the hand, pointing down
STEP = np.array([0.05, 0.05, 0.05, 0.5, 0.5, 0.5])  # m and rad that an action of 1 stands for
NEAR = 0.008  # a position counts as reached
PATIENCE = 10  # control steps without progress after which the hand goes on
CLOSING = 9  # control steps that the gripper takes to open or close
OPEN, CLOSE = -1.0, 1.0

Actions = Iterator[np.ndarray]  # (7,) each


@dataclass(frozen=True)
class Grasp:
    """Where the hand closes: its position (3,) and its ``yaw`` in rad."""

    point: np.ndarray
    yaw: float


class PickAndPlace:
    """The expert of one task after the other. ``seed`` varies its speed and how high it carries.

    simulator: returns the simulator of the world's current task.
    """

    def __init__(self, simulator: Callable[[], LiberoSimulator], seed: int) -> None:
        self._current = simulator
        rng = np.random.default_rng(seed)
        self._speed = rng.uniform(0.85, 1.0)
        self._clearance = rng.uniform(0.03, 0.05)  # below the fingers or what they carry

    def reset(self) -> None:
        """Begin the world's current episode. Raises UserError for a suite without an expert."""
        self._simulator = self._current()
        if (suite := self._simulator.task.suite) not in SUITES:
            raise UserError(
                f"LIBERO's suite '{suite}' has no scripted expert; {' and '.join(SUITES)} have"
            )
        ((relation, self._object, place),) = self._simulator.goals
        self._inside, self._place = relation == "in", self._simulator.part_of(place)
        self._actions = self._play()

    def act(self) -> np.ndarray:
        """The action (7,) for the current state of the world."""
        return next(self._actions)

    def _play(self) -> Actions:
        """All actions, without end: grasp, carry, release, and again if that was not enough."""
        attempt = 0
        while True:
            grasps = self._grasps()
            grasp = grasps[attempt % len(grasps)]
            attempt += 1
            yield from self._go(grasp.point, grasp.yaw, OPEN, hang=TIP)
            if np.linalg.norm(self._hand() - grasp.point) > 0.02:  # something is in the way
                continue
            height = self._box(self._object)[0][2]
            yield from self._wait(grasp.yaw, CLOSE)
            yield from self._servo(self._hand() + [0, 0, 0.06], grasp.yaw, CLOSE)
            if self._box(self._object)[0][2] - height > 0.02:
                yield from self._go(*self._release(grasp.yaw))
            yield from self._wait(grasp.yaw, OPEN)
            yield from self._servo(self._hand() + [0, 0, 0.1], grasp.yaw, OPEN)

    def _release(self, yaw: float) -> tuple[np.ndarray, float, float, float]:
        """Where the hand opens, as the arguments of ``_go``."""
        low, high = self._box(self._object)
        place_low, place_high = self._box(self._place)
        point = self._hand() + (place_low + place_high) / 2 - (low + high) / 2
        hang = self._hand()[2] - low[2]
        point[2] = place_high[2] + hang + (-0.05 if self._inside else 0.008)
        return point, yaw, CLOSE, hang

    # -- movements -------------------------------------------------------------------------------

    def _go(self, point: np.ndarray, yaw: float, gripper: float, hang: float) -> Actions:
        """Up, across and down to ``point``, above all that stands in the way. ``hang``: how far
        something reaches down below the grasp point.
        """
        start = self._hand()
        height = self._tallest(start, point) + hang + self._clearance
        height = max(height, point[2] + self._clearance)
        if start[2] < height - NEAR:
            yield from self._servo(np.append(start[:2], height), yaw, gripper)
        yield from self._servo(np.append(point[:2], height), yaw, gripper)
        yield from self._servo(point, yaw, gripper)

    def _wait(self, yaw: float, gripper: float) -> Actions:
        """Open or close the gripper in place."""
        point = self._hand()
        for _ in range(CLOSING):
            yield self._action(point, yaw, gripper)

    def _servo(self, point: np.ndarray, yaw: float, gripper: float) -> Actions:
        """Straight to ``point``, until it is reached or the hand comes no closer."""
        closest, patience = np.inf, PATIENCE
        while patience:
            distance = float(np.linalg.norm(point - self._hand()))
            if distance < NEAR and np.linalg.norm(self._turn(yaw)) < 0.1:
                return
            patience = PATIENCE if distance < closest - 0.002 else patience - 1
            closest = min(closest, distance)
            yield self._action(point, yaw, gripper)

    def _action(self, point: np.ndarray, yaw: float, gripper: float) -> np.ndarray:
        error = np.concatenate([point - self._hand(), self._turn(yaw)])
        return np.append(
            np.clip(2 * self._speed * error / STEP, -self._speed, self._speed), gripper
        )

    # -- what is where ---------------------------------------------------------------------------

    def _hand(self) -> np.ndarray:
        return self._simulator.hand()[0]

    def _turn(self, yaw: float) -> np.ndarray:
        """Rotation vector (3,) in rad from the hand to one that points down with ``yaw``."""
        wanted = Rotation.from_euler("z", yaw) * DOWN
        return (wanted * Rotation.from_matrix(self._simulator.hand()[1]).inv()).as_rotvec()

    def _box(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest coordinates (3,) of an object."""
        corners = self._simulator.shapes(name).reshape(-1, 3)
        return corners.min(0), corners.max(0)

    def _others(self) -> tuple[np.ndarray, np.ndarray]:
        """The same (N, 3) of each shape of everything but the object and what it is put into."""
        shapes = self._simulator.shapes(without=(self._object,))
        return shapes.min(1), shapes.max(1)

    def _tallest(self, start: np.ndarray, end: np.ndarray) -> float:
        """Height of the tallest shape within 8 cm of the way from ``start`` to ``end``."""
        low, high = self._others()
        tops = [0.0]
        for share in np.linspace(0, 1, 11):
            at = (start + share * (end - start))[:2]
            away = np.linalg.norm(np.maximum(low[:, :2] - at, at - high[:, :2]).clip(0), axis=1)
            tops += list(high[away < 0.08, 2])
        return max(tops)

    def _grasps(self) -> list[Grasp]:
        """The grasps of the object, the best first."""
        corners = self._simulator.shapes(self._object).reshape(-1, 3)
        low, high = corners.min(0), corners.max(0)
        middle = (low + high) / 2
        across, rims = [], []
        for yaw in YAWS:
            axis = np.array([-np.sin(yaw), np.cos(yaw), 0.0])  # along which the fingers close
            width = np.ptp(corners @ axis)
            depth = max(low[2] + 0.01, middle[2], high[2] - PALM)
            across.append((width, Grasp(np.append(middle[:2], depth), yaw)))
            for side in (-1, 1):
                point = middle + side * (width / 2 - 0.006) * axis
                near = np.linalg.norm((corners - point)[:, :2], axis=1) < 0.025
                top = corners[near, 2].max(initial=middle[2])  # it may stand at a slant
                rims.append(Grasp(np.append(point[:2], top - 0.018), yaw))
        narrow = [grasp for width, grasp in sorted(across, key=lambda e: e[0]) if width < OPENING]
        place = sum(self._box(self._place)) / 2

        def rank(grasp: Grasp) -> tuple[float, bool, float]:
            near = float(np.linalg.norm(grasp.point - place))
            return -min(self._room(grasp), ROOM), bool(grasp.yaw), near if not narrow else 0.0

        return sorted(narrow or rims, key=rank)

    def _room(self, grasp: Grasp) -> float:
        """From the tips of the open fingers down to what is below them."""
        axis = np.array([-np.sin(grasp.yaw), np.cos(grasp.yaw), 0.0])
        rooms = []
        for along in (-FINGER - 0.01, -FINGER, FINGER, FINGER + 0.01):
            above = grasp.point + along * axis + [0, 0, 0.1]
            below = self._simulator.surface(above, without=self._object)
            rooms.append(grasp.point[2] - TIP - below)
        return float(min(rooms))
