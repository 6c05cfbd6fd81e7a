"""The interface every simulated world offers to collectors, evaluators and ROS nodes, and the list
of worlds.
"""

from typing import Protocol, runtime_checkable

import numpy as np

from alam_core.errors import UserError
from alam_core.types import Observation


class World(Protocol):
    """A simulated task. One object is one simulator; ``reset`` starts an episode that its seed
    determines entirely.
    """

    name: str
    task: str  # which of the world's tasks the episode plays; success is counted for each
    dt: float  # s between control steps
    max_steps: int  # control steps before an episode counts as failed
    action_dim: int
    state_dim: int

    def reset(self, seed: int) -> Observation:
        """Draw scene, look and instruction from the seed and return the first observation."""
        ...

    def step(self, action: np.ndarray, render: bool = True) -> Observation:
        """Apply one action (A,) for ``dt`` seconds and return what is seen at its end; without
        ``render`` no pictures, which take longest.
        """
        ...

    def hold(self, state: np.ndarray) -> np.ndarray:
        """The action (A,) that stays at a state (S,)."""
        ...

    def success(self) -> bool:
        """Whether the instruction is fulfilled now."""
        ...

    def close(self) -> None: ...


TICK = 0.005  # s of simulated time per ``DrivenWorld.physics_step``


@runtime_checkable
class DrivenWorld(World, Protocol):
    """A world with an arm that a controller drives from outside, tick by tick."""

    def physics_step(self, set_point: np.ndarray) -> None:
        """Advance by one ``TICK`` with the arm's set-point (A,) in rad and m."""
        ...

    def joint_state(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions (A,) in rad and m, velocities (A,) in rad/s and m/s."""
        ...

    def observe(self, render: bool = True) -> Observation:
        """What a policy is given of the present state, without images unless ``render``."""
        ...

    def render(self, view: str, size: int | None = None) -> np.ndarray:
        """What a camera delivers: uint8 RGB (size, size, 3). Raises UserError where no image can be
        rendered.
        """
        ...


class Expert(Protocol):
    """A scripted policy with privileged access to its world."""

    def reset(self) -> None: ...

    def act(self) -> np.ndarray:
        """The action (A,) for the world's present state."""
        ...


# MetaWorld's names are explained in alam_core/sim/metaworld/tasks.py.
WORLDS = (
    "piper_place",
    "metaworld",
    "metaworld/mt50",
    "metaworld/<task>",
    "metaworld/<task>,<task>",
)


def make_world(name: str, image_size: int = 96) -> World:
    """Build a world by name. Raises UserError for an unknown name or a missing simulator or GL
    library.
    """
    if name == "piper_place":
        from alam_core.sim.piper.place import PiperPlace

        return PiperPlace(image_size=image_size)
    if name.partition("/")[0] == "metaworld":
        from alam_core.sim.metaworld.world import MetaWorld

        return MetaWorld(name, image_size)
    raise UserError(f"no world is called '{name}'; there are: {', '.join(WORLDS)}")


def make_expert(world: World, seed: int = 0) -> Expert:
    """The scripted expert of a world; ``seed`` drives its own variation (speed, grasp height), not
    the scene.
    """
    if world.name == "piper_place":
        from alam_core.sim.piper.expert import PlaceExpert
        from alam_core.sim.piper.place import PiperPlace

        assert isinstance(world, PiperPlace)
        return PlaceExpert(world, seed)
    if world.name.partition("/")[0] == "metaworld":
        from alam_core.sim.metaworld.world import MetaWorld, MetaWorldExpert

        assert isinstance(world, MetaWorld)
        return MetaWorldExpert(world)
    raise UserError(f"world '{world.name}' has no scripted expert")
