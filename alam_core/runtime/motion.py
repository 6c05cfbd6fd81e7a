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

from alam_core.robots.workspace import BOUNDARIES, REACH, Workspace

GRIPPER_SPEED_UP = 0.1  # s in which the gripper reaches its full speed
TRACKED = 0.99  # highest speed of a reference, as a part of the limit, that is followed exactly
STRIDE = 0.02  # m that a point of the arm moves at most between two samples of a stop
RESERVE = 0.001  # m kept to the workspace's boundaries, for what lies between two samples
FINE = 0.004  # m, the stride beyond a boundary, where nothing is kept in reserve
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
    """The fastest motion from a state (3, A) to rest: of each joint by itself, or of all in
    proportion. Raises ValueError if it cannot be computed.

    motion: velocity, acceleration and their limits, of each joint (A values) or of the way that all
    go together (one value). scale: what a joint moves if this value grows by 1, (A,) or 1.
    """

    def __init__(
        self, ruckig: Ruckig, motion: InputParameter, state: np.ndarray, scale: np.ndarray | float
    ) -> None:
        self._start, self._scale = state[0], scale
        self._trajectory = _trajectory(ruckig, motion)  # of the distance from the start
        self.duration = self._trajectory.duration  # s
        ends = [(bound.min, bound.max) for bound in self._trajectory.position_extrema]
        ranges = np.array(ends).T * scale
        self.lowest = self._start + ranges.min(axis=0)  # (A,)
        self.highest = self._start + ranges.max(axis=0)  # (A,)

    def at(self, time: float) -> np.ndarray:
        """The state (3, A) after ``time`` seconds."""
        state = np.array(self._trajectory.at_time(time)) * self._scale
        state[0] += self._start
        if time >= self.duration:
            state[1:] = 0.0
        return state

    def samples(self, stride: float) -> np.ndarray:
        """Positions (K, A) along it: no point of the arm moves more than ``stride`` m between
        two.
        """
        travel = float((self.highest - self.lowest) @ REACH)
        count = 1 + math.ceil(travel / stride)
        times = [self.duration * i / count for i in range(count + 1)]
        moved = np.array([self._trajectory.at_time(time)[0] for time in times])
        return self._start + moved * self._scale


def _motion(
    state: np.ndarray, acceleration: np.ndarray, jerk: np.ndarray, control: ControlInterface
) -> InputParameter:
    """What Ruckig needs for a motion of K independent values from ``state`` (3, K) to rest, with
    limits (K,) of acceleration and jerk.
    """
    motion = InputParameter(len(acceleration))
    motion.synchronization = Synchronization.No
    motion.control_interface = control
    position, motion.current_velocity, motion.current_acceleration = state.tolist()
    if control is ControlInterface.Position:  # a stop is computed from 0, which Ruckig counts
        motion.current_position = position  # among its extrema
    motion.max_acceleration, motion.max_jerk = acceleration.tolist(), jerk.tolist()
    motion.max_velocity = motion.max_acceleration
    return motion


def _trajectory(ruckig: Ruckig, motion: InputParameter) -> Trajectory:
    """The fastest trajectory. Raises ValueError if Ruckig finds none."""
    trajectory = Trajectory(motion.degrees_of_freedom)
    try:
        ruckig.calculate(motion, trajectory)
    except RuckigError as error:
        raise ValueError(str(error)) from error
    return trajectory


