"""The action probe of a transition model, on the labels of a data set: how well the action can be
read from its transitions.

F: frames of the data set, E: episodes, N: spans.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from alam_core.data.lerobot import Columns, LeRobotDataset
from alam_core.data.mixture import SourceConfig, VideoSource
from alam_core.errors import UserError
from alam_core.latent_action.action_probe import Spans
from alam_core.latent_action.inference import encode_images
from alam_core.latent_action.interface import TransitionEncoder
from alam_core.policy.normalization import relative_targets
from alam_training.demonstrations import Demonstrations, labelled_episodes, read_demonstrations

AT_ONCE = 2048  # spans whose frames are in memory at the same time


@dataclass
class ActionProbeConfig:
    """How to probe transitions for actions.

    Args:
        labelled: numbers of labelled episodes of each instruction; the probe is fitted on them and
            tested on all other episodes. Numbers that leave none to test on are left out. By view
            and by dimension, the first number is taken. Empty: no probe.
        span: frames between the start and the end of a transition, times the source's stride.
        width: principal components of each view's transitions that are used.
        most: spans of the labelled episodes, and of the others, that are used at most; 0: all.
        relative_joints: action dimensions that are taken as differences to the state at the start
            of the span, as in training/finetune.py.
    """

    labelled: list[int] = field(default_factory=lambda: [10, 5, 20, 100])
    span: int = 8
    width: int = 8
    most: int = 0
    relative_joints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.span < 1 or self.width < 1 or self.most < 0 or min(self.labelled, default=1) < 1:
            raise UserError(
                "actions: span, width and the numbers in labelled must be at least 1, most must "
                "not be negative"
            )


@dataclass
class Labels:
    """The labels of a source: its rows, and the labelled episodes for each number of them."""

    demonstrations: Demonstrations
    action_names: Sequence[str]
    state_names: Sequence[str]
    left_out: Collection[int]
    labelled: dict[int, list[int]]


def read_labels(
    source: SourceConfig, config: ActionProbeConfig, every: bool = False
) -> Labels | None:
    """The labels of a source; None for video without states and actions, and, unless ``every``
    episode may be labelled, if fewer than two would be labelled or left to test on.
    """
    if not (Path(source.path) / "meta").is_dir():  # a folder of videos
        return None
    broken: dict[int, str] = {}
    dataset = LeRobotDataset(source.path, Columns(images=source.images), broken)
    if not dataset.action_names or not dataset.state_names:
        return None
    demonstrations = read_demonstrations(dataset, source.exclude, broken)
    left_out = {*broken, *source.exclude}
    labelled = {}
    for count in config.labelled:
        chosen = labelled_episodes(dataset, count, left_out)
        if every or 2 <= len(chosen) <= dataset.num_episodes - len(left_out) - 2:
            labelled[count] = chosen
    if not labelled:
        return None
    names = dataset.action_names, dataset.state_names
    return Labels(demonstrations, *names, left_out, labelled)


def action_spans(
    model: TransitionEncoder, source: VideoSource, labels: Labels, config: ActionProbeConfig
) -> Spans:
    """The spans of a source with the transitions of ``model``, for ``action_probe``. The frames of
    ``source`` have the size that ``model`` takes.
    """
    rows = _rows(labels, config.span * source.stride, config.most)
    ends = rows + config.span * source.stride
    data = labels.demonstrations
    latents = {
        view: np.concatenate(
            [
                encode_images(model, frames.array[rows[part]], frames.array[ends[part]])
                for part in np.array_split(np.arange(len(rows)), len(rows) // AT_ONCE + 1)
            ]
        )
        for view, frames in zip(source.views, source.frames, strict=True)
    }
    sums = np.cumsum(data.actions, axis=0, dtype=np.float64)
    sums = np.concatenate([np.zeros((1, sums.shape[1])), sums])
    relative = np.isin(labels.action_names, config.relative_joints)
    actions = (sums[ends] - sums[rows]) / (ends - rows)[:, None]
    episode = np.repeat(np.arange(len(data.lengths)), data.lengths)
    return Spans(
        data.states[rows],
        data.states[ends] - data.states[rows],
        relative_targets(actions[:, None], data.states[rows], relative)[:, 0],
        data.tasks[rows],
        episode[rows],
        latents,
    )


def _rows(labels: Labels, span: int, most: int) -> np.ndarray:
    """First frames of the spans to use: int (N,), ascending."""
    data = labels.demonstrations
    episode = np.repeat(np.arange(len(data.lengths)), data.lengths)
    rows = np.arange(len(episode))
    rows = rows[(rows + span <= data.last) & ~np.isin(episode, list(labels.left_out))]
    if not most:
        return rows
    known = np.isin(episode[rows], labels.labelled[max(labels.labelled)])
    parts = [part[:: -(-len(part) // most)] for part in (rows[known], rows[~known])]
    return np.sort(np.concatenate(parts))
