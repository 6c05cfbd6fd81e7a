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

    def step(self, action: np.ndarray, look: bool = True) -> Observation:
        """Apply one action (A,) for ``dt`` seconds and return what is seen at its end; without
        ``look`` no pictures, which take longest.
        """
        ...

    def hold(self, state: np.ndarray) -> np.ndarray:
        """The action (A,) that stays at a state (S,)."""
        ...

    def success(self) -> bool:
        """Whether the instruction is fulfilled now."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class DrivenWorld(World, Protocol):
    """A world with a Piper arm whose physics an outside loop advances, as the ROS simulator node
    does: it stands in for the arm and the cameras.

    Check for it with ``isinstance``, which tests that the members exist, not their types.
    """

    camera_size: int  # pixels, width and height of an image as the camera delivers it
    instruction: str  # of the current episode
    seed: int  # of the current episode

    def physics_step(self, set_point: np.ndarray) -> None:
        """Advance by 5 ms with ``set_point`` (7,): six joints in rad, gripper opening in m."""
        ...

    def joint_state(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions (7,) in rad and m, velocities (7,) in rad/s and m/s."""
        ...

    def render(self, view: str, size: int | None = None) -> np.ndarray:
        """Image of one camera, uint8 RGB (size, size, 3); ``size`` defaults to ``camera_size``."""
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
