"""Which images and which joint state belong together: the newest image of each view and the joint
state nearest to them in time.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any


@dataclass
class Look:
    """Parts that are served together. Stamps and ages are in ns."""

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
    """Keeps what arrived last and puts looks together. A look is served once per new set of images.

    max_skew: ns between two stamps over which a look is flagged (and served all the same).
    max_age: ns over which a part is stale and no look is served.
    """

    def __init__(self, views: list[str], max_skew: int, max_age: int) -> None:
        self.views = views
        self.max_skew = max_skew
        self.max_age = max_age
        self._images: dict[str, tuple[int, Any]] = {}
        self._joints: deque[tuple[int, Any]] = deque(maxlen=100)
        self._served: tuple[int, ...] = ()

    def add_image(self, view: str, stamp: int, message: Any) -> None:
        self._images[view] = (stamp, message)

    def add_joints(self, stamp: int, message: Any) -> None:
        if self._joints and stamp < self._joints[-1][0]:
            self._joints.clear()  # time went backwards: another source, or a simulator that was started anew
        self._joints.append((stamp, message))

    def complete(self) -> bool:
        """Whether every view's newest image has the same stamp and this set was not served yet."""
        stamps = self._stamps()
        return len(stamps) == len(self.views) and len(set(stamps)) == 1 and stamps != self._served

    def caught_up(self) -> bool:
        """Whether the newest joint state is not older than the newest image."""
        return (
            bool(self._joints) and bool(self._images) and self._joints[-1][0] >= max(self._stamps())
        )

    def behind(self) -> list[str]:
        """The views whose newest image is older than that of another view, or that never had one."""
        newest = max(self._stamps(), default=0)
        return [
            view
            for view in self.views
            if view not in self._images or self._images[view][0] < newest
        ]

    def look(self, now: int) -> Look | str | None:
        """The look of this moment; a line that says why there is none; None if no image came since
        the last one was served.
        """
        stale = self.stale(now)
        if stale:
            return stale
        stamps = self._stamps()
        if stamps == self._served:
            return None
        self._served = stamps
        joint_stamp, joints = min(self._joints, key=lambda entry: abs(entry[0] - max(stamps)))
        everything = [*stamps, joint_stamp]
        skew = max(everything) - min(everything)
        images = {view: self._images[view][1] for view in self.views}
        return Look(
            images,
            dict(zip(self.views, stamps, strict=True)),
            joints,
            joint_stamp,
            skew,
            skew > self.max_skew,
        )

    def stale(self, now: int) -> str:
        """The parts that are missing or older than ``max_age``, as one line; empty if all are
        fresh.

        One from the future is stale as well: its clock is another one, or time jumped back and it
        is frozen.
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

    def _stamps(self) -> tuple[int, ...]:
        return tuple(self._images[view][0] for view in self.views if view in self._images)


def _age(age: int) -> str:
    return f"{age * 1e-9:.1f} s old" if age >= 0 else f"{-age * 1e-9:.1f} s in the future"
