"""Makes the samples of stage 2 from a data set and a frozen encoder. Data and settings are checked
before any video is decoded.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate import PartialState

from alam_core.checkpoints import checkpoint_folder, checkpoint_hash
from alam_core.data.checks import quick_findings
from alam_core.data.faults import find_faults
from alam_core.data.frames import OnDemandFrames
from alam_core.data.instructions import plain
from alam_core.data.lerobot import LeRobotDataset
from alam_core.data.lerobot.features import no_column
from alam_core.data.mixture import VideoSource, decode
from alam_core.data.report import DataReport
from alam_core.errors import UserError
from alam_core.latent_action import TransitionEncoder
from alam_core.latent_action.cache import cached_latents
from alam_core.policy.backbone import Tokenizer, make_tokenizer
from alam_core.policy.config import PolicyConfig
from alam_core.policy.normalization import (
    LatentProjection,
    PolicyStats,
    chunk_rows,
    fit_policy_stats,
)
from alam_core.policy.pi0.text import FILE as TOKENIZER
from alam_core.policy.samples import PolicySamples
from alam_core.policy.small.text import WordTokenizer
from alam_training.demonstrations import labelled_episodes, read_demonstrations
from alam_training.findings import print_data_findings
from alam_training.stage2.batches import SourceSamples, held_out_episodes, replaced, state_changes
from alam_training.stage2.config import FinetuneConfig
from alam_training.stage2.video import load_videos, open_videos

PROJECTION_SAMPLES = 20_000  # latents the projection is fitted on
LEARNED_FROM = 64  # principal components that are the input of a learned projection


def load(
    config: FinetuneConfig,
) -> tuple[PolicyConfig, PolicySamples, Tokenizer, list[SourceSamples]]:
    """Open the data set and the sources of video without labels, decode their frames and encode
    their transitions unless cached, fit the normalisation to the data set. Broken episodes are left
    out; ``<run>/data_report.json`` names them.

    Raises UserError for data, an encoder or settings that do not fit together, and for more broken
    episodes than ``config.max_broken``.
    """
    broken: dict[int, str] = {}
    dataset = LeRobotDataset(config.data, config.columns, broken)
    _check_columns(config, dataset)
    views = config.views or list(dataset.views)
    if not views:
        raise UserError(f"'{config.data}' has no camera view: a policy needs at least one")
    _check_relative(config, dataset)
    model = replace(config.model, stateless=config.model.stateless or bool(config.video))
    own_change = config.latent_control == "state"
    policy_config = PolicyConfig(
        model,
        views,
        (config.latent_views or views) if config.encoder else views[:1] if own_change else [],
        len(dataset.state_names),
        list(dataset.action_names),
        config.relative_joints,
        1.0 / dataset.fps,
        state_names=list(dataset.state_names),
    )
    held_out = held_out_episodes(config, dataset.num_episodes)
    excluded = list(config.exclude)
    if config.labelled:
        kept = labelled_episodes(dataset, config.labelled, {*broken, *excluded})
        held_out = np.setdiff1d(held_out, kept)
        unread = np.setdiff1d(np.arange(dataset.num_episodes), [*kept, *held_out, *broken])
        excluded = sorted({*excluded, *unread.tolist()})
    videos = open_videos(config.videos, views, config.data, held_out.tolist())
    report = _report(config, dataset, views, broken, excluded, held_out)
    demonstrations = read_demonstrations(dataset, excluded, broken)
    report.update(0, broken)
    states, actions = demonstrations.states, demonstrations.actions
    tokenizer = make_tokenizer(config.model, _tokenizer_folder(config.weights))
    instructions = demonstrations.instructions
    seen = [text for video in videos for text in video.instructions]
    _check_tasks(config, tokenizer, [*instructions, *seen])
    words = tokenizer(instructions)
    relative = policy_config.relative()
    encoder = checkpoint_folder(config.encoder) if config.encoder else None
    stride = max(1, round(config.latent_seconds * dataset.fps))
    if policy_config.latent_views:
        policy_config.latent_dt = stride / dataset.fps if stride > 1 else 0.0
        policy_config.latent_width = config.latent_width or len(dataset.action_names)
        policy_config.latent_shape = [1, len(dataset.state_names)]
    if encoder is not None:
        transition = TransitionEncoder.from_pretrained(encoder)
        policy_config.latent_shape = list(transition.latent_shape)
        policy_config.latent_encoder = checkpoint_hash(encoder)
    for view in views:
        report.update(0, find_faults(dataset, view))

    if PartialState(cpu=config.loop.cpu).is_main_process:
        left_out = report.left_out(0)
        recorded = demonstrations.recorded(dataset, left_out)
        print_data_findings(quick_findings(dataset, views, recorded, left_out), config.data)
    size = config.model.image_size
    frames = {view: decode(dataset, view, size, broken) for view in views}
    native = {
        view: decode(dataset, view, transition.image_size, broken)
        for view in policy_config.latent_views
        if encoder is not None
    }
    report.update(0, broken)
    parts = demonstrations.parts(report.left_out(0))
    followed = {int(demonstrations.tasks[part.start]) for part in parts}
    policy_config.instructions = [instructions[i] for i in sorted(followed)]
    stats = fit_policy_stats(
        [states[part] for part in parts],
        [actions[part] for part in parts],
        config.model.horizon,
        relative,
        config.std_floor,
        config.normalise == "quantiles",
    )
    latents: dict[str, np.ndarray] = {}
    for view in policy_config.latent_views:
        if encoder is not None:
            cut = demonstrations.cut(native[view])
            z = cached_latents(encoder, view, cut, dataset.root / ".cache", stride)
        else:
            z = state_changes(states, demonstrations.last, stride)
        p = _projected(config, policy_config, stats, view, z, demonstrations.last, parts, stride)
        latents[view] = replaced(p, config.latent_control)
    if PartialState(cpu=config.loop.cpu).is_main_process:
        print("\n".join(report.summary()))
        report.write(config.run)
    return (
        policy_config,
        PolicySamples(
            frames,
            states,
            actions,
            words,
            demonstrations.tasks,
            latents,
            stats,
            relative,
            report.left_out(0),
            held_out.tolist(),
            stride=stride,
        ),
        tokenizer,
        load_videos(config, videos, policy_config, stats, tokenizer),
    )


def data_digest(data: PolicySamples) -> str:
    """16 hex digits that change with the lengths, states or actions of the episodes, and with those
    that are left out.
    """
    digest = hashlib.sha256()
    for array in (data.lengths, data.states, data.actions, np.array(data.left_out, int)):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _projected(
    config: FinetuneConfig,
    policy: PolicyConfig,
    stats: PolicyStats,
    view: str,
    z: np.ndarray,
    last: np.ndarray,
    parts: Sequence[slice],
    stride: int,
) -> np.ndarray:
    """Fit the projection of a view's transitions z (F, D) over ``stride`` frames, those in
    ``parts``, into ``stats``; returns all of them projected, (F, P). last (F,): last frame of each
    frame's part.
    """
    rows = np.concatenate([np.arange(part.start, part.stop) for part in parts])
    picked = np.random.default_rng(0).permutation(rows)[:PROJECTION_SAMPLES]
    learned = config.model.projection != "pca"
    width = min(LEARNED_FROM, z.shape[1]) if learned else policy.latent_width
    projection = LatentProjection.fit(z[np.sort(picked)], width, one_scale=learned)
    p = projection.project(np.asarray(z))
    if config.latent_targets == "cumulative":
        chunks = p[chunk_rows(picked, config.model.horizon, last[picked], stride)]
        projection = projection.cumulative(chunks, one_scale=learned)
    stats.latents[view] = projection
    return p


def _report(
    config: FinetuneConfig,
    dataset: LeRobotDataset,
    views: list[str],
    broken: dict[int, str],
    excluded: list[int],
    held_out: np.ndarray,
) -> DataReport:
    """The report of the run's data, before any row or video is read."""
    source = VideoSource(
        Path(config.data).resolve().name,
        [OnDemandFrames(dataset, view, config.model.image_size) for view in views],
        views=views,
        path=config.data,
        broken=broken,
        excluded=excluded,
    )
    return DataReport([source], [[]], [held_out.tolist()], config.max_broken)


