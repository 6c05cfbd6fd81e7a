"""The simulated Piper: arm, table, cameras and physics. What the arm has to do is defined by a
``PiperTask``; each task is a file in ``tasks/``.

The seed determines the whole start of an episode: objects, instruction, appearance (light, table,
floor, camera poses) and the arm's pose. Physics advances in ticks of 5 ms; an action takes 0.1 s.
"""

from typing import Protocol

import numpy as np

from alam_core.data.images import resize_images
from alam_core.robots.piper import GRIPPER_STROKE, HOME, JOINT_LIMITS
from alam_core.sim.piper.scene import randomise_scene, scene_xml
from alam_core.sim.rendering import Renderer, mujoco
from alam_core.sim.world import TICK, Expert
from alam_core.types import VIEWS, Observation

SETTLE = 40  # ticks at the start of an episode in which the objects come to rest

# Fields of the model that a reset restores before the task and the scene are drawn.
RESTORED = (
    "geom_rgba",
    "light_pos",
    "light_diffuse",
    "cam_pos",
    "cam_quat",
    "body_pos",
    "body_quat",
)


class PiperTask(Protocol):
    """One task: objects, an instruction, a success criterion and an expert.

    A task stores what it drew for the current episode, such as which cube is named. The physical
    state is in ``world``, which every method receives.
    """

    max_steps: int  # control steps of 0.1 s after which an episode counts as failed

    def bodies_xml(self) -> str:
        """The objects as MJCF elements of ``worldbody``."""
        ...

    def sections_xml(self) -> str:
        """Further MJCF sections, such as ``asset`` or ``option``; empty by default."""
        return ""

    def reset(self, world: "PiperWorld", rng: np.random.Generator) -> str:
        """Draw an episode: place and colour the objects. Returns the instruction."""
        ...

    def success(self, world: "PiperWorld") -> bool:
        """Whether the instruction is fulfilled now."""
        ...

    def expert(self, world: "PiperWorld", seed: int) -> Expert:
        """A scripted expert; ``seed`` varies how it acts."""
        ...


