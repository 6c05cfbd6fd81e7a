"""Pick an object up and put it on or into something, or slide it there.

Grasps are tried one after another, those with the most room for the fingers first: across the
object where it is narrow enough, else on its rim.
"""

from dataclasses import dataclass

import numpy as np

from alam_core.sim.libero.hand import CLOSE, OPEN, Actions, Hand, down
from alam_core.sim.libero.simulator import Part

OPENING = 0.072  # the widest object that fits between the open fingers
FINGER = 0.047  # from the grasp point to the middle of an open finger
TIP = 0.01  # from the grasp point down to the tips of the fingers
PALM = 0.03  # how far the fingers reach down beside an object before the palm touches it
TALL = 0.1  # a wide item above that is held by its knob or handle
THIN = 0.015  # a knob or handle is at most that wide
KNOBS = 3  # grasps of knobs and handles to try
ROOM = 0.01  # more room below the fingers is no better
YAWS = np.deg2rad([0, 90, 45, -45])  # of the hand, about the vertical
PRESS = 0.006  # how far below a surface the tips are aimed that press on it
LIFTED = 0.02  # an object that rose by that much is held


def centre(box: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The middle (3,) of a box that is given by its lowest and highest coordinates."""
    return (box[0] + box[1]) / 2


@dataclass(frozen=True)
class Grasp:
    """Where the hand closes: its position (3,) and its ``yaw`` in rad."""

    point: np.ndarray
    yaw: float


class PickAndPlace:
    """Puts ``item`` on ``place``, or into it if ``inside``: an object or a region of one. drawer:
    what the place moves with; the item is put into the part of it that is pulled out.
    """

    def __init__(
        self, hand: Hand, item: str, place: str, inside: bool, drawer: Part | None = None
    ) -> None:
        self._drawer = drawer
        self._hand, self._simulator = hand, hand.simulator
        self._item, self._place, self._inside = item, place, inside
        self._attempts = 0

    def attempt(self) -> Actions:
        """Grasp, carry and release; each attempt takes another grasp."""
        hand = self._hand
        grasps = self._grasps()
        grasp = grasps[self._attempts % len(grasps)]
        self._attempts += 1
        turn = down(grasp.yaw)
        yield from hand.over(grasp.point, turn, OPEN, TIP, self._item)
        if np.linalg.norm(hand.position - grasp.point) > 0.02:  # something is in the way
            return
        height = self._simulator.box(self._item)[0][2]
        yield from hand.wait(turn, CLOSE)
        yield from hand.rise(0.06, turn, CLOSE)
        if self._simulator.box(self._item)[0][2] - height > LIFTED:
            point, hang = self._release()
            yield from hand.over(point, turn, CLOSE, hang, self._item)
        yield from hand.wait(turn, OPEN)
        yield from hand.rise(0.1, turn, OPEN)

    def _release(self) -> tuple[np.ndarray, float]:
        """Where the hand opens (3,), and how far the item hangs below it."""
        low, high = self._simulator.box(self._item)
        place_low, place_high = self._target()
        hand = self._hand.position
        point = hand + centre((place_low, place_high)) - centre((low, high))
        hang = hand[2] - low[2]
        if self._simulator.is_region(self._place) and not self._inside:
            above = np.append(centre((place_low, place_high))[:2], place_high[2] + 0.3)
            ground = max(self._simulator.surface(above, self._item), place_low[2])
            point[2] = ground + hang + 0.008
        else:
            point[2] = place_high[2] + hang + (-0.05 if self._inside else 0.008)
        return point, hang

    def _target(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest coordinates (3,) of where the item may be put."""
        low, high = self._simulator.box(self._place)
        if self._drawer is None:
            return low, high
        out = -self._drawer.axis
        hidden = np.maximum((high - low) - abs(self._drawer.value), 0) * out  # in the furniture
        return low + hidden.clip(min=0), high + hidden.clip(max=0)

    def _grasps(self) -> list[Grasp]:
        """The grasps of the item, the best first."""
        corners = self._simulator.shapes(self._item).reshape(-1, 3)
        low, high = corners.min(0), corners.max(0)
        middle = (low + high) / 2
        across, rims = [], []
        for yaw in YAWS:
            axis = np.array([-np.sin(yaw), np.cos(yaw), 0.0])  # along which the fingers close
            width = np.ptp(corners @ axis)
            depth = max(low[2] + 0.01, middle[2], high[2] - PALM)
            across.append((width, Grasp(np.append(middle[:2], depth), yaw)))
            for side in (-1, 1):
                point = middle + side * (width / 2 - 0.006) * axis
                near = np.linalg.norm((corners - point)[:, :2], axis=1) < 0.025
                top = corners[near, 2].max(initial=middle[2])  # it may stand at a slant
                rims.append(Grasp(np.append(point[:2], top - 0.018), yaw))
        narrow = [grasp for width, grasp in sorted(across, key=lambda e: e[0]) if width < OPENING]
        place = centre(self._target())

        def rank(grasp: Grasp) -> tuple[float, bool, float]:
            near = float(np.linalg.norm(grasp.point - place))
            return -min(self._room(grasp), ROOM), bool(grasp.yaw), near if not narrow else 0.0

        tall = high[2] - low[2] > TALL and not narrow
        return (self._knobs() if tall else []) + sorted(narrow or rims, key=rank)

    def _knobs(self) -> list[Grasp]:
        """Grasps across the knob and the handle of a wide item, the highest first."""
        shapes = self._simulator.shapes(self._item)
        low, high = shapes.min(1), shapes.max(1)
        found = []
        for shape in np.argsort(-high[:, 2]):
            length, width, height = high[shape] - low[shape]
            if min(length, width) < THIN and height > 2 * TIP:
                yaw = np.pi / 2 if length < width else 0.0
                middle = (low[shape] + high[shape]) / 2
                middle[2] = max(middle[2], high[shape, 2] - PALM)
                found.append(Grasp(middle, yaw))
        return found[:KNOBS]

    def _room(self, grasp: Grasp) -> float:
        """From the tips of the open fingers down to what is below them."""
        axis = np.array([-np.sin(grasp.yaw), np.cos(grasp.yaw), 0.0])
        rooms = []
        for along in (-FINGER - 0.01, -FINGER, FINGER, FINGER + 0.01):
            above = grasp.point + along * axis + [0, 0, 0.1]
            rooms.append(grasp.point[2] - TIP - self._simulator.surface(above, self._item))
        return float(min(rooms))


class Slide:
    """Pushes a flat ``item`` over the table to a region, with the fingertips pressed on it."""

    def __init__(self, hand: Hand, item: str, place: str) -> None:
        self._hand, self._item, self._place = hand, item, place

    def attempt(self) -> Actions:
        hand, simulator = self._hand, self._hand.simulator
        middle = centre(simulator.box(self._item))
        way = (centre(simulator.box(self._place)) - middle) * [1, 1, 0]
        middle[2] = simulator.surface(middle + [0, 0, 0.1], "") + TIP - PRESS
        turn = down(0.0)
        yield from hand.over(middle, turn, CLOSE, TIP, self._item)
        yield from hand.to(middle + way, turn, CLOSE)
        yield from hand.rise(0.1, turn, CLOSE)
