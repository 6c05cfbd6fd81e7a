"""The triplets of stage 1: training and held-out episodes, and the report of episodes that were
left out.
"""

import json
from pathlib import Path

import numpy as np
from torch import Tensor

from alam_core.data.frames import OnDemandFrames
from alam_core.data.mixture import VideoSource
from alam_core.data.report import REPORT, DataReport
from alam_core.errors import UserError
from alam_core.latent_action.triplet_reader import TripletReader
from alam_core.latent_action.triplets import GapConfig, TripletSampler, frames_needed
from alam_training.splits import split_episodes
from alam_training.stage1.config import PretrainConfig

TRIPLETS = "triplets"
TripletBatch = dict[str, Tensor]
"""``TRIPLETS``: frames a, b, c, uint8 (3, B, S, S, 3); the rest: see ``LabelledPairs``."""


def split_source(source: VideoSource, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of a source's training and held-out episodes, the same in every run. Raises UserError
    if it cannot be split.
    """
    episodes = len(source.lengths)
    try:
        return split_episodes(episodes, share, np.random.default_rng([0, episodes]))
    except UserError as error:
        raise UserError(f"{source.name}: {error}") from None


def too_short(source: VideoSource, gaps: GapConfig) -> list[int]:
    """Indices of the intact episodes that have fewer frames than a triplet needs."""
    short = np.flatnonzero(source.lengths < frames_needed(gaps, source.stride))
    return [int(e) for e in source.intact(short)]


def training_triplets(
    config: PretrainConfig,
    sources: list[VideoSource],
    training: list[np.ndarray],
    report: DataReport,
) -> TripletReader:
    """Reader of the training batches, drawn from the ``training`` episodes of each source by the
    sources' weights. Raises UserError if a source has no episode to draw from.
    """
    samplers = []
    for source, episodes in zip(sources, training, strict=True):
        try:
            samplers.append(
                TripletSampler(source.frames, source.included(episodes), config.gaps, source.stride)
            )
        except UserError as error:
            raise UserError(f"{source.name}: {error}") from None
    sampler = TripletSampler.mix(samplers, [source.weight for source in sources])
    on_demand = any(isinstance(frames, OnDemandFrames) for frames in sampler.views)
    workers = config.workers if on_demand else 0
    broken = [set(source.broken) for source in sources]
    return TripletReader(sampler, config.batch, config.loop.seed, broken, workers, report.add)


def shard_triplets(batch: TripletBatch, index: int, count: int) -> TripletBatch:
    """Triplets index, index + count, ... of a batch, and as many of its labelled pairs."""
    return {
        name: values[:, index::count] if name == TRIPLETS else values[index::count]
        for name, values in batch.items()
    }


def held_out_triplets(
    config: PretrainConfig, report: DataReport, number: int, episodes: np.ndarray
) -> np.ndarray:
    """Triplets of the held-out ``episodes`` of ``report.sources[number]``, ``probe_gap`` strides
    apart: uint8 (3, B, S, S, 3). Episodes that turn out broken go into ``report``.

    Raises UserError if no held-out episode can be read or is long enough.
    """
    source, gaps = report.sources[number], GapConfig("fixed", config.probe_gap)
    intact = source.intact(episodes)
    if not len(intact):
        raise UserError(
            f"{source.name}: all {len(episodes)} held-out episodes are broken or excluded: restore "
            "them, or hold out more with --held_out"
        )
    try:
        sampler = TripletSampler(source.frames, intact, gaps, source.stride)
    except UserError:
        raise UserError(
            f"{source.name}: no held-out episode has the {frames_needed(gaps, source.stride)} "
            f"frames that metrics at --probe_gap {config.probe_gap} need: choose a smaller one, or "
            "hold out more with --held_out"
        ) from None
    triplets = []
    for view, rows in zip(*sampler.evenly_spaced(config.probe_triplets), strict=True):
        try:
            triplets.append(sampler.views[view].array[rows])
        except UserError as error:
            report.add(number, sampler.episode(view, rows[0]), str(error))
    if not triplets:
        raise UserError(f"{source.name}: no held-out episode can be read; restore the data")
    return np.stack(triplets, axis=1)


def check_same_episodes(run: Path, sources: list[VideoSource]) -> None:
    """Raises UserError if a source has more or fewer episodes than when ``run`` was trained: the
    held-out set would then contain episodes that it was trained on.
    """
    try:
        before = {
            row["path"]: row["episodes"]
            for row in json.loads((run / REPORT).read_text())["sources"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        return  # no report to compare with
    for source in sources:
        episodes = len(source.lengths)
        if before.get(source.path, episodes) != episodes:
            raise UserError(
                f"'{source.path}' had {before[source.path]} episodes when '{run}' was trained and "
                f"has {episodes} now, which changes the held-out set: restore the data, or train "
                "again in another run folder"
            )
