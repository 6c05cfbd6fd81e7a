"""LeRobot data sets on disk: a reader (versions 3.0, 2.1 and 2.0) and a writer (version 3.0)."""

from alam_core.data.lerobot.features import Columns
from alam_core.data.lerobot.reader import EpisodeArrays, LeRobotDataset
from alam_core.data.lerobot.writer import LeRobotWriter

__all__ = ["Columns", "EpisodeArrays", "LeRobotDataset", "LeRobotWriter"]
