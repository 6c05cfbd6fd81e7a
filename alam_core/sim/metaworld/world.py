"""MetaWorld's tasks as one world: the seed determines the task, its variation and the scene.

The third-person camera is MetaWorld's ``corner2``, turned upright; the wrist camera is
``gripperPOV``. Control runs at 80 Hz.
"""

import warnings
from typing import Any

import numpy as np

from alam_core.data.images import resize_images
from alam_core.errors import UserError, one_line
from alam_core.sim.metaworld.tasks import INSTRUCTIONS, TIER_OF, tasks_of
from alam_core.sim.profiles import MetaWorldProfile
from alam_core.sim.rendering import Renderer, mujoco
from alam_core.types import Observation

try:
    from metaworld.env_dict import ENV_CLS_MAP, MT50_V3
    from metaworld.policies import ENV_POLICY_MAP
    from metaworld.sawyer_xyz_env import SawyerXYZEnv
except (ImportError, AttributeError) as error:
    raise UserError(f"MetaWorld cannot start ({one_line(error)}): pip install metaworld") from None

CAMERAS = {"third_person": "corner2", "wrist": "gripperPOV"}
VERSION = "-v3"
NUMBERS = {name.removesuffix(VERSION): number for number, name in enumerate(MT50_V3)}


class MetaWorld:
    """One or several MetaWorld tasks (see :class:`alam_core.sim.world.World`). Seed ``s`` plays
    task number ``s % number of tasks``.

    State (4,): the gripper's position in m and its opening, from 0 (closed) to 1 (open).
    MetaWorld's own observation also has the poses of the objects and of the goal, which a policy
    that acts from images must not see; a profile can show more of it. Action (4,), each number
    clipped to [-1, 1]: the hand's movement along x, y and z in cm, and the gripper's force,
    positive to close.

    Use it in one thread: the GL context belongs to the thread that renders first. Every task that
    was played stays in memory, about 70 MB each.
    """

    dt = 1 / 80
    action_dim = 4

    def __init__(
        self, name: str, image_size: int = 96, profile: MetaWorldProfile | None = None
    ) -> None:
        self.name = name
        self.profile = profile or MetaWorldProfile()
        self.image_size = image_size or self.profile.camera_size
        self.max_steps = self.profile.max_steps
        self.state_dim = self.profile.state_dim
        self.tasks = tasks_of(name)
        self.task = self.tasks[0]
        self.group = TIER_OF[self.task]
        self.instruction = ""
        self.observed = np.zeros(39)  # MetaWorld's full observation, for the expert
        self._envs: dict[str, SawyerXYZEnv] = {}
        self._renderer = Renderer(self.profile.camera_size, self.profile.rendering)
        self._success = False
        self._steps = 0

    def reset(self, seed: int) -> Observation:
        """Start the episode of ``seed``."""
        self.task = self.tasks[seed % len(self.tasks)]
        self.group = TIER_OF[self.task]
        self.instruction = INSTRUCTIONS[self.task]
        if self.task not in self._envs:
            self._envs[self.task] = _make_env(self.task, self.profile.camera_position)
        env = self._env = self._envs[self.task]
        # MetaWorld's own reset begins with simulation steps from the last episode's final state.
        mujoco.mj_resetData(env.model, env.data)
        env.seed(self.profile.simulator_seed(seed, NUMBERS[self.task], len(self.tasks)))
        self.observed, _ = env.reset()
        for _ in range(self.profile.settle_steps):
            self.observed = env.step(np.zeros(self.action_dim))[0]
        self._success, self._steps = False, 0
        return self._observe()

    def step(self, action: np.ndarray, render: bool = True) -> Observation:
        """Apply ``action`` (4,) for ``dt``. With ``render=False`` there are no images."""
        clipped = np.clip(np.asarray(action, np.float64), -1, 1)
        self.observed, _, _, _, info = self._env.step(clipped)
        self._success = bool(info["success"])
        self._steps += 1
        return self._observe(render)

    def hold(self, state: np.ndarray) -> np.ndarray:
        """No movement and no gripper force."""
        return np.zeros(self.action_dim)

    def success(self) -> bool:
        """MetaWorld's own success flag of the last step. A later step can lose it again: the
        benchmark counts an episode as successful at its first success.
        """
        return self._success

    def expert(self, seed: int = 0) -> "MetaWorldExpert":
        """MetaWorld's scripted policy. It has no variation, so ``seed`` changes nothing."""
        return MetaWorldExpert(self)

    def render(self, view: str) -> np.ndarray:
        """Image of one camera, uint8 RGB (H_img, H_img, 3), upright, ``H_img`` pixels as the
        profile says. Raises UserError where GL is missing.
        """
        if view == "wrist" and self.profile.wrist == "black":
            return np.zeros((self.profile.camera_size, self.profile.camera_size, 3), np.uint8)
        image = self._renderer.render(self._env.model, self._env.data, CAMERAS[view])
        # corner2 is mounted upside down.
        return _centre(image[::-1, ::-1], self.profile.crop) if view == "third_person" else image

    def close(self) -> None:
        """Free the tasks and the GL context."""
        self._renderer.close()
        self._envs.clear()

    def _observe(self, render: bool = True) -> Observation:
        images = {
            view: resize_images(self.render(view), self.image_size)
            for view in self.profile.views
            if render
        }
        state = self.observed[: self.state_dim].astype(np.float32)
        return Observation(images, state, self.instruction, self._steps * self.dt)


class MetaWorldExpert:
    """MetaWorld's scripted policy for the current task; it reads the objects' true poses."""

    def __init__(self, world: MetaWorld) -> None:
        self.world = world

    def reset(self) -> None:
        """Choose the policy of the world's current task."""
        policy: type[Any] = ENV_POLICY_MAP[self.world.task + VERSION]
        self._policy = policy()

    def act(self) -> np.ndarray:
        """The action (4,) in [-1, 1]."""
        with warnings.catch_warnings():
            # the policies warn that actions exceed 1; they are clipped here
            warnings.filterwarnings("ignore", message="Constant")
            return np.clip(self._policy.get_action(self.world.observed), -1, 1)


def _centre(image: np.ndarray, share: float) -> np.ndarray:
    """A copy of the middle of a square image (H_img, H_img, 3), ``share`` of its width."""
    side = round(len(image) * share)
    start = (len(image) - side) // 2
    return image[start : start + side, start : start + side].copy()


def _make_env(task: str, camera: tuple[float, float, float] | None) -> SawyerXYZEnv:
    """A task whose variation is drawn from ``env.seed``, with the goal in its observation.
    ``camera``: where the third-person camera is, in m; None leaves it.
    """
    env = ENV_CLS_MAP[task + VERSION]()
    env._set_task_called = True
    env._freeze_rand_vec, env.seeded_rand_vec = False, True
    env._partially_observable = False  # the experts need the goal
    del env.sawyer_observation_space  # a cached property that would still hide the goal
    if camera is not None:
        env.model.camera(CAMERAS["third_person"]).pos[:] = camera
    return env
