"""Joint states merged by joint name, from bags and from a running robot.

A message may hold some of the joints only: arm and gripper often come from two drivers. So each
joint has its own series of positions over time, and the state at a time is, joint by joint, the
position nearest to that time.

A joint must have one source. A bag and a subscription don't tell publishers apart, so two sources
that contradict each other are recognised by what they say, with ``ROUND_TRIPS`` of these events
within ``WINDOW``:

- A round trip that no joint can make: of three successive positions, in the order of their stamps,
  the middle one is off to one side by more than ``STEP``, and moving there and back in that time
  would take more than ``ACCELERATION``. A position that jumps and stays is none (a simulator that
  is reset, a driver that starts), nor is a fast motion, a slow rate, or another source that says
  the same (a relay). Positions above 1 are judged relative to their size, so that degrees, percent
  and counts raise no alarm, and an angle that wraps from pi to -pi has not moved.
- A stamp more than ``BACK`` before the newest one: the sources have two clocks. A clock that is set
  back causes one such event; what was known of the joint is then forgotten.

A single step of more than ``SPEED`` is a jump (``JointStates.jumped``): either the first false
position of a second source, or a jump that stays. The next message tells.

Stamps and times are integers in ns; positions are in rad, those of grippers in m.
"""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

SECOND = 1_000_000_000  # ns
ROUND_TRIPS = 3  # events that make a contradiction; one or two may be disturbances
WINDOW = 5 * SECOND  # in which they happen, and for which a contradiction is remembered
STEP = 0.03  # rad or m, above the noise of a sensor
ACCELERATION = 200.0  # rad/s^2; fast arms reach 20
SPEED = 10.0  # rad/s; fast arms reach 6
BACK = SECOND // 5
KEPT = 2 * SECOND  # newest part of a series that is kept, unless all of it is


@dataclass(frozen=True)
class Contradiction:
    """A joint whose positions cannot have one source. time: of receipt of the last event."""

    joint: str
    stamp: int
    time: int
    reason: str  # one line


def named_positions(names: Sequence[str], positions: Sequence[float]) -> dict[str, float]:
    """Joint name -> position, from the fields of a JointState. Joints without a position are left
    out: it is not a finite number, or the message has none, only velocities.

    Raises ValueError with one line for another number of positions than names, or a name given
    twice.
    """
    if not len(positions):
        return {}
    if len(names) != len(positions):
        raise ValueError(f"joint state has {len(names)} names but {len(positions)} positions")
    if len(set(names)) != len(names):
        raise ValueError("joint state names a joint twice")
    pairs = zip(names, positions, strict=True)
    return {name: float(position) for name, position in pairs if math.isfinite(position)}


class Joint:
    """The positions of one joint, in the order of their stamps."""

    def __init__(self) -> None:
        self.stamps = array("q")
        self.positions = array("d")
        self._events: list[int] = []  # times of the last events of a contradiction

    def add(self, stamp: int, time: int, position: float, keep_all: bool) -> str:
        """Add a position. time: of its receipt. Returns why the joint has two sources, "" if it
        has not.
        """
        reason = ""
        if self.stamps and stamp < self.stamps[-1] - BACK:
            del self.stamps[:], self.positions[:]
            reason = "has stamps of two clocks"
        i = bisect_right(self.stamps, stamp)
        self.stamps.insert(i, stamp)
        self.positions.insert(i, position)
        for j in range(max(i, 2), min(i + 3, len(self.stamps))):
            if self._is_round_trip(j):
                there, back = self.positions[j - 1], self.positions[j]
                reason = f"goes from {back:.3g} to {there:.3g} and back faster than a joint can"
        if not keep_all and self.stamps[-1] - self.stamps[0] > 2 * KEPT:
            old = bisect_left(self.stamps, self.stamps[-1] - KEPT)
            del self.stamps[:old], self.positions[:old]
        if not reason:
            return ""
        self._events = [*self._events[1 - ROUND_TRIPS :], time]
        repeated = len(self._events) == ROUND_TRIPS and abs(time - self._events[0]) <= WINDOW
        return reason if repeated else ""

    def _is_round_trip(self, i: int) -> bool:
        """Whether position i - 1 is off to one side of its neighbours i - 2 and i by more than a
        joint can move.
        """
        there, back = self._move(i - 1), -self._move(i)
        if there * back <= 0:
            return False
        seconds = (self.stamps[i] - self.stamps[i - 2]) / SECOND
        possible = max(STEP, ACCELERATION * seconds**2 / 8)  # half the time to speed up
        return min(abs(there), abs(back)) > possible * self._scale(i - 1)

    def jumped(self) -> bool:
        """Whether the newest position is further from the one before than a joint can move."""
        i = len(self.stamps) - 1
        if i < 1:
            return False
        possible = STEP + SPEED * (self.stamps[i] - self.stamps[i - 1]) / SECOND
        return abs(self._move(i)) > possible * self._scale(i)

    def _move(self, i: int) -> float:
        """The motion to position i from the one before; an angle may have wrapped."""
        return math.remainder(self.positions[i] - self.positions[i - 1], math.tau)

    def _scale(self, i: int) -> float:
        return max(1.0, abs(self.positions[i]), abs(self.positions[i - 1]))

    def nearest(self, stamp: int) -> tuple[int, float]:
        """Stamp and position nearest in time to ``stamp``. The joint must have a position."""
        i = bisect_left(self.stamps, stamp)
        around = range(max(i - 1, 0), min(i + 1, len(self.stamps)))
        i = min(around, key=lambda j: abs(self.stamps[j] - stamp))
        return self.stamps[i], self.positions[i]


class JointStates:
    """The joint states of one topic. keep_all: keep every position, for a bag, whose messages are
    added in the order of their stamps; otherwise those of the last seconds.
    """

    def __init__(self, keep_all: bool = False) -> None:
        self.joints: dict[str, Joint] = {}
        self.contradiction: Contradiction | None = None  # the last one
        self._keep_all = keep_all

    def add(self, stamp: int, time: int, names: Sequence[str], positions: Sequence[float]) -> None:
        """Merge a message. stamp: its header's. time: of its receipt, on any clock.

        Raises ValueError, and adds nothing, for a malformed message (``named_positions``).
        """
        for name, position in named_positions(names, positions).items():
            joint = self.joints.setdefault(name, Joint())
            reason = joint.add(stamp, time, position, self._keep_all)
            if reason:
                self.contradiction = Contradiction(name, stamp, time, reason)

    def jumped(self) -> str:
        """A joint whose newest position is further from the one before than it can move, until the
        next message confirms it; "" if there is none.
        """
        return next((name for name, joint in self.joints.items() if joint.jumped()), "")
