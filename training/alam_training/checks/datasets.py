"""Checks a LeRobot data set or a folder of videos."""

from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from alam_core.data.checks import (
    Finding,
    FrameSample,
    Recorded,
    check_episodes,
    check_frames,
    check_numbers,
    check_videos,
    read_recorded,
    sample_frames,
)
from alam_core.data.checks.frames import episodes_looked_at
from alam_core.data.lerobot import Columns, LeRobotDataset, layout
from alam_core.data.lerobot.features import no_column
from alam_core.data.mixture import SourceConfig, open_dataset
from alam_core.data.video import VideoFolder
from alam_core.errors import UserError
from alam_core.robots.piper import JOINT_NAMES
from alam_core.robots.units import RANGES
from alam_training.checks.report import CheckReport

TASKS = 10  # listed, of the most frequent ones


def check_dataset(
    path: Path, columns: Columns, thorough: bool, console: Console
) -> tuple[CheckReport, Recorded | None, list[FrameSample]]:
    """The report; the numbers, if there are any; the frames that were looked at. A data set that
    cannot be opened is an error in the report.
    """
    report = CheckReport(str(path), "a data set")
    try:
        dataset = open_dataset(SourceConfig(str(path), images=columns.images), {})
        if isinstance(dataset, LeRobotDataset):
            dataset = LeRobotDataset(path, columns, {})
    except UserError as error:
        report.findings.append(Finding("error", "data set", str(error)))
        return report, None, []
    recorded = None
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        if isinstance(dataset, LeRobotDataset):
            task = progress.add_task("reading numbers", total=dataset.num_episodes)
            recorded, report.findings = read_recorded(dataset, lambda: progress.advance(task))
            described = LeRobotFacts(dataset)
            report.what, report.facts = described.what, described.facts | task_facts(recorded)
            report.columns = column_ranges(recorded)
            report.findings += check_episodes(recorded)
            report.findings += check_numbers(recorded)
            report.findings += [
                # Pretraining needs no columns; a name that was given must be there.
                Finding(
                    "note" if feature in (layout.STATE, layout.ACTION) else "error",
                    "columns",
                    no_column(dataset.root, dataset.features, option, feature),
                )
                for option, feature, names in (
                    ("state", columns.state, dataset.state_names),
                    ("action", columns.action, dataset.action_names),
                )
                if not names
            ]
        elif isinstance(dataset, VideoFolder):
            report.what = "a folder of videos"
            report.facts = {
                "episodes": f"{dataset.num_episodes} files",
                "frames": str(dataset.num_frames),
                "use": "pretraining; a policy needs states and actions too",
            }
        unread = set(range(dataset.num_episodes)) - (
            recorded.episodes.keys() if recorded else set()
        )
        report.findings += check_videos(dataset, unread=unread)
        total = len(dataset.views) * len(episodes_looked_at(dataset, thorough))
        decoding = progress.add_task("decoding frames", total=total)
        samples, undecoded = sample_frames(
            dataset, (), thorough, lambda: progress.advance(decoding)
        )
    report.findings += undecoded + check_frames(samples, recorded)
    return report, recorded, samples


class LeRobotFacts:
    """What a LeRobot data set is (``what``), and its counts, rate and views (``facts``)."""

    def __init__(self, dataset: LeRobotDataset) -> None:
        info = dataset.info
        self.what = f"a LeRobot data set, {info['codebase_version']}"
        lengths = [dataset.episode_length(e) for e in range(dataset.num_episodes)] or [0]
        seconds = dataset.num_frames / dataset.fps
        self.facts = {
            "robot": str(info.get("robot_type") or "not stated"),
            "episodes": f"{dataset.num_episodes}, of {min(lengths)} to {max(lengths)} rows "
            f"(median {np.median(lengths):g})",
            "rows": f"{dataset.num_frames} at {dataset.fps:g} per second: {_duration(seconds)}",
        }
        for key, feature in dataset.features.items():
            if feature["dtype"] == "video":
                size = "x".join(str(n) for n in feature.get("shape") or []) or "size not stated"
                self.facts[f"view {key.rpartition('.')[2]}"] = size


def task_facts(recorded: Recorded) -> dict[str, str]:
    """The number of instructions, and that of the episodes of the most frequent ones."""
    tasks = Counter(
        task for episode in recorded.episodes.values() for task in dict.fromkeys(episode.tasks)
    )
    facts = {"instructions": str(len(tasks))}
    for task, count in tasks.most_common(TASKS):
        facts[f"  '{task}'"] = f"{count} episode{'s' * (count > 1)}"
    if len(tasks) > TASKS:
        facts["  ..."] = f"{len(tasks) - TASKS} more"
    return facts


def column_ranges(recorded: Recorded) -> list[dict[str, str]]:
    """The range of each column of state and action, beside the arm's for the Piper's joints."""
    rows: dict[str, dict[str, str]] = {}
    for vector, names, arrays in recorded.vectors():
        for name, column in zip(names, np.concatenate(arrays).T, strict=True):
            blank = {"column": name, "state": "", "action": "", "arm": ""}
            finite = column[np.isfinite(column)]
            rows.setdefault(name, blank)[vector] = _range(finite) if len(finite) else "no numbers"
            if name in JOINT_NAMES:
                rows[name]["arm"] = _range(RANGES[JOINT_NAMES.index(name)])
    return list(rows.values())


def _range(values: np.ndarray) -> str:
    return f"{values.min():.3g} to {values.max():.3g}"


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
