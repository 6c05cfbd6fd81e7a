"""Movements of the Panda's hand as actions of LIBERO, for scripted experts.

Lengths are in m, positions in the world's frame. A movement is a generator of actions (7,).
"""

from collections.abc import Iterator

import numpy as np
from scipy.spatial.transform import Rotation

from alam_core.sim.libero.simulator import LiberoSimulator

STEP = np.array([0.05, 0.05, 0.05, 0.5, 0.5, 0.5])  # m and rad that an action of 1 stands for
NEAR = 0.008  # a position counts as reached
AIMED = 0.1  # rad, a rotation counts as reached
PATIENCE = 10  # control steps without progress after which the hand goes on
CLOSING = 9  # control steps that the gripper takes to open or close
OPEN, CLOSE = -1.0, 1.0

Actions = Iterator[np.ndarray]  # (7,) each


def down(yaw: float) -> Rotation:
    """The hand pointing down, turned by ``yaw`` rad about the vertical."""
    return Rotation.from_euler("z", yaw) * Rotation.from_euler("x", np.pi)


class Hand:
    """Moves the hand of a simulated arm. speed: 0 to 1, of the fastest action. clearance: between
    the lowest point that moves and what it passes over.
    """

    def __init__(self, simulator: LiberoSimulator, speed: float, clearance: float) -> None:
        self.simulator = simulator
        self.speed = speed
        self.clearance = clearance

    @property
    def position(self) -> np.ndarray:
        """Between the tips of the fingers (3,)."""
        return self.simulator.hand()[0]

    def away(self, rotation: Rotation) -> np.ndarray:
        """Rotation vector (3,) in rad from the hand as it is to ``rotation``."""
        return (rotation * Rotation.from_matrix(self.simulator.hand()[1]).inv()).as_rotvec()

    def act(self, point: np.ndarray, rotation: Rotation, gripper: float) -> np.ndarray:
        """One action (7,) towards a point and a rotation."""
        error = np.concatenate([point - self.position, self.away(rotation)])
        return np.append(np.clip(2 * self.speed * error / STEP, -self.speed, self.speed), gripper)

    def to(
        self, point: np.ndarray, rotation: Rotation, gripper: float, near: float = NEAR
    ) -> Actions:
        """Straight to ``point``, until it is reached or the hand comes no closer."""
        closest, patience = np.inf, PATIENCE
        while patience:
            distance = float(np.linalg.norm(point - self.position))
            turn = float(np.linalg.norm(self.away(rotation)))
            if distance < near and turn < AIMED:
                return
            progress = distance + 0.1 * turn
            patience = PATIENCE if progress < closest - 0.002 else patience - 1
            closest = min(closest, progress)
            yield self.act(point, rotation, gripper)

    def over(
        self,
        point: np.ndarray,
        rotation: Rotation,
        gripper: float,
        hang: float,
        carried: str = "",
    ) -> Actions:
        """Up, across and down to ``point``, above all that stands in the way. hang: how far
        something reaches down below the hand. carried: an object that is not in the way.
        """
        start = self.position
        height = self._tallest(start, point, carried) + hang + self.clearance
        height = max(height, point[2] + self.clearance)
        if start[2] < height - NEAR:
            yield from self.to(np.append(start[:2], height), rotation, gripper)
        yield from self.to(np.append(point[:2], height), rotation, gripper)
        yield from self.to(point, rotation, gripper)

    def wait(self, rotation: Rotation, gripper: float, steps: int = CLOSING) -> Actions:
        """Open or close the gripper in place."""
        point = self.position
        for _ in range(steps):
            yield self.act(point, rotation, gripper)

    def rise(self, height: float, rotation: Rotation, gripper: float) -> Actions:
        """Straight up by ``height``."""
        yield from self.to(self.position + [0, 0, height], rotation, gripper)

    def _tallest(self, start: np.ndarray, end: np.ndarray, carried: str) -> float:
        """Height of the tallest shape within 8 cm of the way from ``start`` to ``end``."""
        shapes = self.simulator.shapes(without=(carried,))
        low, high = shapes.min(1), shapes.max(1)
        tops = [0.0]
        for share in np.linspace(0, 1, 11):
            at = (start + share * (end - start))[:2]
            away = np.linalg.norm(np.maximum(low[:, :2] - at, at - high[:, :2]).clip(0), axis=1)
            tops += list(high[away < 0.08, 2])
        return max(tops)
