"""When a policy plans, and which actions its new chunk must continue from.

A chunk planned from the observation of time t has its row i due at t + (i + 1) * dt. Inference and
messages take time: when the chunk reaches the arm, its first rows have passed, and the arm has
executed rows of the chunk before instead. Real-time chunking: a policy trained to continue from
given first steps receives those rows as its first steps, so that the new chunk joins the old one.

A: width of an action, G: number of given steps.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from alam_core.errors import UserError
from alam_core.runtime.runner import PlanRequest, PolicyRunner
from alam_core.types import ActionChunk, Observation

Upcoming = Callable[[float], np.ndarray | None]
"""The action (A,) that the arm will reach at a time unless a new chunk arrives; None where it
executes no chunk."""

# Fraction of a step: an estimated delay that exceeds a whole number of steps by at most this much
# is not rounded up.
TOLERANCE = 0.2


class DelayEstimate:
    """Estimates the delay from an observation to its chunk taking effect, in s, as the longest of
    the last ``window`` delays. The first delay is left out: it includes what happens only once,
    such as the selection of GPU kernels.
    """

    def __init__(self, window: int = 10) -> None:
        self._delays: deque[float] = deque(maxlen=window)
        self._first = True

    def add(self, seconds: float) -> None:
        """Take a measured delay into account."""
        if not self._first:
            self._delays.append(seconds)
        self._first = False

    @property
    def seconds(self) -> float:
        """0 before the second measurement."""
        return max(self._delays, default=0.0)


class Planner:
    """Decides by the stamps of the observations when to plan, and plans.

    replan_every: control steps between two plans. delay_steps: control steps until a chunk takes
    effect; None estimates them from ``delay``, to which the caller adds the delays it measures.
    first_sequence: number of the first chunk. ``chunk``: the newest chunk, None before the first.
    """

    def __init__(
        self,
        runner: PolicyRunner,
        replan_every: int = 8,
        delay_steps: int | None = 0,
        first_sequence: int = 1,
    ) -> None:
        """Raises UserError if a chunk would run out before the next one takes effect."""
        if replan_every < 1 or (delay_steps or 0) < 0:
            raise UserError("replan_every must be at least 1 and delay_steps at least 0")
        needed = replan_every + (delay_steps or 0)
        if needed > runner.horizon:
            delayed = f" with a delay of {delay_steps}" if delay_steps else ""
            raise UserError(
                f"replanning every {replan_every} steps{delayed} needs chunks of {needed} steps, "
                f"this policy's have {runner.horizon}"
            )
        self.runner = runner
        self.replan_every = replan_every
        self.delay = DelayEstimate()
        self._delay_steps = delay_steps
        self._next_sequence = first_sequence
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Begin an episode; ``seed`` determines the initial noise of all its chunks. Sequence
        numbers and the estimate of the delay continue.
        """
        self.chunk: ActionChunk | None = None
        self._given = 0  # leading rows of ``chunk`` that it was conditioned on
        self._generator = torch.Generator(self.runner.device).manual_seed(seed)

    @property
    def delay_steps(self) -> int:
        """Control steps expected to pass until a chunk takes effect."""
        if self._delay_steps is not None:
            return self._delay_steps
        return math.ceil(self.delay.seconds / self.runner.dt - TOLERANCE)

    def due(self, stamp: float) -> bool:
        """Whether to plan from an observation stamped ``stamp``, in s: true once ``replan_every``
        steps have passed since the newest chunk's observation, and after the clock was set back.
        Lost and repeated observations do not change when a plan is due.
        """
        if self.chunk is None:
            return True
        steps = (stamp - self.chunk.stamp) / self.runner.dt
        return steps >= self.replan_every - 0.5 or steps < -0.5

    def plan(self, observation: Observation, upcoming: Upcoming | None = None) -> ActionChunk:
        """The chunk for an observation. ``upcoming``: what the arm executes until it takes effect.

        Raises UserError as ``PolicyRunner.infer`` does.
        """
        request = self.request(observation, upcoming)
        return self.accept(self.runner.infer(request.observation, request.generator, request.given))

    def request(self, observation: Observation, upcoming: Upcoming | None = None) -> PlanRequest:
        """What ``plan`` computes the chunk from. A caller that computes the chunks of several
        planners in one call of the policy gives each its own to ``accept``.
        """
        given = self.given_steps(observation.stamp, upcoming)
        self._given = 0 if given is None else len(given)
        return PlanRequest(observation, self._generator, given)

    def accept(self, chunk: ActionChunk) -> ActionChunk:
        """Take the chunk for the last request as the newest one; returns it with its number."""
        self.chunk = replace(chunk, sequence=self._next_sequence)
        self._next_sequence += 1
        return self.chunk

    def given_steps(self, stamp: float, upcoming: Upcoming | None) -> np.ndarray | None:
        """The first rows (G, A) of a chunk planned at ``stamp``: what is executed until it takes
        effect. None if the policy cannot continue from that many rows, or if the arm executes no
        chunk.
        """
        if upcoming is None or not 0 < self.delay_steps <= self.runner.given_steps:
            return None
        rows: list[np.ndarray] = []
        for step in range(self.delay_steps):
            row = upcoming(stamp + (step + 1) * self.runner.dt)
            if row is None:
                return None
            rows.append(row)
        return np.stack(rows)

    def ready(self, now: float) -> ActionChunk:
        """The newest chunk as it is sent at time ``now``, in s: without those given steps that the
        arm has executed by then, which are min(given, passed).

        Steps after the given ones are kept even if their time has passed: they say where the policy
        wanted the arm, and their due times make the timeline skip them. Call ``plan`` first.
        """
        assert self.chunk is not None
        passed = math.floor((now - self.chunk.stamp) / self.runner.dt + 1e-6)
        return self.chunk.drop(min(self._given, max(passed, 0)))
