"""LIBERO's tasks as one world: the seed determines the task, its initial state and the furniture.

The cameras are LIBERO's ``agentview`` and the one in the hand. Control runs at 20 Hz.
"""

import numpy as np

from alam_core.data.images import resize_images
from alam_core.sim.libero.expert import LiberoExpert
from alam_core.sim.libero.simulator import LiberoSimulator
from alam_core.sim.libero.tasks import SUITES, LiberoTask, tasks_of
from alam_core.sim.profiles import LiberoProfile
from alam_core.sim.rendering import Renderer
from alam_core.types import Observation

CAMERAS = {"third_person": "agentview", "wrist": "robot0_eye_in_hand"}
COLLISION_GROUP = 0  # shapes for contacts only; robosuite hides them too


class LiberoWorld:
    """One or several LIBERO tasks (see :class:`alam_core.sim.world.World`). With ``n`` tasks, seed
    ``s`` plays task number ``s % n`` from the benchmark's initial state number ``s // n % 50``.

    State (8,): the grasp point's position in m, the hand's rotation vector in rad, the positions of
    both fingers in m. Action (7,), each number clipped to [-1, 1]: the hand's movement along x, y
    and z in units of 5 cm, its rotation about x, y and z in units of 0.5 rad, all in the world's
    frame, and the gripper: positive closes it, negative opens it, 0 leaves it.

    Use it in one thread: the GL context belongs to the thread that renders first. Only the current
    task is in memory, about 1.5 GB with its textures; another task takes seconds to load, so play
    the episodes of one task one after another.
    """

    dt = 1 / 20
    action_dim = 7
    state_dim = 8

    def __init__(self, name: str, image_size: int, profile: LiberoProfile) -> None:
        self.name = name
        self.image_size = image_size or profile.camera_size
        self.profile = profile
        self.tasks = tasks_of(name)
        self.instruction = ""
        self._loaded: LiberoSimulator | None = None
        self._renderer = Renderer(profile.camera_size, profile.rendering, (COLLISION_GROUP,))
        self._describe(self.tasks[0])
        self._steps = 0

    @property
    def simulator(self) -> LiberoSimulator:
        """The current task's simulator, from the first ``reset`` on."""
        assert self._loaded is not None, "reset the world first"
        return self._loaded

    def reset(self, seed: int) -> Observation:
        """Start the episode of ``seed``."""
        task = self.tasks[seed % len(self.tasks)]
        if self._loaded is None or self._loaded.task != task:
            self.close()
            self._loaded = LiberoSimulator(task)
            self._describe(task)
            self.instruction = self._loaded.instruction
        states = self._loaded.initial_states
        self._loaded.reset(
            states[seed // len(self.tasks) % len(states)],
            self.profile.simulator_seed(seed, task.number, len(self.tasks)),
        )
        for _ in range(self.profile.settle_steps):
            self._loaded.step(np.append(np.zeros(6), self.profile.settle_gripper))
        self._steps = 0
        return self._observe()

    def step(self, action: np.ndarray, render: bool = True) -> Observation:
        """Apply ``action`` (7,) for ``dt``. With ``render=False`` there are no images."""
        self.simulator.step(np.clip(np.asarray(action, np.float64), -1, 1))
        self._steps += 1
        return self._observe(render)

    def hold(self, state: np.ndarray) -> np.ndarray:
        """No movement, and the gripper as it is."""
        return np.zeros(self.action_dim)

    def success(self) -> bool:
        """Whether the task's goal is reached now."""
        return self.simulator.success()

    def expert(self, seed: int = 0) -> LiberoExpert:
        """A scripted expert. Its ``reset`` raises UserError for a task that it has no skill for."""
        return LiberoExpert(lambda: self.simulator, seed)

    def render(self, view: str) -> np.ndarray:
        """Image of one camera, uint8 RGB (camera_size, camera_size, 3), upright; mirrored if the
        profile says so. Raises UserError where GL is missing.
        """
        image = self._renderer.render(self.simulator.model, self.simulator.data, CAMERAS[view])
        return image[:, ::-1].copy() if self.profile.mirrored else image

    def close(self) -> None:
        """Free the task and the GL context."""
        self._renderer.close()
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    def _describe(self, task: LiberoTask) -> None:
        """``task``, ``group`` and ``max_steps`` of a task's episodes."""
        self.task, self.group = task.name, task.suite
        self.max_steps = dict(zip(SUITES, self.profile.max_steps, strict=True))[task.suite]

    def _observe(self, render: bool = True) -> Observation:
        images = {
            view: resize_images(self.render(view), self.image_size) for view in CAMERAS if render
        }
        return Observation(images, self.simulator.state(), self.instruction, self._steps * self.dt)
