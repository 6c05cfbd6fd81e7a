"""Stand-ins for a policy's runner, whose chunks are known in advance."""

import numpy as np
import torch

from alam_core.types import ActionChunk


class CountingRunner:
    """Row i of the n-th chunk is [n, i]."""

    horizon, dt, state_dim = 16, 0.1, 2
    joint_names = ("a", "b")
    device = torch.device("cpu")

    def __init__(self, given_steps=0):
        self.stamps, self.given, self.given_steps = [], [], given_steps
        self.seeds = []  # of the generators

    def infer(self, observation, generator, given=None):
        self.stamps.append(observation.stamp)
        self.given.append(given)
        self.seeds.append(generator.initial_seed())
        return ActionChunk(self.rows(given).astype(np.float32), self.dt, observation.stamp)

    def rows(self, given):
        count = np.full(self.horizon, len(self.stamps) - 1)
        return np.stack([count, np.arange(self.horizon)], 1)


class WanderingRunner(CountingRunner):
    """Chunks of a smooth random walk of 7 joints, each from its given steps on, else from 0."""

    state_dim = 7

    def __init__(self, given_steps=0, seed=0, speed=0.03):
        super().__init__(given_steps)
        self.rng, self.speed = np.random.default_rng(seed), speed  # rad a step, a deviation

    def rows(self, given):
        begin = np.zeros((0, 7)) if given is None else given
        moves = self.rng.normal(0, self.speed, (self.horizon - len(begin), 7))
        last = begin[-1] if len(begin) else np.zeros(7)
        return np.concatenate([begin, last + np.cumsum(moves, 0)])
