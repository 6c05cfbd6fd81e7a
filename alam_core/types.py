"""The data that worlds, policies and robots exchange.

Letters in shapes: H_img, W image height and width; S state width; A action width; H chunk length; D
width of a latent transition. Units are radians, metres and seconds; images are uint8 RGB.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

VIEWS = ("third_person", "wrist")
STD_FLOOR = 3e-3
"""rad and m: a column with a smaller standard deviation hardly moves, and is not scaled up more."""


@dataclass
class Observation:
    """What is observed of the world at one moment.

    images: view name -> uint8 RGB (H_img, W, 3). state: float32 (S,), for an arm its joint
    positions in rad followed by the gripper's opening in m. instruction: the task as a sentence.
    stamp: time in s on the source's clock, whose zero is arbitrary; NaN if the source has no clock.
    """

    images: dict[str, np.ndarray]
    state: np.ndarray
    instruction: str = ""
    stamp: float = math.nan


@dataclass(frozen=True)
class ActionChunk:
    """The next actions that a policy plans, as a trajectory: each row is due at a known time.

    actions: (H, A); row i is the set-point to be reached at ``due(i)``.
    dt: s between rows. stamp: time of the observation that the chunk was computed from, in s.
    latents: view -> float32 (H, D), the transitions generated together with the actions, one after
        the other from ``stamp`` on; empty for a policy without latents.
    latent_dt: s that each of them takes; 0: dt.
    sequence: number of the chunk, which increases with every chunk of one policy.
    first_step: number of leading steps that were dropped: when this chunk was ready, the arm had
        already executed them as part of the previous chunk.
    """

    actions: np.ndarray
    dt: float
    stamp: float = 0.0
    latents: dict[str, np.ndarray] = field(default_factory=dict)
    sequence: int = 0
    first_step: int = 0
    latent_dt: float = 0.0

    def due(self, row: int) -> float:
        """Time at which a row is to be reached, in s: ``stamp + (first_step + row + 1) * dt``. Row
        -1 is the step before the first row.
        """
        return self.stamp + (self.first_step + row + 1) * self.dt

    @property
    def end(self) -> float:
        """Time at which the last row is due, in s."""
        return self.due(len(self.actions) - 1)

    def at(self, time: float) -> np.ndarray:
        """The set-point (A,) wanted at a time: interpolated linearly between rows, constant before
        the first row is due and after the end.
        """
        position = (time - self.stamp) / self.dt - 1.0 - self.first_step
        last = len(self.actions) - 1
        if position <= 0.0:
            return self.actions[0]
        if position >= last:
            return self.actions[last]
        i = int(position)
        fraction = position - i
        return (1.0 - fraction) * self.actions[i] + fraction * self.actions[i + 1]

    def row_at(self, time: float) -> int:
        """Index of the row being executed at a time: the next row due, or the last row after the
        end.
        """
        row = math.ceil((time - self.stamp) / self.dt - 1e-6) - 1 - self.first_step
        return min(max(row, 0), len(self.actions) - 1)

    def drop(self, steps: int) -> "ActionChunk":
        """The chunk without its first ``steps`` rows; the others are due at the same times, and the
        latents stay.
        """
        return replace(
            self,
            actions=self.actions[steps:],
            first_step=self.first_step + steps,
        )
