"""Which images and which joint state belong together: the newest image of each view, and the joint
state nearest to them in time.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any


@dataclass
class FrameSet:
    """Images and a joint state that form one observation. Stamps and skew are in ns."""

    images: dict[str, Any]  # view -> message, in the order of the views
    image_stamps: dict[str, int]
    joints: Any
    joint_stamp: int
    skew: int  # largest difference between any two stamps
    skewed: bool  # whether skew exceeds the limit

    @property
    def stamp(self) -> int:
        """The oldest image's stamp."""
        return min(self.image_stamps.values())


class Synchroniser:
    """Keeps the newest images and recent joint states, and combines them to frame sets. A set of
    images is taken only once.

    max_skew: ns, difference between stamps above which a set is flagged as skewed. max_age: ns, age
    of an image or joint state above which there is no set.
    """

    def __init__(self, views: list[str], max_skew: int, max_age: int) -> None:
        self.views = views
        self.max_skew = max_skew
        self.max_age = max_age
        self._images: dict[str, tuple[int, Any]] = {}
        self._joints: deque[tuple[int, Any]] = deque(maxlen=100)
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

    def add_joints(self, stamp: int, message: Any) -> None:
        """Add a joint state. stamp: ns."""
        if self._joints and stamp < self._joints[-1][0]:
            self._joints.clear()  # the clock jumped back: another source, or a restarted simulator
        self._joints.append((stamp, message))

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
        """Whether the newest joint state is at least as new as the newest image."""
        newest = max(self._stamps().values(), default=None)
        return bool(self._joints) and newest is not None and self._joints[-1][0] >= newest

    def behind(self) -> list[str]:
        """The views whose newest image is older than another view's, or that never had one."""
        stamps = self._stamps()
        newest = max(stamps.values(), default=0)
        return [view for view in self.views if stamps.get(view, -1) < newest]

    def take(self, now: int) -> FrameSet | str | None:
        """Take the newest set at time ``now`` (ns). Returns the reason as one line if a part is
        missing or stale, and None if no image arrived since the last set was taken.
        """
        stale = self.stale(now)
        if stale:
            return stale
        stamps = self._stamps()
        if stamps == self._taken:
            return None
        self._taken = stamps
        newest = max(stamps.values())
        joint_stamp, joints = min(self._joints, key=lambda entry: abs(entry[0] - newest))
        skew = max(newest, joint_stamp) - min(*stamps.values(), joint_stamp)
        images = {view: self._images[view][1] for view in self.views}
        return FrameSet(images, stamps, joints, joint_stamp, skew, skew > self.max_skew)

    def stale(self, now: int) -> str:
        """Which parts are missing or older than ``max_age`` at ``now`` (ns), as one line; "" if
        none.

        A part from the future is stale as well: it has another clock, or the clock jumped back and
        its source stopped before.
        """
        problems = []
        for view in self.views:
            if view not in self._images:
                problems.append(f"no image of {view} yet")
            elif abs(age := now - self._images[view][0]) > self.max_age:
                problems.append(f"newest image of {view} is {_age(age)}")
        if not self._joints:
            problems.append("no joint state yet")
        elif abs(age := now - self._joints[-1][0]) > self.max_age:
            problems.append(f"newest joint state is {_age(age)}")
        return ", ".join(problems)

    def _stamps(self) -> dict[str, int]:
        """View -> stamp of its newest image, in the order of the views."""
        return {view: self._images[view][0] for view in self.views if view in self._images}


def _age(age: int) -> str:
    return f"{age * 1e-9:.1f} s old" if age >= 0 else f"{-age * 1e-9:.1f} s in the future"
