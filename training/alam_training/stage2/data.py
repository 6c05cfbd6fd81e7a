"""Makes the samples of stage 2 from a data set and a frozen encoder. Data and settings are checked
before any video is decoded.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alam_core.checkpoints import checkpoint_folder, checkpoint_hash
from alam_core.data.frames import frame_store
from alam_core.data.lerobot.reader import LeRobotDataset
from alam_core.errors import UserError
from alam_core.latent_action import TransitionEncoder
from alam_core.latent_action.cache import adjacent_latents
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
from alam_training.stage2.config import FinetuneConfig

PROJECTION_SAMPLES = 20_000  # latents the projection is fitted on
LEARNED_FROM = 64  # principal components that are the input of a learned projection


def load(config: FinetuneConfig) -> tuple[PolicyConfig, PolicySamples, Tokenizer]:
    """Open the data set, decode its frames and encode its transitions unless cached, fit the
    normalisation.

    Raises UserError for data, an encoder or settings that do not fit together.
    """
    dataset = LeRobotDataset(config.data)
    if not dataset.action_names or not dataset.state_names:
        raise UserError(
            f"'{config.data}' has no actions or no state: a policy is trained on demonstrations "
            "that have both"
        )
    views = config.views or list(dataset.views)
    if not views:
        raise UserError(f"'{config.data}' has no camera view: a policy needs at least one")
    _check_relative(config, dataset)
    policy_config = PolicyConfig(
        config.model,
        views,
        (config.latent_views or views) if config.encoder else [],
        len(dataset.state_names),
        list(dataset.action_names),
        config.relative_joints,
        1.0 / dataset.fps,
    )
    episodes = [dataset.episode(e) for e in range(dataset.num_episodes)]
    states, actions, tasks = (
        [e.state for e in episodes],
        [e.action for e in episodes],
        [e.task for e in episodes],
    )
    _check_finite(config.data, "observation.state", dataset.state_names, states)
    _check_finite(config.data, "action", dataset.action_names, actions)
    tokenizer = make_tokenizer(config.model, _tokenizer_folder(config.weights))
    words = tokenizer(_checked_tasks(config, tokenizer, tasks))
    relative = policy_config.relative()
    stats = fit_policy_stats(
        states,
        actions,
        config.model.horizon,
        relative,
        config.std_floor,
        config.normalise == "quantiles",
    )
    encoder = checkpoint_folder(config.encoder) if config.encoder else None
    if encoder is not None:
        transition = TransitionEncoder.from_pretrained(encoder)
        policy_config.latent_width = config.latent_width or len(dataset.action_names)
        policy_config.latent_shape = list(transition.latent_shape)
        policy_config.latent_encoder = checkpoint_hash(encoder)

    frames = {view: frame_store(dataset, view, config.model.image_size) for view in views}
    latents: dict[str, np.ndarray] = {}
    if encoder is not None:
        for view in policy_config.latent_views:
            native = frame_store(dataset, view, transition.image_size)
            z = adjacent_latents(encoder, view, native, dataset.root / ".cache")
            latents[view] = _projected(
                config, policy_config, stats, view, z, [len(action) for action in actions]
            )
    return (
        policy_config,
        PolicySamples(
            frames, np.concatenate(states), np.concatenate(actions), words, latents, stats, relative
        ),
        tokenizer,
    )


def data_digest(data: PolicySamples) -> str:
    """16 hex digits that change with the lengths, states or actions of the episodes."""
    digest = hashlib.sha256()
    for array in (data.lengths, data.states, data.actions):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _projected(
    config: FinetuneConfig,
    policy: PolicyConfig,
    stats: PolicyStats,
    view: str,
    z: np.ndarray,
    lengths: Sequence[int],
) -> np.ndarray:
    """Fit the projection of a view's transitions z (F, D) into ``stats``; returns them projected,
    (F, P).
    """
    picked = np.random.default_rng(0).permutation(len(z))[:PROJECTION_SAMPLES]
    learned = config.model.projection != "pca"
    width = min(LEARNED_FROM, z.shape[1]) if learned else policy.latent_width
    projection = LatentProjection.fit(z[np.sort(picked)], width, one_scale=learned)
    p = projection.project(np.asarray(z))
    if config.latent_targets == "cumulative":
        last = np.repeat(np.cumsum(lengths) - 1, lengths)  # (F,) last frame of each frame's episode
        chunks = p[chunk_rows(picked, config.model.horizon, last[picked])]
        projection = projection.cumulative(chunks, one_scale=learned)
    stats.latents[view] = projection
    return p


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


def _check_finite(
    data: str, feature: str, names: Sequence[str], episodes: Sequence[np.ndarray]
) -> None:
    for number, values in enumerate(episodes):
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            raise UserError(
                f"'{data}': {feature} is not finite in episode {number}, row {row}, "
                f"'{names[column]}': repair or remove the episode"
            )


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


def _checked_tasks(config: FinetuneConfig, tokenizer: Tokenizer, tasks: list[str]) -> list[str]:
    """The instructions. Raises UserError if one is empty, or if the tokenizer cannot tell two of
    them apart.
    """
    if not all(task.strip() for task in tasks):
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
    return tasks
