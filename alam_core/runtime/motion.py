"""Motion limits of an arm's set-point, and the set-point itself, which never violates them.

Vectors are (A,): the arm's J joints in rad, then the gripper's total opening in m.
"""

from dataclasses import dataclass

import numpy as np

GRIPPER_SPEED_UP = 0.1  # s in which the gripper reaches its full speed


@dataclass(frozen=True)
class MotionLimits:
    """Bounds on position, velocity and acceleration of the set-point, all (A,).

    range_lower, range_upper: the joints' mechanical range; ``lower`` and ``upper`` lie within it.
    """

    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    range_lower: np.ndarray
    range_upper: np.ndarray


def make_limits(
    joint_limits: np.ndarray,
    velocity: float = 1.0,
    acceleration: float = 5.0,
    margin: float = 0.02,
    gripper_stroke: float = 0.10,
    gripper_velocity: float = 0.3,
) -> MotionLimits:
    """Limits of an arm whose last column is the opening of a gripper, which reaches its full speed
    within ``GRIPPER_SPEED_UP``.

    joint_limits: (J, 2) rad, lower and upper. velocity: rad/s per joint. acceleration: rad/s^2 per
    joint. margin: distance in rad kept from both ends of each joint's range. gripper_stroke: m,
    full opening. gripper_velocity: m/s.
    """
    joints = len(joint_limits)
    return MotionLimits(
        lower=np.append(joint_limits[:, 0] + margin, 0.0),
        upper=np.append(joint_limits[:, 1] - margin, gripper_stroke),
        velocity=np.append(np.full(joints, velocity), gripper_velocity),
        acceleration=np.append(np.full(joints, acceleration), gripper_velocity / GRIPPER_SPEED_UP),
        range_lower=np.append(joint_limits[:, 0], 0.0),
        range_upper=np.append(joint_limits[:, 1], np.inf),
    )


class SetPoint:
    """The set-point that is sent to the arm: it follows a reference as closely as the limits of
    position, velocity and acceleration allow.

    There is always room to brake before a position bound: with distance d to the bound, the speed
    towards it after a tick satisfies v * dt + v^2 / (2 a) <= d. Braking by a * dt per tick
    preserves this for ticks of any length. A set-point that starts outside the bounds (an arm at
    rest lies on the limit of joints 2 and 3) may only move inwards. A measured position outside a
    joint's range, or a negative gripper opening, is clipped to the range, because the firmware
    refuses positions outside it.
    """

    def __init__(self, limits: MotionLimits):
        self.limits = limits
        self.position = np.zeros(len(limits.lower))
        self.velocity = np.zeros(len(limits.lower))
        self.position_clamps = 0  # ticks with the reference outside the position bounds
        self.velocity_clamps = 0  # ticks with a reference faster than the velocity limit
        self._reference = np.zeros(len(limits.lower))

    def seed(self, position: np.ndarray) -> None:
        """Start at rest from a measured pose (A,)."""
        self.position = np.clip(position, self.limits.range_lower, self.limits.range_upper)
        self.velocity = np.zeros_like(self.position)
        self._reference = self.position

    @property
    def at_rest(self) -> bool:
        """Whether the set-point does not move."""
        return not self.velocity.any()

    def follow(self, reference: np.ndarray, dt: float) -> np.ndarray:
        """Move for ``dt`` seconds towards ``reference`` (A,), the position wanted at their end.
        Returns the new set-point (A,).
        """
        limits = self.limits
        wanted = np.clip(reference, limits.lower, limits.upper)
        if (wanted != reference).any():
            self.position_clamps += 1
        reference_velocity = (wanted - self._reference) / dt
        behind = self._reference - self.position
        velocity = reference_velocity + np.sign(behind) * self._stoppable(np.abs(behind), dt)
        if (np.abs(velocity) > limits.velocity * (1.0 + 1e-6)).any():
            self.velocity_clamps += 1
        velocity = np.clip(velocity, -limits.velocity, limits.velocity)
        velocity = np.clip(
            velocity,
            self.velocity - limits.acceleration * dt,
            self.velocity + limits.acceleration * dt,
        )
        down = self._stoppable(np.maximum(self.position - limits.lower, 0.0), dt)
        up = self._stoppable(np.maximum(limits.upper - self.position, 0.0), dt)
        self._move(np.clip(velocity, -down, up), dt)
        self._reference = wanted
        return self.position

    def brake(self, dt: float) -> np.ndarray:
        """Decelerate at the acceleration limit for ``dt`` seconds, or until at rest. Returns the
        new set-point (A,).
        """
        speed = np.maximum(np.abs(self.velocity) - self.limits.acceleration * dt, 0.0)
        self._move(np.copysign(speed, self.velocity) * (speed > 0), dt)
        self._reference = self.position
        return self.position

    def _move(self, velocity: np.ndarray, dt: float) -> None:
        self.velocity = velocity
        self.position = self.position + velocity * dt

    def _stoppable(self, distance: np.ndarray, dt: float) -> np.ndarray:
        """The highest speed (A,) at which one tick and braking after it stay within ``distance``
        (A,).
        """
        a = self.limits.acceleration
        return a * (np.sqrt(dt * dt + 2.0 * distance / a) - dt)