def _tokenizer_folder(weights: str) -> Path:
    """The folder of pi0's weights, which may also contain the tokenizer. Raises UserError if it
    does not exist.
    """
    if not weights:
        return Path()
    folder = checkpoint_folder(weights, (TOKENIZER,))
    if not folder.exists():
        raise UserError(
            f"no weights at '{weights}': give a safetensors file, its folder, or a name on the "
            "model hub"
        )
    return folder.parent if folder.suffix == ".safetensors" else folder


def _check_columns(config: FinetuneConfig, dataset: LeRobotDataset) -> None:
    """Raises UserError unless the data set has the state and the action."""
    for option, feature, names in (
        ("state", config.state, dataset.state_names),
        ("action", config.action, dataset.action_names),
    ):
        if not names:
            raise UserError(no_column(dataset.root, dataset.features, option, feature))


def _check_relative(config: FinetuneConfig, dataset: LeRobotDataset) -> None:
    """Raises UserError unless each relative action and its state have the same index."""
    states, actions = list(dataset.state_names), list(dataset.action_names)
    for name in config.relative_joints:
        if name in states and name in actions and states.index(name) != actions.index(name):
            raise UserError(
                f"relative_joints: '{name}' is number {actions.index(name) + 1} of "
                f"'{config.data}'s action and number {states.index(name) + 1} of its state: "
                "write both in the same order"
            )


def _check_tasks(config: FinetuneConfig, tokenizer: Tokenizer, tasks: list[str]) -> None:
    """Raises UserError if an instruction is empty, or if the tokenizer cannot tell two apart."""
    if not all(map(plain, tasks)):
        raise UserError(
            f"'{config.data}' has episodes without an instruction: add one to each, for example "
            "with training/convert.py --task"
        )
    if isinstance(tokenizer, WordTokenizer) and (same := tokenizer.collisions(tasks)):
        raise UserError(
            f"the words {' and '.join(same[0])} of '{config.data}' have the same token "
            f"of {config.model.small.vocabulary}: give another --model.small.vocabulary, or a "
            "sentence encoder with --model.small.text"
        )
