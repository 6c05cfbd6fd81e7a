"""Checks of the videos of a data set against its table, without decoding: files that are broken,
short or at another rate, surplus frames, views that show no colours, and stamps.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from alam_core.data.checks.finding import Finding, episodes_at_fault
from alam_core.data.checks.rate import check_rate
from alam_core.data.faults import find_faults
from alam_core.data.frames import VideoSet
from alam_core.data.lerobot import LeRobotDataset
from alam_core.data.video.index import inspect_videos
from alam_core.errors import listing


def check_videos(
    dataset: VideoSet,
    views: Sequence[str] = (),
    left_out: Collection[int] = (),
    unread: Collection[int] = (),
) -> list[Finding]:
    """Findings about the video files of ``views`` (none given: all), and about the stamps of a
    LeRobot data set's rows. left_out: episodes whose broken videos are no finding. unread: episodes
    whose stamps are no finding, because their rows are broken.
    """
    findings: list[Finding] = []
    explained: list[str] = []
    if isinstance(dataset, LeRobotDataset):
        findings, explained = check_rate(dataset, views or dataset.views, unread)
    for view in views or dataset.views:
        if view in explained:
            continue
        faults = find_faults(dataset, view)
        told = {e: why for e, why in faults.items() if e not in left_out}
        findings += episodes_at_fault(told, f"view '{view}', ")
        if isinstance(dataset, LeRobotDataset) and not faults:
            findings += check_surplus(dataset, view)
    findings += [
        Finding("warning", f"view '{view}'", f"left out: {why}")
        for view, why in dataset.left_out.items()
        if view not in views
    ]
    if not dataset.views:
        findings.append(
            Finding("error", "views", "there is no camera view; record at least one camera")
        )
    if not isinstance(dataset, LeRobotDataset):
        findings += check_copies(
            [file for view in dataset.views for file in dataset.video_files(view)]
        )
    return findings


def check_copies(files: Sequence[Path]) -> list[Finding]:
    """Files with the same content. Only files of the same size are read."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for file in files:
        if file.is_file():
            by_size[file.stat().st_size].append(file)
    same: dict[bytes, list[Path]] = defaultdict(list)
    for alike in by_size.values():
        for file in alike if len(alike) > 1 else []:
            with file.open("rb") as opened:
                same[hashlib.file_digest(opened, "sha256").digest()].append(file)
    return [
        Finding(
            "warning",
            "episodes",
            f"the same video {len(copies)} times: "
            f"{listing('/'.join(file.parts[-2:]) for file in copies)}; it "
            "counts twice in training, and may be held out too; remove the copies",
        )
        for copies in same.values()
        if len(copies) > 1
    ]


def check_surplus(dataset: LeRobotDataset, view: str) -> list[Finding]:
    """Video files of a view that go on after their last episode."""
    files, root = dataset.video_files(view), dataset.root
    facts = inspect_videos(root, [str(file.relative_to(root)) for file in files])
    ends: dict[Path, float] = defaultdict(float)  # frame after the last that belongs to an episode
    for e in range(dataset.num_episodes):
        file, first = dataset.video_span(e, view)
        ends[file] = max(ends[file], first + dataset.episode_length(e))
    beyond = [
        (fact.frames - round(ends[file]), file) for file, fact in zip(files, facts, strict=True)
    ]
    surplus = [(count, file) for count, file in beyond if count > 1]
    if not surplus:
        return []
    count, file = max(surplus)
    return [
        Finding(
            "warning",
            f"view '{view}'",
            f"{len(surplus)} of {len(files)} videos have more frames than the table has rows, for "
            f"example '{file}' by {count}: if rows were lost, frames and rows do not belong "
            "together",
        )
    ]
