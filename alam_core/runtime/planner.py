"""When a policy plans, and what it is told of the actions that are executed meanwhile.

A chunk planned from the observation of time t has its row i due at t + (i + 1) * dt. Inference and
messages take time: when the chunk reaches the arm its first rows have passed, and the arm has
executed rows of the chunk before instead. Real-time chunking: a policy trained to continue from
given first steps is told which rows those will be, so that the new chunk joins the old one.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from alam_core.errors import UserError
from alam_core.runtime.runner import PolicyRunner
from alam_core.types import ActionChunk, Observation

Upcoming = Callable[[float], np.ndarray | None]
"""The action (A,) that the arm will execute at a time unless a new chunk arrives; None where it
executes none."""


TOLERANCE = (
    0.2  # of a step: a chunk that takes effect this little after a step joins it all the same
)


class DelayEstimate:
    """How long it takes from an observation to its chunk taking effect, in s: the longest of the
    last ``window`` delays. The first one is left out: it holds what happens only once, such as the
    choice of kernels.
    """

    def __init__(self, window: int = 10) -> None:
        self._delays: deque[float] = deque(maxlen=window)
        self._count = 0

    def add(self, seconds: float) -> None:
        self._count += 1
        if self._count > 1:
            self._delays.append(seconds)

    @property
    def seconds(self) -> float:
        """0 while nothing is known."""
        return max(self._delays, default=0.0)


class Planner:
    """Decides when to plan by the stamps of the observations, and plans.

    replan_every: control steps of a chunk after which the next one is planned. delay_steps: control
    steps until a chunk takes effect; None estimates them from ``delay``, which whoever knows the
    delays adds them to. first_sequence: number of the first chunk. ``chunk``: the newest chunk, None before the first.
    """

    def __init__(
        self,
        runner: PolicyRunner,
        replan_every: int = 8,
        delay_steps: int | None = 0,
        first_sequence: int = 1,
    ) -> None:
        """Raises UserError where a chunk would run out before the next one takes effect."""
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
        """Begin an episode; ``seed`` decides the initial noise of all its chunks. Sequence numbers
        and the estimate of the delay go on.
        """
        self.chunk: ActionChunk | None = None
        self._given = 0  # leading rows of ``chunk`` that it was conditioned on
        self._generator = torch.Generator(self.runner.device).manual_seed(seed)

    @property
    def delay_steps(self) -> int:
        """Control steps that are expected to pass until a chunk takes effect."""
        if self._delay_steps is not None:
            return self._delay_steps
        return math.ceil(self.delay.seconds / self.runner.dt - TOLERANCE)

    def due(self, stamp: float) -> bool:
        """Whether an observation of time ``stamp`` is to be planned from: ``replan_every`` steps
        after the newest chunk's. Observations that are lost or come twice change nothing.
        """
        if self.chunk is None:
            return True
        steps = (stamp - self.chunk.stamp) / self.runner.dt
        return steps >= self.replan_every - 0.5 or steps < -0.5  # time was set back

    def plan(self, observation: Observation, upcoming: Upcoming | None = None) -> ActionChunk:
        """The chunk for an observation. ``upcoming``: what the arm executes until it takes effect.

        Raises UserError as ``PolicyRunner.infer`` does.
        """
        given = self.given_steps(observation.stamp, upcoming)
        chunk = self.runner.infer(observation, self._generator, given)
        self.chunk = replace(chunk, sequence=self._next_sequence)
        self._next_sequence += 1
        self._given = 0 if given is None else len(given)
        return self.chunk

    def given_steps(self, stamp: float, upcoming: Upcoming | None) -> np.ndarray | None:
        """The first rows (G, A) of a chunk planned at ``stamp``: what is executed until it takes
        effect. None where the policy cannot continue from them or the arm executes nothing.
        """
        steps = self.delay_steps
        if upcoming is None or not 0 < steps <= self.runner.given_steps:
            return None
        rows = [upcoming(stamp + (i + 1) * self.runner.dt) for i in range(steps)]
        return None if any(row is None for row in rows) else np.stack(rows)  # type: ignore[arg-type]

    def ready(self, now: float) -> ActionChunk:
        """The newest chunk as it is sent at time ``now``: without the given steps that the arm has
        executed by then, so min(expected, passed) of them.

        Steps that passed beyond those are kept: they say where the policy wanted the arm, and are
        skipped by the time they were due.
        """
        assert self.chunk is not None
        passed = math.floor((now - self.chunk.stamp) / self.runner.dt + 1e-6)
        return self.chunk.drop(min(self._given, max(passed, 0)))
