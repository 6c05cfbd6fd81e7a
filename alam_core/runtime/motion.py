"""Motion limits of an arm's set-point, and the set-point itself, which never breaks them.

Vectors are (A,): the arm's joints in rad, then the gripper's total opening in m.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MotionLimits:
    """Bounds on position, speed and acceleration of each set-point, all (A,).

    range_lower, range_upper: what the joints can reach at all; ``lower`` and ``upper`` lie within.
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
    gripper_acceleration: float = 3.0,
) -> MotionLimits:
    """Limits of an arm whose last set-point is a gripper's opening.

    joint_limits: (J, 2) rad. velocity: rad/s a joint. acceleration: rad/s^2 a joint. margin: rad
    kept free at both ends of each joint's range. gripper_stroke: m, full opening. gripper_velocity,
    gripper_acceleration: m/s and m/s^2.
    """
    joints = len(joint_limits)
    return MotionLimits(
        lower=np.append(joint_limits[:, 0] + margin, 0.0),
        upper=np.append(joint_limits[:, 1] - margin, gripper_stroke),
        velocity=np.append(np.full(joints, velocity), gripper_velocity),
        acceleration=np.append(np.full(joints, acceleration), gripper_acceleration),
        range_lower=np.append(joint_limits[:, 0], 0.0),
        range_upper=np.append(joint_limits[:, 1], np.inf),
    )


class SetPoint:
    """The point that is sent to the arm: follows a reference as closely as position, speed and
    acceleration limits allow.

    The position bounds are kept by always leaving room to brake: with distance d to a bound, the
    speed towards it after a tick satisfies v * dt + v^2 / (2 a) <= d. Braking by a * dt a tick
    keeps that true, whatever the length of the ticks. A seed outside the bounds (an arm at rest
    lies on the limit of joints 2 and 3) may only move inwards. What is measured beyond a joint's
    own range, or as a gripper more than closed, counts as the end of the range: the firmware
    refuses what lies beyond.
    """

    def __init__(self, limits: MotionLimits):
        self.limits = limits
        self.position = np.zeros(len(limits.lower))
        self.velocity = np.zeros(len(limits.lower))
        self.position_clamps = 0  # ticks in which the reference lay outside the position bounds
        self.velocity_clamps = 0  # ticks in which the reference asked for more speed than allowed
        self._reference = np.zeros(len(limits.lower))

    def seed(self, position: np.ndarray) -> None:
        """Start at rest from a measured pose (A,)."""
        self.position = np.clip(position, self.limits.range_lower, self.limits.range_upper)
        self.velocity = np.zeros_like(self.position)
        self._reference = self.position

    @property
    def at_rest(self) -> bool:
        return not self.velocity.any()

    def follow(self, reference: np.ndarray, dt: float) -> np.ndarray:
        """Move for ``dt`` seconds towards where the reference (A,) is at the end of them; returns
        the new set-point (A,).
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
        """Slow down to rest at the acceleration limit; returns the new set-point (A,)."""
        speed = np.maximum(np.abs(self.velocity) - self.limits.acceleration * dt, 0.0)
        self._move(np.copysign(speed, self.velocity) * (speed > 0), dt)
        self._reference = self.position
        return self.position

    def _move(self, velocity: np.ndarray, dt: float) -> None:
        self.velocity = velocity
        self.position = self.position + velocity * dt

    def _stoppable(self, distance: np.ndarray, dt: float) -> np.ndarray:
        """The greatest speed from which one tick at that speed and braking after it stay within
        ``distance``.
        """
        a = self.limits.acceleration
        return a * (np.sqrt(dt * dt + 2.0 * distance / a) - dt)
