"""What is wrong with a data set: findings, which ``alam check`` and the trainers print."""

from alam_core.data.checks.episodes import check_episodes
from alam_core.data.checks.finding import Finding, Level
from alam_core.data.checks.frames import FrameSample, check_frames, sample_frames
from alam_core.data.checks.numbers import check_numbers
from alam_core.data.checks.quick import quick_findings
from alam_core.data.checks.recorded import Recorded, read_recorded
from alam_core.data.checks.units import wrong_units
from alam_core.data.checks.video import check_videos

__all__ = [
    "Finding",
    "Level",
    "FrameSample",
    "Recorded",
    "check_episodes",
    "check_numbers",
    "check_frames",
    "check_videos",
    "quick_findings",
    "read_recorded",
    "sample_frames",
    "wrong_units",
]
