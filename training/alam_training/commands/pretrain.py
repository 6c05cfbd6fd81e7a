"""Stage 1: pretrain a transition model on video, without actions (Section 3.2)."""

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from alam_core.command_line import command_line
from alam_core.config import parse_args, to_dict
from alam_core.data.frames import OnDemandFrames
from alam_core.data.mixture import DataReport, Source, SourceConfig, open_sources
from alam_core.errors import UserError
from alam_core.files import write_json
from alam_core.latent_action.config import TransitionConfig
from alam_core.latent_action.model import TransitionModel
from alam_core.latent_action.probes import probe
from alam_core.latent_action.triplet_reader import TripletReader
from alam_core.latent_action.triplets import (
    GapConfig,
    TripletSampler,
    frames_needed,
    split_episodes,
)
from alam_training.loop.parallel import take_leave
from alam_training.loop.state import STATE_FILE
from alam_training.loop.train import LoopConfig, train

INTRODUCTION = """Pretrain a transition model on video (stage 1): a LeRobot data set, a folder of videos, or a mixture. No action is read.

  python training/pretrain.py --config training/configs/pretrain_piper.yaml      the preset: data/piper_place, about 5 minutes on one core
  python training/pretrain.py --config training/configs/pretrain_worlds.yaml     two simulated worlds, half and half
  ... --data path/to/dataset --run runs/mine --loop.steps 5000                    other data, other length
  ... --data path/to/folder_of_videos --cache false                               decode while training instead of once before it
  ... --config training/configs/mixture_oxe.yaml                                  the paper's mixture (Table 7), once you have its data
  python training/pretrain.py --help                                              every option

No data yet? python training/collect.py makes demonstrations in simulation. Watch a run: tensorboard --logdir runs
Ctrl-C saves; the same command goes on where it stopped. What was left out of the data and why: <run>/data_report.json"""


