"""Stage 2: train a policy on demonstrations. It generates the latent transitions of a frozen
encoder together with the actions (Section 3.3).
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import PartialState
from torch import Tensor, nn

from alam_core.config import parse_args, to_dict
from alam_core.errors import UserError
from alam_core.policy.joint import JointPolicy
from alam_training.episodes.evaluation import EvaluateConfig, check, episodes
from alam_training.episodes.metrics import success_metrics
from alam_training.loop.parallel import shutdown_ranks
from alam_training.loop.train import train
from alam_training.stage2.batches import TrainingBatches, split_samples
from alam_training.stage2.card import policy_card
from alam_training.stage2.config import MAY_CHANGE, FinetuneConfig
from alam_training.stage2.data import data_digest, load
from alam_training.stage2.evaluation import held_out_errors

INTRODUCTION = """Train a policy on demonstrations (stage 2).
It needs a LeRobot data set and, to generate latents, a transition model from stage 1.

  python training/finetune.py --config training/configs/finetune_piper.yaml
      with ALAM's latents (needs runs/pretrain_piper/model)
  python training/finetune.py --config training/configs/finetune_piper_none.yaml
      the same policy without latents
  ... --data path/to/dataset --run runs/mine --loop.steps 2000
      other data, a shorter run
  python training/finetune.py --help
      every option

No data yet? training/collect.py records demonstrations in simulation.
No transition model yet? training/pretrain.py trains one.
To watch a run: tensorboard --logdir runs. Ctrl-C saves and stops; the same command resumes.
Then: python training/evaluate.py --policy <run>/policy"""


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
    return shutdown_ranks(state, 0 if finished else 130)


def finetune(config: FinetuneConfig) -> tuple[JointPolicy, bool]:
    """Train as ``config`` says and write ``<run>/policy``.

    Returns the policy and whether it was written: an interrupted run only saves its state. Raises
    UserError for data, an encoder or settings that do not fit together.
    """
    policy_config, data, tokenizer, videos = load(config)
    torch.manual_seed(config.loop.seed)
    policy = JointPolicy(policy_config, data.stats, tokenizer)
    if (found := policy.load_pretrained(config.weights)) and PartialState().is_main_process:
        print(found)
    policy = policy.to(memory_format=torch.channels_last)
    training_rows, held_out_rows, training_episodes = split_samples(config, data)
    batch_at = TrainingBatches(config, policy, data, training_rows, videos)
    weights = {view: config.latent_weight for view in policy_config.latent_views}

    def losses(model: nn.Module, batch: dict) -> dict[str, Tensor]:
        return model(**batch, weights=weights)

    def evaluate(model: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(model, JointPolicy)
        errors = held_out_errors(model, data, held_out_rows, config.batch)
        return errors | rollouts(model, config)

    identity = {key: value for key, value in to_dict(config).items() if key not in MAY_CHANGE}
    identity |= {"latent_encoder": policy_config.latent_encoder, "data_digest": data_digest(data)}
    if videos:
        identity["video_digest"] = [data_digest(video.samples) for video in videos]
    if config.rollouts.episodes and PartialState().is_main_process:
        with _threads_kept():
            check(_candidate(policy, config))  # report what does not fit before training
    result = train(
        policy, batch_at, losses, config.run, config.loop, evaluate, identity, config.batch
    )
    trained = result.model
    assert isinstance(trained, JointPolicy)
    if result.main and result.stopped:
        print(result.why_stopped(config.loop.steps, "policy"))
    if result.stopped == "interrupted":
        return trained, False
    if result.main:
        metrics = held_out_errors(trained, data, held_out_rows, config.batch)
        card = policy_card(config, policy_config, metrics, result.step, training_episodes)
        trained.save_pretrained(Path(config.run) / "policy", card)
    return trained, True


def rollouts(policy: JointPolicy, config: FinetuneConfig) -> dict[str, float]:
    """Success rate of the rollouts that ``config.rollouts`` asks for."""
    if not config.rollouts.episodes:
        return {}
    with _threads_kept():
        results = list(episodes(_candidate(policy, config)))
    return {"success": success_metrics(results)["success"]}


@contextlib.contextmanager
def _threads_kept() -> Iterator[None]:
    """Restores torch's number of threads at the end; rollouts in this process change it."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _candidate(policy: JointPolicy, config: FinetuneConfig) -> EvaluateConfig:
    """Save the policy as it is now in <run>/candidate; returns the settings that evaluate it."""
    wanted, folder = config.rollouts, Path(config.run) / "candidate"
    policy.save_pretrained(folder)
    return EvaluateConfig(
        policy=str(folder),
        world=wanted.world,
        episodes=wanted.episodes,
        first_seed=wanted.first_seed,
        replan_every=wanted.replan_every,
        workers=wanted.workers,
        joint_names_map=wanted.joint_names_map,
    )
