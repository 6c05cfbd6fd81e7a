"""Stage 2: train a policy on a LeRobot data set, generating frozen latent transitions beside the actions (Section 3.3)."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor, nn

from alam_core.checkpoints import checkpoint_hash
from alam_core.config import parse_args, to_dict
from alam_core.data.frames import frame_store
from alam_core.data.latent_cache import adjacent_latents
from alam_core.data.lerobot import LeRobotDataset
from alam_core.data.normalization import LatentProjection, fit_policy_stats
from alam_core.data.policy_data import AugmentConfig, PolicyData
from alam_core.errors import UserError, run_main
from alam_core.latent_action import TransitionModel
from alam_core.policy.backbone import Tokenizer
from alam_core.policy.config import ModelConfig, PolicyConfig
from alam_core.policy.joint import JointPolicy, make_tokenizer
from alam_core.policy.sequence import ACTION
from training.evaluate import EvaluateConfig, episodes
from training.parallel import take_leave
from training.train_loop import LoopConfig, command_line, every_nth, step_rng, train

INTRODUCTION = """Train a policy on demonstrations (stage 2). It needs a LeRobot data set and, to generate latents, a transition model.

  python training/finetune.py --config training/configs/finetune_piper.yaml        with ALAM's latents (needs runs/pretrain_piper/model)
  python training/finetune.py --config training/configs/finetune_piper_none.yaml   the same policy without latents
  ... --data path/to/dataset --run runs/mine --loop.steps 2000                      other data, shorter
  python training/finetune.py --help                                                every option

