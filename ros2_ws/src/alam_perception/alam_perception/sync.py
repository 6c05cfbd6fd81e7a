"""Which images and which joint state belong together: the newest image of each view, and the joint
state nearest to them in time.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any


@dataclass
class FrameSet:
    """Parts that are served together. Stamps and skew are in ns."""

    images: dict[str, Any]  # view -> message, in the order of the views
    image_stamps: dict[str, int]
    joints: Any
    joint_stamp: int
    skew: int  # largest distance between any two stamps
    skewed: bool

    @property
    def stamp(self) -> int:
        """The oldest image's stamp."""
        return min(self.image_stamps.values())


class Synchroniser:
    """Keeps what arrived last and combines it to frame sets. A set of images is taken once.

    max_skew: ns between two stamps over which a set is flagged (and served all the same). max_age:
    ns over which a part is stale and nothing is served.
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
        """Returns whether the image is new, not the view's newest one again."""
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
        if self._joints and stamp < self._joints[-1][0]:
            self._joints.clear()  # time went back: another source, or a simulator was restarted
        self._joints.append((stamp, message))

    def complete(self) -> bool:
        """Whether every view has an image that was not in the set taken last, and none of them is
        further behind the newest one than ``max_skew``, or than half the interval of its view's
        images: then a better match is on its way.
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
        """Whether every view's newest image has the same stamp and this set was not taken yet."""
        stamps = self._stamps()
        complete = len(stamps) == len(self.views) and len(set(stamps.values())) == 1
        return complete and stamps != self._taken

    def caught_up(self) -> bool:
        """Whether the newest joint state is not older than the newest image."""
        newest = max(self._stamps().values(), default=None)
        return bool(self._joints) and newest is not None and self._joints[-1][0] >= newest

    def behind(self) -> list[str]:
        """The views whose newest image is older than another view's, or that never had one."""
        stamps = self._stamps()
        newest = max(stamps.values(), default=0)
        return [view for view in self.views if stamps.get(view, -1) < newest]

    def take(self, now: int) -> FrameSet | str | None:
        """The newest set; a line that says why there is none; None if no image came since the last
        one was taken.
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
        """The parts that are missing or older than ``max_age``, as one line; empty if all are
        fresh.

        A part from the future is stale as well: it has another clock, or time went back and it is
        frozen.
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
