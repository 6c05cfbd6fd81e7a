"""Turns chunks into motion: step by step, or as an arm's controller does.

Step execution commands one row of a chunk per control step, and the world moves there by itself.
Controller execution computes a set-point every 5 ms, which follows the timeline of the chunks
within motion limits, as the ROS arm controller does. Both plan with the same ``Planner``. A: width
of an action.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from copy import copy

import numpy as np

from alam_core.errors import UserError
from alam_core.robots.workspace import Workspace
from alam_core.runtime.motion import MotionLimits, SetPoint
from alam_core.runtime.planner import Planner
from alam_core.runtime.runner import PlanRequest
from alam_core.runtime.timeline import StepTimeline, Timeline
from alam_core.sim.world import TICK, DrivenWorld, World
from alam_core.types import ActionChunk, Observation

Hold = Callable[[np.ndarray], np.ndarray]
"""The action (A,) that keeps an arm at a state (S,)."""


class PolicyExecution(ABC):
    """Runs a policy in a world: an agent (see :class:`alam_core.runtime.rollout.Agent`)."""

    def __init__(self, planner: Planner) -> None:
        self.planner = planner

    @abstractmethod
    def reset(self, seed: int = 0) -> None:
        """Begin an episode; ``seed`` determines the initial noise of all its chunks."""

    @abstractmethod
    def act(self, observation: Observation) -> np.ndarray:
        """What is executed in the next control step. Plans a chunk if one is due. Raises UserError
        as ``PolicyRunner.infer`` does.
        """

    @abstractmethod
    def apply(self, world: World, action: np.ndarray, render: bool) -> Observation:
        """Carry out what ``act`` returned; what is observed after this control step."""

    def needs_images(self, stamp: float) -> bool:
        """Whether a chunk will be planned from the observation of time ``stamp``."""
        return self.planner.due(stamp)

    def request(self, observation: Observation) -> PlanRequest:
        """What ``act`` would compute the chunk from."""
        return self.planner.request(observation, self._upcoming)

    def accept(self, chunk: ActionChunk) -> None:
        """Execute the chunk that the caller computed for the last request; ``act`` then plans
        none.
        """
        self._execute(self.planner.accept(chunk))

    @abstractmethod
    def _execute(self, chunk: ActionChunk) -> None:
        """Execute a chunk from the time on when it takes effect."""

    @abstractmethod
    def _upcoming(self, time: float) -> np.ndarray | None:
        """See ``Upcoming`` of the planner."""


class StepExecution(PolicyExecution):
    """Runs a policy with one row of a chunk per control step.

    hold: gives the action for the control steps in which no chunk is in effect, at the beginning
    and after the clock was set back: the arm stays where it was observed at the first of them.
    Required with a delay.
    """

    def __init__(self, planner: Planner, hold: Hold | None = None) -> None:
        """Raises UserError for a planner with a delay and no ``hold``."""
        if planner.delay_steps and hold is None:
            raise UserError(
                "with a delay the arm must be held until the first chunk takes effect: give hold"
            )
        super().__init__(planner)
        self._hold = hold
        self._held_state: np.ndarray | None = None  # (S,) while no chunk is in effect
        self._timeline = StepTimeline()

    def reset(self, seed: int = 0) -> None:
        self.planner.reset(seed)
        self._held_state = None
        self._timeline.clear()

    def act(self, observation: Observation) -> np.ndarray:
        """The action (A,) to execute from the observation's stamp until one control step later.

        The row is chosen by the stamp: if an observation is lost, its row is skipped; a repeated
        observation gets the same row again. Raises UserError for an observation without a stamp,
        and as ``PolicyRunner.infer`` does.
        """
        now = observation.stamp
        if not math.isfinite(now):
            raise UserError(
                "the observation has no stamp: give its time in s, such as time.monotonic()"
            )
        if self.planner.due(now):
            self._execute(self.planner.plan(observation, self._upcoming))
        action = self._action(now)
        if action is not None:
            self._held_state = None
            return action
        assert self._hold is not None
        if self._held_state is None:
            self._held_state = observation.state
        return np.array(self._hold(self._held_state), np.float32)

    def apply(self, world: World, action: np.ndarray, render: bool) -> Observation:
        return world.step(action, render=render)

    def _execute(self, chunk: ActionChunk) -> None:
        self._timeline.add(chunk, self.planner.delay_steps)

    def _upcoming(self, time: float) -> np.ndarray | None:
        """The row that is due at a time; it is executed during the control step before."""
        return self._action(time - self.planner.runner.dt)

    def _action(self, now: float) -> np.ndarray | None:
        """The row (A,) to execute from ``now`` on, None before the first chunk takes effect."""
        found = self._timeline.at(now, self.planner.delay_steps)
        return None if found is None else found[0].actions[found[1]]


class ControllerExecution(PolicyExecution):
    """Runs a policy in a driven world and executes its chunks as the arm's controller does.

    limits: motion limits of the set-point. fade: s over which the gap between two chunks is faded
    out. workspace: of the Piper, which the set-point stays in; None for another arm.
    """

    def __init__(
        self,
        planner: Planner,
        limits: MotionLimits,
        fade: float = 0.15,
        workspace: Workspace | None = None,
    ) -> None:
        super().__init__(planner)
        self.set_point = SetPoint(limits, workspace)
        self._timeline = Timeline(fade)
        self._coming: deque[tuple[float, ActionChunk]] = deque()  # (time in s, chunk to splice in)
        self._seeded = False

    def reset(self, seed: int = 0) -> None:
        self.planner.reset(seed)
        self._timeline.clear()
        self._coming.clear()
        self._seeded = False

    def act(self, observation: Observation) -> np.ndarray:
        """The set-points (N, A) of the next control step, one per tick.

        The set-point starts at the first observation's state, at rest, and stays there until the
        first chunk takes effect. Raises UserError as ``PolicyRunner.infer`` does.
        """
        now, dt = observation.stamp, self.planner.runner.dt
        if not self._seeded:
            self.set_point.seed(observation.state.astype(np.float64))
            self._seeded = True
        if self.planner.due(now):
            self._execute(self.planner.plan(observation, self._upcoming))
        ticks = range(round(dt / TICK))
        return np.stack([self._tick(now + tick * TICK) for tick in ticks])

    def apply(self, world: World, action: np.ndarray, render: bool) -> Observation:
        assert isinstance(world, DrivenWorld)
        for set_point in action:
            world.physics_step(set_point)
        return world.observe(render=render)

    def _execute(self, chunk: ActionChunk) -> None:
        arrival = chunk.stamp + self.planner.delay_steps * self.planner.runner.dt
        self._coming.append((arrival, self.planner.ready(arrival)))

    def _tick(self, now: float) -> np.ndarray:
        """The set-point (A,) for the tick that begins at ``now``."""
        while self._coming and self._coming[0][0] <= now + TICK / 2:
            self._timeline.splice(self._coming.popleft()[1], now, self.set_point.position)
        if self._timeline.chunk is None:
            return self.set_point.brake(TICK)
        return self.set_point.follow(self._timeline.at(now + TICK), TICK)

    def _upcoming(self, time: float) -> np.ndarray | None:
        """The reference (A,) at a time, with the chunks that take effect before it; None if the arm
        still holds its position then.
        """
        timeline = copy(self._timeline)
        for arrival, chunk in self._coming:
            if arrival < time - TICK / 2:
                timeline.splice(chunk, arrival, self.set_point.position)
        return None if timeline.chunk is None else timeline.at(time)
