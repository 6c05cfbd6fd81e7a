"""Section 4.1's probes of trained transition models on the held-out episodes of their own data."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from alam_core.command_line import join_values
from alam_core.config import parse_args
from alam_core.errors import UserError
from alam_core.latent_action.probes import ImageDistance
from alam_training.episodes.workers import check_workers, workers
from alam_training.report.terminal import probe_table
from alam_training.stage1.actions import ActionProbeConfig
from alam_training.stage1.probing import perceptual_distance, probe_run
from alam_training.stage1.runs import find_runs, run_config, trained_frames
from alam_training.stage1.summary import Metrics, Worlds, write_results

INTRODUCTION = """Probe trained transition models (stage 1) on episodes they were not trained on.
Metrics: additivity and reversal errors of z, reconstruction over the horizons k to 5k, health of z,
and how well actions can be read from z, if few episodes have labels.

  python training/probe.py --models runs/pretrain_piper
      one run of training/pretrain.py, several, or a folder of runs
  python training/probe.py --models runs/worlds --record true
      runs named <method>_s<seed>: also writes results/transition_*.json
  python training/probe.py --help
      every option

It takes about a minute per model and world on one core. Each run keeps its metrics in
<run>/probes.json, so that the same model is not probed twice."""


@dataclass
class ProbeConfig:
    """What to probe.

    Args:
        models: run folders of training/pretrain.py, or folders of run folders. The folder's name
            gives <method>_s<seed>, where <method> is lam, alam, antisymmetric, potential,
            no_rev_add, no_rev, no_add or another name.
        gap: k in frames.
        clips: held-out clips of 5 k + 1 frames per world, evenly spread over its views and
            episodes.
        actions: how to probe transitions for actions, where the data have labels.
        record: write results/transition_probes.json and, if there are runs of Table 4,
            results/transition_ablation.json.
        results: folder of the result files.
        fresh: probe again even if <run>/probes.json has the metrics.
        workers: processes, each of which probes one run at a time; 0 probes them in this process.
        ray: address of a Ray cluster (host:port; auto: the running cluster of this host) whose
            machines run the workers; empty: this machine. docs/scale.md says how to start one.
    """

    models: list[str] = field(default_factory=list)
    gap: int = 5
    clips: int = 256
    actions: ActionProbeConfig = field(default_factory=ActionProbeConfig)
    record: bool = False
    results: str = "results"
    fresh: bool = False
    workers: int = 0
    ray: str = ""

    def __post_init__(self) -> None:
        check_workers(self.workers, self.ray)
        if self.gap < 1 or self.clips < 2:
            raise UserError(
                f"gap is {self.gap} and clips is {self.clips}: they must be at least 1 and 2"
            )


Prepared = tuple[torch.device, ImageDistance | None, str]  # the last: why there is no LPIPS


def _prepare() -> Prepared:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return device, *perceptual_distance(device)


def _probe(
    prepared: Prepared, config: ProbeConfig, run: Path, bars: bool
) -> tuple[dict[str, Metrics], str]:
    """The metrics of a run, and why they lack LPIPS, "" if they have it."""
    device, lpips, no_lpips = prepared
    metrics = probe_run(
        run, config.gap, config.clips, lpips, device, config.actions, config.fresh, bars
    )
    return metrics, no_lpips


def _probed(config: ProbeConfig, runs: list[Path]) -> Iterator[tuple[dict[str, Metrics], str]]:
    """What ``_probe`` returns for each run, in order."""
    if not config.workers:
        prepared = _prepare()
        yield from (_probe(prepared, config, run, True) for run in runs)
        return
    count = min(config.workers, len(runs))
    with workers(count, _prepare, ray=config.ray, gpu=torch.cuda.is_available()) as submit:
        futures = [submit(_probe, config, run, False) for run in runs]
        yield from (
            future.result()
            for future in track(futures, "runs probed", disable=not sys.stderr.isatty())
        )


def main() -> int:
    if len(sys.argv) == 1:
        print(INTRODUCTION)
        return 0
    args = join_values(sys.argv[1:], "--models")
    config = parse_args(ProbeConfig, INTRODUCTION.splitlines()[0], args)
    runs = find_runs(config.models)
    probed = list(_probed(config, list(runs)))
    no_lpips = probed[-1][1]
    worlds: Worlds = {}
    for (method, seed), (metrics, _) in zip(runs.values(), probed, strict=True):
        for world, values in metrics.items():
            worlds.setdefault(world, {}).setdefault(method, {})[seed] = values
    console = Console() if sys.stdout.isatty() else Console(width=160)
    for world, methods in worlds.items():
        console.print(probe_table(world, methods))
    if no_lpips:
        console.print(f"no LPIPS: {no_lpips}", highlight=False, soft_wrap=True)
    if config.record:
        horizon = max(trained_frames(run_config(run)) for run in runs) / config.gap
        for path in write_results(worlds, config.gap, horizon, no_lpips, config.results):
            console.print(f"written: {path}", highlight=False, soft_wrap=True)
    return 0
