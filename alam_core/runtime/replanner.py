"""When to ask the policy for a new chunk, and which action to execute meanwhile.

Time is counted in control steps. Row i of a chunk planned from the observation of step t is the
action of step t + i. With a latency of ``delay_steps`` the chunk takes effect at step t +
delay_steps: its first rows have expired by then and are never executed, as through ROS, where
inference and messages take time; the older chunk goes on meanwhile. A policy trained to go on from
given first steps is told what will be executed meanwhile, so that the new chunk joins the old one
(real-time chunking).
"""

from collections import deque
from collections.abc import Callable

import numpy as np
import torch

from alam_core.errors import UserError
from alam_core.runtime.runner import PolicyRunner
from alam_core.types import ActionChunk, Observation

Hold = Callable[[np.ndarray], np.ndarray]


class Replanner:
    """Plays a policy: an observation in at every control step, the action to execute out.

    replan_every: control steps between two observations that are planned from. delay_steps: control
    steps until a chunk takes effect. hold: the action (A,) that stays at a state (S,), for the
    steps before the first chunk takes effect; needed with a delay. ``chunk``: the newest chunk
    planned, None before the first.
    """

    def __init__(
        self,
        runner: PolicyRunner,
        replan_every: int = 8,
        delay_steps: int = 0,
        hold: Hold | None = None,
    ) -> None:
        """Raises UserError where a chunk would run out before the next one takes effect."""
        if replan_every < 1 or delay_steps < 0:
            raise UserError("replan_every must be at least 1 and delay_steps at least 0")
        if replan_every + delay_steps > runner.horizon:
            raise UserError(
                f"replanning every {replan_every} steps with a delay of {delay_steps} needs chunks of {replan_every + delay_steps} steps, "
                f"this policy's have {runner.horizon}"
            )
        if delay_steps and hold is None:
            raise UserError(
                "a delay needs to know what holds the arm until the first chunk takes effect: give hold"
            )
        self.runner = runner
        self.replan_every = replan_every
        self.delay_steps = delay_steps
        self.hold = hold
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Begin an episode; ``seed`` decides the initial noise of all its chunks."""
        self.chunk: ActionChunk | None = None
        self._generator = torch.Generator(self.runner.device).manual_seed(seed)
        self._step = 0
        self._planned: deque[tuple[int, ActionChunk]] = (
            deque()
        )  # (step planned from, chunk): the one in effect, then the coming ones
        self._held = np.zeros(0, np.float32)

    def due(self) -> bool:
        """Whether the next ``act`` plans anew."""
        return self._step % self.replan_every == 0

    def act(self, observation: Observation) -> np.ndarray:
        """The action (A,) of this control step. Raises UserError as ``PolicyRunner.infer`` does.

        Until the first chunk takes effect the arm holds where it was first seen.
        """
        step = self._step
        if self.due():
            self.chunk = self.runner.infer(
                observation, self._generator, self._executed_meanwhile(step)
            )
            self._planned.append((step, self.chunk))
        if step == 0 and self.hold is not None:
            self._held = np.array(self.hold(observation.state), np.float32)
        while len(self._planned) > 1 and self._planned[1][0] + self.delay_steps <= step:
            self._planned.popleft()
        self._step += 1
        start, chunk = self._planned[0]
        return self._held.copy() if start + self.delay_steps > step else chunk.actions[step - start]

    def _executed_meanwhile(self, step: int) -> np.ndarray | None:
        """The actions (delay_steps, A) until a chunk planned at ``step`` takes effect; None where
        the policy cannot go on from them.
        """
        if not self._planned or not 0 < self.delay_steps <= self.runner.given_steps:
            return None
        rows = []
        for coming in range(step, step + self.delay_steps):
            in_effect = [plan for plan in self._planned if plan[0] + self.delay_steps <= coming]
            if not in_effect:
                return None  # the arm still holds
            start, chunk = in_effect[-1]
            rows.append(chunk.actions[coming - start])
        return np.stack(rows)