@dataclass
class PretrainConfig:
    """A pretraining run.

    Args:
        data: folder of a LeRobot data set or of videos, or a list of sources to mix, each with
            path, weight, stride, views and name.
        run: folder for logs, the training state and, at the end, the model in <run>/model.
        views: cameras to train on, one model for all; none given means all that a source has.
        held_out: share of each source's episodes kept for evaluation.
        batch: triplets a step, over all processes together.
        gaps: how far apart a triplet's frames are.
        cache: true decodes all frames once and keeps them in <source>/.cache, false reads the
            videos while training; a number decodes the sources, smaller ones first, that take at
            most this many GB in all.
        workers: processes that read ahead from videos, where any are read while training.
        max_broken: share of a source's episodes that may be broken or too short before training
            refuses to go on.
        probe_gap: k, the gap in frames (times the source's stride) of the held-out figures.
        probe_triplets: held-out triplets in an evaluation, of each source.
        model: size and losses; a file such as training/configs/models/small.yaml, or single values.
        loop: length, optimiser, saving.
    """

    data: str | list[SourceConfig] = ""
    run: str = "runs/pretrain"
    views: list[str] = field(default_factory=list)
    held_out: float = 0.05
    batch: int = 32
    gaps: GapConfig = field(default_factory=GapConfig)
    cache: bool | float = 16.0
    workers: int = 2
    max_broken: float = 0.05
    probe_gap: int = 5
    probe_triplets: int = 256
    model: TransitionConfig = field(default_factory=TransitionConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if min(self.batch, self.probe_triplets, self.probe_gap) < 1:
            raise UserError("batch, probe_triplets and probe_gap must be at least 1")
        if not 0 <= self.max_broken <= 1 or self.workers < 0:
            raise UserError("max_broken must be between 0 and 1, and workers 0 or more")
        for source in self.sources:
            source.check()

    @property
    def sources(self) -> list[SourceConfig]:
        """The sources to mix, in whichever way they are given."""
        if isinstance(self.data, str):
            return [SourceConfig(self.data, views=self.views)] if self.data else []
        return [replace(source, views=source.views or self.views) for source in self.data]


REPORT = "data_report.json"  # in the run's folder

# What may change between a run and its continuation: it changes neither the triplets nor the model.
FREE_FIELDS = ("run", "loop", "cache", "workers", "max_broken", "probe_gap", "probe_triplets")


def main() -> int:
    if len(sys.argv) == 1:
        print(INTRODUCTION)
        return 0
    config = parse_args(PretrainConfig, INTRODUCTION.splitlines()[0])
    if not config.sources:
        raise UserError(
            "no data: give a data set or a folder of videos with --data FOLDER; training/collect.py makes a data set"
        )
    state = PartialState(cpu=config.loop.cpu)
    with state.local_main_process_first():  # which decodes what the others then map
        sources = open_sources(config.sources, config.model.image_size, config.cache)
    model, figures, finished = pretrain(config, sources)
    if finished and state.is_main_process:
        show(figures)
        print(f"model: {Path(config.run) / 'model'}")
    return take_leave(state, 0 if finished else 130)


def pretrain(
    config: PretrainConfig, sources: list[Source]
) -> tuple[TransitionModel, dict[str, float], bool]:
    """Train on the frames of ``sources`` and write ``<run>/model`` and ``<run>/data_report.json``.

    Returns the model, its held-out figures (on the main process; with several sources each figure's
    name begins with its source's), and whether it got so far: an interrupted run only keeps its
    state.
    """
    state = PartialState(cpu=config.loop.cpu)
    if config.loop.resume and (Path(config.run) / STATE_FILE).is_file():
        check_unchanged(Path(config.run), sources)
    splits = [_split(source, config.held_out) for source in sources]
    short = [_too_short(source, config.gaps) for source in sources]
    report = DataReport(sources, short, [held.tolist() for _, held in splits], config.max_broken)
    parts = []
    for source, (training, _) in zip(sources, splits, strict=True):
        try:
            parts.append(TripletSampler(source.frames, training, config.gaps, source.stride))
        except UserError as error:
            raise UserError(f"{source.name}: {error}") from None
    sampler = TripletSampler.mix(parts, [source.weight for source in sources])
    workers = (
        config.workers
        if any(isinstance(frames, OnDemandFrames) for frames in sampler.sources)
        else 0
    )
    known = [set(source.broken) for source in sources]
    batch_at = TripletReader(sampler, config.batch, config.loop.seed, known, workers, report.add)
    if state.is_main_process:
        print("\n".join(report.summary()))
        probes = [held_out(config, report, number, held) for number, (_, held) in enumerate(splits)]
        _write_report(config.run, report)

    def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return model(*(frames.permute(0, 3, 1, 2).float() / 255 for frames in batch))

    def evaluate(model: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(model, TransitionModel)
        figures = [probe(model, triplets) for triplets in probes]
        if len(sources) == 1:
            return figures[0]
        return {
            f"{source.name}/{name}": value
            for source, own in zip(sources, figures, strict=True)
            for name, value in own.items()
        }

    torch.manual_seed(config.loop.seed)
    identity = {key: value for key, value in to_dict(config).items() if key not in FREE_FIELDS}
    try:
        result = train(
            TransitionModel(config.model),
            batch_at,
            losses,
            config.run,
            config.loop,
            evaluate,
            identity,
            config.batch,
            every_nth_triplet,
        )
    finally:
        batch_at.close()
    model = result.model
    assert isinstance(model, TransitionModel)
    report.merge(gather_object([report.found()]))
    figures = {}
    if result.main:
        _write_report(config.run, report)
        if any(report.broken):
            print("\n".join(report.summary()))
    if result.stopped == "interrupted":
        if result.main:
            print(
                f"interrupted at step {result.step} of {config.loop.steps}: saved; the same command goes on"
            )
        return model, {}, False
    if result.main:
        if result.stopped == "time":
            print(
                f"time is up at step {result.step} of {config.loop.steps}: the model is written as it is; the same command goes on"
            )
        figures = evaluate(model, result.step)
        model.save_pretrained(
            Path(config.run) / "model", card(config, figures, result.step, report)
        )
    return model, figures, True


def every_nth_triplet(batch: Tensor, part: int, parts: int) -> Tensor:
    """Triplets part, part + parts, ... of (3, B, S, S, 3)."""
    return batch[:, part::parts]


def held_out(
    config: PretrainConfig, report: DataReport, part: int, episodes: np.ndarray
) -> np.ndarray:
    """Triplets of the held-out ``episodes`` of source ``part``, ``probe_gap`` strides apart: uint8
    (3, B, S, S, 3).
    """
    source, gaps = report.sources[part], GapConfig("fixed", config.probe_gap)
    whole = source.without_broken(episodes)
    if not len(whole):
        raise UserError(
            f"{source.name}: all {len(episodes)} held-out episodes are broken: restore them, or hold out more with --held_out"
        )
    try:
        sampler = TripletSampler(source.frames, whole, gaps, source.stride)
    except UserError:
        raise UserError(
            f"{source.name}: no held-out episode has the {frames_needed(gaps, source.stride)} frames that figures at "
            f"--probe_gap {config.probe_gap} need: choose a smaller one, or hold out more with --held_out"
        ) from None
    triplets = []
    for number, rows in zip(*sampler.spread(config.probe_triplets), strict=True):
        try:
            triplets.append(sampler.sources[number].array[rows])
        except UserError as error:
            report.add(part, sampler.episode(number, rows[0]), str(error))
    if not triplets:
        raise UserError(f"{source.name}: no held-out episode can be read; restore the data")
    return np.stack(triplets, axis=1)


def _split(source: Source, share: float) -> tuple[np.ndarray, np.ndarray]:
    try:
        return split_episodes(len(source.lengths), share)
    except UserError as error:
        raise UserError(f"{source.name}: {error}") from None


def check_unchanged(run: Path, sources: list[Source]) -> None:
    """Raises UserError where a source has more or fewer episodes than when ``run`` was trained:
    others would be held out now, which it has trained on.
    """
    try:
        before = {
            row["path"]: row["episodes"]
            for row in json.loads((run / REPORT).read_text())["sources"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        return  # no report to go by
    for source in sources:
        episodes = len(source.lengths)
        if before.get(source.path, episodes) != episodes:
            raise UserError(
                f"'{source.path}' had {before[source.path]} episodes when '{run}' was trained and has {episodes} now, so that others would "
                "be held out: restore the data, or train anew in another run folder"
            )


def _too_short(source: Source, gaps: GapConfig) -> list[int]:
    """Episodes that are whole but have too few frames for a triplet."""
    return [
        int(e)
        for e in np.flatnonzero(source.lengths < frames_needed(gaps, source.stride))
        if int(e) not in source.broken
    ]


def _write_report(run: str, report: DataReport) -> None:
    path = Path(run) / REPORT
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, report.to_dict())
    except OSError as error:
        raise UserError(f"cannot write '{path}' ({error.strerror}): choose another --run") from None


def show(figures: dict[str, float]) -> None:
    """Print the held-out figures as a table."""
    table = Table("held out", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)


def card(config: PretrainConfig, figures: dict[str, float], step: int, report: DataReport) -> str:
    """The model's README.md."""
    lines = "\n".join(f"| {name} | {value:.4g} |" for name, value in figures.items())
    rows = "\n".join(
        f"| {row['name']} | {', '.join(row['views'])} | {row['share']:.1%} | {row['stride']} | {row['episodes'] - row['held_out']} "
        f"| {row['held_out']} | {len(row['broken']) + len(row['too_short'])} |"
        for row in report.to_dict()["sources"]
    )
    return f"""# Transition model

Encodes two frames of a view into a latent transition of {config.model.latent_tokens} x {config.model.latent_dim} numbers.
Images: {config.model.image_size} px RGB in [0, 1] (`alam_core.latent_action.encode_images` takes uint8 of any size).

- Trained on video only, no actions; broken and too short episodes are left out of both kinds:

| source | views | share of the triplets | stride | episodes to train on | held out | broken or too short |
|---|---|---|---|---|---|---|
{rows}

- Steps: {step} of {config.loop.steps}, {config.batch} triplets each; gaps {config.gaps.kind}, {config.gaps.frames} strides.
- Command: `{command_line()}`

Held-out episodes, k = {config.probe_gap} strides (what each figure is: `alam_core/latent_action/probes.py`):

| figure | value |
|---|---|
{lines}
"""
