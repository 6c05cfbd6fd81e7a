"""Checks of a few decoded frames of each view: blank and frozen frames, and two views that show
the same.

N: frames looked at of an episode, S: side of a small image.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from alam_core.data.checks.finding import Finding, episodes_at_fault, episodes_called
from alam_core.data.checks.recorded import Recorded
from alam_core.data.faults import find_faults
from alam_core.data.frames import DECODED_AT_ONCE, VideoSet
from alam_core.data.images import resize_images
from alam_core.errors import UserError, listing

SIDE = 96  # px of the images that are kept
BLOCKS = 24  # averages per side that are compared
EPISODES, FRAMES = 8, 6  # looked at unless everything is
BLANK = 4.0  # grey levels: an image that varies by less shows nothing
SAME = 8.0  # grey levels: less difference in every block is due to coding, not to a motion
MOVED = 0.25  # of a column's range; an arm that moves so far looks different


@dataclass
class FrameSample:
    """Frames of one view of one episode.

    rows: the frames (N,). blocks: averages over blocks of each frame, float16 (N, BLOCKS, BLOCKS,
    3). spread: standard deviation of each frame, (N,). images: a few of them, to show, uint8
    (n, S, S, 3).
    """

    view: str
    episode: int
    rows: np.ndarray
    blocks: np.ndarray
    spread: np.ndarray
    images: np.ndarray

    @classmethod
    def of(cls, view: str, e: int, rows: np.ndarray, parts: Iterable[np.ndarray]) -> Self:
        """The sample of the frames ``rows`` of episode e, given in parts uint8 (n, H, W, 3)."""
        kept = set(rows[evenly(len(rows), FRAMES)].tolist())
        blocks, spread, images, done = [], [], [], 0
        for part in parts:
            small = resize_images(part, SIDE)
            shape = (len(small), BLOCKS, SIDE // BLOCKS, BLOCKS, SIDE // BLOCKS, 3)
            blocks.append(small.reshape(shape).mean((2, 4), dtype=np.float32).astype(np.float16))
            spread.append(small.reshape(len(small), -1).std(1))
            here = rows[done : done + len(small)].tolist()
            images += [image for row, image in zip(here, small, strict=True) if row in kept]
            done += len(small)
        return cls(view, e, rows, np.concatenate(blocks), np.concatenate(spread), np.stack(images))


def sample_frames(
    dataset: VideoSet,
    views: Sequence[str] = (),
    thorough: bool = False,
    advance: Callable[[], object] = lambda: None,
    left_out: Collection[int] = (),
) -> tuple[list[FrameSample], list[Finding]]:
    """A few frames of a few episodes of each of ``views`` (none given: all), evenly spaced;
    thorough: all frames of all episodes. Also an error for a view with videos that cannot be
    decoded.

    advance: called after each episode of a view that is looked at (``episodes_looked_at``).
    left_out: episodes that are not looked at; nor are those whose file is at fault, which
    ``check_videos`` reports.
    """
    samples, findings = [], []
    for view in views or dataset.views:
        broken: dict[int, str] = {}
        skipped = {*left_out, *find_faults(dataset, view)}
        for e in episodes_looked_at(dataset, thorough).tolist():
            length = dataset.episode_length(e)
            if length > 0 and e not in skipped:
                rows = np.arange(length) if thorough else evenly(length, FRAMES)
                parts = (
                    dataset.frames(e, view, rows[i : i + DECODED_AT_ONCE])
                    for i in range(0, len(rows), DECODED_AT_ONCE)
                )
                try:
                    samples.append(FrameSample.of(view, e, rows, parts))
                except UserError as error:
                    broken[e] = str(error)
            advance()
        findings += episodes_at_fault(broken, f"view '{view}', ")
    return samples, findings


def episodes_looked_at(dataset: VideoSet, thorough: bool) -> np.ndarray:
    """The episodes of ``sample_frames``."""
    return evenly(dataset.num_episodes, dataset.num_episodes if thorough else EPISODES)


def evenly(count: int, wanted: int) -> np.ndarray:
    """At most ``wanted`` of 0 to count - 1, evenly spaced, with both ends."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(wanted, count)).round().astype(int))