class PiperWorld:
    """The Piper with one task: a :class:`alam_core.sim.world.DrivenWorld` with an expert.

    State and action (7,): joint1..joint6 in rad and the gripper's opening in m. An action is the
    absolute set-point to be reached ``dt`` later. Use it in one thread: the GL context belongs to
    the thread that renders first.
    """

    dt = 0.1
    action_dim = 7
    state_dim = 7
    camera_size = 192  # pixels, width and height of an image as the camera delivers it

    def __init__(self, name: str, task: PiperTask, image_size: int = 96) -> None:
        """Build the model and start the episode of seed 0. Raises UserError where GL is missing."""
        self.name = self.task = name
        self.max_steps = task.max_steps
        self.image_size = image_size or self.camera_size
        self.piper_task = task
        self.model = mujoco.MjModel.from_xml_string(
            scene_xml(name, task.bodies_xml(), task.sections_xml())
        )
        self.data = mujoco.MjData(self.model)
        self.instruction = ""
        self.seed = 0
        self._renderer = Renderer(self.camera_size)
        self._as_built = {field: getattr(self.model, field).copy() for field in RESTORED}
        self._ticks_per_step = round(self.dt / TICK)
        self._substeps = round(TICK / self.model.opt.timestep)
        self.reset(0)

    # -- World -----------------------------------------------------------------------------------

    def reset(self, seed: int) -> Observation:
        """Start the episode of ``seed``."""
        rng = np.random.default_rng(seed)
        self.seed = seed
        mujoco.mj_resetData(self.model, self.data)
        for field, value in self._as_built.items():
            getattr(self.model, field)[:] = value
        self.instruction = self.piper_task.reset(self, rng)
        randomise_scene(self.model, rng)
        pose = np.array(HOME)
        pose[0] += rng.uniform(-0.2, 0.2)
        pose[1:6] += rng.uniform(-0.04, 0.04, 5)
        self.data.qpos[:6] = pose[:6]
        self.data.qpos[6:8] = pose[6] / 2
        mujoco.mj_forward(self.model, self.data)
        for _ in range(SETTLE):
            self.physics_step(pose)
        self.data.time = 0.0
        return self.observe()

    def step(self, action: np.ndarray, render: bool = True) -> Observation:
        """Move the set-point in a straight line to ``action`` (7,) within ``dt``, as the arm's
        controller does. With ``render=False`` there are no images.
        """
        start = self._set_point.copy()
        goal = np.asarray(action, dtype=np.float64)
        for tick in range(1, self._ticks_per_step + 1):
            self.physics_step(start + (goal - start) * tick / self._ticks_per_step)
        return self.observe(render)

    def hold(self, state: np.ndarray) -> np.ndarray:
        """The state itself, because actions are set-points."""
        return state

    def success(self) -> bool:
        """Whether the task's success criterion is met now."""
        return self.piper_task.success(self)

    def expert(self, seed: int = 0) -> Expert:
        """The task's scripted expert."""
        return self.piper_task.expert(self, seed)

    def close(self) -> None:
        """Free the GL context."""
        self._renderer.close()

    # -- DrivenWorld -----------------------------------------------------------------------------

    def physics_step(self, set_point: np.ndarray) -> None:
        """Advance by one tick of 5 ms with the servos' set-point (7,) in rad and m, clipped to the
        arm's limits.
        """
        self._set_point = np.asarray(set_point, dtype=np.float64).copy()
        self.data.ctrl[:6] = np.clip(self._set_point[:6], JOINT_LIMITS[:, 0], JOINT_LIMITS[:, 1])
        self.data.ctrl[6] = np.clip(self._set_point[6], 0.0, GRIPPER_STROKE) / 2
        mujoco.mj_step(self.model, self.data, nstep=self._substeps)

    def joint_state(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions (7,) in rad and m, velocities (7,) in rad/s and m/s."""
        q = np.append(self.data.qpos[:6], self.data.qpos[6] + self.data.qpos[7])
        qd = np.append(self.data.qvel[:6], self.data.qvel[6] + self.data.qvel[7])
        return q, qd

    def render(self, view: str, size: int | None = None) -> np.ndarray:
        """Image of one camera, uint8 RGB (size, size, 3); ``size`` defaults to ``camera_size``.
        Raises UserError where GL is missing.
        """
        size = size or self.camera_size
        if self._renderer.size != size:
            self._renderer.close()
            self._renderer = Renderer(size)
        return self._renderer.render(self.model, self.data, view)

    def observe(self, render: bool = True) -> Observation:
        """What a policy gets: the images of both cameras resized to ``image_size``, the arm's
        state, the instruction.
        """
        images = {
            view: resize_images(self.render(view), self.image_size) for view in VIEWS if render
        }
        return Observation(
            images, self.joint_state()[0].astype(np.float32), self.instruction, self.data.time
        )

    # -- for tasks and their experts -------------------------------------------------------------

    def tcp(self) -> np.ndarray:
        """Position (3,) of the grasp point in m, frame ``base_link``."""
        return self.data.site("tcp").xpos.copy()

    def position(self, body: str) -> np.ndarray:
        """Position (3,) of a body in m, frame ``base_link``."""
        return self.data.body(body).xpos.copy()

    def velocity(self, body: str) -> np.ndarray:
        """Linear velocity (3,) in m/s of a body with a free joint."""
        address = self.model.body(body).dofadr[0]
        return self.data.qvel[address : address + 3].copy()

    def put(self, body: str, position: np.ndarray, yaw: float = 0.0) -> None:
        """Place a body at ``position`` (3,) in m, turned by ``yaw`` rad about the vertical. A body
        without a free joint is placed for the rest of the episode.
        """
        pose = [*position, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
        entry = self.model.body(body)
        if entry.jntnum[0]:
            address = self.model.jnt_qposadr[entry.jntadr[0]]
            self.data.qpos[address : address + 7] = pose
        else:
            entry.pos[:], entry.quat[:] = pose[:3], pose[3:]
