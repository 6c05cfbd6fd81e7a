"""Labelled pairs of frames for grounded transitions (see ``alam_core.latent_action.grounding``).

L: pairs of a step, S: image side, A: action width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alam_core.data.mixture import SourceConfig, VideoSource
from alam_core.errors import UserError
from alam_core.latent_action.grounding import GroundingConfig
from alam_core.latent_action.triplets import GapConfig, TripletSampler
from alam_core.policy.normalization import relative_targets
from alam_training.stage1.actions import ActionProbeConfig, Labels, read_labels


@dataclass
class LabelledSource:
    """The labels of a source: normalised mean actions between any two of its frames."""

    labels: Labels
    relative: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(
        cls, labels: Labels, episodes: Sequence[int], config: GroundingConfig
    ) -> "LabelledSource":
        """episodes: those whose actions give the scale."""
        data = labels.demonstrations
        relative = np.isin(labels.action_names, config.relative_joints)
        rows = np.isin(np.repeat(np.arange(len(data.lengths)), data.lengths), episodes)
        own = data.actions[rows]
        own = relative_targets(own[:, None], data.states[rows], relative)[:, 0]
        sums = np.cumsum(data.actions, axis=0, dtype=np.float64)
        return cls(
            labels, relative, own.mean(0), own.std(0) + 1e-3, np.concatenate([0 * sums[:1], sums])
        )

    def actions(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Mean actions from rows ``first`` to rows ``second``, (L,) each: (L, A)."""
        mean = (self.sums[second] - self.sums[first]) / (second - first)[:, None]
        states = self.labels.demonstrations.states[first]
        return (
            relative_targets(mean[:, None], states, self.relative)[:, 0] - self.centre
        ) / self.scale


class LabelledPairs:
    """The pairs of each training step: a function of seed and step. ``cameras``: number of views of
    all sources with labels. ``width``: of the widest action. ``episodes``: how many have labels.
    """

    def __init__(
        self,
        configs: Sequence[SourceConfig],
        sources: Sequence[VideoSource],
        training: Sequence[np.ndarray],
        grounding: GroundingConfig,
        gaps: GapConfig,
        batch: int,
        seed: int,
    ) -> None:
        """training: the episodes of each source that may be trained on. Raises UserError if no
        source has labels.
        """
        samplers, self._sources = [], []
        self.episodes = 0
        for config, source, allowed in zip(configs, sources, training, strict=True):
            count = grounding.labelled or len(source.lengths)
            labels = read_labels(config, ActionProbeConfig(labelled=[count]), every=True)
            if labels is None:
                continue
            chosen = np.intersect1d(source.intact(allowed), labels.labelled[count])
            if len(chosen):
                self.episodes += len(chosen)
                samplers.append(TripletSampler(source.frames, chosen, gaps, source.stride))
                self._sources.append(LabelledSource.of(labels, chosen.tolist(), grounding))
        if not samplers:
            raise UserError(
                "grounding needs action labels, but no source has any: give a LeRobot data set "
                "with states and actions, or --grounding.weight 0"
            )
        self._sampler = TripletSampler.mix(samplers, [1.0] * len(samplers))
        self.cameras = len(self._sampler.views)
        self.width = max(len(source.centre) for source in self._sources)
        self._count, self._seed = max(1, round(grounding.pairs * batch)), seed

    def __call__(self, step: int, rank: int, ranks: int) -> dict[str, Tensor]:
        """This rank's pairs, the arguments of ``GroundedModel.forward`` after the triplets; the
        images are uint8 (L, S, S, 3).
        """
        views, rows = self._sampler.draw(self._count, np.random.default_rng([self._seed, step, 1]))
        views, rows = views[rank::ranks], rows[rank::ranks]
        actions = np.zeros((len(rows), self.width), np.float32)
        valid = np.zeros((len(rows), self.width), bool)
        for number, source in enumerate(self._sources):
            mine = self._sampler.sources[views] == number
            width = len(source.centre)
            actions[mine, :width] = source.actions(rows[mine, 0], rows[mine, 1])
            valid[mine, :width] = True
        images = [
            np.stack([self._sampler.views[v].array[row] for v, row in zip(views, at, strict=True)])
            for at in rows.T[:2]
        ]
        return {
            "first": torch.from_numpy(images[0]),
            "second": torch.from_numpy(images[1]),
            "camera": torch.from_numpy(views),
            "action": torch.from_numpy(actions),
            "valid": torch.from_numpy(valid),
        }