def check_frames(samples: Sequence[FrameSample], recorded: Recorded | None = None) -> list[Finding]:
    """Findings about the frames of ``samples``. recorded: the states, if there are any, that tell
    whether the arm moved while the image did not.
    """
    findings = []
    by_view: dict[str, dict[int, FrameSample]] = {}
    for sample in samples:
        by_view.setdefault(sample.view, {})[sample.episode] = sample
    span = _span(recorded)
    for view, of_episode in by_view.items():
        blank: list[int] = []  # half of the frames or more
        partly: list[int] = []  # fewer of them
        frozen: list[int] = []  # although the arm moves
        still: list[int] = []  # where nothing tells whether the arm moves
        for e, sample in of_episode.items():
            if (sample.spread < BLANK).any():
                (blank if (sample.spread < BLANK).mean() >= 0.5 else partly).append(e)
            elif _frozen(sample, states := _states(recorded, e), span):
                (still if span is None or states is None else frozen).append(e)
        shown = f" ({_blank_rows(of_episode[partly[0]])})" if partly else ""
        for found, what in (
            (
                blank,
                "frames are black or of one colour: was the camera covered or off? Leave them out",
            ),
            (
                partly,
                f"some frames are black or of one colour{shown}: look at them; was the camera "
                "covered, or not ready yet?",
            ),
            (
                frozen,
                "frames are the same although the arm moves: did the camera stop? Leave them out",
            ),
            (
                still,
                "frames are the same from the first to the last: is it a still image? Leave them "
                "out",
            ),
        ):
            if found:
                findings.append(
                    Finding(
                        "error"
                        if len(found) == len(of_episode) and found is not partly
                        else "warning",
                        f"view '{view}', {episodes_called(found)}",
                        f"in {len(found)} of {len(of_episode)} episodes looked at, {what}",
                    )
                )
    views = list(by_view)
    for i, one in enumerate(views):
        for other in views[i + 1 :]:
            both = by_view[one].keys() & by_view[other].keys()
            if both and all(_equal(by_view[one][e], by_view[other][e]) for e in both):
                findings.append(
                    Finding(
                        "warning",
                        f"views '{one}' and '{other}'",
                        "they show the same frames: is one camera recorded twice? Leave one out",
                    )
                )
    return findings


def _blank_rows(sample: FrameSample) -> str:
    rows = sample.rows[sample.spread < BLANK].tolist()
    return f"row{'s' * (len(rows) > 1)} {listing(map(str, rows))} of episode {sample.episode}"


def _span(recorded: Recorded | None) -> np.ndarray | None:
    """Range of each column of the state, (S,); None without states."""
    states = [e.state for e in recorded.episodes.values() if len(e.state)] if recorded else []
    if not states or not states[0].shape[1]:
        return None
    return np.ptp(np.concatenate(states), axis=0)


def _states(recorded: Recorded | None, e: int) -> np.ndarray | None:
    return recorded.episodes[e].state if recorded and e in recorded.episodes else None


def _frozen(sample: FrameSample, states: np.ndarray | None, span: np.ndarray | None) -> bool:
    """Whether two frames, one after the other, are the same although the arm moved between them;
    without states: whether all frames are the same.
    """
    blocks = sample.blocks.astype(np.float32)
    if span is None or states is None or len(states) <= sample.rows.max():
        return len(blocks) > 1 and not (np.abs(blocks - blocks[0]) > SAME).any()
    moving = span > 1e-6
    last = 0  # the first of the frames that are the same
    for now in range(1, len(blocks)):
        if (np.abs(blocks[now] - blocks[last]) > SAME).any():
            last = now
            continue
        moved = np.abs(states[sample.rows[now]] - states[sample.rows[last]])[moving]
        if (moved > MOVED * span[moving]).any():
            return True
    return False


def _equal(one: FrameSample, other: FrameSample) -> bool:
    if one.rows.tolist() != other.rows.tolist():
        return False
    return not (np.abs(one.blocks - other.blocks) > SAME).any()