No data yet? training/collect.py makes demonstrations. No transition model? training/pretrain.py makes one.
Watch a run: tensorboard --logdir runs. Ctrl-C saves; the same command goes on. Then: python training/evaluate.py --policy <run>/policy"""

PROJECTION_SAMPLES = 20_000  # latents the projection is fitted on
LEARNED_FROM = 64  # principal components that a learned projection starts from


@dataclass
class RolloutConfig:
    """Episodes played in a world during training, on validation seeds. They cost time: none by default.

    Args:
        episodes: how many at each evaluation; 0 plays none.
        world: name of the world.
        first_seed: seed of the first episode.
        workers: processes that play them; 0 plays in the training process.
    """

    episodes: int = 0
    world: str = "piper_place"
    first_seed: int = 500
    workers: int = 0


@dataclass
class FinetuneConfig:
    """A policy training run.

    Args:
        data: folder of a LeRobot data set.
        run: folder for logs, the training state and, at the end, the policy in <run>/policy.
        encoder: folder of a frozen transition model whose latents are generated beside the actions; none if empty.
        weights: published pi0 weights to begin from, a safetensors file or the folder that holds it and tokenizer.json; none if empty.
        views: cameras the policy sees; none given means all that the data set has.
        latent_views: views whose latents are generated; none given means all views. Ignored without an encoder.
        latent_width: numbers a latent is projected to; 0 takes the action's width, as the paper does.
        latent_targets: what is generated for a step: the transition from the chunk's first frame to it, as a sum of transitions between
            neighbours ("cumulative"), or the last of these alone, as in the paper ("adjacent").
        latent_weight: lambda of each view's latents in the loss; the action's is 1.
        relative_joints: action dimensions predicted as differences to the state at the chunk's start.
        normalise: states and targets to unit variance ("std"), or their 1 % and 99 % quantiles to -1 and 1 ("quantiles").
        std_floor: least standard deviation of states and targets in their own units.
        held_out: share of the episodes kept for evaluation.
        batch: samples a step, over all processes together.
        draws: draws of (time, noise) for each encoded sample.
        augment: random changes of pictures and states.
        model: size of the network.
        rollouts: episodes played during training.
        loop: length, optimiser, saving.
    """

    data: str = ""
    run: str = "runs/finetune"
    encoder: str = ""
    weights: str = ""
    views: list[str] = field(default_factory=list)
    latent_views: list[str] = field(default_factory=list)
    latent_width: int = 0
    latent_targets: str = "cumulative"
    latent_weight: float = 0.3
    relative_joints: list[str] = field(default_factory=list)
    normalise: str = "std"
    std_floor: float = 3e-3
    held_out: float = 0.03
    batch: int = 64
    draws: int = 2
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    rollouts: RolloutConfig = field(default_factory=RolloutConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if self.batch < 1 or self.draws < 1:
            raise UserError("batch and draws must be at least 1")
        if self.normalise not in ("std", "quantiles"):
            raise UserError(f"normalise is '{self.normalise}': choose std or quantiles")
        if self.latent_targets not in ("cumulative", "adjacent"):
            raise UserError(f"latent_targets is '{self.latent_targets}': choose cumulative or adjacent")
        if not 0 <= self.held_out < 1:
            raise UserError(f"held_out is {self.held_out}: give the share of the episodes to keep for evaluation, from 0 to below 1")


def main() -> int:
    if len(sys.argv) == 1:
        print(INTRODUCTION)
        return 0
    config = parse_args(FinetuneConfig, INTRODUCTION.splitlines()[0])
    if not config.data:
        raise UserError("no data set: give one with --data FOLDER; training/collect.py makes one")
    _, finished = finetune(config)
    state = PartialState()
    if finished and state.is_main_process:
        print(f"policy: {Path(config.run) / 'policy'}")
    return take_leave(state, 0 if finished else 130)


def finetune(config: FinetuneConfig) -> tuple[JointPolicy, bool]:
    """Train as ``config`` says and write ``<run>/policy``.

    Returns the policy and whether it got so far: an interrupted run only keeps its state. Raises UserError for data, an encoder or
    settings that do not fit together.
    """
    policy_config, data, tokenizer = load(config)
    torch.manual_seed(config.loop.seed)
    policy = JointPolicy(policy_config, data.stats, tokenizer)
    if (found := policy.load_pretrained(config.weights)) and PartialState().is_main_process:
        print(found)
    policy = policy.to(memory_format=torch.channels_last)
    count = len(data.lengths)
    held = (
        np.random.default_rng(0).permutation(count)[: max(1, round(config.held_out * count))] if config.held_out > 0 else np.array([], int)
    )
    training_rows = data.rows_of(np.setdiff1d(np.arange(count), held))
    if not len(training_rows):
        raise UserError(f"'{config.data}' has {count} episode(s): none is left to train on; give --held_out 0 or more data")
    held_rows = data.rows_of(held)
    held_rows = held_rows[np.linspace(0, len(held_rows) - 1, min(256, len(held_rows))).round().astype(int)]
    weights = {view: config.latent_weight for view in policy_config.latent_views}

    def batch_at(step: int, rank: int, ranks: int) -> dict:
        """All chance is drawn for the whole batch, so that its samples are the same however many processes share them."""
        rng = step_rng(config.loop.seed, step)
        rows = training_rows[rng.integers(len(training_rows), size=config.batch)]
        augmentation = data.draw_augmentation(config.batch, config.augment, rng)
        drawn = policy.draw(config.batch, config.draws, torch.Generator().manual_seed(int(rng.integers(2**62))))
        share = data.batch(rows[rank::ranks], {name: values[rank::ranks] for name, values in augmentation.items()})
        return share | {"drawn": every_nth(drawn, rank, ranks)}

    def losses(model: nn.Module, batch: dict) -> dict[str, Tensor]:
        return model(**batch, weights=weights)

    def evaluate(model: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(model, JointPolicy)
        figures = held_out_errors(model, data, held_rows) if len(held_rows) else {}
        return figures | rollouts(model, config)

    identity = {key: value for key, value in to_dict(config).items() if key not in ("run", "loop", "rollouts", "encoder")}
    identity["latent_encoder"] = policy_config.latent_encoder
    result = train(policy, batch_at, losses, config.run, config.loop, evaluate, identity, config.batch)
    trained = result.model
    assert isinstance(trained, JointPolicy)
    if result.stopped == "interrupted":
        if result.main:
            print(f"interrupted at step {result.step} of {config.loop.steps}: saved; the same command goes on")
        return trained, False
    if result.main:
        if result.stopped == "time":
            print(f"time is up at step {result.step} of {config.loop.steps}: the policy is written as it is; the same command goes on")
        figures = held_out_errors(trained, data, held_rows) if len(held_rows) else {}
        trained.save_pretrained(Path(config.run) / "policy", card(config, policy_config, figures, result.step, count - len(held)))
    return trained, True


def load(config: FinetuneConfig) -> tuple[PolicyConfig, PolicyData, Tokenizer]:
    """Open the data set, decode its frames and encode its transitions unless cached, fit the normalisation."""
    dataset = LeRobotDataset(config.data)
    views = config.views or list(dataset.views)
    if not views:
        raise UserError(f"'{config.data}' has no camera view: a policy needs at least one")
    episodes = [dataset.episode(e) for e in range(dataset.num_episodes)]
    states, actions = [e.state for e in episodes], [e.action for e in episodes]
    if not dataset.action_names or not dataset.state_names:
        raise UserError(f"'{config.data}' has no actions or no state: a policy is trained on demonstrations that have both")
    policy_config = PolicyConfig(
        config.model,
        views,
        (config.latent_views or views) if config.encoder else [],
        len(dataset.state_names),
        list(dataset.action_names),
        config.relative_joints,
        1.0 / dataset.fps,
    )
    relative = policy_config.relative()
    stats = fit_policy_stats(states, actions, config.model.horizon, relative, config.std_floor, config.normalise == "quantiles")
    frames = {view: frame_store(dataset, view, config.model.image_size) for view in views}
    latents: dict[str, np.ndarray] = {}
    lengths = [len(action) for action in actions]
    last = np.repeat(np.cumsum(lengths) - 1, lengths)  # (F,) last frame of each frame's episode
    if config.encoder:
        transition = TransitionModel.from_pretrained(config.encoder).config
        policy_config.latent_width = config.latent_width or len(dataset.action_names)
        policy_config.latent_shape = [transition.latent_tokens, transition.latent_dim]
        policy_config.latent_encoder = checkpoint_hash(config.encoder)
        for view in policy_config.latent_views:
            native = frame_store(dataset, view, transition.image_size)
            z = adjacent_latents(config.encoder, view, native, dataset.root / ".cache")
            picked = np.random.default_rng(0).permutation(len(z))[:PROJECTION_SAMPLES]
            learned = config.model.projection != "pca"
            width = min(LEARNED_FROM, z.shape[1]) if learned else policy_config.latent_width
            stats.latents[view] = LatentProjection.fit(z[np.sort(picked)], width, one_scale=learned)
            latents[view] = stats.latents[view].project(np.asarray(z))
            if config.latent_targets == "cumulative":
                chunks = latents[view][np.minimum(picked[:, None] + np.arange(config.model.horizon), last[picked][:, None])]
                stats.latents[view] = stats.latents[view].cumulative(chunks, one_scale=learned)
    tokenizer = make_tokenizer(config.model, _folder(config.weights))
    if not all(e.task.strip() for e in episodes):
        raise UserError(f"'{config.data}' has episodes without an instruction: a policy is trained on what it is asked to do")
    words = tokenizer([e.task for e in episodes])
    samples = PolicyData(frames, np.concatenate(states), np.concatenate(actions), words, latents, stats, relative)
    return policy_config, samples, tokenizer


def _folder(weights: str) -> Path:
    return Path(weights).parent if weights.endswith(".safetensors") else Path(weights)


def held_out_errors(policy: JointPolicy, data: PolicyData, rows: np.ndarray) -> dict[str, float]:
    """Mean absolute error of sampled actions on held-out samples, in the actions' units, at a chunk's first step and over the chunk.

    "shuffled": the same with another sample's instruction, by how much the policy listens.
    """
    batch = data.batch(rows)
    device = next(policy.parameters()).device
    state, words = batch["state"].to(device), batch["words"].to(device)
    images = {view: pictures.to(device) for view, pictures in batch["images"].items()}
    truth = policy.denormalise(batch["targets"][ACTION].to(device), state)

    def error(words: Tensor) -> Tensor:
        actions, _ = policy.sample(images, state, words, torch.Generator(device).manual_seed(0))
        return (actions - truth).abs().mean((0, 2))  # (H,)

    own, other = error(words), error(words.roll(len(words) // 2, 0))
    return {"action_first": float(own[0]), "action": float(own.mean()), "action_shuffled": float(other.mean())}


def rollouts(policy: JointPolicy, config: FinetuneConfig) -> dict[str, float]:
    """Success rate over the episodes that ``config.rollouts`` asks for."""
    wanted = config.rollouts
    if not wanted.episodes:
        return {}
    folder = Path(config.run) / "candidate"
    policy.save_pretrained(folder)
    threads = torch.get_num_threads()
    played = list(
        episodes(
            EvaluateConfig(
                policy=str(folder), world=wanted.world, episodes=wanted.episodes, first_seed=wanted.first_seed, workers=wanted.workers
            )
        )
    )
    torch.set_num_threads(threads)
    return {"success": sum(episode.success for episode in played) / len(played)}


def card(config: FinetuneConfig, policy: PolicyConfig, figures: dict[str, Any], step: int, episodes: int) -> str:
    """The policy's README.md."""
    latents = (
        f"the transitions of {', '.join(policy.latent_views)} as {Path(config.encoder)} encodes them"
        if policy.latent_views
        else "no latents"
    )
    lines = "\n".join(f"| {name} | {value:.4g} |" for name, value in figures.items())
    return f"""# Policy

Sees {", ".join(policy.views)} at {policy.model.image_size} px, the state and an instruction; generates chunks of
{policy.model.horizon} steps of {policy.dt:g} s by joint flow matching: actions ({", ".join(policy.joint_names)}) beside
{latents}.

- Data: `{Path(config.data).name}`, {episodes} episodes to train on.
- Steps: {step} of {config.loop.steps}, {config.batch} samples each, {config.draws} draws of time and noise a sample.
- Command: `{command_line()}`

Held-out episodes, mean absolute error of sampled set-points, in the actions' own units (rad and m of an arm):

| figure | value |
|---|---|
{lines}
"""


if __name__ == "__main__":
    run_main(main)
