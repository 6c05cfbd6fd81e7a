"""Profiles: how a benchmark is played. They set what a simulated world shows of itself, where its
episodes begin and when they end.

A profile's default values are those of the world without a protocol. The named protocols are in
``alam_core.sim.protocols``.
"""

from dataclasses import dataclass
from typing import Literal

from alam_core.types import VIEWS

Rendering = Literal["fast", "full"]
"""fast: without shadows, reflections and multisampling. full: as the benchmark's own renderer."""


@dataclass(frozen=True)
class Profile:
    """What the profiles of all benchmarks set.

    rendering: fast or full. camera_size: pixels, width and height of the images that the cameras
        deliver; the world then resizes them to the size that the policy takes.
    settle_steps: control steps without motion at the start of an episode.
    episodes_per_task: 0: as many as asked for.
    seeds: seed of the simulator for task number 0 and its episode 0, and what each further task and
        each further episode adds to it. None: the seed of the episode.
    """

    rendering: Rendering = "fast"
    camera_size: int = 192
    settle_steps: int = 0
    episodes_per_task: int = 0
    seeds: tuple[int, int, int] | None = None

    @property
    def views(self) -> tuple[str, ...]:
        """The views that an observation has."""
        return VIEWS

    def simulator_seed(self, seed: int, task: int, tasks: int) -> int:
        """The simulator's seed for the episode ``seed`` of a world with ``tasks`` tasks. ``task``
        is the number of the episode's task in the benchmark.
        """
        if self.seeds is None:
            return seed
        first, per_task, per_episode = self.seeds
        return first + per_task * task + per_episode * (seed // tasks)


@dataclass(frozen=True)
class MetaWorldProfile(Profile):
    """How MetaWorld is played.

    camera_position: of the third-person camera ``corner2``, in m; None: MetaWorld's own. The
        default is that of ALAM's release: from MetaWorld's own, objects look half as large.
    crop: share of the width and height of the third-person image that is kept, around its centre.
    wrist: shown; black: an image without content; none: no such view.
    state_dim: how many of the first values of MetaWorld's observation are the state. The first four
        are the gripper's position and opening; the next are the pose of the first object.
    max_steps: control steps after which an episode counts as failed.
    """

    camera_position: tuple[float, float, float] | None = (0.71, 0.075, 0.70)
    crop: float = 1.0
    wrist: Literal["shown", "black", "none"] = "shown"
    state_dim: int = 4
    max_steps: int = 200

    @property
    def views(self) -> tuple[str, ...]:
        """The views that an observation has."""
        return tuple(view for view in VIEWS if view != "wrist" or self.wrist != "none")


@dataclass(frozen=True)
class LiberoProfile(Profile):
    """How LIBERO is played.

    mirrored: left and right of each image are exchanged, as where MuJoCo's image, whose first row
        is the lowest, is rotated by 180 degrees instead of turned over.
    settle_gripper: the gripper's command while the objects settle: -1 opens, 0 leaves it.
    max_steps: of the suites spatial, object, goal and long: control steps after which an episode
        counts as failed, the settling not counted.
    """

    camera_size: int = 256
    settle_steps: int = 10
    mirrored: bool = False
    settle_gripper: float = -1.0
    max_steps: tuple[int, int, int, int] = (220, 280, 300, 520)
