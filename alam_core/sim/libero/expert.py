"""A scripted expert for LIBERO: one skill for each goal of a task, again and again until all hold.

It reads the objects' true shapes and the goals, and acts only through the hand.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from alam_core.errors import UserError
from alam_core.sim.libero.fixtures import OPEN_BY, Door, Drawer, IntoDrawer, Knob
from alam_core.sim.libero.hand import OPEN, Actions, Hand, down
from alam_core.sim.libero.pick_place import OPENING, PickAndPlace, Slide
from alam_core.sim.libero.simulator import LiberoSimulator

FLAT = 0.04  # m, the height of what is pushed over the table rather than picked up
ORDER = ("open", "turnon", "in", "on", "close")  # in which the goals are reached


class Skill(Protocol):
    """Reaches one goal."""

    def attempt(self) -> Actions:
        """The actions of one attempt."""
        ...


class LiberoExpert:
    """The expert of one task after the other. ``seed`` varies its speed and how high it carries.

    simulator: returns the simulator of the world's current task.
    """

    def __init__(self, simulator: Callable[[], LiberoSimulator], seed: int) -> None:
        self._current = simulator
        rng = np.random.default_rng(seed)
        self._speed = rng.uniform(0.85, 1.0)
        self._clearance = rng.uniform(0.03, 0.05)

    def reset(self) -> None:
        """Begin the world's current episode. Raises UserError for a task without a skill."""
        simulator = self._current()
        hand = Hand(simulator, self._speed, self._clearance)
        goals = sorted(simulator.goals, key=lambda goal: ORDER.index(goal[0]))
        skills = [(goal, make_skill(hand, goal)) for goal in goals]
        self._actions = self._play(hand, skills)

    def act(self) -> np.ndarray:
        """The action (7,) for the current state of the world."""
        return next(self._actions)

    def _play(self, hand: Hand, skills: list[tuple[list[str], Skill]]) -> Actions:
        """All actions, without end."""
        while True:
            for goal, skill in skills:
                while not hand.simulator.holds(goal):
                    yield from skill.attempt()
            yield from hand.wait(down(0.0), OPEN, 1)


def _placing(hand: Hand, item: str, place: str, inside: bool) -> Skill:
    simulator = hand.simulator
    length, width, height = np.ptp(simulator.box(item), axis=0)
    flat = height < FLAT and min(length, width) > OPENING
    if flat and simulator.is_region(place) and simulator.part_of(place) is None:
        return Slide(hand, item, place)
    if inside and (drawer := simulator.mover(place)) is not None and not drawer.turns:
        return IntoDrawer(hand, item, place, drawer)
    return PickAndPlace(hand, item, place, inside)


def make_skill(hand: Hand, goal: list[str]) -> Skill:
    """What reaches a goal. Raises UserError if nothing does."""
    kind, item, *place = goal
    if kind in ("on", "in"):
        return _placing(hand, item, place[0], kind == "in")
    part = hand.simulator.mover(item)
    if part is not None and kind == "turnon":
        return Knob(hand, part)
    if part is not None and kind == "close" and part.turns:
        return Door(hand, part)
    if part is not None and kind in ("open", "close") and not part.turns:
        return Drawer(hand, part, OPEN_BY if kind == "open" else 0.0)
    raise UserError(f"the scripted expert has no skill for the goal '{' '.join(goal)}'")
