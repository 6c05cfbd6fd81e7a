"""Motion limits of an arm's set-point, and the set-point itself, which never violates them.

Vectors are (A,): the arm's J joints in rad, then the gripper's total opening in m. A state is
(3, A): position, velocity and acceleration.
"""

import math
from dataclasses import dataclass

import numpy as np
from ruckig import (
    ControlInterface,
    InputParameter,
    Ruckig,
    RuckigError,
    Synchronization,
    Trajectory,
)

from alam_core.robots.workspace import REACH, Workspace

GRIPPER_SPEED_UP = 0.1  # s in which the gripper reaches its full speed
TRACKED = 0.99  # highest speed of a reference, as a part of the limit, that is followed exactly
STRIDE = 0.02  # m that a point of the arm moves at most between two samples of a stop
RESERVE = 0.001  # m kept to the workspace's boundaries, for what lies between two samples
TOLERANCE = 1e-9  # relative for velocity and acceleration, rad and m for positions


@dataclass(frozen=True)
class MotionLimits:
    """Bounds on position, velocity, acceleration and jerk of the set-point, all (A,).

    range_lower, range_upper: the joints' mechanical range; ``lower`` and ``upper`` lie within it.
    """

    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray
    range_lower: np.ndarray
    range_upper: np.ndarray


def make_limits(
    joint_limits: np.ndarray,
    velocity: float = 1.0,
    acceleration: float = 5.0,
    jerk: float = 50.0,
    margin: float = 0.02,
    gripper_stroke: float = 0.10,
    gripper_velocity: float = 0.3,
) -> MotionLimits:
    """Limits of an arm whose last column is the opening of a gripper, which reaches its full speed
    within ``GRIPPER_SPEED_UP``: four fifths of that time for the speed, one fifth for the
    acceleration.

    joint_limits: (J, 2) rad, lower and upper. velocity: rad/s per joint. acceleration: rad/s^2 per
    joint. jerk: rad/s^3 per joint. margin: distance in rad kept from both ends of each joint's
    range. gripper_stroke: m, full opening. gripper_velocity: m/s.
    """
    joints = len(joint_limits)
    gripper_acceleration = gripper_velocity / (0.8 * GRIPPER_SPEED_UP)
    gripper_jerk = gripper_acceleration / (0.2 * GRIPPER_SPEED_UP)
    return MotionLimits(
        lower=np.append(joint_limits[:, 0] + margin, 0.0),
        upper=np.append(joint_limits[:, 1] - margin, gripper_stroke),
        velocity=np.append(np.full(joints, velocity), gripper_velocity),
        acceleration=np.append(np.full(joints, acceleration), gripper_acceleration),
        jerk=np.append(np.full(joints, jerk), gripper_jerk),
        range_lower=np.append(joint_limits[:, 0], 0.0),
        range_upper=np.append(joint_limits[:, 1], np.inf),
    )


class Stop:
    """The fastest motion of each joint from a state (3, A) to rest. Raises ValueError if it cannot be
    computed.
    """

    def __init__(self, ruckig: Ruckig, halt: InputParameter, state: np.ndarray) -> None:
        self._start = state[0]
        self._trajectory = Trajectory(len(state[0]))  # of the distance from the start
        halt.current_velocity, halt.current_acceleration = state[1:].tolist()
        _calculate(ruckig, halt, self._trajectory)
        self.duration = self._trajectory.duration  # s
        extrema = self._trajectory.position_extrema
        self._range = np.array([(bound.min, bound.max) for bound in extrema]).T

    @property
    def lowest(self) -> np.ndarray:
        """The lowest positions (A,)."""
        return self._start + self._range[0]

    @property
    def highest(self) -> np.ndarray:
        """The highest positions (A,)."""
        return self._start + self._range[1]

    def at(self, time: float) -> np.ndarray:
        """The state (3, A) after ``time`` seconds."""
        state = np.array(self._trajectory.at_time(time))
        state[0] += self._start
        if time >= self.duration:
            state[1:] = 0.0
        return state

    def samples(self) -> np.ndarray:
        """Positions (K, A) along it: no point of the arm moves more than ``STRIDE`` between two."""
        travel = float((self._range[1] - self._range[0]) @ REACH)
        count = 1 + math.ceil(travel / STRIDE)
        times = [self.duration * i / count for i in range(count + 1)]
        return self._start + np.array([self._trajectory.at_time(time)[0] for time in times])


