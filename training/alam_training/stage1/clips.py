"""Held-out clips of the data a stage-1 run was trained on, for probes and pictures.

Letters: N clips, S image side.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alam_core.data.mixture import VideoSource, open_sources
from alam_core.errors import UserError
from alam_core.latent_action.probes import HORIZONS
from alam_training.stage1.config import PretrainConfig
from alam_training.stage1.data import check_same_episodes, split_source


@dataclass
class Clips:
    """Clips of one source (world): their frames at 0, k, ... 5k."""

    frames: np.ndarray  # uint8 RGB (6, N, S, S, 3)
    groups: np.ndarray  # int (N,), index of the view in ``views``
    views: list[str]


def held_out_clips(
    run: Path, trained: PretrainConfig, size: int, gap: int, most: int
) -> dict[str, Clips]:
    """Source -> at most ``most`` clips of its held-out episodes, evenly spread over views and
    episodes.

    run: folder of the run. trained: its settings. size: side of the frames in pixels. gap: k in
    frames, times each source's stride. Raises UserError if fewer than two clips of 5 gap + 1 frames
    fit into a source's held-out episodes, or if the data has grown or shrunk since the training.
    """
    sources = open_sources(trained.sources, size, trained.cache)
    check_same_episodes(run, sources)
    worlds = {}
    for source in sources:
        _, held_out = split_source(source, trained.held_out)
        worlds[source.name] = spread_clips(source, source.intact(held_out), gap, most)
    return worlds


def spread_clips(source: VideoSource, episodes: np.ndarray, gap: int, most: int) -> Clips:
    """At most ``most`` clips of a source, equally many of each view, evenly spread over all places
    in ``episodes`` where a clip fits.

    Raises UserError if fewer than two clips fit: z could not be shuffled between clips.
    """
    step = gap * source.stride
    span = HORIZONS * step
    parts, groups = [], []
    for number, frames in enumerate(source.frames):
        fitting = [
            frames.starts[e] + np.arange(frames.lengths[e] - span)
            for e in episodes
            if frames.lengths[e] > span
        ]
        if not fitting:
            raise UserError(
                f"no held-out episode of '{source.name}' has the {span + 1} frames of a clip: "
                "choose a smaller --gap"
            )
        places = np.concatenate(fitting)
        share = most // len(source.frames) + (number < most % len(source.frames))
        picked = np.linspace(0, len(places) - 1, min(share, len(places))).round().astype(int)
        first = places[np.unique(picked)]
        parts.append(np.stack([frames.array[first + t * step] for t in range(HORIZONS + 1)]))
        groups.append(np.full(len(first), number))
    clips = Clips(np.concatenate(parts, axis=1), np.concatenate(groups), list(source.views))
    if len(clips.groups) < 2:
        raise UserError(
            f"the held-out episodes of '{source.name}' contain only one clip of {span + 1} "
            "frames: hold out more episodes with --held_out"
        )
    return clips
