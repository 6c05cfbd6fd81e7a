"""Stage 1: pretrain a transition model on the video of a LeRobot data set, without its actions (Section 3.2)."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import PartialState
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from alam_core.config import parse_args, to_dict
from alam_core.data.frames import frame_store
from alam_core.data.lerobot import LeRobotDataset
from alam_core.errors import UserError, run_main
from alam_core.latent_action.config import TransitionConfig
from alam_core.latent_action.model import TransitionModel
from alam_core.latent_action.probes import probe
from alam_core.latent_action.triplets import Frames, GapConfig, TripletSampler, split_episodes
from training.train_loop import LoopConfig, command_line, step_rng, train

INTRODUCTION = """Pretrain a transition model on video (stage 1). It needs a LeRobot data set; no action is read.

  python training/pretrain.py --config training/configs/pretrain_piper.yaml      the preset: data/piper_place, about 15 minutes on one core
  ... --data path/to/dataset --run runs/mine --loop.steps 5000                    other data, other length
  python training/pretrain.py --help                                              every option

No data yet? python training/collect.py makes demonstrations in simulation. Watch a run: tensorboard --logdir runs
Ctrl-C saves; the same command goes on where it stopped."""


@dataclass
class PretrainConfig:
    """A pretraining run.

    Args:
        data: folder of a LeRobot data set.
        run: folder for logs, the training state and, at the end, the model in <run>/model.
        views: cameras to train on, one model for all; none given means all that the data set has.
        held_out: share of the episodes kept for evaluation.
        batch: triplets a step, over all processes together.
        gaps: how far apart a triplet's frames are.
        probe_gap: k, the gap in frames of the held-out figures.
        probe_triplets: held-out triplets in an evaluation.
        model: size and losses.
        loop: length, optimiser, saving.
    """

    data: str = ""
    run: str = "runs/pretrain"
    views: list[str] = field(default_factory=list)
    held_out: float = 0.05
    batch: int = 32
    gaps: GapConfig = field(default_factory=GapConfig)
    probe_gap: int = 5
    probe_triplets: int = 256
    model: TransitionConfig = field(default_factory=TransitionConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if min(self.batch, self.probe_triplets) < 1:
            raise UserError("batch and probe_triplets must be at least 1")


def main() -> int:
    if len(sys.argv) == 1:
        print(INTRODUCTION)
        return 0
    config = parse_args(PretrainConfig, INTRODUCTION.splitlines()[0])
    if not config.data:
        raise UserError("no data set: give one with --data FOLDER; training/collect.py makes one")
    dataset = LeRobotDataset(config.data)
    views = config.views or list(dataset.views)
    if not views:
        raise UserError(f"'{config.data}' has no camera view: a transition model is trained on video")
    stores: list[Frames] = [frame_store(dataset, view, config.model.image_size) for view in views]
    model, figures, finished = pretrain(config, stores)
    if finished and PartialState().is_main_process:
        show(figures)
        print(f"model: {Path(config.run) / 'model'}")
    return 0 if finished else 130


def pretrain(config: PretrainConfig, stores: list[Frames]) -> tuple[TransitionModel, dict[str, float], bool]:
    """Train on the frames of ``stores`` (one a view) and write ``<run>/model``.

    Returns the model, its held-out figures, and whether it got so far: an interrupted run only keeps its state.
    """
    training, held = split_episodes(len(stores[0].lengths), config.held_out)
    sampler = TripletSampler(stores, training, config.gaps)
    fixed = TripletSampler(stores, held, GapConfig("fixed", config.probe_gap))
    probes = fixed.frames(*fixed.spread(config.probe_triplets))

    def batch_at(step: int, rank: int, ranks: int) -> Tensor:
        sources, rows = sampler.draw(config.batch, step_rng(config.loop.seed, step))
        return torch.from_numpy(sampler.frames(sources[rank::ranks], rows[rank::ranks]))  # uint8 (3, B, S, S, 3)

    def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return model(*(frames.permute(0, 3, 1, 2).float() / 255 for frames in batch))

    def evaluate(model: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(model, TransitionModel)
        return probe(model, probes)

    PartialState(cpu=config.loop.cpu)  # the codebook must know of the other processes when it is made
    torch.manual_seed(config.loop.seed)
    identity = {key: value for key, value in to_dict(config).items() if key not in ("run", "loop", "probe_gap", "probe_triplets")}
    result = train(TransitionModel(config.model), batch_at, losses, config.run, config.loop, evaluate, identity)
    model = result.model
    assert isinstance(model, TransitionModel)
    if result.stopped == "interrupted":
        if result.main:
            print(f"interrupted at step {result.step} of {config.loop.steps}: saved; the same command goes on")
        return model, {}, False
    figures = evaluate(model, result.step)
    if result.main:
        if result.stopped == "time":
            print(f"time is up at step {result.step} of {config.loop.steps}: the model is written as it is; the same command goes on")
        model.save_pretrained(Path(config.run) / "model", card(config, figures, result.step, len(training), len(held)))
    return model, figures, True


def show(figures: dict[str, float]) -> None:
    """Print the held-out figures as a table."""
    table = Table("held out", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)


def card(config: PretrainConfig, figures: dict[str, float], step: int, training: int, held: int) -> str:
    """The model's README.md."""
    views = ", ".join(config.views) or "all"
    lines = "\n".join(f"| {name} | {value:.4g} |" for name, value in figures.items())
    return f"""# Transition model

Encodes two frames of a view into a latent transition of {config.model.latent_tokens} x {config.model.latent_dim} numbers.
Images: {config.model.image_size} px RGB in [0, 1] (`alam_core.latent_action.encode_images` takes uint8 of any size).

- Data: `{Path(config.data).name}`, views: {views}; {training} episodes to train on, {held} held out. Video only, no actions.
- Steps: {step} of {config.loop.steps}, {config.batch} triplets each; gaps {config.gaps.kind}, {config.gaps.frames} frames.
- Command: `{command_line()}`

Held-out episodes, k = {config.probe_gap} frames (what each figure is: `alam_core/latent_action/probes.py`):

| figure | value |
|---|---|
{lines}
"""


if __name__ == "__main__":
    run_main(main)
