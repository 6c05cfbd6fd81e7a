"""Label video without actions: train an inverse dynamics model on a few demonstrations and write
what it infers as a data set, which any policy can be trained on.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from rich.console import Console
from rich.progress import Progress
from torch import nn

from alam_core.config import parse_args, to_dict
from alam_core.data.images import resize_images
from alam_core.data.lerobot import LeRobotDataset, LeRobotWriter
from alam_core.errors import UserError
from alam_core.policy.config import ModelConfig
from alam_core.policy.inverse_dynamics import InverseDynamics
from alam_core.policy.samples import PolicySamples
from alam_training.loop.parallel import shutdown_ranks
from alam_training.loop.train import train
from alam_training.stage2.batches import split_samples
from alam_training.stage2.config import FinetuneConfig
from alam_training.stage2.data import data_digest, load
from alam_training.stage2.labelling import (
    LabelBatches,
    LabelConfig,
    held_out_errors,
    infer,
    losses,
)
from alam_training.stage2.video import OpenVideo, open_videos

INTRODUCTION = """Label video without actions with an inverse dynamics model.
It is trained on demonstrations and infers the states and actions of the video. The new data set has
the demonstrations as they are, and the video with inferred labels (extra "inferred": true).

  python training/label.py --data data/demonstrations --video data/videos --output data/labelled
      then: python training/finetune.py --data data/labelled
  ... --data data/piper_place --labelled 10 --video data/piper_place
      a study: the labels of ten episodes of each instruction, those of the others inferred
  python training/label.py --help
      every option

Ctrl-C saves and stops the training; the same command resumes."""

MAY_CHANGE = ("run", "loop", "video", "output", "max_broken", "exclude", "state", "action")


def main() -> int:
    if len(sys.argv) == 1:
        print(INTRODUCTION)
        return 0
    config = parse_args(LabelConfig, INTRODUCTION.splitlines()[0])
    if not config.data or not config.videos:
        raise UserError("give demonstrations with --data FOLDER and video with --video FOLDER")
    finished = label(config)
    return shutdown_ranks(PartialState(), 0 if finished else 130)


def label(config: LabelConfig) -> bool:
    """Train as ``config`` says and write ``config.output``.

    Returns whether it was written: an interrupted run only saves its state. Raises UserError for
    data or settings that do not fit together, and if the output exists.
    """
    if Path(config.output).exists():
        raise UserError(f"'{config.output}' exists already: give another --output, or remove it")
    reading = FinetuneConfig(
        data=config.data,
        run=config.run,
        state=config.state,
        action=config.action,
        images=config.images,
        exclude=config.exclude,
        max_broken=config.max_broken,
        labelled=config.labelled,
        model=ModelConfig(horizon=config.model.horizon, image_size=config.model.image_size),
        loop=config.loop,
    )
    policy, data, _, _ = load(reading)
    rows, _, episodes = split_samples(reading, data)
    labelled = np.unique(data.episode_of[rows]).tolist()
    videos = open_videos(config.videos, policy.views, config.data, [*labelled, *data.held_out])
    for video in videos:
        if missing := [view for view in policy.views if view not in video.views]:
            raise UserError(
                f"video: '{video.config.path}' has no view {', '.join(missing)}: an inverse "
                "dynamics model needs all views of the demonstrations"
            )
    torch.manual_seed(config.loop.seed)
    model = InverseDynamics(config.model, policy.views, policy.state_dim, len(policy.joint_names))

    def evaluate(model: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(model, InverseDynamics)
        return held_out_errors(model, data, data.included(np.array(data.held_out, int)).tolist())

    identity = {key: value for key, value in to_dict(config).items() if key not in MAY_CHANGE}
    identity["data_digest"] = data_digest(data)
    result = train(
        model,
        LabelBatches(config, data, rows),
        losses,
        config.run,
        config.loop,
        evaluate,
        identity,
        config.batch,
    )
    if result.main and result.stopped:
        print(result.why_stopped(config.loop.steps, "data set"))
    if result.stopped == "interrupted":
        return False
    if result.main:
        trained = result.model
        assert isinstance(trained, InverseDynamics)
        for name, value in evaluate(trained, result.step).items():
            print(f"held-out episodes, {name}: {value:.3f}")
        written = _write(config, policy.dt, trained, data, labelled, videos)
        print(f"{config.output}: {episodes} labelled episodes and {written} with inferred labels")
    return True


def _write(
    config: LabelConfig,
    dt: float,
    model: InverseDynamics,
    data: PolicySamples,
    labelled: list[int],
    videos: list[OpenVideo],
) -> int:
    """Write the data set; returns the number of episodes with inferred labels."""
    broken: dict[int, str] = {}
    dataset = LeRobotDataset(config.data, config.columns, broken)
    first = {view: dataset.frames(labelled[0], view, [0]) for view in model.views}
    size = min(min(image.shape[1:3]) for image in first.values())
    inferred = 0
    with (
        Progress(console=Console(stderr=True), transient=True) as progress,
        LeRobotWriter(
            config.output,
            1.0 / dt,
            dict.fromkeys(model.views, (size, size)),
            dataset.state_names,
            dataset.action_names,
            str(dataset.info.get("robot_type") or ""),
        ) as writer,
    ):
        count = len(labelled) + sum(len(video.lengths) for video in videos)
        task = progress.add_task("writing episodes", total=count)
        for e in labelled:
            episode, rows = dataset.episode(e), range(dataset.episode_length(e))
            images = {view: resize_images(dataset.frames(e, view, rows), size) for view in first}
            writer.add_episode(
                images, episode.state, episode.action, episode.task, {"inferred": False}
            )
            progress.advance(task)
        for video in videos:
            stride = video.config.stride or max(1, round(dt * video.fps))
            for e, start in enumerate(np.cumsum(video.lengths) - video.lengths):
                rows = range(0, int(video.lengths[e]), stride)
                progress.advance(task)
                if e in video.hidden or e in video.broken or len(rows) < 2:
                    continue
                try:
                    images = {
                        view: resize_images(video.dataset.frames(e, own, rows), size)
                        for view, own in video.views.items()
                    }
                except UserError as error:
                    progress.console.print(f"left out: {error}", highlight=False)
                    continue
                seen = {
                    view: resize_images(frames, config.model.image_size)
                    for view, frames in images.items()
                }
                states, actions = infer(model, seen, data.stats)
                said = video.instructions[video.tasks[start]]
                writer.add_episode(images, states, actions, said, {"inferred": True})
                inferred += 1
    return inferred
