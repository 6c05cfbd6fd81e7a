"""MetaWorld's tasks as one world: which task, which variation and everything else follow from the
seed.

The third-person camera is MetaWorld's ``corner2``, moved close to the table as ALAM's released
evaluation does, turned upright; the wrist camera is ``gripperPOV``. Control runs at 80 Hz. A: 4
numbers of action, S: 4 of state.
"""

import atexit
import os
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from alam_core.data.images import resize_images
from alam_core.errors import UserError
from alam_core.sim.metaworld.tasks import INSTRUCTIONS, tasks_of
from alam_core.types import Observation

os.environ.setdefault("MUJOCO_GL", "egl")
try:
    import mujoco
    from metaworld.env_dict import ENV_CLS_MAP
    from metaworld.policies import ENV_POLICY_MAP
    from metaworld.sawyer_xyz_env import SawyerXYZEnv
except (ImportError, AttributeError) as error:
    raise UserError(
        f"MetaWorld cannot start ({error}); run 'alam doctor' to see what is missing"
    ) from None

T = TypeVar("T")

CAMERAS = {"third_person": "corner2", "wrist": "gripperPOV"}
THIRD_PERSON = (
    0.71,
    0.075,
    0.70,
)  # m, where the release of ALAM puts corner2; MetaWorld's own place shows the objects half as large
VERSION = "-v3"


class MetaWorld:
    """One or several MetaWorld tasks (see :class:`alam_core.sim.world.World`); seed ``s`` plays
    task ``s % number of tasks``.

    State (4,): the gripper's position in m and its opening, 0 closed to 1 open. The benchmark's
    observation goes on with the poses of the objects and the goal, which a policy that acts from
    pictures must not be told. Action (4,), each in [-1, 1] and clipped to it: by how much the hand
    moves along x, y and z, in cm, and the gripper's force, positive to close. Not thread-safe;
    pictures are rendered by the thread that first asks for one. A task once played stays in memory,
    about 70 MB each.
    """

    dt = 1 / 80
    action_dim = 4
    state_dim = 4

    camera_size = 192  # pixels, both ways: what is rendered before it is resized

    def __init__(self, name: str, image_size: int = 96, max_steps: int = 200) -> None:
        self.name = name
        self.image_size = image_size
        self.max_steps = max_steps
        self.tasks = tasks_of(name)
        self.task = self.tasks[0]
        self.instruction = ""
        self.observed = np.zeros(39)  # MetaWorld's full observation: for the expert
        self._envs: dict[str, SawyerXYZEnv] = {}
        self._cameras = _Cameras(self.camera_size)
        self._success = False
        self._steps = 0

    def reset(self, seed: int) -> Observation:
        """Start the episode that ``seed`` determines."""
        self.task = self.tasks[seed % len(self.tasks)]
        self.instruction = INSTRUCTIONS[self.task]
        if self.task not in self._envs:
            self._envs[self.task] = _make_env(self.task)
        env = self._env = self._envs[self.task]
        mujoco.mj_resetData(
            env.model, env.data
        )  # MetaWorld's own reset begins with steps from where the last episode ended
        env.seed(seed)
        self.observed, _ = env.reset()
        self._success, self._steps = False, 0
        return self._observe()

    def step(self, action: np.ndarray, render: bool = True) -> Observation:
        """Apply ``action`` (4,) for ``dt``. Without ``render`` no pictures are made."""
        self.observed, _, _, _, info = self._env.step(
            np.clip(np.asarray(action, np.float64), -1, 1)
        )
        self._success = bool(info["success"])
        self._steps += 1
        return self._observe(render)

    def hold(self, state: np.ndarray) -> np.ndarray:
        """No movement, and no force of the gripper."""
        return np.zeros(self.action_dim)

    def success(self) -> bool:
        """MetaWorld's own judgement of the last step. It may be lost again: the benchmark counts an
        episode at its first success.
        """
        return self._success

    def render(self, view: str) -> np.ndarray:
        """What a camera delivers: uint8 RGB (camera_size, camera_size, 3), upright. Raises
        UserError where there is no GL.
        """
        return self._cameras.render(self._env.model, self._env.data, view)

    def close(self) -> None:
        self._cameras.close()
        self._envs.clear()

    def _observe(self, render: bool = True) -> Observation:
        images = {
            view: resize_images(self.render(view), self.image_size) for view in CAMERAS if render
        }
        return Observation(
            images, self.observed[:4].astype(np.float32), self.instruction, self._steps * self.dt
        )


