"""The training batches of stage 2, and the split into training and held-out samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alam_core.errors import UserError
from alam_core.policy.joint import JointPolicy
from alam_core.policy.samples import PolicySamples
from alam_core.policy.sequence import ACTION
from alam_training.loop.gradients import map_tensors, map_together, shard_rows
from alam_training.loop.seeds import step_rng
from alam_training.splits import split_episodes
from alam_training.stage2.config import FinetuneConfig

HELD_OUT_SAMPLES = 256  # of one evaluation, at most


@dataclass
class SourceSamples:
    """The samples of one source: the rows to draw from, and the source's weight among others."""

    samples: PolicySamples
    rows: np.ndarray
    weight: float


def split_samples(
    config: FinetuneConfig, data: PolicySamples
) -> tuple[np.ndarray, np.ndarray, int]:
    """Indices of all training samples (N,), indices of evenly spread held-out samples (M,), and the
    number of training episodes. Without held-out episodes, M is 0.

    Raises UserError if the data set cannot be split, or if either part has no episode left.
    """
    episodes = np.arange(len(data.lengths))
    training = data.included(np.setdiff1d(episodes, data.held_out))
    kept = data.included(np.array(data.held_out, int))
    if not len(training) or (data.held_out and not len(kept)):
        which = "training" if not len(training) else "held-out"
        raise UserError(
            f"every {which} episode of '{config.data}' is broken or excluded: hold out more with "
            "--held_out, or none with --held_out 0"
        )
    rows = data.rows_of(kept)
    picked = np.linspace(0, len(rows) - 1, min(HELD_OUT_SAMPLES, len(rows))).round().astype(int)
    return data.rows_of(training), rows[picked], len(training)


def held_out_episodes(config: FinetuneConfig, episodes: int) -> np.ndarray:
    """The held-out ones of so many episodes, including those that are left out, so that the split
    does not depend on them. Raises UserError if they cannot be split.
    """
    if config.held_out == 0:
        return np.array([], int)
    try:
        return split_episodes(episodes, config.held_out, np.random.default_rng(0))[1]
    except UserError as error:
        raise UserError(f"'{config.data}': {error}; give --held_out 0, or more data") from None


def state_changes(states: np.ndarray, last: np.ndarray, stride: int) -> np.ndarray:
    """The change of the states (F, S) over ``stride`` frames, or to the last frame of the part,
    ``last`` (F,): (F, S). The targets of ``FinetuneConfig.latent_control`` "state".
    """
    return states[np.minimum(np.arange(len(states)) + stride, last)] - states


def replaced(p: np.ndarray, control: str) -> np.ndarray:
    """Projected transitions p (F, P), or what ``FinetuneConfig.latent_control`` puts in their
    place.
    """
    if control == "random":
        return np.random.default_rng(0).standard_normal(p.shape, np.float32)
    return np.zeros_like(p) if control == "zeros" else p


class TrainingBatches:
    """Batches of the samples ``rows`` and of video, as arguments of ``policy``: a function of seed
    and step.

    All random draws are made for the whole batch, so that its samples are the same however many
    processes share them. Every batch has equally many samples of video. Each modality's loss is the
    mean over the samples that have a target in it.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        policy: JointPolicy,
        data: PolicySamples,
        rows: np.ndarray,
        videos: Sequence[SourceSamples] = (),
    ) -> None:
        self.config, self.policy = config, policy
        self.sources = [SourceSamples(data, rows, 1.0), *videos]

    def __call__(self, step: int, rank: int, ranks: int) -> dict:
        """This rank's share of the batch of optimiser step ``step``."""
        config, size = self.config, self.config.batch
        rng = step_rng(config.loop.seed, step)
        of, rows = self._draw(size, rng)
        data = self.sources[0].samples
        augmentation = data.draw_augmentation(size, config.augment, rng)
        noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
        drawn = self.policy.draw(size, config.draws, noise)
        share: dict = {}
        if len(self.sources) > 1:
            known = (of == 0) & (rng.random(size) >= config.unknown_state)
            share = {"known": torch.from_numpy(known), "shares": self._shares(of)}
        mine = np.arange(rank, size, ranks)
        parts, places = [], []
        for number, source in enumerate(self.sources):
            own = mine[of[mine] == number]
            if len(own):
                changes = {name: values[own] for name, values in augmentation.items()}
                parts.append(source.samples.batch(rows[own], changes))
                places.append(own)
        order = torch.from_numpy(np.argsort(np.concatenate(places)))
        batch = parts[0] if len(parts) == 1 else map_together(torch.cat, parts)
        batch = map_tensors(lambda values: values[order], batch) if len(parts) > 1 else batch
        return batch | shard_rows(share | {"drawn": drawn}, rank, ranks)

    def _draw(self, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """For each sample of a batch, the number of its source and its row there: (B,) each."""
        of = np.zeros(size, int)
        if len(self.sources) > 1:
            weights = np.array([source.weight for source in self.sources[1:]])
            count = min(max(1, round(self.config.video_share * size)), size - 1)
            chosen = rng.choice(len(weights), size=count, p=weights / weights.sum()) + 1
            # Spread evenly, so that processes and micro-batches get equally many.
            of[np.linspace(0, size - 1, count).round().astype(int)] = chosen
        rows = np.empty(size, int)
        for number, source in enumerate(self.sources):
            mine = of == number
            rows[mine] = source.rows[rng.integers(len(source.rows), size=int(mine.sum()))]
        return of, rows

    def _shares(self, of: np.ndarray) -> dict[str, Tensor]:
        """Modality -> weight of each sample's target, (B,), see ``PolicyNetwork.forward``. of:
        (B,), the number of each sample's source.
        """
        shares = {}
        for name in self.policy.layout.modalities:
            has = np.array(
                [
                    source.samples.labelled if name == ACTION else name in source.samples.latents
                    for source in self.sources
                ]
            )[of]
            shares[name] = torch.from_numpy((has * len(of) / max(1, has.sum())).astype(np.float32))
        return shares
