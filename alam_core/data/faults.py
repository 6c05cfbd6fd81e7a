"""Episodes whose video cannot be trained on, found before training: broken files, and frames that
are not where the data set's rows say.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np

from alam_core.data.frames import VideoSet
from alam_core.data.lerobot.reader import LeRobotDataset
from alam_core.data.video.index import VideoFacts, frame_times, inspect_videos
from alam_core.errors import UserError

SLACK = 0.25  # of the time between rows: how far a frame may be from its row
SAME_RATE = 0.02  # rates that differ by less, relatively, drift apart instead


def find_faults(dataset: VideoSet, view: str) -> dict[int, str]:
    """Episode -> reason, for each episode whose video of ``view`` is missing, cut short or empty,
    cannot be shown, or has its frames at other times than the episode's rows. Only the first
    frame of each file is decoded. Raises UserError for a view that cannot be used.
    """
    dataset.check_view(view)
    files = dataset.video_files(view)
    names = [str(file.relative_to(dataset.root)) for file in files]
    facts = dict(zip(files, inspect_videos(dataset.root, names), strict=True))
    if not isinstance(dataset, LeRobotDataset):
        own = [facts[dataset.video_span(e, view)[0]].fault for e in range(dataset.num_episodes)]
        return {e: why for e, why in enumerate(own) if why}
    by_file: dict[Path, list[tuple[float, int]]] = defaultdict(list)  # first frame, episode
    faults = {}
    for e in range(dataset.num_episodes):
        if dataset.episode_length(e) < 1:  # also where the metadata of the episode are broken
            faults[e] = f"episode {e} of '{dataset.root}' has no frame"
        else:
            file, first = dataset.video_span(e, view)
            by_file[file].append((first, e))
    for file, spans in by_file.items():
        try:
            times = frame_times(file, facts[file])  # (F,)
        except UserError as error:
            faults |= {e: f"episode {e}: {error}" for _, e in spans}
            continue
        end, before = 0.0, -1  # of the episodes so far, and the one that ends there
        for first, e in sorted(spans):
            length = dataset.episode_length(e)
            why = _misplaced(times, first, length, dataset.fps, file, facts[file])
            if not why and first + 2 * SLACK < end:
                last = round(min(end, first + length)) - 1
                why = (
                    f"it and episode {before} both claim frames {round(first)} to {last} of "
                    f"'{file}': from_timestamp in meta/episodes is wrong; restore it"
                )
            if why:
                faults[e] = f"episode {e}: {why}"
            if first + length > end:
                end, before = first + length, e
    return dict(sorted(faults.items()))


def _misplaced(
    times: np.ndarray, first: float, length: int, fps: float, file: Path, facts: VideoFacts
) -> str:
    """What is wrong with the place of an episode in a video; "" if its frames are at its rows.

    times: when the video's frames are shown, in seconds (F,). first: when the episode begins there,
    in rows. length: its rows.
    """
    if not len(times):
        return facts.fault
    if len(times) > 1:
        steps = np.diff(times)
        rates = 1 / np.array([np.median(steps), steps.mean()])  # alike unless the rate varies
        if (np.abs(rates / fps - 1) > SAME_RATE).all():
            return (
                f"video '{file}' plays at {rates[0]:.4g} frames per second, another rate than "
                f"the table's {fps:g} rows: correct fps in meta/info.json, or encode the video "
                "again"
            )
    shown = times * fps  # in rows
    nearest = int(np.abs(shown - first).argmin())
    if first - shown[-1] > SLACK or nearest + length > len(times):
        needed = length + (nearest if first - shown[-1] <= SLACK else round(first))
        return facts.fault or f"video '{file}' has {len(times)} frames, {needed} are needed"
    off = shown[nearest : nearest + length] - first - np.arange(length)
    wrong = np.flatnonzero(np.abs(off) > SLACK)
    if not len(wrong):
        return ""
    row = int(wrong[0])
    due, there = (first + row) / fps, times[nearest + row]
    if row == 0 and nearest == 0:
        return (
            f"video '{file}' begins at {there:.2f} s, but the episode at {due:.2f} s: encode it "
            "again, so that it begins with its first frame"
        )
    if row == 0:
        return (
            f"it begins {due:.3f} s into video '{file}', between two frames (the nearest is at "
            f"{there:.3f} s): correct from_timestamp in meta/episodes"
        )
    return (
        f"row {row} is due {due:.2f} s into video '{file}', whose frame {nearest + row} is shown "
        f"at {there:.2f} s: its rate varies; encode it again at a constant {fps:g} per second"
    )
