"""The numbers and instructions of a data set in memory, for the checks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from alam_core.data.checks.finding import Finding, episodes_at_fault
from alam_core.data.checks.rate import rate_of_rows
from alam_core.data.lerobot import EpisodeArrays, LeRobotDataset
from alam_core.errors import UserError


@dataclass
class Recorded:
    """The episodes of a data set, by number, with the names of the columns of their states and
    actions. fps: rows per second, see ``rate_of_rows``. robot_type: as in meta/info.json.
    stated_tasks: episode -> its instructions as in meta/episodes, if they are known.
    """

    episodes: dict[int, EpisodeArrays]
    state_names: Sequence[str]
    action_names: Sequence[str]
    fps: float
    robot_type: str = ""
    stated_tasks: dict[int, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: LeRobotDataset, episodes: dict[int, EpisodeArrays]) -> Self:
        """Those ``episodes`` of a data set."""
        robot = str(dataset.info.get("robot_type") or "")
        rate = rate_of_rows(dataset)
        tasks = {e: dataset.stated_tasks(e) for e in episodes}
        return cls(episodes, dataset.state_names, dataset.action_names, rate, robot, tasks)

    def vectors(self) -> list[tuple[str, Sequence[str], list[np.ndarray]]]:
        """Name, names of columns, and one array (T, n) per episode, of the state and of the action;
        vectors without columns, and episodes without rows, are left out.
        """
        kept = [episode for episode in self.episodes.values() if len(episode.state)]
        both = (
            ("state", self.state_names, [episode.state for episode in kept]),
            ("action", self.action_names, [episode.action for episode in kept]),
        )
        return [vector for vector in both if len(vector[1]) and vector[2]]

    def numbers(self) -> list[int]:
        """The numbers of the episodes that ``vectors`` has, in its order."""
        return [e for e, episode in self.episodes.items() if len(episode.state)]


def read_recorded(
    dataset: LeRobotDataset, advance: Callable[[], object] = lambda: None
) -> tuple[Recorded, list[Finding]]:
    """All episodes that can be read, and an error if there are others. advance: called after
    each episode.
    """
    episodes: dict[int, EpisodeArrays] = {}
    broken: dict[int, str] = {}  # episode -> reason
    for e in range(dataset.num_episodes):
        try:
            episodes[e] = dataset.episode(e)
        except UserError as error:
            broken[e] = str(error)
        advance()
    return Recorded.of(dataset, episodes), episodes_at_fault(broken)
