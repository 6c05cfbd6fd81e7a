"""Checks of the videos of a data set against its table, without decoding: broken and short files,
rates, surplus frames, episodes that share frames, and stamps.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alam_core.data.checks.finding import Finding, episodes_at_fault, episodes_called, numbered
from alam_core.data.frames import VideoSet
from alam_core.data.lerobot import LeRobotDataset
from alam_core.data.mixture import find_faults
from alam_core.data.video.index import inspect_videos

RATE_ERROR = 0.01  # relative, of a video's rate
STEP_ERROR = 0.5  # of a row, of the time between two rows


def check_videos(
    dataset: VideoSet, views: Sequence[str] = (), left_out: Collection[int] = ()
) -> list[Finding]:
    """Findings about the video files of ``views`` (none given: all), and about the stamps of a
    LeRobot data set's rows. left_out: episodes whose broken videos are no finding.
    """
    findings = []
    for view in views or dataset.views:
        faults = find_faults(dataset, view)
        told = {e: why for e, why in faults.items() if e not in left_out}
        findings += episodes_at_fault(told, f"view '{view}', ")
        if isinstance(dataset, LeRobotDataset):
            findings += check_against_rows(dataset, view, set(faults))
    if not dataset.views:
        findings.append(
            Finding("error", "views", "there is no camera view; record at least one camera")
        )
    if isinstance(dataset, LeRobotDataset):
        findings += check_stamps(dataset)
    else:
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
            f"the same video {len(copies)} times: {numbered(file.name for file in copies)}; it "
            "counts twice in training, and may be held out too; remove the copies",
        )
        for copies in same.values()
        if len(copies) > 1
    ]


def check_against_rows(dataset: LeRobotDataset, view: str, broken: set[int]) -> list[Finding]:
    """Video files of a view with another rate than the table, or with frames that belong to no
    episode or to two. broken: episodes that are already known to be.
    """
    where, root = f"view '{view}'", dataset.root
    files = dataset.video_files(view)
    facts = inspect_videos(root, [str(file.relative_to(root)) for file in files])
    spans: dict[Path, list[tuple[int, int, int]]] = defaultdict(list)  # first, after the last, e
    for e in set(range(dataset.num_episodes)) - broken:
        file, first = dataset.video_span(e, view)
        spans[file].append((first, first + dataset.episode_length(e), e))
    findings, other_rate, surplus = [], [], []
    for file, fact in zip(files, facts, strict=True):
        if spans[file] and fact.fps and abs(fact.fps / dataset.fps - 1) > RATE_ERROR:
            other_rate.append((file, fact.fps))
        ordered = sorted(spans[file])
        for (_, end, one), (first, _, other) in zip(ordered, ordered[1:], strict=False):
            if first < end:
                findings.append(
                    Finding(
                        "error",
                        f"{where}, episodes {one} and {other}",
                        f"both claim frames {first} to {end - 1} of '{file}': their positions in "
                        "meta/episodes are wrong; restore it",
                    )
                )
        beyond = fact.frames - max((end for _, end, _ in ordered), default=fact.frames)
        if beyond > 1 and not broken:
            surplus.append((beyond, file))
    if other_rate:
        file, fps = other_rate[0]
        findings.append(
            Finding(
                "error",
                where,
                f"{len(other_rate)} of {len(files)} videos play at another rate than the table's "
                f"{dataset.fps:g} rows per second, for example '{file}' at {fps:g}: pictures and "
                "rows drift apart; encode the video again at the table's rate",
            )
        )
    if surplus:
        count, file = max(surplus)
        findings.append(
            Finding(
                "warning",
                where,
                f"{len(surplus)} of {len(files)} videos have more frames than the table has rows, "
                f"for example '{file}' by {count}: if rows were lost, pictures and rows do not "
                "belong together",
            )
        )
    return findings


def check_stamps(dataset: LeRobotDataset) -> list[Finding]:
    """Rows whose ``timestamp`` does not advance by 1 / fps."""
    wanted = 1 / dataset.fps
    steps, numbers = [], []
    for file in sorted((dataset.root / "data").glob("*/*.parquet")):
        try:
            table = pq.read_table(
                file, columns=["episode_index", "timestamp"], partitioning=None
            ).combine_chunks()
            stamps = table["timestamp"].to_numpy().astype(np.float64).reshape(-1)
            episodes = table["episode_index"].to_numpy()
        except (pa.ArrowException, OSError, ValueError, KeyError):
            continue  # a file that is broken is found by reading states and actions
        within = episodes[1:] == episodes[:-1]
        steps.append(np.diff(stamps)[within])
        numbers.append(episodes[1:][within])
    if not steps or not len(all_steps := np.concatenate(steps)):
        return []
    all_numbers = np.concatenate(numbers)
    usual = float(np.median(all_steps))
    if abs(usual / wanted - 1) > 10 * RATE_ERROR:
        rate = f"{1 / usual:.3g}" if usual > 0 else "no"
        return [
            Finding(
                "error",
                "timestamp",
                f"rows are stamped at {rate} per second, but meta/info.json says fps "
                f"{dataset.fps:g}: correct it, because policies act at this rate",
            )
        ]
    off = ~(np.abs(all_steps - wanted) <= STEP_ERROR * wanted)
    if not off.any():
        return []
    worst = float(all_steps[off][np.abs(all_steps[off] - wanted).argmax()])
    return [
        Finding(
            "warning",
            f"timestamp, {episodes_called(np.unique(all_numbers[off]).tolist())}",
            f"{off.sum()} rows are not {wanted:.3g} s after the row before, but up to {worst:.3g} "
            "s: rows were lost while recording, and are read as if none were",
        )
    ]
