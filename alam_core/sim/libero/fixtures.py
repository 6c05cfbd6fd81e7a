"""Open and close drawers, turn a stove's knob, close a microwave's door.

Each skill moves the one joint of a part of the furniture. Where that part can be touched follows
from its shapes; the distances and angles were found by trying them in simulation.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from alam_core.sim.libero.hand import CLOSE, OPEN, Actions, Hand, down
from alam_core.sim.libero.pick_place import PickAndPlace
from alam_core.sim.libero.simulator import Part

TILT = np.pi / 4  # of the hand towards a drawer: its palm stays clear of the handles above
BEHIND = 0.008  # of the tips behind the middle of a drawer's bar, above which they are put down
OPEN_BY = 0.16  # m, as far as a drawer opens
PARTLY = 0.1  # m, enough to put something in, and what stands before it can still be reached
SLACK = 0.01  # m that the hand moves before the drawer follows
TURN = np.deg2rad(60)  # of a knob; 40 degrees are not always enough
ARC = 0.15  # rad of a door between two points of the hand's way
Z = np.array([0.0, 0.0, 1.0])


class Drawer:
    """Pulls a drawer by its bar until it is ``open_by`` m open, or pushes it shut if that is 0."""

    def __init__(self, hand: Hand, drawer: Part, open_by: float) -> None:
        self._hand, self._drawer, self._open_by = hand, drawer, open_by

    def attempt(self) -> Actions:
        hand, out = self._hand, -self._drawer.axis  # its joint's values are negative when open
        inwards = -out * np.sin(TILT) - Z * np.cos(TILT)  # where the fingers point
        across = np.arctan2(out[1], out[0]) % np.pi  # the fingers side by side behind the bar
        turn = Rotation.from_rotvec(TILT * np.cross(-Z, -out)) * down(across)
        middles = self._drawer.shapes().mean(1)
        bar = middles[np.argmax(middles @ out)]
        yield from hand.to(bar + 0.15 * out + 0.16 * Z, turn, CLOSE)
        if not self._open_by:
            start = bar + 0.06 * out
            yield from hand.to(start + 0.1 * Z, turn, CLOSE)
            yield from hand.to(start, turn, CLOSE)
            yield from hand.to(start - (0.11 - self._drawer.value) * out, turn, CLOSE)
        else:
            tips = bar - BEHIND * out + 0.012 * Z
            yield from hand.to(tips - 0.07 * inwards, turn, CLOSE)
            yield from hand.to(tips, turn, CLOSE, near=0.004)
            yield from hand.to(tips + (self._open_by + SLACK) * out, turn, CLOSE)
        yield from hand.to(hand.position + 0.05 * out + 0.1 * Z, turn, CLOSE)


class IntoDrawer:
    """Opens a drawer if it is shut, then puts ``item`` into its region ``place``."""

    def __init__(self, hand: Hand, item: str, place: str, drawer: Part) -> None:
        self._drawer, self._open = drawer, Drawer(hand, drawer, PARTLY)
        self._put = PickAndPlace(hand, item, place, inside=True, drawer=drawer)

    def attempt(self) -> Actions:
        shut = abs(self._drawer.value) < 0.8 * PARTLY
        yield from (self._open if shut else self._put).attempt()


class Knob:
    """Turns a knob that stands on a stove."""

    def __init__(self, hand: Hand, knob: Part) -> None:
        self._hand, self._knob = hand, knob

    def attempt(self) -> Actions:
        hand, yaw = self._hand, self._knob.value
        top = self._knob.shapes()[..., 2].max()
        point = np.append(self._knob.anchor[:2], top - 0.015)
        yield from hand.over(point, down(yaw), OPEN, hang=0.02)
        yield from hand.wait(down(yaw), CLOSE)
        yield from hand.to(point, down(yaw + TURN), CLOSE)
        yield from hand.wait(down(yaw + TURN), OPEN)
        yield from hand.rise(0.1, down(yaw + TURN), OPEN)


class Door:
    """Pushes a door shut that turns about the vertical."""

    def __init__(self, hand: Hand, door: Part) -> None:
        self._hand, self._door = hand, door

    def attempt(self) -> Actions:
        hand, door = self._hand, self._door
        closing = -door.value * door.axis[2]  # rad about the vertical
        middles = door.shapes().mean(1)
        handle = middles[np.argmax(np.linalg.norm((middles - door.anchor)[:, :2], axis=1))]
        arm = (handle - door.anchor) * [1, 1, 0]
        push = np.cross(np.sign(closing) * Z, arm) / np.linalg.norm(arm)
        point = handle - 0.04 * push
        turn = down(0.0)
        yield from hand.over(point, turn, CLOSE, hang=0.02)
        for angle in np.arange(0.0, abs(closing) + 0.3, ARC):
            about = Rotation.from_rotvec(np.sign(closing) * angle * Z)
            yield from hand.to(door.anchor + about.apply(point - door.anchor), turn, CLOSE, 0.03)
        yield from hand.rise(0.15, turn, CLOSE)
