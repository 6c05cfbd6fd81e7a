"""What crosses the borders between worlds, policies and robots.

Letters used in shapes: H_img, W image height and width; A action width; H chunk length.
Units are radians, metres and seconds; images are uint8 RGB.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

VIEWS = ("third_person", "wrist")


@dataclass
class Observation:
    """One synchronised look at the world.

    images: view name -> uint8 RGB (H_img, W, 3). state: float32 (S,), for an arm its joint
    positions in rad followed by the gripper's opening in m. instruction: what the arm is asked to
    do, in words. stamp: s, on whatever clock the source uses; only differences matter.
    """

    images: dict[str, np.ndarray]
    state: np.ndarray
    instruction: str = ""
    stamp: float = 0.0


@dataclass(frozen=True)
class ActionChunk:
    """What a policy wants to happen next: a piece of trajectory that knows when each row is due.

    actions: (H, A); row i is the set-point to be reached at ``due(i)``.
    dt: s between rows. stamp: s, of the observation it was computed from.
    latents: view -> float32 (H, D), the transitions imagined beside the actions; empty for a policy
        without latents.
    sequence: counts up with every chunk of one policy.
    first_step: so many leading steps were dropped, as the arm had executed them already when the
        chunk was ready, as part of the chunk before.
    """

    actions: np.ndarray
    dt: float
    stamp: float = 0.0
    latents: dict[str, np.ndarray] = field(default_factory=dict)
    sequence: int = 0
    first_step: int = 0

    def due(self, row: int) -> float:
        """When a row is to be reached, s: ``stamp + (first_step + row + 1) * dt``."""
        return self.stamp + (self.first_step + row + 1) * self.dt

    @property
    def end(self) -> float:
        """When the last row is due, s."""
        return self.due(len(self.actions) - 1)

    def at(self, time: float) -> np.ndarray:
        """The set-point (A,) wanted at a time: linear between rows, the first row before it is due,
        the last one after the end.
        """
        place = (time - self.stamp) / self.dt - 1.0 - self.first_step
        last = len(self.actions) - 1
        if place <= 0.0:
            return self.actions[0]
        if place >= last:
            return self.actions[last]
        i = int(place)
        part = place - i
        return (1.0 - part) * self.actions[i] + part * self.actions[i + 1]

    def row_at(self, time: float) -> int:
        """The row being executed at a time: the next one due, the last one after the end."""
        row = math.ceil((time - self.stamp) / self.dt - 1e-6) - 1 - self.first_step
        return min(max(row, 0), len(self.actions) - 1)

    def drop(self, steps: int) -> "ActionChunk":
        """The chunk without its first ``steps`` rows; the others stay due when they were."""
        return replace(
            self,
            actions=self.actions[steps:],
            latents={view: z[steps:] for view, z in self.latents.items()},
            first_step=self.first_step + steps,
        )
