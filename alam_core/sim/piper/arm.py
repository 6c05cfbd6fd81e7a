"""The Piper as MJCF: kinematics and masses from ``alam_core.robots.piper``, shapes from primitive
geoms, position servos.

The site ``tcp`` is the grasp point. The two fingers slide along link 6's y axis, each by half of
the opening.
"""

from alam_core.robots.piper import GRIPPER_STROKE, LINKS, TCP_OFFSET, UPPER_ARM

# kp in N*m/rad and kv in N*m*s/rad of the six servos
GAINS = ((400, 25), (400, 25), (400, 25), (150, 10), (100, 6), (60, 3))

WHITE = "0.92 0.92 0.94 1"
DARK = "0.16 0.16 0.18 1"

# The shape of each link, in the link's own frame. It is only visible: of the arm, only the fingers
# collide with objects.
LINK_GEOMS = (
    f'<geom type="cylinder" fromto="0 0 -0.045 0 0 0.035" size="0.045" rgba="{WHITE}"/>',
    f'<geom type="capsule" fromto="0 0 0 {UPPER_ARM} 0 0" size="0.036" rgba="{WHITE}"/>'
    f'<geom type="cylinder" fromto="0 0 -0.05 0 0 0.05" size="0.042" rgba="{DARK}"/>',
    f'<geom type="cylinder" fromto="0 0 -0.042 0 0 0.042" size="0.036" rgba="{DARK}"/>'
    f'<geom type="capsule" fromto="-0.01 -0.05 0 -0.02 -0.21 0" size="0.030" rgba="{WHITE}"/>',
    f'<geom type="cylinder" fromto="0 0 -0.04 0 0 0.03" size="0.030" rgba="{DARK}"/>',
    f'<geom type="capsule" fromto="0 0 0 0 -0.055 0" size="0.027" rgba="{WHITE}"/>',
    f'<geom type="cylinder" fromto="0 0 -0.02 0 0 0.02" size="0.028" rgba="{DARK}"/>'
    f'<geom type="box" pos="0 0 0.045" size="0.022 0.065 0.025" rgba="{DARK}"/>',
)
BASE_GEOMS = (
    f'<geom type="cylinder" fromto="0 0 0 0 0 0.075" size="0.055" rgba="{DARK}"/>'
    f'<geom type="box" pos="0 0 0.008" size="0.085 0.085 0.008" rgba="{DARK}"/>'
)


def _finger(name: str, side: int) -> str:
    """One finger, which slides along link 6's y axis by half of the opening. When the gripper is
    closed, the finger's inner face lies on the grasp plane.
    """
    return f"""
    <body name="{name}" pos="0 0 {TCP_OFFSET}">
      <joint name="{name}" type="slide" axis="0 {side} 0" range="0 {GRIPPER_STROKE / 2}"
             armature="0.05" damping="5"/>
      <geom type="box" pos="0 {side * 0.012} -0.045" size="0.010 0.006 0.022"
            rgba="{DARK}" mass="0.01"/>
      <geom name="{name}_pad" type="box" pos="0 {side * 0.0045} -0.006" size="0.009 0.0045 0.020"
            rgba="0.08 0.08 0.09 1" mass="0.015"
            friction="2 0.05 0.001" condim="4" solref="0.004 1" priority="1"/>
    </body>"""


def arm_xml(wrist_camera: str) -> str:
    """The arm's bodies, base at the origin, with the MJCF of a camera in link 6's frame."""
    inner = f"""
    {wrist_camera}
    <site name="tcp" pos="0 0 {TCP_OFFSET}" size="0.003" rgba="0 0 0 0"/>
    {_finger("finger_left", 1)}
    {_finger("finger_right", -1)}"""
    for index in reversed(range(len(LINKS))):
        link = LINKS[index]
        geoms = LINK_GEOMS[index].replace("<geom ", '<geom class="arm" ')
        inner = f"""
    <body name="link{index + 1}" gravcomp="1"
          pos="{_numbers(link.xyz)}" euler="{_numbers(link.rpy)}">
      <inertial pos="0 0 0" mass="{link.mass}" diaginertia="0.002 0.002 0.002"/>
      <joint name="joint{index + 1}" axis="0 0 1" range="{_numbers(link.limits)}"
             armature="0.05" damping="1"/>
      {geoms}{inner}
    </body>"""
    base = BASE_GEOMS.replace("<geom ", '<geom class="arm" ')
    inertial = '<inertial pos="0 0 0" mass="1.02" diaginertia="0.005 0.005 0.005"/>'
    return f'<body name="base_link">{inertial}{base}{inner}</body>'


def actuators_xml() -> str:
    """Position servos for the six joints and one for the gripper, whose set-point is half of the
    opening.
    """
    lines = [
        f'<position name="joint{i + 1}" joint="joint{i + 1}" kp="{kp}" kv="{kv}"'
        ' forcerange="-60 60"/>'
        for i, (kp, kv) in enumerate(GAINS)
    ]
    lines.append(
        '<position name="gripper" joint="finger_left" kp="800" kv="40" forcerange="-12 12"/>'
    )
    return "\n".join(lines)


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
