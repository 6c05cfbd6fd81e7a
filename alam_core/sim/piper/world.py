"""The task ``piper_place``: pick up the cube of the named colour and put it on the marked plate.

A table with the arm, three cubes of different colours and a round plate with a mark; a tripod
camera (``third_person``, the field of view of a D435) and a wrist camera (a D405). The seed
determines everything: poses, colours in play, instruction, and the look of the scene (light, table,
floor, shades of the colours, camera poses). Physics runs in ticks of 5 ms, actions every 0.1 s.
"""

import atexit
import gc
import os
import sys
import traceback

import numpy as np

from alam_core.data.images import resize_images
from alam_core.errors import UserError
from alam_core.robots.piper import GRIPPER_STROKE, HOME, JOINT_LIMITS
from alam_core.sim.piper.arm import actuators_xml, arm_xml
from alam_core.types import VIEWS, Observation

os.environ.setdefault("MUJOCO_GL", "egl")
try:
    import mujoco
except (ImportError, AttributeError) as error:
    raise UserError(
        f"MuJoCo cannot start ({error}); run 'alam doctor' to see what is missing"
    ) from None

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.08, 0.08),
    "green": (0.08, 0.60, 0.12),
    "blue": (0.08, 0.16, 0.80),
    "yellow": (0.90, 0.75, 0.05),
}
TEMPLATES = (
    "put the {} cube on the plate",
    "pick up the {} cube and place it on the marked plate",
    "move the {} cube to the plate",
    "place the {} cube on the plate",
)
CUBES = 3
CUBE = 0.02  # m, half of an edge
PLATE_RADIUS = 0.065
PLATE_HEIGHT = 0.006
TICK = 0.005  # s of physics between two looks at the arm
REACH = (0.23, 0.38)  # m from the base axis
SECTOR = 0.62  # rad to either side

WRIST_CAMERA = '<camera name="wrist" pos="-0.075 0 0.015" xyaxes="0 -1 0 -0.94 0 0.342" fovy="70"/>'


def scene_xml() -> str:
    """The MJCF of arm, table, plate, cubes, lights and cameras."""
    cubes = "".join(
        f'<body name="cube{i}" pos="0.3 {0.1 * i} {CUBE}"><freejoint name="cube{i}"/>'
        f'<geom name="cube{i}" type="box" size="{CUBE} {CUBE} {CUBE}" mass="0.05" friction="1 0.01 0.001" condim="4"/></body>'
        for i in range(CUBES)
    )
    return f"""
<mujoco model="piper_place">
  <compiler angle="radian" eulerseq="XYZ" autolimits="true"/>
  <option timestep="0.0025" integrator="implicitfast" cone="elliptic" impratio="5"/>
  <visual><headlight ambient="0.35 0.35 0.35" diffuse="0.25 0.25 0.25" specular="0 0 0"/>
    <quality shadowsize="0" offsamples="0"/><global offwidth="640" offheight="640"/><map znear="0.02" zfar="10"/></visual>
  <default><default class="arm"><geom mass="0" contype="0" conaffinity="0"/></default></default>
  <worldbody>
    <light name="sun" pos="0.3 0.3 1.5" dir="0 0 -1" diffuse="0.6 0.6 0.6" specular="0.1 0.1 0.1" castshadow="false"/>
    <geom name="floor" type="plane" pos="0 0 -0.75" size="4 4 0.1" rgba="0.4 0.4 0.42 1"/>
    <geom name="table" type="box" pos="0.35 0 -0.025" size="0.5 0.6 0.025" rgba="0.65 0.6 0.55 1" friction="1 0.01 0.001"/>
    {arm_xml(WRIST_CAMERA)}
    <body name="plate" pos="0.3 -0.2 0">
      <geom name="plate" type="cylinder" pos="0 0 {PLATE_HEIGHT / 2}" size="{PLATE_RADIUS} {PLATE_HEIGHT / 2}" rgba="0.95 0.95 0.95 1"/>
      <geom type="cylinder" pos="0 0 {PLATE_HEIGHT + 0.0003}" size="0.036 0.0004" rgba="0.1 0.1 0.1 1" contype="0" conaffinity="0"/>
      <geom type="cylinder" pos="0 0 {PLATE_HEIGHT + 0.0007}" size="0.028 0.0004" rgba="0.95 0.95 0.95 1" contype="0" conaffinity="0"/>
    </body>
    {cubes}
    <camera name="third_person" pos="0.72 0.24 0.46" fovy="42"/>
  </worldbody>
  <equality><joint joint1="finger_right" joint2="finger_left" polycoef="0 1 0 0 0" solref="0.005 1"/></equality>
  <actuator>{actuators_xml()}</actuator>
</mujoco>"""


