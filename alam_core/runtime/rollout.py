"""One episode of a world: reset, act until success or the step limit, show every step to observers.

The evaluator, the evaluation during training and the collector all run this loop. S: width of the
state, A: width of an action, H_img and W: image height and width.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from alam_core.sim.world import World
from alam_core.types import Observation

T = TypeVar("T")


class Agent(Protocol):
    """Acts in a world: a policy with one of the kinds of execution, or a scripted expert."""

    def reset(self, seed: int) -> None:
        """Begin an episode, after the world was reset; ``seed`` determines the agent's noise."""
        ...

    def act(self, observation: Observation) -> np.ndarray:
        """The action of this control step, which a recorder keeps: (A,), or (N, A) for an agent
        that divides a control step into N ticks.
        """
        ...

    def apply(self, world: World, action: np.ndarray, render: bool) -> Observation:
        """Carry out an action for one control step; returns what is observed at its end, without
        images unless ``render``.
        """
        ...

    def needs_images(self, stamp: float) -> bool:
        """Whether ``act`` will use the images of the observation of time ``stamp``, in s."""
        ...


class Observer(Protocol):
    """Receives every step of an episode and does not influence it. ``needs_images``: whether every
    observation must have its images.
    """

    needs_images: bool

    def on_start(self, observation: Observation) -> None:
        """An episode begins with this observation."""
        ...

    def on_step(self, observation: Observation, action: np.ndarray, after: Observation) -> None:
        """In the state of ``observation`` the agent chose ``action``, which led to ``after``."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How an episode ended. steps: control steps executed."""

    success: bool
    steps: int


def rollout(
    world: World,
    agent: Agent,
    seed: int,
    observers: Sequence[Observer] = (),
    success_steps: int = 1,
) -> Outcome:
    """Run the episode that ``seed`` determines, until success has lasted ``success_steps`` control
    steps in a row or the world's step limit is reached.

    Images take most of a simulator's time: they are rendered only for the first observation and
    where the agent or an observer needs them.
    """
    return finish(rollout_steps(world, agent, seed, observers, success_steps))


def rollout_steps(
    world: World,
    agent: Agent,
    seed: int,
    observers: Sequence[Observer] = (),
    success_steps: int = 1,
) -> Generator[Observation, None, Outcome]:
    """``rollout`` that pauses wherever the agent is about to use images, and yields the observation
    that has them: the caller may act for several agents at once.
    """
    observation = world.reset(seed)
    agent.reset(seed)
    for observer in observers:
        observer.on_start(observation)
    always_render = any(observer.needs_images for observer in observers)
    steps = successes = 0
    while successes < success_steps and steps < world.max_steps:
        if agent.needs_images(observation.stamp):
            yield observation
        action = agent.act(observation)
        render = always_render or agent.needs_images(observation.stamp + world.dt)
        after = agent.apply(world, action, render)
        for observer in observers:
            observer.on_step(observation, action, after)
        observation = after
        steps += 1
        successes = successes + 1 if world.success() else 0
    return Outcome(successes >= success_steps, steps)


def finish(steps: Generator[Any, None, T]) -> T:
    """Run a generator to its end; what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


class VideoRecorder:
    """Keeps the images of all observations; the views of an observation are side by side."""

    needs_images = True

    def __init__(self) -> None:
        self._frames: list[np.ndarray] = []

    def on_start(self, observation: Observation) -> None:
        self._frames = [self._frame(observation)]

    def on_step(self, observation: Observation, action: np.ndarray, after: Observation) -> None:
        self._frames.append(self._frame(after))

    @property
    def frames(self) -> np.ndarray:
        """uint8 RGB (steps + 1, H_img, W * views, 3)."""
        return np.stack(self._frames)

    def _frame(self, observation: Observation) -> np.ndarray:
        return np.concatenate(list(observation.images.values()), axis=1)


class DemonstrationRecorder:
    """Keeps each observation and the action that the agent chose for it: a demonstration."""

    needs_images = True

    def __init__(self) -> None:
        self.observations: list[Observation] = []
        self.actions: list[np.ndarray] = []  # (A,) float32

    def on_start(self, observation: Observation) -> None:
        self.observations, self.actions = [], []

    def on_step(self, observation: Observation, action: np.ndarray, after: Observation) -> None:
        self.observations.append(observation)
        self.actions.append(np.asarray(action, np.float32))
