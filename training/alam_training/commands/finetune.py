"""Stage 2: train a policy on a LeRobot data set, generating frozen latent transitions beside the
actions (Section 3.3).
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor, nn

from alam_core.command_line import command_line
from alam_core.config import parse_args, to_dict
from alam_core.errors import UserError
from alam_core.policy.config import PolicyConfig
from alam_core.policy.joint import JointPolicy
from alam_core.policy.samples import PolicyData
from alam_core.policy.sequence import ACTION
from alam_training.commands.evaluate import EvaluateConfig, check, episodes
from alam_training.loop.parallel import take_leave
from alam_training.loop.train import every_nth, step_rng, train
from alam_training.stage2.config import FinetuneConfig
from alam_training.stage2.data import data_digest, load

INTRODUCTION = """Train a policy on demonstrations (stage 2). It needs a LeRobot data set and, to generate latents, a transition model.

  python training/finetune.py --config training/configs/finetune_piper.yaml        with ALAM's latents (needs runs/pretrain_piper/model)
  python training/finetune.py --config training/configs/finetune_piper_none.yaml   the same policy without latents
  ... --data path/to/dataset --run runs/mine --loop.steps 2000                      other data, shorter
  python training/finetune.py --help                                                every option

No data yet? training/collect.py makes demonstrations. No transition model? training/pretrain.py makes one.
Watch a run: tensorboard --logdir runs. Ctrl-C saves; the same command goes on. Then: python training/evaluate.py --policy <run>/policy"""


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

    Returns the policy and whether it got so far: an interrupted run only keeps its state. Raises
    UserError for data, an encoder or settings that do not fit together.
    """
    policy_config, data, tokenizer = load(config)
    torch.manual_seed(config.loop.seed)
    policy = JointPolicy(policy_config, data.stats, tokenizer)
    if (found := policy.load_pretrained(config.weights)) and PartialState().is_main_process:
        print(found)
    policy = policy.to(memory_format=torch.channels_last)
    count = len(data.lengths)
    held = (
        np.random.default_rng(0).permutation(count)[: max(1, round(config.held_out * count))]
        if config.held_out > 0
        else np.array([], int)
    )
    training_rows = data.rows_of(np.setdiff1d(np.arange(count), held))
    if not len(training_rows):
        raise UserError(
            f"'{config.data}' has {count} episode(s): none is left to train on; give --held_out 0 or more data"
        )
    held_rows = data.rows_of(held)
    held_rows = held_rows[
        np.linspace(0, len(held_rows) - 1, min(256, len(held_rows))).round().astype(int)
    ]
    weights = {view: config.latent_weight for view in policy_config.latent_views}

    def batch_at(step: int, rank: int, ranks: int) -> dict:
        """All chance is drawn for the whole batch, so that its samples are the same however many
        processes share them.
        """
        rng = step_rng(config.loop.seed, step)
        rows = training_rows[rng.integers(len(training_rows), size=config.batch)]
        augmentation = data.draw_augmentation(config.batch, config.augment, rng)
        drawn = policy.draw(
            config.batch, config.draws, torch.Generator().manual_seed(int(rng.integers(2**62)))
        )
        share = data.batch(
            rows[rank::ranks], {name: values[rank::ranks] for name, values in augmentation.items()}
        )
        return share | {"drawn": every_nth(drawn, rank, ranks)}

    def losses(model: nn.Module, batch: dict) -> dict[str, Tensor]:
        return model(**batch, weights=weights)

    def evaluate(model: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(model, JointPolicy)
        figures = held_out_errors(model, data, held_rows, config.batch) if len(held_rows) else {}
        return figures | rollouts(model, config)

    identity = {
        key: value
        for key, value in to_dict(config).items()
        if key not in ("run", "loop", "rollouts", "encoder")
    }
    identity |= {"latent_encoder": policy_config.latent_encoder, "data_digest": data_digest(data)}
    if config.rollouts.episodes and PartialState().is_main_process:
        with _threads_kept():
            check(_candidate(policy, config))  # what does not fit is told before hours of training
    result = train(
        policy, batch_at, losses, config.run, config.loop, evaluate, identity, config.batch
    )
    trained = result.model
    assert isinstance(trained, JointPolicy)
    if result.stopped == "interrupted":
        if result.main:
            print(
                f"interrupted at step {result.step} of {config.loop.steps}: saved; the same command goes on"
            )
        return trained, False
    if result.main:
        if result.stopped == "time":
            print(
                f"time is up at step {result.step} of {config.loop.steps}: the policy is written as it is; the same command goes on"
            )
        figures = held_out_errors(trained, data, held_rows, config.batch) if len(held_rows) else {}
        trained.save_pretrained(
            Path(config.run) / "policy",
            card(config, policy_config, figures, result.step, count - len(held)),
        )
    return trained, True


def held_out_errors(
    policy: JointPolicy, data: PolicyData, rows: np.ndarray, size: int
) -> dict[str, float]:
    """Mean absolute error of sampled actions on held-out samples, in the actions' units, at a
    chunk's first step and over the chunk.

    "shuffled": the same with another sample's instruction, by how much the policy listens. size:
    samples at a time.
    """
    device = next(policy.parameters()).device
    words = data.batch(rows)["words"]
    own: list[Tensor] = []  # (N, H) in pieces
    other: list[Tensor] = []
    for first in range(0, len(rows), size):
        batch = data.batch(rows[first : first + size])
        images = {view: pictures.to(device) for view, pictures in batch["images"].items()}
        state = batch["state"].to(device)
        truth = policy.denormalise(batch["targets"][ACTION].to(device), state)
        for errors, instructions in ((own, words), (other, words.roll(len(words) // 2, 0))):
            noise = torch.Generator(device).manual_seed(first)
            actions, _ = policy.sample(
                images, state, instructions[first : first + size].to(device), noise
            )
            errors.append((actions - truth).abs().mean(2))
    steps = torch.cat(own).mean(0)
    return {
        "action_first": float(steps[0]),
        "action": float(steps.mean()),
        "action_shuffled": float(torch.cat(other).mean()),
    }


def rollouts(policy: JointPolicy, config: FinetuneConfig) -> dict[str, float]:
    """Success rate over the episodes that ``config.rollouts`` asks for."""
    if not config.rollouts.episodes:
        return {}
    with _threads_kept():
        played = list(episodes(_candidate(policy, config)))
    return {"success": sum(episode.success for episode in played) / len(played)}


@contextlib.contextmanager
def _threads_kept() -> Iterator[None]:
    """Playing sets torch's threads for its whole process."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _candidate(policy: JointPolicy, config: FinetuneConfig) -> EvaluateConfig:
    """Write the policy as it is, and say how it is to be played."""
    wanted, folder = config.rollouts, Path(config.run) / "candidate"
    policy.save_pretrained(folder)
    return EvaluateConfig(
        policy=str(folder),
        world=wanted.world,
        episodes=wanted.episodes,
        first_seed=wanted.first_seed,
        replan_every=wanted.replan_every,
        workers=wanted.workers,
    )


def card(
    config: FinetuneConfig, policy: PolicyConfig, figures: dict[str, Any], step: int, episodes: int
) -> str:
    """The policy's README.md."""
    latents = (
        f"the transitions of {', '.join(policy.latent_views)} as {Path(config.encoder)} encodes them"
        if policy.latent_views
        else "no latents"
    )
    process = {"flow": "flow matching", "diffusion": "diffusion"}[policy.model.process]
    how = (
        process
        if not policy.latent_views
        else f"{policy.model.coupling.replace('_', '-')} {process}"
    )
    lines = "\n".join(f"| {name} | {value:.4g} |" for name, value in figures.items())
    return f"""# Policy

Sees {", ".join(policy.views)} at {policy.model.image_size} px, the state and an instruction; generates chunks of
{policy.model.horizon} steps of {policy.dt:g} s by {how}: actions ({", ".join(policy.joint_names)}) beside
{latents}.

- Data: `{Path(config.data).name}`, {episodes} episodes to train on.
- Steps: {step} of {config.loop.steps}, {config.batch} samples each, {config.draws} draws of time and noise a sample.
- Command: `{command_line()}`

Held-out episodes, mean absolute error of sampled set-points, in the actions' own units (rad and m of an arm):

| figure | value |
|---|---|
{lines}
"""