class PiperPlace:
    """The world ``piper_place`` (see :class:`alam_core.sim.world.World`), with a finer interface
    for nodes that tick the physics.

    State and action (7,): joint1..joint6 in rad and the gripper's opening in m; an action is the
    absolute set-point to be reached ``dt`` later. Not thread-safe; the renderer belongs to the
    thread that first renders.
    """

    name = task = "piper_place"
    dt = 0.1
    max_steps = 150
    action_dim = 7
    state_dim = 7

    camera_size = 192  # pixels, both ways: what the cameras deliver before anybody resizes it

    def __init__(self, image_size: int = 96) -> None:
        self.image_size = image_size
        self.model = mujoco.MjModel.from_xml_string(scene_xml())
        self.data = mujoco.MjData(self.model)
        self.instruction = ""
        self.target = 0  # index of the cube that the instruction names
        self.seed = 0
        self._renderer: mujoco.Renderer | None = None
        self._look = {
            name: getattr(self.model, name).copy()
            for name in ("geom_rgba", "light_pos", "light_diffuse", "cam_pos", "cam_quat")
        }
        self._ticks_per_step = round(self.dt / TICK)
        self._substeps = round(TICK / self.model.opt.timestep)
        self.reset(0)

    # -- the world interface ---------------------------------------------------------------------------------------------------

    def reset(self, seed: int) -> Observation:
        """Start the episode that ``seed`` determines."""
        rng = np.random.default_rng(seed)
        self.seed = seed
        mujoco.mj_resetData(self.model, self.data)
        colours = list(rng.permutation(list(COLOURS))[:CUBES])
        self.target = int(rng.integers(CUBES))
        self.colours = [str(colour) for colour in colours]
        self.instruction = TEMPLATES[rng.integers(len(TEMPLATES))].format(self.colours[self.target])
        self._place_objects(rng)
        self._randomise_look(rng)
        pose = np.array(HOME)
        pose[0] += rng.uniform(-0.2, 0.2)
        pose[1:6] += rng.uniform(-0.04, 0.04, 5)
        self._put_arm(pose)
        mujoco.mj_forward(self.model, self.data)
        for _ in range(40):
            self.physics_step(pose)
        self.data.time = 0.0
        return self.observe()

    def step(self, action: np.ndarray, render: bool = True) -> Observation:
        """Move the set-point in a straight line to ``action`` (7,) within ``dt``, as the arm's
        controller does. Without ``render`` no pictures are made.
        """
        start = self._set_point.copy()
        goal = np.asarray(action, dtype=np.float64)
        for tick in range(1, self._ticks_per_step + 1):
            self.physics_step(start + (goal - start) * tick / self._ticks_per_step)
        return self.observe(render)

    def hold(self, state: np.ndarray) -> np.ndarray:
        """The state itself: actions are set-points."""
        return state

    def success(self) -> bool:
        """The named cube lies on the plate, at rest, and the gripper has let go of it."""
        cube, plate = self.cube_position(self.target), self.plate_position()
        velocity = self.data.qvel[self._cube_dof(self.target) : self._cube_dof(self.target) + 3]
        return bool(
            np.hypot(*(cube[:2] - plate[:2])) < PLATE_RADIUS - 0.005
            and PLATE_HEIGHT < cube[2] < PLATE_HEIGHT + 2 * CUBE
            and np.abs(velocity).max() < 0.05
            and np.linalg.norm(self.tcp() - cube) > 0.035
        )

    def close(self) -> None:
        if self._renderer is not None:
            atexit.unregister(self.close)
            self._renderer.close()
            self._renderer = None

    # -- ticking it from outside -----------------------------------------------------------------------------------------------

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

    def observe(self, render: bool = True) -> Observation:
        """What a policy gets: both cameras' pictures resized to ``image_size``, the arm's state,
        the instruction.
        """
        images = {
            view: resize_images(self.render(view), self.image_size) for view in VIEWS if render
        }
        return Observation(
            images, self.joint_state()[0].astype(np.float32), self.instruction, self.data.time
        )

    def render(self, view: str, size: int | None = None) -> np.ndarray:
        """What a camera delivers: uint8 RGB (size, size, 3), ``camera_size`` by default. Raises
        UserError where there is no GL.
        """
        size = size or self.camera_size
        if self._renderer is None or self._renderer.height != size:
            self.close()
            self._renderer = _make_renderer(self.model, size)
            atexit.register(self.close)  # before the interpreter takes GL apart
        # Shadows, reflections and multisampling cost ten times the picture on a software renderer.
        self._renderer.update_scene(self.data, camera=view)
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        return self._renderer.render()

    # -- privileged facts for the expert and the judge ---------------------------------------------------------------------------

    def tcp(self) -> np.ndarray:
        """Grasp point (3,) in m, base frame."""
        return self.data.site("tcp").xpos.copy()

    def cube_position(self, index: int) -> np.ndarray:
        return self.data.body(f"cube{index}").xpos.copy()

    def plate_position(self) -> np.ndarray:
        return self.data.body("plate").xpos.copy()

    # -- drawing an episode ------------------------------------------------------------------------------------------------------

    def _cube_dof(self, index: int) -> int:
        return int(self.model.joint(f"cube{index}").dofadr[0])

    def _put_arm(self, pose: np.ndarray) -> None:
        self.data.qpos[:6] = pose[:6]
        self.data.qpos[6:8] = pose[6] / 2
        self._set_point = pose.copy()

    def _place_objects(self, rng: np.random.Generator) -> None:
        """Plate and cubes in the sector in front of the arm, far enough apart for the open gripper."""
        while True:
            radius = np.sqrt(rng.uniform(REACH[0] ** 2, REACH[1] ** 2, CUBES + 1))
            angle = rng.uniform(-SECTOR, SECTOR, CUBES + 1)
            points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
            gaps = np.linalg.norm(points[:, None] - points[None], axis=-1)
            wanted = np.full_like(gaps, 0.095)
            wanted[0, :] = wanted[:, 0] = 0.125
            if (gaps + np.eye(CUBES + 1) >= wanted).all():
                break
        self.model.body("plate").pos[:2] = points[0]
        for i in range(CUBES):
            yaw = angle[i + 1] + rng.uniform(-0.35, 0.35)
            address = self.model.joint(f"cube{i}").qposadr[0]
            self.data.qpos[address : address + 7] = [
                *points[i + 1],
                CUBE,
                np.cos(yaw / 2),
                0,
                0,
                np.sin(yaw / 2),
            ]

    def _randomise_look(self, rng: np.random.Generator) -> None:
        model = self.model
        for name, value in self._look.items():
            getattr(model, name)[:] = value
        for i, colour in enumerate(self.colours):
            shade = np.array(COLOURS[colour]) * rng.uniform(0.85, 1.1) + rng.uniform(-0.04, 0.04, 3)
            model.geom(f"cube{i}").rgba[:3] = np.clip(shade, 0, 1)
        model.geom("table").rgba[:3] = np.clip(
            rng.uniform(0.35, 0.75) + rng.uniform(-0.06, 0.06, 3), 0, 1
        )
        model.geom("floor").rgba[:3] = rng.uniform(0.2, 0.6) + rng.uniform(-0.05, 0.05, 3)
        model.light_pos[0] += rng.uniform(-0.5, 0.5, 3)
        model.light_diffuse[0] = rng.uniform(0.4, 0.75)
        camera = model.camera("third_person")
        position = camera.pos + rng.uniform(-0.012, 0.012, 3)
        looked_at = np.array([0.275, 0.0, 0.045]) + rng.uniform(-0.008, 0.008, 3)
        camera.pos[:] = position
        camera.quat[:] = _look_at(position, looked_at)
        model.camera("wrist").pos[:] += rng.uniform(-0.002, 0.002, 3)


def _make_renderer(model: "mujoco.MjModel", size: int) -> "mujoco.Renderer":
    """An offscreen renderer. Raises UserError where there is no GL, without the noise of MuJoCo's
    half-built object going away.
    """
    hook = sys.unraisablehook
    buffer = model.vis.global_
    buffer.offwidth, buffer.offheight = max(buffer.offwidth, size), max(buffer.offheight, size)
    try:
        return mujoco.Renderer(model, size, size)
    except Exception as error:  # GL libraries raise whatever they like
        reason = str(error)
        sys.unraisablehook = lambda _: None
        traceback.clear_frames(error.__traceback__)
    gc.collect()
    sys.unraisablehook = hook
    raise UserError(
        f"no image can be rendered ({reason}); run 'alam doctor' to see which GL package is missing"
    )


def _look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Quaternion (w, x, y, z) of a camera at ``position`` that looks at ``target``, upright
    (cameras look along their -z).
    """
    back = (position - target) / np.linalg.norm(position - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.stack([right, np.cross(back, right), back], axis=1).ravel())
    return quaternion
