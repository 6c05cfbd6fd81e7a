"""Checks whether the rows and the videos of a LeRobot data set have the rate that meta/info.json
states, without decoding.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alam_core.data.checks.finding import Finding, episodes_called
from alam_core.data.faults import SAME_RATE
from alam_core.data.lerobot import LeRobotDataset
from alam_core.data.video.index import inspect_videos

RATE_ERROR = 0.1  # relative, of the usual time between two rows
STEP_ERROR = 0.5  # of a row, of the time between two rows


def rate_of_rows(dataset: LeRobotDataset) -> float:
    """Rows per second: as they are stamped, if that is clearly not as meta/info.json states."""
    steps = _Stamps(dataset).steps
    usual = float(np.median(steps)) if len(steps) else 0.0
    return 1 / usual if usual > 0 and _another_rate(usual, dataset.fps) else dataset.fps


def check_rate(
    dataset: LeRobotDataset, views: Sequence[str], unread: Collection[int] = ()
) -> tuple[list[Finding], list[str]]:
    """Findings about ``fps`` and about the ``timestamp`` of the rows, and those of the ``views``
    whose videos are at another rate for a reason that these findings name. unread: episodes whose
    stamps are ignored.
    """
    played = {view: rate for view in views if (rate := _rate_of_videos(dataset, view))}
    wrong = {view: rate for view, rate in played.items() if not _same(rate, dataset.fps)}
    stamps = _Stamps(dataset, unread)
    steps = stamps.steps
    usual = float(np.median(steps)) if len(steps) else 1 / dataset.fps
    if _another_rate(usual, dataset.fps):
        stamped = f"{1 / usual:.3g}" if usual > 0 else "no"
        alike = [view for view in wrong if usual > 0 and _same(wrong[view], 1 / usual)]
        videos = f", as the videos of {', '.join(alike)} are," if alike else ","
        return [
            Finding(
                "error",
                "timestamp",
                f"rows are stamped at {stamped} per second{videos} but meta/info.json says fps "
                f"{dataset.fps:g}: correct it, because policies act at this rate",
            )
        ], alike
    rates = list(wrong.values())
    if len(wrong) > 1 and len(wrong) == len(views) and all(_same(r, rates[0]) for r in rates):
        return [
            Finding(
                "error",
                "views " + ", ".join(map(repr, wrong)),
                f"their videos play at {rates[0]:.4g} frames per second, another rate than the "
                f"table's {dataset.fps:g} rows: correct fps in meta/info.json, or encode the "
                "videos again",
            )
        ], list(wrong)
    return _uneven(stamps, 1 / dataset.fps) + _late(stamps, 1 / dataset.fps), []


class _Stamps:
    """The ``timestamp`` of the rows of a data set, in s.

    steps, episodes: the time from each row to the next of its episode, and the episode, (N,) each.
    first: episode -> stamp of its first row.
    """

    def __init__(self, dataset: LeRobotDataset, unread: Collection[int] = ()) -> None:
        steps, numbers = [np.zeros(0)], [np.zeros(0, int)]
        self.first: dict[int, float] = {}
        for file in sorted((dataset.root / "data").glob("*/*.parquet")):
            try:
                table = pq.read_table(
                    file, columns=["episode_index", "timestamp"], partitioning=None
                ).combine_chunks()
                stamps = table["timestamp"].to_numpy().astype(np.float64).reshape(-1)
                episodes = table["episode_index"].to_numpy()
            except (pa.ArrowException, OSError, ValueError, KeyError):
                continue  # a file that is broken is found by reading states and actions
            read = ~np.isin(episodes, list(unread))
            stamps, episodes = stamps[read], episodes[read]
            within = episodes[1:] == episodes[:-1]
            steps.append(np.diff(stamps)[within])
            numbers.append(episodes[1:][within])
            found, places = np.unique(episodes, return_index=True)
            self.first |= dict(zip(found.tolist(), stamps[places].tolist(), strict=True))
        self.steps, self.episodes = np.concatenate(steps), np.concatenate(numbers)


def _late(stamps: _Stamps, step: float) -> list[Finding]:
    """A warning if the first row of some episodes is not stamped 0 s. step: s between rows."""
    late = {e: first for e, first in stamps.first.items() if not abs(first) <= STEP_ERROR * step}
    if not late:
        return []
    return [
        Finding(
            "warning",
            f"timestamp, {episodes_called(sorted(late))}",
            f"the first row is stamped {late[min(late)]:.3g} s, not 0 s: if rows were cut off, but "
            "no frames, rows and frames do not belong together; look, and restore the rows, or "
            "stamp them from 0 s on",
        )
    ]


def _uneven(stamps: _Stamps, wanted: float) -> list[Finding]:
    """A warning if some rows are not ``wanted`` s after the row before."""
    steps, episodes = stamps.steps, stamps.episodes
    off = ~(np.abs(steps - wanted) <= STEP_ERROR * wanted)
    if not off.any():
        return []
    worst = float(steps[off][np.abs(steps[off] - wanted).argmax()])
    return [
        Finding(
            "warning",
            f"timestamp, {episodes_called(np.unique(episodes[off]).tolist())}",
            f"{off.sum()} rows are not {wanted:.3g} s after the row before, but up to {worst:.3g} "
            "s: rows were lost while recording, and are read as if none were",
        )
    ]


def _rate_of_videos(dataset: LeRobotDataset, view: str) -> float:
    """Frames per second of the videos of a view; 0 if they differ."""
    names = [str(file.relative_to(dataset.root)) for file in dataset.video_files(view)]
    rates = [fact.fps for fact in inspect_videos(dataset.root, names) if fact.frames > 1]
    return rates[0] if rates and all(_same(rate, rates[0]) for rate in rates) else 0.0


def _another_rate(step: float, fps: float) -> bool:
    return abs(step * fps - 1) > RATE_ERROR


def _same(rate: float, other: float) -> bool:
    return abs(rate / other - 1) <= SAME_RATE
