"""The task ``piper_place``: pick up the cube of the named colour and put it on the marked plate.

Three cubes of different colours and a round plate with a mark lie on the table.
"""

import numpy as np

from alam_core.sim.piper.cartesian import step_towards
from alam_core.sim.piper.scene import COLOURS, draw_places, draw_shade
from alam_core.sim.piper.world import PiperTask, PiperWorld

TEMPLATES = (
    "put the {} cube on the plate",
    "pick up the {} cube and place it on the marked plate",
    "move the {} cube to the plate",
    "place the {} cube on the plate",
)
CUBES = 3
CUBE = 0.02  # m, half of an edge
PLATE_RADIUS = 0.065  # m
PLATE_HEIGHT = 0.006  # m
MARK_RADIUS = (0.028, 0.036)  # m, of the ring on the plate: inner, outer

# m between the centres of two objects: the open gripper must fit between them
CUBE_TO_CUBE = 0.095
CUBE_TO_PLATE = 0.125

OPEN, CLOSED = 0.09, 0.0  # m, the gripper's opening
TRAVEL = 0.12  # m, height at which the grasp point travels
RELEASE = PLATE_HEIGHT + CUBE + 0.006  # m, height at which the gripper lets go


class Place(PiperTask):
    """Draws episodes, judges success and makes the expert. ``target`` is the index of the named
    cube.
    """

    max_steps = 150
    target = 0

    def bodies_xml(self) -> str:
        cubes = "".join(
            f'<body name="cube{i}" pos="0.3 {0.1 * i} {CUBE}"><freejoint name="cube{i}"/>'
            f'<geom name="cube{i}" type="box" size="{CUBE} {CUBE} {CUBE}" mass="0.05"'
            ' friction="1 0.01 0.001" condim="4"/></body>'
            for i in range(CUBES)
        )
        ring = "".join(
            f'<geom type="cylinder" pos="0 0 {PLATE_HEIGHT + height}" size="{radius} 0.0004"'
            f' rgba="{grey} {grey} {grey} 1" contype="0" conaffinity="0"/>'
            for radius, height, grey in (
                (MARK_RADIUS[1], 0.0003, 0.1),
                (MARK_RADIUS[0], 0.0007, 0.95),
            )
        )
        plate = (
            '<body name="plate" pos="0.3 -0.2 0">'
            f'<geom name="plate" type="cylinder" pos="0 0 {PLATE_HEIGHT / 2}"'
            f' size="{PLATE_RADIUS} {PLATE_HEIGHT / 2}" rgba="0.95 0.95 0.95 1"/>{ring}</body>'
        )
        return plate + cubes

    def reset(self, world: PiperWorld, rng: np.random.Generator) -> str:
        # The order of the draws is part of the task: changing it changes every episode.
        colours = [str(colour) for colour in rng.permutation(list(COLOURS))[:CUBES]]
        self.target = int(rng.integers(CUBES))
        instruction = TEMPLATES[rng.integers(len(TEMPLATES))].format(colours[self.target])
        distances = np.full((CUBES + 1, CUBES + 1), CUBE_TO_CUBE)
        distances[0, :] = distances[:, 0] = CUBE_TO_PLATE
        places, angles = draw_places(rng, distances)
        world.put("plate", np.append(places[0], 0.0))
        for i in range(CUBES):
            yaw = angles[i + 1] + rng.uniform(-0.35, 0.35)
            world.put(f"cube{i}", np.append(places[i + 1], CUBE), yaw)
        for i, colour in enumerate(colours):
            world.model.geom(f"cube{i}").rgba[:3] = draw_shade(colour, rng)
        return instruction

    def success(self, world: PiperWorld) -> bool:
        """The named cube lies on the plate, at rest, and the gripper has let go of it."""
        cube, plate = world.position(f"cube{self.target}"), world.position("plate")
        return bool(
            np.hypot(*(cube[:2] - plate[:2])) < PLATE_RADIUS - 0.005
            and PLATE_HEIGHT < cube[2] < PLATE_HEIGHT + 2 * CUBE
            and np.abs(world.velocity(f"cube{self.target}")).max() < 0.05
            and np.linalg.norm(world.tcp() - cube) > 0.035
        )

    def expert(self, world: PiperWorld, seed: int) -> "PlaceExpert":
        return PlaceExpert(world, self, seed)


