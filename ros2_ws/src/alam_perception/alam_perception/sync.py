"""Which images and which joint positions belong together: the newest image of each view, and each
joint's position nearest to the newest image in time.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alam_core.robots.joint_states import WINDOW, JointStates


@dataclass
class FrameSet:
    """Images and joint positions that form one observation. Stamps and skew are in ns."""

    images: dict[str, Any]  # view -> message, in the order of the views
    image_stamps: dict[str, int]
    joints: dict[str, float]  # joint name -> position, the needed ones first
    joint_stamp: int  # the oldest of the needed joints' stamps
    skew: int  # largest difference between any two stamps
    skewed: bool  # whether skew exceeds the limit

    @property
    def stamp(self) -> int:
        """The oldest image's stamp."""
        return min(self.image_stamps.values())


class Synchroniser:
    """Keeps the newest images and recent joint positions, and combines them to frame sets. A set of
    images is taken only once.

    needed: names of the joints that every set must have. max_skew: ns, difference between stamps
    above which a set is flagged as skewed. max_age: ns, age of an image or joint position above
    which there is no set.
    """

    def __init__(self, views: list[str], needed: list[str], max_skew: int, max_age: int) -> None:
        self.views = views
        self.needed = needed
        self.max_skew = max_skew
        self.max_age = max_age
        self._states = JointStates()
        self._images: dict[str, tuple[int, Any]] = {}
        self._intervals: dict[str, int] = {}  # ns between the view's last two images
        self._taken: dict[str, int] = {}  # stamps of the set that was taken last

    def add_image(self, view: str, stamp: int, message: Any) -> bool:
        """Replace the image of a view. stamp: ns. Returns whether the image is new, not the newest
        one of the view again.
        """
        before = self._images[view][0] if view in self._images else None
        if stamp == before:
            return False
        if before is None or stamp < before:
            self._intervals.pop(view, None)
        else:
            self._intervals[view] = stamp - before
        self._images[view] = (stamp, message)
        return True

    def add_joints(
        self, stamp: int, now: int, names: Sequence[str], positions: Sequence[float]
    ) -> None:
        """Merge a joint state, which may hold some of the joints only. stamp, now: ns. Raises
        ValueError for a malformed one.
        """
        self._states.add(stamp, now, names, positions)

    def complete(self) -> bool:
        """Whether every view has an image that was not in the last set taken, and no image is
        further behind the newest one than ``max_skew``, or than half the interval between its
        view's last two images: a better match is then expected.
        """
        stamps = self._stamps()
        if len(stamps) < len(self.views):
            return False
        newest = max(stamps.values())
        return all(
            self._taken.get(view) != stamp
            and newest - stamp <= min(self.max_skew, self._intervals.get(view, newest) / 2)
            for view, stamp in stamps.items()
        )

    def one_stamp(self) -> bool:
        """Whether the newest images of all views have the same stamp and were not taken yet."""
        stamps = self._stamps()
        complete = len(stamps) == len(self.views) and len(set(stamps.values())) == 1
        return complete and stamps != self._taken

    def caught_up(self) -> bool:
        """Whether the newest position of every needed joint is at least as new as the newest
        image.
        """
        newest = max(self._stamps().values(), default=None)
        return newest is not None and all(
            stamp is not None and stamp >= newest for stamp in map(self._joint_stamp, self.needed)
        )

    def behind(self) -> list[str]:
        """The views whose newest image is older than another view's, or that never had one."""
        stamps = self._stamps()
        newest = max(stamps.values(), default=0)
        return [view for view in self.views if stamps.get(view, -1) < newest]

    def take(self, now: int, publishers: int = 1) -> FrameSet | str | None:
        """Take the newest set at time ``now`` (ns). publishers: number of publishers of joint
        states. Returns the reason as one line if there is no set that can be trusted, and None if
        no image arrived since the last set was taken.
        """
        problem = self.problem(now)
        if problem:
            return problem
        if publishers > 1 and (joint := self._states.jumped()):
            # The next joint state tells a contradiction from a jump, such as a reset.
            return f"{joint} has jumped and {publishers} nodes publish joint states"
        stamps = self._stamps()
        if stamps == self._taken:
            return None
        self._taken = stamps
        newest = max(stamps.values())
        lost = self.lost(now)
        names = dict.fromkeys([*self.needed, *self._states.joints])
        joints = {
            name: self._states.joints[name].nearest(newest) for name in names if name not in lost
        }
        joint_stamps = [joints[name][0] for name in self.needed]
        skew = max(newest, *joint_stamps) - min(*stamps.values(), *joint_stamps)
        return FrameSet(
            {view: self._images[view][1] for view in self.views},
            stamps,
            {name: position for name, (_, position) in joints.items()},
            min(joint_stamps),
            skew,
            skew > self.max_skew,
        )

    def problem(self, now: int) -> str:
        """Why there can be no set at ``now`` (ns), as one line; "" if there can: parts are missing
        or older than ``max_age``, or a joint has two sources.

        A part from the future is stale as well: it has another clock, or the clock jumped back and
        its source stopped before.
        """
        problems = []
        for view in self.views:
            if view not in self._images:
                problems.append(f"no image of {view} yet")
            elif abs(age := now - self._images[view][0]) > self.max_age:
                problems.append(f"newest image of {view} is {_age(age)}")
        return ", ".join(problems + self._joint_problems(now))

    def _joint_problems(self, now: int) -> list[str]:
        problems = []
        ages = {
            name: now - stamp
            for name in self.needed
            if (stamp := self._joint_stamp(name)) is not None
        }
        missing = [name for name in self.needed if name not in ages]
        stale = [name for name, age in ages.items() if abs(age) > self.max_age]
        if not self._states.joints:
            problems.append("no joint state yet")
        elif missing:
            others = ", ".join(name for name in self._states.joints if name not in self.needed)
            has = f" (others are {others})" if others else ""
            problems.append(f"no joint state has {', '.join(missing)}{has}")
        if stale:
            age = _age(min((ages[name] for name in stale), key=abs))
            whole = "newest joint state" if stale == self.needed else ""
            problems.append(f"{whole or 'newest position of ' + ', '.join(stale)} is {age}")
        found = self._states.contradiction
        if found and abs(now - found.time) <= WINDOW:
            problems.append(f"{found.joint} {found.reason}: two nodes publish it, stop one")
        return problems

    def lost(self, now: int) -> list[str]:
        """The joints that are not needed and were there before, but are stale at ``now`` (ns)."""
        return [
            name
            for name in self._states.joints
            if name not in self.needed and self._is_stale(name, now)
        ]

    def _is_stale(self, joint: str, now: int) -> bool:
        stamp = self._joint_stamp(joint)
        return stamp is None or abs(now - stamp) > self.max_age

    def _joint_stamp(self, name: str) -> int | None:
        """The stamp of a joint's newest position, None without one."""
        joint = self._states.joints.get(name)
        return joint.stamps[-1] if joint and joint.stamps else None

    def _stamps(self) -> dict[str, int]:
        """View -> stamp of its newest image, in the order of the views."""
        return {view: self._images[view][0] for view in self.views if view in self._images}


class SkewWatch:
    """Whether so many of the newest observations are skewed that it is a problem. One now and then
    is none: a frame is late or lost, or cameras that run freely drift. max_skew: as above.
    """

    WATCHED = 50
    SHARE = 0.2  # above which it is a problem, until it is at most a quarter of that

    def __init__(self, max_skew: int) -> None:
        self._limit = max_skew * 1e-9  # s
        self._newest: deque[bool] = deque(maxlen=self.WATCHED)
        self._problem = False

    def add(self, skewed: bool) -> None:
        """Count an observation."""
        self._newest.append(skewed)

    def report(self) -> str:
        """The problem as one line, "" if there is none."""
        count, watched = sum(self._newest), len(self._newest)
        share = self.SHARE / 4 if self._problem else self.SHARE
        self._problem = watched >= self.WATCHED / 5 and count > share * watched
        text = f"{count} of {watched} observations skewed by more than {self._limit:.3f} s"
        return text if self._problem else ""


def _age(age: int) -> str:
    return f"{age * 1e-9:.1f} s old" if age >= 0 else f"{-age * 1e-9:.1f} s in the future"
