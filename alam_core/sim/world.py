"""The interfaces of a simulated world, and the registry that finds a world by its name.

Collectors and evaluators need a ``World``, demonstrations also need a ``WorldWithExpert``, and the
ROS simulator node needs a ``DrivenWorld``. docs/add_a_task.md shows how to add one.
Shapes: A is the width of an action, S the width of a state.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from alam_core.errors import UserError
from alam_core.registry import Registry
from alam_core.sim.profiles import Profile
from alam_core.types import Observation


class World(Protocol):
    """A simulated task. One object is one simulator, used by one thread. The seed passed to
    ``reset`` determines the whole episode, apart from the actions.
    """

    name: str  # the name that make_world was called with
    task: str  # the task that this episode plays; success rates are reported per task
    dt: float  # s between control steps
    max_steps: int  # control steps after which an episode counts as failed
    action_dim: int  # A
    state_dim: int  # S

    def reset(self, seed: int) -> Observation:
        """Start the episode of ``seed``: draw the scene, its appearance and the instruction from
        the seed. Returns the first observation.
        """
        ...

    def step(self, action: np.ndarray, render: bool = True) -> Observation:
        """Apply ``action`` (A,) for ``dt`` seconds and return the observation at the end.

        With ``render=False`` the observation has no images; rendering takes most of a step's time.
        """
        ...

    def hold(self, state: np.ndarray) -> np.ndarray:
        """The action (A,) that keeps the arm at ``state`` (S,)."""
        ...

    def success(self) -> bool:
        """Whether the instruction is fulfilled now."""
        ...

    def close(self) -> None:
        """Free the simulator and its GL context."""
        ...


class Expert(Protocol):
    """A scripted policy that reads the simulator's true state."""

    def reset(self) -> None:
        """Forget the last episode. Call it after the world's ``reset``."""
        ...

    def act(self) -> np.ndarray:
        """The action (A,) for the current state of the world."""
        ...


@runtime_checkable
class WorldWithExpert(World, Protocol):
    """A world that can demonstrate its own tasks."""

    def expert(self, seed: int = 0) -> Expert:
        """A scripted expert for this world. ``seed`` varies how the expert acts (speed, grasp
        height), not the scene.
        """
        ...


@runtime_checkable
class GroupedWorld(World, Protocol):
    """A world whose tasks are in groups, such as a benchmark's suites or tiers of difficulty.
    Success is also reported per group, and averaged over the groups.
    """

    group: str  # of the current task


TICK = 0.005  # s of simulated time per ``DrivenWorld.physics_step``


@runtime_checkable
class DrivenWorld(World, Protocol):
    """A world with a Piper arm whose physics an outside loop advances: the ROS simulator node, or
    the evaluator when it executes as the arm's controller does.

    Check for it with ``isinstance``, which tests that the members exist, not their types.
    """

    camera_size: int  # pixels, width and height of an image as the camera delivers it
    instruction: str  # of the current episode
    seed: int  # of the current episode

    def physics_step(self, set_point: np.ndarray) -> None:
        """Advance by ``TICK`` with ``set_point`` (7,): six joints in rad, gripper opening in m."""
        ...

    def joint_state(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions (7,) in rad and m, velocities (7,) in rad/s and m/s."""
        ...

    def observe(self, render: bool = True) -> Observation:
        """The observation of the current state; no images with ``render=False``."""
        ...

    def render(self, view: str, size: int | None = None) -> np.ndarray:
        """Image of one camera, uint8 RGB (size, size, 3); ``size`` defaults to ``camera_size``.
        Raises UserError where GL is missing.
        """
        ...


WorldFactory = Callable[..., World]
"""Makes a world from its full name, the width and height of its images in pixels (0: those of its
cameras) and, for a benchmark, a profile. Registered under the part of the name before the first
slash.
"""

WORLDS: Registry[WorldFactory] = Registry(
    "world",
    "alam.worlds",
    modules=("alam_core.sim.libero", "alam_core.sim.metaworld", "alam_core.sim.piper"),
)


def make_world(name: str, image_size: int = 96, profile: Profile | None = None) -> World:
    """Make a world by name. A name ``family/variant`` is passed on to the family's factory:
    ``metaworld/push`` is made by ``metaworld``.

    image_size: pixels, width and height of the images in observations; 0: as the cameras deliver
    them. profile: how a benchmark is played, from ``alam_core.sim.protocols.find_profile``; None:
    the world's own way.
    Raises UserError for an unknown name and for a missing simulator or GL library.
    """
    make = WORLDS.get(name.partition("/")[0])
    return make(name, image_size) if profile is None else make(name, image_size, profile)


def make_expert(world: World, seed: int = 0) -> Expert:
    """The scripted expert of a world. ``seed`` varies how the expert acts (speed, grasp height),
    not the scene. Raises UserError for a world without an expert.
    """
    if not isinstance(world, WorldWithExpert):
        raise UserError(
            f"world '{world.name}' has no scripted expert; add a method 'expert(seed)' to "
            f"{type(world).__name__} or choose another world"
        )
    return world.expert(seed)
