"""Checks ROS 2 bags: their topics, and what ``alam convert`` would read of them."""

from dataclasses import replace

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
)
from alam_core.data.checks.frames import evenly
from alam_core.data.lerobot import EpisodeArrays
from alam_core.errors import UserError
from alam_training.checks.datasets import column_ranges, task_facts
from alam_training.checks.report import CheckReport
from alam_training.checks.topics import read_topics
from alam_training.converters.rosbag import open_rosbag
from alam_training.converters.source import BrokenEpisode, Request, SourceEpisode, unlike

READ = 3  # bags of a folder, unless all are wanted


def check_bags(
    request: Request, thorough: bool, console: Console
) -> tuple[CheckReport, Recorded | None, list[FrameSample]]:
    """The report, the numbers and the frames of the bags at ``request.folder``, of a few of them
    unless ``thorough``. A bag that cannot be read is an error in the report.
    """
    source = open_rosbag(request)
    bags = list(source.recordings)
    report = CheckReport(str(request.folder), f"{len(bags)} ROS 2 bag{'s' * (len(bags) > 1)}")
    numbers = evenly(len(bags), len(bags) if thorough else READ).tolist()
    if len(numbers) < len(bags):
        report.findings.append(
            Finding(
                "note",
                "bags",
                f"{len(numbers)} of {len(bags)} were read; --thorough true reads all",
            )
        )
    episodes: dict[int, SourceEpisode] = {}
    samples: list[FrameSample] = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading bags", total=2 * len(numbers))
        for number in numbers:
            recording = bags[number]
            path = request.folder / recording.name
            path = path if path.exists() else request.folder  # the folder itself is a bag
            before = len(report.findings)
            try:
                for topic in read_topics(path):
                    report.facts.setdefault(f"topic {topic.name}", topic.describe())
                    report.findings += topic.check()
                progress.advance(task)
                episodes[number] = recording.read()
            except (BrokenEpisode, UserError) as error:
                report.findings.append(Finding("error", "conversion", str(error)))
            if len(bags) > 1:
                report.findings[before:] = [
                    replace(finding, where=f"bag '{recording.name}', {finding.where}")
                    for finding in report.findings[before:]
                ]
            progress.advance(task)
    if not episodes:
        return report, None, []
    first = next(iter(episodes.values()))
    alike: dict[int, EpisodeArrays] = {}
    for number, episode in episodes.items():
        if difference := unlike(episode.columns, first.columns):
            report.findings.append(
                Finding(
                    "error",
                    f"bag '{bags[number].name}'",
                    f"{difference}: convert leaves it out; record the same joints in every bag",
                )
            )
            continue
        alike[number] = EpisodeArrays(
            episode.state, episode.action, np.full(len(episode.state), episode.task, object)
        )
        for view, images in episode.images.items():
            rows = np.arange(len(images))
            samples.append(FrameSample.of(view, number, rows, [images]))
    recorded = Recorded(alike, first.state_names, first.action_names, source.fps, source.robot_type)
    report.facts |= {
        "convert reads": f"{sum(len(e.state) for e in alike.values())} rows at {source.fps:g} per "
        f"second, views {', '.join(first.images)}",
        "state": ", ".join(first.state_names) or "none",
        "action": ", ".join(first.action_names) or "none",
    } | task_facts(recorded)
    report.columns = column_ranges(recorded)
    report.findings += [
        # A bag is one episode of many, and convert can give it an instruction.
        replace(finding, level="warning") if finding.where.startswith("episode") else finding
        for finding in check_episodes(recorded)
        if finding.where != "episodes"
    ]
    report.findings += check_numbers(recorded) + check_frames(samples, recorded)
    return report, recorded, samples