def _calculate(ruckig: Ruckig, motion: InputParameter, trajectory: Trajectory) -> None:
    """Compute a trajectory. Raises ValueError if there is none."""
    try:
        ruckig.calculate(motion, trajectory)
    except RuckigError as error:
        raise ValueError(str(error)) from error


class SetPoint:
    """The set-point that is sent to the arm: it follows a reference as closely as the limits of
    position, velocity, acceleration and jerk and the workspace allow.

    The invariant: there is always a stop, a motion from the present state to rest, that has been
    verified to keep every limit. A tick proposes the next state and computes the stop from there.
    The proposal is accepted only if its stop keeps the limits too; otherwise the set-point moves
    along the stop of the tick before. Positions and velocities are decided joint by joint, the
    workspace for the whole arm.

    Between two ticks the motion is continuous up to the acceleration and its jerk is limited.
    Divided differences of the set-points are means of the derivatives, so they keep the limits
    whatever the lengths of the ticks.

    A set-point that starts outside the bounds or the workspace (an arm at rest lies on the limits
    of joints 2 and 3, an arm that was moved by hand may be anywhere) may only move inwards: what it
    violates never grows. A measured position outside a joint's range, or a negative gripper
    opening, is clipped to the range, because the firmware refuses positions outside it.

    The workspace is checked at samples of the stop, ``STRIDE`` apart, and kept with ``RESERVE``.
    Without a workspace the set-point may belong to any arm.
    """

    def __init__(self, limits: MotionLimits, workspace: Workspace | None = None):
        count = len(limits.lower)
        self.limits = limits
        self.workspace = workspace
        self.position_clamps = 0  # ticks with the reference outside the position bounds
        self.velocity_clamps = 0  # ticks with a reference faster than the velocity limit
        self.blocked = ""  # why the last ``follow`` did not move as wanted, because of the workspace
        self._state = np.zeros((3, count))
        self._reference = np.zeros(count)
        self._stop: Stop | None = None  # verified, to rest; None at rest
        self._stopping = 0.0  # s that the set-point has moved along it
        self._ruckig = Ruckig(count)
        self._motion = InputParameter(count)
        self._halt = InputParameter(count)
        self._halt.control_interface = ControlInterface.Velocity
        self._halt.synchronization = Synchronization.No
        for motion in (self._motion, self._halt):
            motion.max_velocity = limits.velocity
            motion.max_acceleration = limits.acceleration
            motion.max_jerk = limits.jerk

    @property
    def position(self) -> np.ndarray:
        """(A,) rad and m."""
        return self._state[0]

    @property
    def velocity(self) -> np.ndarray:
        """(A,) rad/s and m/s."""
        return self._state[1]

    @property
    def acceleration(self) -> np.ndarray:
        """(A,) rad/s^2 and m/s^2."""
        return self._state[2]

    @property
    def at_rest(self) -> bool:
        """Whether the set-point does not move."""
        return not self._state[1:].any()

    def seed(self, position: np.ndarray) -> None:
        """Start at rest from a measured pose (A,)."""
        self._state[0] = np.clip(position, self.limits.range_lower, self.limits.range_upper)
        self.restart()

    def restart(self) -> None:
        """Be at rest at the present position: for a loop that stood still while the arm reached the
        last set-point.
        """
        self._state = np.stack([self.position, *np.zeros_like(self._state[1:])])
        self._reference = self.position
        self._stop, self._stopping, self.blocked = None, 0.0, ""

    def follow(self, reference: np.ndarray, dt: float) -> np.ndarray:
        """Move for ``dt`` > 0 seconds towards ``reference`` (A,), the position wanted at their end.
        Returns the new set-point (A,).
        """
        limits = self.limits
        wanted = np.minimum(np.maximum(reference, limits.lower), limits.upper)
        if (wanted != reference).any():
            self.position_clamps += 1
        velocity = (wanted - self._reference) / dt
        if (np.abs(velocity) > limits.velocity * (1.0 + 1e-6)).any():
            self.velocity_clamps += 1
        self._reference = wanted
        self.blocked = refused = ""
        for propose in (self._intercept, self._straight):
            try:
                refused = self._try(propose(wanted, velocity, dt), dt)
            except ValueError:
                continue
            if not refused:
                return self.position
        self._move_along_stop(dt)
        if refused and self.workspace is not None:
            self.blocked = self.workspace.violations(wanted) or f"on the way: {refused}"
        return self.position

    def brake(self, dt: float) -> np.ndarray:
        """Move for ``dt`` seconds along the stop, or until at rest. Returns the new set-point (A,)."""
        self._move_along_stop(dt)
        self._reference = self.position
        self.blocked = ""
        return self.position

    def _intercept(self, wanted: np.ndarray, velocity: np.ndarray, dt: float) -> np.ndarray:
        """The state (3, A) after ``dt`` of the fastest motion that meets a reference which is at
        ``wanted`` then and keeps its ``velocity``. Computed in a frame that moves with the reference.
        """
        limits, motion = self.limits, self._motion
        limit = TRACKED * limits.velocity
        velocity = np.minimum(np.maximum(velocity, -limit), limit)
        frame = np.stack([wanted - velocity * dt, velocity, np.zeros_like(wanted)])
        motion.synchronization = Synchronization.No
        motion.max_velocity = (limits.velocity - velocity).tolist()
        motion.min_velocity = (-limits.velocity - velocity).tolist()
        motion.target_position = [0.0] * len(wanted)
        error = self._state - frame
        error[np.abs(error) < 1e-15] = 0.0  # too little for Ruckig
        state = frame + self._moved(error, dt)
        state[0] += velocity * dt
        return state

    def _straight(self, wanted: np.ndarray, _: np.ndarray, dt: float) -> np.ndarray:
        """The state (3, A) after ``dt`` of the fastest motion to rest at ``wanted``, on a straight
        line in joint space if the set-point is at rest or moves on that line.
        """
        motion = self._motion
        motion.synchronization = Synchronization.Phase
        motion.max_velocity = self.limits.velocity.tolist()
        motion.min_velocity = None
        motion.target_position = wanted.tolist()
        return self._moved(self._state, dt)

    def _moved(self, state: np.ndarray, dt: float) -> np.ndarray:
        motion, trajectory = self._motion, Trajectory(len(state[0]))
        position, motion.current_velocity, motion.current_acceleration = state.tolist()
        motion.current_position = position
        _calculate(self._ruckig, motion, trajectory)
        return np.array(trajectory.at_time(dt))

    def _try(self, state: np.ndarray, dt: float) -> str:
        """Move to the proposed ``state`` (3, A), in the joints that may. If the workspace forbids
        it, do not move and return the rule that would be broken, otherwise "".
        """
        stop = Stop(self._ruckig, self._halt, state)
        may = self._joints_may(state, stop)
        if not may.all():
            state = np.where(may, state, self._along_stop(self._stopping + dt))
            stop = Stop(self._ruckig, self._halt, state)
        if self.workspace is not None and (rule := self._leaves(self.workspace, stop)):
            return rule
        self._state, self._stop, self._stopping = state, stop, 0.0
        return ""

    def _joints_may(self, state: np.ndarray, stop: Stop) -> np.ndarray:
        """Which joints (A,) may go to ``state`` (3, A): they keep the limits there and on the stop
        from there, and outside the position bounds they only move inwards.
        """
        limits = self.limits
        position, velocity, acceleration = state
        peak = velocity + acceleration * np.abs(acceleration) / (2.0 * limits.jerk)
        fastest = np.maximum(np.abs(velocity), np.abs(peak))
        lower = np.minimum(limits.lower, np.maximum(position, self.position))
        upper = np.maximum(limits.upper, np.minimum(position, self.position))
        return (
            (stop.lowest >= lower - TOLERANCE)
            & (stop.highest <= upper + TOLERANCE)
            & (fastest <= limits.velocity * (1.0 + TOLERANCE))
            & (np.abs(acceleration) <= limits.acceleration * (1.0 + TOLERANCE))
        )

    def _leaves(self, workspace: Workspace, stop: Stop) -> str:
        """The rule of the workspace that is broken on a stop; "" if none."""
        beyond = workspace.beyond(np.vstack([self.position, stop.samples()]))
        allowed = np.maximum(np.minimum.accumulate(beyond, axis=0)[:-1], -RESERVE)
        broken = (beyond[1:] > allowed + 1e-12).any(axis=0)
        return workspace.rules[int(broken.argmax())] if broken.any() else ""

    def _move_along_stop(self, dt: float) -> None:
        self._stopping += dt
        self._state = self._along_stop(self._stopping)
        if self.at_rest:
            self._stop, self._stopping = None, 0.0

    def _along_stop(self, time: float) -> np.ndarray:
        """The state (3, A) after ``time`` seconds of the verified stop."""
        if self._stop is not None:
            return self._stop.at(time)
        return np.stack([self.position, *np.zeros_like(self._state[1:])])
