"""The checks that the trainers make before they decode videos: all but those that take long."""

from collections.abc import Collection, Sequence

from alam_core.data.checks.episodes import check_episodes
from alam_core.data.checks.finding import Finding
from alam_core.data.checks.frames import check_frames, sample_frames
from alam_core.data.checks.numbers import check_numbers
from alam_core.data.checks.recorded import Recorded
from alam_core.data.checks.video import check_videos
from alam_core.data.faults import find_faults
from alam_core.data.frames import VideoSet


def quick_findings(
    dataset: VideoSet,
    views: Sequence[str] = (),
    recorded: Recorded | None = None,
    left_out: Collection[int] = (),
) -> list[Finding]:
    """Findings about the videos of ``views`` (none given: all), a few of their frames, and the
    numbers, if given. left_out: episodes that are not looked at. Nor are those with a broken video:
    the report of the training data (``DataReport``) names them.
    """
    named = {*dataset.views, *dataset.left_out}
    known = [view for view in views or dataset.views if view in named]
    if not known:
        return []  # opening the data for training refuses them
    findings = check_episodes(recorded) + check_numbers(recorded) if recorded else []
    broken = {e for view in known for e in find_faults(dataset, view)}
    samples, _ = sample_frames(dataset, known, left_out=left_out)
    videos = check_videos(dataset, known, {*left_out, *broken}, left_out)
    return findings + videos + check_frames(samples, recorded)
