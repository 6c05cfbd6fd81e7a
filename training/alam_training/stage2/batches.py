"""The training batches of stage 2, and the split into training and held-out samples."""

import numpy as np
import torch

from alam_core.errors import UserError
from alam_core.policy.joint import JointPolicy
from alam_core.policy.samples import PolicySamples
from alam_training.loop.gradients import shard_rows
from alam_training.loop.seeds import step_rng
from alam_training.splits import split_episodes
from alam_training.stage2.config import FinetuneConfig

HELD_OUT_SAMPLES = 256  # of one evaluation, at most


def split_samples(
    config: FinetuneConfig, data: PolicySamples
) -> tuple[np.ndarray, np.ndarray, int]:
    """Indices of all training samples (N,), indices of evenly spread held-out samples (M,), and the
    number of training episodes. Without held-out episodes, M is 0.

    Raises UserError if the data set cannot be split, or if either part has no episode left.
    """
    training, held_out = split(config, len(data.lengths))
    training, kept = data.included(training), data.included(held_out)
    if not len(training) or (len(held_out) and not len(kept)):
        which = "training" if not len(training) else "held-out"
        raise UserError(
            f"every {which} episode of '{config.data}' is broken or excluded: hold out more with "
            "--held_out, or none with --held_out 0"
        )
    held_out = kept
    rows = data.rows_of(held_out)
    picked = np.linspace(0, len(rows) - 1, min(HELD_OUT_SAMPLES, len(rows))).round().astype(int)
    return data.rows_of(training), rows[picked], len(training)


def split(config: FinetuneConfig, episodes: int) -> tuple[np.ndarray, np.ndarray]:
    """The training and the held-out ones of so many episodes, including those that are left out, so
    that the split does not depend on them. Raises UserError if they cannot be split.
    """
    if config.held_out == 0:
        return np.arange(episodes), np.array([], int)
    try:
        return split_episodes(episodes, config.held_out, np.random.default_rng(0))
    except UserError as error:
        raise UserError(f"'{config.data}': {error}; give --held_out 0, or more data") from None


class TrainingBatches:
    """Batches of the samples ``rows`` as arguments of ``policy``: a function of seed and step.

    All random draws are made for the whole batch, so that its samples are the same however many
    processes share them.
    """

    def __init__(
        self, config: FinetuneConfig, policy: JointPolicy, data: PolicySamples, rows: np.ndarray
    ) -> None:
        self.config, self.policy, self.data, self.rows = config, policy, data, rows

    def __call__(self, step: int, rank: int, ranks: int) -> dict:
        """This rank's share of the batch of optimiser step ``step``."""
        config, size = self.config, self.config.batch
        rng = step_rng(config.loop.seed, step)
        rows = self.rows[rng.integers(len(self.rows), size=size)]
        augmentation = self.data.draw_augmentation(size, config.augment, rng)
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        drawn = self.policy.draw(size, config.draws, noise)
        share = self.data.batch(
            rows[rank::ranks], {name: values[rank::ranks] for name, values in augmentation.items()}
        )
        return share | {"drawn": shard_rows(drawn, rank, ranks)}