class MetaWorldExpert:
    """MetaWorld's scripted policy for the task at hand; it knows where the objects are."""

    def __init__(self, world: MetaWorld) -> None:
        self.world = world

    def reset(self) -> None:
        policy: type[Any] = ENV_POLICY_MAP[self.world.task + VERSION]
        self._policy = policy()

    def act(self) -> np.ndarray:
        """The action (4,) in [-1, 1]."""
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Constant"
            )  # that it asks for more than 1, which is clipped here
            return np.clip(self._policy.get_action(self.world.observed), -1, 1)


def _make_env(task: str) -> SawyerXYZEnv:
    """A task whose variation is drawn from ``env.seed``, with the goal in its observation."""
    env = ENV_CLS_MAP[task + VERSION]()
    env._set_task_called = True
    env._freeze_rand_vec, env.seeded_rand_vec = False, True
    env._partially_observable = False  # the experts need the goal
    del env.sawyer_observation_space  # a cached property that would hide it again
    env.model.camera(CAMERAS["third_person"]).pos[:] = THIRD_PERSON
    return env


class _Cameras:
    """Renders several models through one GL context; ``mujoco.Renderer`` would open one for each."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._gl: mujoco.GLContext | None = None
        self._contexts: dict[int, tuple[mujoco.MjrContext, mujoco.MjvScene]] = {}

    def render(self, model: "mujoco.MjModel", data: "mujoco.MjData", view: str) -> np.ndarray:
        if self._gl is None:
            self._gl = _try_gl(lambda: mujoco.GLContext(self.size, self.size))
            atexit.register(self.close)  # before the interpreter takes GL apart
        self._gl.make_current()
        if id(model) not in self._contexts:
            # Shadows, reflections and multisampling cost ten times the picture on a software
            # renderer.
            model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
            model.vis.global_.offwidth = model.vis.global_.offheight = self.size
            context = _try_gl(lambda: mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100))
            scene = mujoco.MjvScene(model, maxgeom=2000)
            scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = scene.flags[
                mujoco.mjtRndFlag.mjRND_REFLECTION
            ] = 0
            self._contexts[id(model)] = context, scene
        context, scene = self._contexts[id(model)]
        camera = mujoco.MjvCamera()
        camera.type, camera.fixedcamid = (
            mujoco.mjtCamera.mjCAMERA_FIXED,
            model.camera(CAMERAS[view]).id,
        )
        mujoco.mjv_updateScene(
            model, data, mujoco.MjvOption(), None, camera, mujoco.mjtCatBit.mjCAT_ALL, scene
        )
        rect = mujoco.MjrRect(0, 0, self.size, self.size)
        image = np.empty((self.size, self.size, 3), np.uint8)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        mujoco.mjr_render(rect, scene, context)
        mujoco.mjr_readPixels(image, None, rect, context)
        # GL's first row is the lowest. corner2 hangs upside down, so that row is its highest, but
        # left and right are swapped.
        return image[:, ::-1].copy() if view == "third_person" else image[::-1].copy()

    def close(self) -> None:
        if self._gl is not None:
            atexit.unregister(self.close)
            self._gl.make_current()
            for context, _ in self._contexts.values():
                context.free()
            self._contexts.clear()
            self._gl.free()
            self._gl = None


def _try_gl(make: Callable[[], T]) -> T:
    """What ``make`` makes. Raises UserError where there is no GL."""
    try:
        return make()
    except Exception as error:  # GL libraries raise whatever they like
        reason = str(error)
    raise UserError(
        f"no image can be rendered ({reason}); run 'alam doctor' to see which GL package is missing"
    )
