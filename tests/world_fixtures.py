"""Worlds small enough to know what must come out of them."""

import numpy as np

from alam_core.types import Observation


class BlobWorld:
    """The action's first number is where a blob lies. Seeds divisible by 3 succeed from step 3 on,
    the others never.
    """

    name, task, dt, max_steps, action_dim, state_dim = "blob", "even", 0.1, 6, 7, 7

    def __init__(self, name="blob", image_size=32):
        self.size = image_size
        self.renders = []  # of every observation: whether it has images

    def reset(self, seed):
        self.rng, self.seed, self.steps, self.at = np.random.default_rng(seed), seed, 0, 0.0
        self.task = ("even", "odd")[seed % 2]
        return self.observe()

    def observe(self, render=True):
        self.renders.append(render)
        image = np.full((self.size, self.size, 3), 90, np.uint8)
        column = int(np.clip(self.at, 0, 1) * (self.size - 6))
        image[8:14, column : column + 6] = (200, 30, 30)
        state = np.array([self.at, *self.rng.normal(size=6) * 0.1], np.float32)
        images = {"third_person": image, "wrist": image[::-1].copy()} if render else {}
        return Observation(images, state, "push the red blob", 0.1 * self.steps)

    def step(self, action, render=True):
        self.steps += 1
        self.at = float(action[0])
        return self.observe(render)

    def hold(self, state):
        return state

    def success(self):
        return self.seed % 3 == 0 and self.steps >= 3

    def close(self):
        pass


def make_blobs(name, image_size):
    return BlobWorld(name, image_size)


class DrivenBlobWorld(BlobWorld):
    """A blob world whose arm is driven tick by tick and follows its set-point exactly."""

    camera_size, instruction, seed = 32, "push the red blob", 0

    def reset(self, seed):
        self.set_points, self.joints = [], np.random.default_rng(seed).uniform(-0.1, 0.1, 7)
        return super().reset(seed)

    def physics_step(self, set_point):
        self.set_points.append(set_point)
        self.joints = set_point
        self.steps = len(self.set_points) / 20

    def joint_state(self):
        return self.joints, np.zeros(7)

    def observe(self, render=True):
        observation = super().observe(render)
        observation.state = self.joints.astype(np.float32)
        return observation

    def render(self, view, size=None):
        return self.observe().images[view]
