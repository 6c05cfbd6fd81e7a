"""Held-out clips of the data a stage-1 run was trained on, for probes and pictures.

Letters: N clips, S image side.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from alam_core.config import from_dict
from alam_core.data.mixture import VideoSource, open_sources
from alam_core.errors import UserError
from alam_core.latent_action.probes import HORIZONS
from alam_core.latent_action.triplets import split_episodes
from alam_training.commands.pretrain import PretrainConfig, check_unchanged
from alam_training.loop.state import STATE_FILE


@dataclass
class Clips:
    """Clips of a world, seen at 0, k, .. 5k."""

    frames: np.ndarray  # uint8 RGB (6, N, S, S, 3)
    groups: np.ndarray  # int (N,), number of the view in ``views``
    views: list[str]


def run_config(run: Path) -> PretrainConfig:
    """How a run was trained. Raises UserError where its folder does not say."""
    path = run / STATE_FILE
    try:
        with safe_open(path, "pt") as file:
            identity = json.loads(file.metadata()["run"])["identity"]
        return from_dict(PretrainConfig, {**identity["run"], "loop": identity["loop"]}, str(path))
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise UserError(
            f"'{run}' does not say what it was trained on ({error}): give a run folder of training/pretrain.py"
        ) from None


def data_identity(trained: PretrainConfig) -> dict[str, object]:
    """What tells one set of held-out episodes from another."""
    return {
        "sources": [dataclasses.asdict(source) for source in trained.sources],
        "held_out": trained.held_out,
    }


def trained_frames(trained: PretrainConfig) -> int:
    """The largest span of a training triplet, in frames (of a source with stride 1)."""
    return 2 * trained.gaps.frames


def held_out_clips(
    run: Path, trained: PretrainConfig, size: int, gap: int, most: int
) -> dict[str, Clips]:
    """Source -> at most ``most`` clips at ``size`` px, evenly spread over its views and over the
    episodes that training left out.

    gap: k in frames, times each source's stride. Raises UserError where fewer than two clips of 5
    gap + 1 frames fit into a source's, and where the data has grown or shrunk since ``run``, which
    was trained as ``trained`` says.
    """
    worlds = {}
    sources = open_sources(trained.sources, size, trained.cache)
    check_unchanged(run, sources)
    for source in sources:
        _, held = split_episodes(
            len(source.lengths), trained.held_out
        )  # as training/pretrain.py does
        worlds[source.name] = spread_clips(source, source.without_broken(held), gap, most)
    return worlds


def spread_clips(source: VideoSource, episodes: np.ndarray, gap: int, most: int) -> Clips:
    """At most ``most`` clips of a source, as many of each view, evenly spread over all places where
    they fit into ``episodes``.

    Raises UserError where fewer than two fit: a z could not be shuffled.
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
                f"no held-out episode of '{source.name}' has the {span + 1} frames of a clip: choose a smaller --gap"
            )
        places = np.concatenate(fitting)
        share = most // len(source.frames) + (number < most % len(source.frames))
        first = places[
            np.unique(np.linspace(0, len(places) - 1, min(share, len(places))).round().astype(int))
        ]
        parts.append(np.stack([frames.array[first + t * step] for t in range(HORIZONS + 1)]))
        groups.append(np.full(len(first), number))
    clips = Clips(np.concatenate(parts, axis=1), np.concatenate(groups), list(source.views))
    if len(clips.groups) < 2:
        raise UserError(
            f"the held-out episodes of '{source.name}' hold one clip of {span + 1} frames: hold out more"
        )
    return clips
