"""Reads the states, actions and instructions of a data set, except for the episodes left out.

F: frames of the data set, E: episodes, S: state width, A: action width.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from alam_core.data.checks import Recorded, wrong_units
from alam_core.data.frames import FrameStore
from alam_core.data.lerobot import EpisodeArrays, LeRobotDataset
from alam_core.errors import UserError
from alam_core.policy.samples import last_frames


@dataclass
class Demonstrations:
    """The rows of all episodes in sequence. Those of episodes that are left out are zero.

    They consist of parts, each of which follows one instruction: an episode, or a piece of one in
    which the instruction changes.
    """

    states: np.ndarray  # float32 (F, S)
    actions: np.ndarray  # float32 (F, A)
    tasks: np.ndarray  # int (F,), index in ``instructions``
    instructions: list[str]
    lengths: np.ndarray  # int (E,), frames of each episode

    def __post_init__(self) -> None:
        self.last = last_frames(self.lengths, self.tasks)  # (F,) last frame of each frame's part
        self._ends = np.unique(self.last) + 1
        self._starts = np.append(0, self._ends[:-1])

    def parts(self, left_out: Collection[int]) -> list[slice]:
        """The rows of each part, except for those of episodes that are left out."""
        episodes = np.repeat(np.arange(len(self.lengths)), self.lengths)
        return [
            slice(start, end)
            for start, end in zip(self._starts, self._ends, strict=True)
            if episodes[start] not in left_out
        ]

    def recorded(self, dataset: LeRobotDataset, left_out: Collection[int]) -> Recorded:
        """The rows by episode, for the checks, except for episodes that are left out."""
        texts = np.array(self.instructions, object)
        episodes, first = {}, 0
        for e, length in enumerate(self.lengths.tolist()):
            rows = slice(first, first + length)
            if e not in left_out:
                arrays = self.states[rows], self.actions[rows], texts[self.tasks[rows]]
                episodes[e] = EpisodeArrays(*arrays)
            first += length
        return Recorded.of(dataset, episodes)

    def cut(self, frames: FrameStore) -> FrameStore:
        """The same frames, with each part as an episode."""
        return FrameStore(frames.array, self._starts, self._ends - self._starts)


def labelled_episodes(dataset: LeRobotDataset, count: int, unusable: Collection[int]) -> list[int]:
    """The first ``count`` episodes of each instruction, by what meta/episodes states, except for
    the ``unusable`` ones: those that have labels in a study of few labels. No row is read.
    """
    kept: dict[tuple[str, ...], list[int]] = {}
    for e in range(dataset.num_episodes):
        own = kept.setdefault(tuple(dataset.stated_tasks(e)), [])
        if e not in unusable and len(own) < count:
            own.append(e)
    return sorted(e for own in kept.values() for e in own)


def read_demonstrations(
    dataset: LeRobotDataset, exclude: Collection[int], broken: dict[int, str]
) -> Demonstrations:
    """The rows of ``dataset`` but for the episodes in ``exclude`` and ``broken``. Further broken
    ones, those in wrong units among them, are added to ``broken``, with the reason.

    Raises UserError if no episode is left.
    """
    lengths = np.array([dataset.episode_length(e) for e in range(dataset.num_episodes)], int)
    starts = np.cumsum(lengths) - lengths
    states = np.zeros((lengths.sum(), len(dataset.state_names)), np.float32)
    actions = np.zeros((lengths.sum(), len(dataset.action_names)), np.float32)
    tasks = np.zeros(lengths.sum(), int)
    numbers: dict[str, int] = {}
    for e, (first, length) in enumerate(zip(starts, lengths, strict=True)):
        if e in exclude or e in broken:
            continue
        try:
            episode = dataset.episode(e)
        except UserError as error:
            broken[e] = str(error)
            continue
        robot = dataset.info.get("robot_type")
        faults = [
            f"{feature} in episode {e}: {fault}"
            for feature, names, values in (
                (dataset.columns.state, dataset.state_names, episode.state),
                (dataset.columns.action, dataset.action_names, episode.action),
            )
            if (fault := wrong_units(names, values, robot))
        ]
        if faults:
            broken[e] = faults[0]
            continue
        rows = slice(first, first + length)
        states[rows], actions[rows] = episode.state, episode.action
        tasks[rows] = [numbers.setdefault(text, len(numbers)) for text in episode.tasks]
    if not numbers:
        example = next(iter(broken.values()), "")
        raise UserError(
            f"no episode of '{dataset.root}' can be trained on: of {dataset.num_episodes}, "
            f"{len(broken)} are broken and {len(set(exclude))} excluded"
            + (f" (for example: {example})" if example else "")
        )
    return Demonstrations(states, actions, tasks, list(numbers), lengths)
