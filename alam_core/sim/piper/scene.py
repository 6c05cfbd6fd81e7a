"""The scene that all of the Piper's tasks share: table, floor, light and cameras. Also the random
draws that tasks use: places on the table and shades of a colour.

The tripod camera ``third_person`` has the field of view of a RealSense D435, the camera ``wrist``
that of a D405. Positions are in metres in the frame ``base_link``; the table's surface is z = 0.
"""

import numpy as np

from alam_core.sim.piper.arm import actuators_xml, arm_xml
from alam_core.sim.rendering import mujoco

COLOURS: dict[str, tuple[float, float, float]] = {  # RGB in [0, 1]
    "red": (0.80, 0.08, 0.08),
    "green": (0.08, 0.60, 0.12),
    "blue": (0.08, 0.16, 0.80),
    "yellow": (0.90, 0.75, 0.05),
}
REACH = (0.23, 0.38)  # m from the base axis: where objects are put
SECTOR = 0.62  # rad to either side of the x axis

WRIST_CAMERA = '<camera name="wrist" pos="-0.075 0 0.015" xyaxes="0 -1 0 -0.94 0 0.342" fovy="70"/>'


def scene_xml(name: str, bodies: str, sections: str = "") -> str:
    """The MJCF of the arm on its table.

    name: of the model. bodies: a task's objects, elements of ``worldbody``. sections: further
    elements of ``mujoco`` that the task needs (``asset``, ``equality``, ``option``).
    """
    return f"""
<mujoco model="{name}">
  <compiler angle="radian" eulerseq="XYZ" autolimits="true"/>
  <option timestep="0.0025" integrator="implicitfast" cone="elliptic" impratio="5"/>
  <visual>
    <headlight ambient="0.35 0.35 0.35" diffuse="0.25 0.25 0.25" specular="0 0 0"/>
    <quality shadowsize="0" offsamples="0"/>
    <global offwidth="640" offheight="640"/>
    <map znear="0.02" zfar="10"/>
  </visual>
  <default>
    <default class="arm"><geom mass="0" contype="0" conaffinity="0"/></default>
  </default>
  <worldbody>
    <light name="sun" pos="0.3 0.3 1.5" dir="0 0 -1" castshadow="false"
           diffuse="0.6 0.6 0.6" specular="0.1 0.1 0.1"/>
    <geom name="floor" type="plane" pos="0 0 -0.75" size="4 4 0.1" rgba="0.4 0.4 0.42 1"/>
    <geom name="table" type="box" pos="0.35 0 -0.025" size="0.5 0.6 0.025"
          rgba="0.65 0.6 0.55 1" friction="1 0.01 0.001"/>
    {arm_xml(WRIST_CAMERA)}
    {bodies}
    <camera name="third_person" pos="0.72 0.24 0.46" fovy="42"/>
  </worldbody>
  <equality>
    <joint joint1="finger_right" joint2="finger_left" polycoef="0 1 0 0 0" solref="0.005 1"/>
  </equality>
  <actuator>{actuators_xml()}</actuator>
  {sections}
</mujoco>"""


def randomise_scene(model: "mujoco.MjModel", rng: np.random.Generator) -> None:
    """Vary table, floor, light and camera poses. ``model`` must have its original values, because
    camera and light poses are changed relative to them.
    """
    table = rng.uniform(0.35, 0.75) + rng.uniform(-0.06, 0.06, 3)
    model.geom("table").rgba[:3] = np.clip(table, 0, 1)
    model.geom("floor").rgba[:3] = rng.uniform(0.2, 0.6) + rng.uniform(-0.05, 0.05, 3)
    model.light_pos[0] += rng.uniform(-0.5, 0.5, 3)
    model.light_diffuse[0] = rng.uniform(0.4, 0.75)
    camera = model.camera("third_person")
    position = camera.pos + rng.uniform(-0.012, 0.012, 3)
    target = np.array([0.275, 0.0, 0.045]) + rng.uniform(-0.008, 0.008, 3)
    camera.pos[:] = position
    camera.quat[:] = _look_at(position, target)
    model.camera("wrist").pos[:] += rng.uniform(-0.002, 0.002, 3)


def draw_places(rng: np.random.Generator, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places for N objects on the table, uniform over the part of the table that the arm reaches.

    distances: (N, N) m, the smallest distance allowed between each two objects, symmetric. Returns
    x and y (N, 2) in m, and each place's direction from the base (N,) in rad.
    """
    count = len(distances)
    while True:
        radius = np.sqrt(rng.uniform(REACH[0] ** 2, REACH[1] ** 2, count))
        angle = rng.uniform(-SECTOR, SECTOR, count)
        places = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
        if (apart + np.eye(count) >= distances).all():
            return places, angle


def draw_shade(colour: str, rng: np.random.Generator) -> np.ndarray:
    """A shade (3,) of one of ``COLOURS``, RGB in [0, 1]."""
    shade = np.array(COLOURS[colour]) * rng.uniform(0.85, 1.1) + rng.uniform(-0.04, 0.04, 3)
    return np.clip(shade, 0, 1)


def _look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Quaternion (w, x, y, z) of an upright camera at ``position`` that looks at ``target``: MuJoCo
    cameras look along their -z axis.
    """
    back = (position - target) / np.linalg.norm(position - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.stack([right, np.cross(back, right), back], axis=1).ravel())
    return quaternion