@dataclass(frozen=True)
class Line:
    """A straight motion in joint space. start, way: (A,), from where and how far. done: (3, 1), the
    part of the way that is done, its velocity and acceleration.
    """

    start: np.ndarray
    way: np.ndarray
    done: np.ndarray


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
    Beyond a boundary the samples are ``FINE`` apart: by less than ``RESERVE`` the set-point may go
    further out between two.
    Without a workspace the set-point may belong to any arm.
    """

    def __init__(self, limits: MotionLimits, workspace: Workspace | None = None):
        count = len(limits.lower)
        self.limits = limits
        self.workspace = workspace
        self.position_clamps = 0  # ticks with the reference outside the position bounds
        self.velocity_clamps = 0  # ticks with a reference faster than the velocity limit
        self.blocked = (
            ""  # why the last ``follow`` did not move as wanted, because of the workspace
        )
        self._state = np.zeros((3, count))
        self._reference = np.zeros(count)
        self._line: Line | None = None  # of the present state, if it moves on one
        self._stop: Stop | None = None  # verified, to rest; None at rest
        self._stopping = 0.0  # s that the set-point has moved along it
        self._each, self._together = Ruckig(count), Ruckig(1)

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
        self._stop, self._stopping, self._line, self.blocked = None, 0.0, None, ""

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
        self.blocked = ""
        for propose in (self._intercept, self._straight):
            try:
                if propose(wanted, velocity, dt):
                    self.blocked = ""
                    return self.position
            except ValueError:  # no such motion
                continue
        self._move_along_stop(dt)
        if self.workspace is not None and self.blocked:
            self.blocked = self.workspace.violations(wanted) or f"on the way, {self.blocked}"
        return self.position

    def brake(self, dt: float) -> np.ndarray:
        """Move for ``dt`` seconds along the stop, or until at rest. Returns the new set-point
        (A,).
        """
        self._move_along_stop(dt)
        self._reference = self.position
        self.blocked = ""
        return self.position

    def _intercept(self, wanted: np.ndarray, velocity: np.ndarray, dt: float) -> bool:
        """Move along the fastest motion that meets a reference which is at ``wanted`` in ``dt`` and
        keeps its ``velocity``, computed in a frame that moves with the reference. A joint that may
        not move so moves along its stop.
        """
        limits = self.limits
        limit = TRACKED * limits.velocity
        velocity = np.minimum(np.maximum(velocity, -limit), limit)
        frame = np.stack([wanted - velocity * dt, velocity, np.zeros_like(wanted)])
        error = self._state - frame
        error[np.abs(error) < 1e-15] = 0.0  # too little for Ruckig
        motion = _motion(error, limits.acceleration, limits.jerk, ControlInterface.Position)
        motion.max_velocity = (limits.velocity - velocity).tolist()
        motion.min_velocity = (-limits.velocity - velocity).tolist()
        state = frame + _trajectory(self._each, motion).at_time(dt)
        state[0] += velocity * dt
        stop = self._stop_of_each(state)
        may = self._joints_may(state, stop)
        if not may.all():
            state = np.where(may, state, self._along_stop(self._stopping + dt))
            stop = self._stop_of_each(state)
        return self._accept(state, stop, None)

    def _stop_of_each(self, state: np.ndarray) -> Stop:
        limits = self.limits
        motion = _motion(state, limits.acceleration, limits.jerk, ControlInterface.Velocity)
        return Stop(self._each, motion, state, 1.0)

    def _straight(self, wanted: np.ndarray, _: np.ndarray, dt: float) -> bool:
        """From rest, begin the fastest motion on a straight line in joint space to rest at
        ``wanted``; in motion on such a line, go on as long as it leads towards ``wanted``.

        Joints that move in proportion leave a boundary where each at its own pace would first cross
        it.
        """
        line, limits = self._line, self.limits
        if self.at_rest:
            line = Line(self.position, wanted - self.position, np.zeros((3, 1)))
        elif line is None or line.way @ (wanted - self.position) <= 0.0:
            return False
        way = np.maximum(np.abs(line.way), 1e-12)
        velocity, acceleration, jerk = (
            np.array([(limit / way).min()])
            for limit in (limits.velocity, limits.acceleration, limits.jerk)
        )
        motion = _motion(line.done, acceleration, jerk, ControlInterface.Position)
        motion.max_velocity, motion.target_position = velocity.tolist(), [1.0]
        trajectory = _trajectory(self._together, motion)
        done = np.array(trajectory.at_time(dt))
        if trajectory.duration <= dt:
            done[1:] = 0.0
        state = done * line.way
        state[0] += line.start
        halt = _motion(done, acceleration, jerk, ControlInterface.Velocity)
        stop = Stop(self._together, halt, state, line.way)
        return self._accept(state, stop, Line(line.start, line.way, done))

    def _accept(self, state: np.ndarray, stop: Stop, line: Line | None) -> bool:
        """Move to ``state`` (3, A) if every limit is kept there and on the stop from there."""
        if not self._joints_may(state, stop).all():
            return False
        if self.workspace is not None and (rule := self._leaves(self.workspace, stop)):
            self.blocked = rule
            return False
        self._state, self._stop, self._stopping, self._line = state, stop, 0.0, line
        return True

    def _joints_may(self, state: np.ndarray, stop: Stop) -> np.ndarray:
        """Which joints (A,) may go to ``state`` (3, A): they keep the limits there and on the stop
        from there, and outside the position bounds they only move inwards.
        """
        limits = self.limits
        position, velocity, acceleration = state
        peak = velocity + acceleration * np.abs(acceleration) / (2.0 * limits.jerk)
        fastest, slowest = np.maximum(velocity, peak), np.minimum(velocity, peak)  # on the stop
        lower = np.minimum(limits.lower, np.maximum(position, self.position))
        upper = np.maximum(limits.upper, np.minimum(position, self.position))
        return (
            (stop.lowest >= lower - TOLERANCE)
            & (stop.highest <= upper + TOLERANCE)
            & ((position >= limits.lower) | (slowest >= -TOLERANCE))
            & ((position <= limits.upper) | (fastest <= TOLERANCE))
            & (np.maximum(fastest, -slowest) <= limits.velocity * (1.0 + TOLERANCE))
            & (np.abs(acceleration) <= limits.acceleration * (1.0 + TOLERANCE))
        )

    def _leaves(self, workspace: Workspace, stop: Stop) -> str:
        """The rule of the workspace that is broken on a stop; "" if none. Beyond a boundary, the
        depth of what is furthest beyond it may not grow.
        """
        rules = workspace.beyond(np.vstack([self.position, stop.samples(STRIDE)]))
        if (rules[0] > -RESERVE).any():
            rules = workspace.beyond(np.vstack([self.position, stop.samples(FINE)]))
        beyond = np.maximum.reduceat(rules, BOUNDARIES, axis=1)
        allowed = np.maximum(np.minimum.accumulate(beyond, axis=0)[:-1], -RESERVE)
        broken = (beyond[1:] > allowed + 1e-12).any(axis=0)
        if not broken.any():
            return ""
        first = BOUNDARIES[broken.argmax()]
        last = [*BOUNDARIES, rules.shape[1]][broken.argmax() + 1]
        return workspace.rules[first + int(rules[:, first:last].max(axis=0).argmax())]

    def _move_along_stop(self, dt: float) -> None:
        self._stopping += dt
        self._line = None
        self._state = self._along_stop(self._stopping)
        if self.at_rest:
            self._stop, self._stopping = None, 0.0

    def _along_stop(self, time: float) -> np.ndarray:
        """The state (3, A) after ``time`` seconds of the verified stop."""
        if self._stop is not None:
            return self._stop.at(time)
        return np.stack([self.position, *np.zeros_like(self._state[1:])])
