"""Stage 1: pretrain a transition model on video, without actions (Section 3.2)."""

import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from alam_core.config import parse_args, to_dict
from alam_core.data.checks import quick_findings
from alam_core.data.frames import FrameStore
from alam_core.data.mixture import VideoSource, open_dataset, open_sources
from alam_core.data.report import DataReport
from alam_core.errors import UserError
from alam_core.latent_action.action_probe import r2
from alam_core.latent_action.grounding import GroundedModel
from alam_core.latent_action.interface import TransitionEncoder
from alam_core.latent_action.model import TransitionModel
from alam_core.latent_action.probes import probe
from alam_training.findings import print_data_findings
from alam_training.loop.parallel import shutdown_ranks
from alam_training.loop.state import STATE_FILE
from alam_training.loop.train import train
from alam_training.stage1.actions import action_spans, read_labels
from alam_training.stage1.card import transition_card
from alam_training.stage1.config import MAY_CHANGE, PretrainConfig
from alam_training.stage1.data import (
    TRIPLETS,
    TripletBatch,
    check_same_episodes,
    held_out_triplets,
    shard_triplets,
    split_source,
    too_short,
    training_triplets,
)
from alam_training.stage1.grounding import LabelledPairs

INTRODUCTION = """Pretrain a transition model on video (stage 1). It reads no actions.
The data: a LeRobot data set, a folder of videos, or a weighted mixture of several.

  python training/pretrain.py --config training/configs/pretrain_piper.yaml
      the preset for data/piper_place: about 8 minutes on one core
  python training/pretrain.py --config training/configs/pretrain_worlds.yaml
      a mixture of two simulated worlds
  ... --data path/to/dataset --run runs/mine --loop.steps 5000
      other data, a longer run
  ... --data path/to/folder_of_videos --cache false
      decode videos during training instead of once beforehand
  ... --config training/configs/mixture_oxe.yaml
      the paper's mixture (Table 7), once you have its data
  python training/pretrain.py --help
      every option

No data yet? python training/collect.py records demonstrations in simulation.
To watch a run: tensorboard --logdir runs. Ctrl-C saves and stops; the same command resumes.
Episodes that were left out, and why: <run>/data_report.json"""


def main() -> int:
    if len(sys.argv) == 1:
        print(INTRODUCTION)
        return 0
    config = parse_args(PretrainConfig, INTRODUCTION.splitlines()[0])
    if not config.sources:
        raise UserError(
            "no data: give a data set or a folder of videos with --data FOLDER; "
            "training/collect.py makes a data set"
        )
    state = PartialState(cpu=config.loop.cpu)
    if state.is_main_process:
        for source in config.sources:
            found = quick_findings(open_dataset(source, {}), source.views, left_out=source.exclude)
            print_data_findings(found, source.path)
    with state.local_main_process_first():  # one process decodes, the others map its files
        sources = open_sources(config.sources, config.model.image_size, config.cache)
    _, metrics, finished = pretrain(config, sources)
    if finished and state.is_main_process:
        table = Table("held-out set", "value")
        for name, value in metrics.items():
            table.add_row(name, f"{value:.4g}")
        Console().print(table)
        print(f"model: {Path(config.run) / 'model'}")
    return shutdown_ranks(state, 0 if finished else 130)


def pretrain(
    config: PretrainConfig, sources: list[VideoSource]
) -> tuple[TransitionEncoder, dict[str, float], bool]:
    """Train on the frames of ``sources`` and write ``<run>/model`` and ``<run>/data_report.json``.

    Returns the model, its metrics on the held-out set (on the main process; with several sources
    each name is prefixed with ``<source>/``), and whether the model was written: an interrupted
    run only saves its state.
    """
    state = PartialState(cpu=config.loop.cpu)
    if config.loop.resume and (Path(config.run) / STATE_FILE).is_file():
        check_same_episodes(Path(config.run), sources)
    splits = [split_source(source, config.held_out) for source in sources]
    report = DataReport(
        sources,
        [too_short(source, config.gaps) for source in sources],
        [held_out.tolist() for _, held_out in splits],
        config.max_broken,
    )
    batch_at = training_triplets(config, sources, [training for training, _ in splits], report)
    known = report.summary()
    if state.is_main_process:
        print("\n".join(known))
        probes = [
            held_out_triplets(config, report, number, held_out)
            for number, (_, held_out) in enumerate(splits)
        ]
        labels = [
            read_labels(of, config.actions)
            if config.actions.labelled and isinstance(source.frames[0], FrameStore)
            else None
            for of, source in zip(config.sources, sources, strict=True)
        ]
        report.write(config.run)

    torch.manual_seed(config.loop.seed)
    transition = TransitionModel(config.model)
    model: nn.Module = transition
    pairs: LabelledPairs | None = None
    if config.grounding.weight:
        training = [own for own, _ in splits]
        pairs = LabelledPairs(
            config.sources,
            sources,
            training,
            config.grounding,
            config.gaps,
            config.batch,
            config.loop.seed,
        )
        model = GroundedModel(transition, config.grounding, pairs.cameras, pairs.width)
        if state.is_main_process:
            print(f"grounding: the labels of {pairs.episodes} episodes also train the encoder")

    def batches(step: int, rank: int, ranks: int) -> TripletBatch:
        labelled = pairs(step, rank, ranks) if pairs is not None else {}
        return {TRIPLETS: batch_at(step, rank, ranks), **labelled}

    def losses(model: nn.Module, batch: TripletBatch) -> dict[str, Tensor]:
        triplets = [_images(frames) for frames in batch[TRIPLETS]]
        labelled = {
            name: _images(values) if name in ("first", "second") else values
            for name, values in batch.items()
            if name != TRIPLETS
        }
        return model(*triplets, **labelled)

    def evaluate(model: nn.Module, step: int) -> dict[str, float]:
        model = _transition(model)
        metrics = [probe(model, triplets) for triplets in probes]
        for own, source, known in zip(metrics, sources, labels, strict=True):
            if known is not None:
                spans = action_spans(model, source, known, config.actions)
                seen = spans.known(source.views, config.actions.width)
                labelled = np.isin(spans.episode, next(iter(known.labelled.values())))
                own["action_r2"] = float(r2(seen, spans, labelled).mean())
        if len(sources) == 1:
            return metrics[0]
        return {
            f"{source.name}/{name}": value
            for source, own in zip(sources, metrics, strict=True)
            for name, value in own.items()
        }

    identity = {key: value for key, value in to_dict(config).items() if key not in MAY_CHANGE}
    try:
        result = train(
            model,
            batches,
            losses,
            config.run,
            config.loop,
            evaluate,
            identity,
            config.batch,
            shard_triplets,
        )
    finally:
        batch_at.close()
    trained = _transition(result.model)
    report.merge(gather_object([report.found()]))
    if result.main:
        report.write(config.run)
        if (found := report.summary()) != known:
            print("\n".join(found))
        if result.stopped:
            print(result.why_stopped(config.loop.steps, "model"))
    if result.stopped == "interrupted":
        return trained, {}, False
    metrics = {}
    if result.main:
        metrics = evaluate(trained, result.step)
        card = transition_card(config, metrics, result.step, report)
        trained.save_pretrained(Path(config.run) / "model", card)
    return trained, metrics, True


def _images(frames: Tensor) -> Tensor:
    return frames.permute(0, 3, 1, 2).float() / 255


def _transition(model: nn.Module) -> TransitionEncoder:
    found = model.transition if isinstance(model, GroundedModel) else model
    assert isinstance(found, TransitionEncoder)
    return found