class PlaceExpert:
    """Reads the true poses and computes the next set-point for any state. ``seed`` varies speed and
    grasp height a little.

    The expert keeps almost no memory: the positions of gripper and cube determine the action. It
    therefore also recovers from disturbances by noise or a bad policy, and its actions are valid
    labels in any state.
    """

    def __init__(self, world: PiperWorld, task: Place, seed: int = 0) -> None:
        self.world = world
        self.task = task
        rng = np.random.default_rng((seed, 7))
        self.speed = rng.uniform(0.85, 1.0)
        self.grasp_height = CUBE + rng.uniform(-0.002, 0.003)
        self.reset()

    def reset(self) -> None:
        """Forget the last episode."""
        self._releasing = 0  # steps since the gripper began to let go

    def act(self) -> np.ndarray:
        """The next set-point (7,): joints in rad, gripper opening in m."""
        tcp = self.world.tcp()
        cube = self.world.position(f"cube{self.task.target}")
        plate = self.world.position("plate")
        opening = float(self.world.joint_state()[0][6])
        grasped = opening < 2 * CUBE + 0.01 and np.linalg.norm(tcp - cube) < 0.025
        on_plate = (
            np.hypot(*(cube[:2] - plate[:2])) < PLATE_RADIUS - 0.015
            and cube[2] < PLATE_HEIGHT + CUBE + 0.012
        )
        if on_plate and not (grasped and self._releasing == 0 and cube[2] > RELEASE + 0.004):
            return self._release(tcp, opening)
        self._releasing = 0
        if grasped and opening < 2 * CUBE + 0.004:
            return self._carry(tcp, plate)
        return self._fetch(tcp, cube, opening)

    def _fetch(self, tcp: np.ndarray, cube: np.ndarray, opening: float) -> np.ndarray:
        """Go above the cube, descend with open fingers, close them."""
        aside = np.hypot(*(cube[:2] - tcp[:2]))
        low = tcp[2] < self.grasp_height + 0.006
        if aside < 0.010 and low:
            return self._towards(cube[0], cube[1], self.grasp_height, CLOSED)
        if opening < OPEN - 0.02 and aside > 0.012:
            return self._towards(tcp[0], tcp[1], TRAVEL, OPEN)
        # A funnel above the cube: the nearer to its axis, the lower the gripper may be.
        height = (
            self.grasp_height
            if aside < 0.006
            else min(TRAVEL, self.grasp_height + max(0.0, (aside - 0.006)) * 4.0)
        )
        if aside > 0.03:
            height = TRAVEL
        return self._towards(cube[0], cube[1], height, OPEN)

    def _carry(self, tcp: np.ndarray, plate: np.ndarray) -> np.ndarray:
        """Lift, go above the plate, lower to the height at which the cube can be released."""
        aside = np.hypot(*(plate[:2] - tcp[:2]))
        if aside > 0.03:
            goal = tcp if tcp[2] < TRAVEL - 0.04 else plate
            return self._towards(goal[0], goal[1], TRAVEL, CLOSED)
        height = RELEASE if aside < 0.012 else RELEASE + (aside - 0.012) * 4.0
        return self._towards(plate[0], plate[1], height, CLOSED)

    def _release(self, tcp: np.ndarray, opening: float) -> np.ndarray:
        """Open the gripper without moving, then rise."""
        self._releasing += 1
        rising = opening >= OPEN - 0.025 or tcp[2] >= TRAVEL - 0.03
        return self._towards(tcp[0], tcp[1], TRAVEL if rising else tcp[2], OPEN)

    def _towards(self, x: float, y: float, z: float, opening: float) -> np.ndarray:
        return step_towards(self.world, np.array([x, y, z]), opening, self.speed)


def make_world(name: str, image_size: int) -> PiperWorld:
    """The world of this task; ``alam_core.sim.piper`` registers this function."""
    return PiperWorld(name, Place(), image_size)
