"""Section 4.1's probes of trained transition models on the held-out episodes of their own data, and
the tables made of them.
"""

import json
import re
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from alam_core.checkpoints import checkpoint_hash
from alam_core.config import parse_args
from alam_core.errors import UserError
from alam_core.files import write_json
from alam_core.latent_action.interface import TransitionEncoder
from alam_core.latent_action.perceptual import PerceptualDistance
from alam_core.latent_action.probes import ImageDistance, probe_horizons
from alam_core.results import write_result
from alam_training.stage1.clips import data_identity, held_out_clips, run_config, trained_frames
from alam_training.stage1.summary import (
    ABLATION,
    DEFINITIONS,
    METHODS,
    Figures,
    ablation_values,
    over_seeds,
    ratios,
    with_ends,
    world_values,
)

INTRODUCTION = """Probe trained transition models (stage 1) on episodes they were not trained on.
Figures: additivity and reversal of z, reconstruction over the horizons k to 5k, and the health of z.

  python training/probe.py --models runs/pretrain_piper            one run of training/pretrain.py, or several, or a folder of runs
  python training/probe.py --models runs/worlds --record true      runs named <method>_s<seed>: also results/transition_*.json
  python training/probe.py --help                                  every option

About a minute for each model and world on one core. What was probed is kept in <run>/probes.json and not done again."""

CACHE = "probes.json"


@dataclass
class ProbeConfig:
    """What to probe.

    Args:
        models: run folders of training/pretrain.py, or folders of such. A run's name says what it
            is: <method>_s<seed>, methods lam, alam, antisymmetric, potential, no_rev_add, no_rev,
            no_add or anything else.
        gap: k in frames.
        clips: held-out clips of 5 k + 1 frames for each world, evenly spread over its views and
            episodes.
        record: write results/transition_probes.json and, where there are runs of Table 4,
            results/transition_ablation.json.
        results: folder for them.
        fresh: probe again what was probed before.
    """

    models: list[str] = field(default_factory=list)
    gap: int = 5
    clips: int = 256
    record: bool = False
    results: str = "results"
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.gap < 1 or self.clips < 2:
            raise UserError(
                f"gap is {self.gap} and clips is {self.clips}: they must be at least 1 and 2"
            )


def main() -> int:
    if len(sys.argv) == 1:
        print(INTRODUCTION)
        return 0
    config = parse_args(ProbeConfig, INTRODUCTION.splitlines()[0], listed(sys.argv[1:], "--models"))
    runs = find_runs(config.models)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lpips, why = perceptual_distance(device)
    figures = {run: run_figures(run, config, lpips, device) for run in runs}
    console = Console() if sys.stdout.isatty() else Console(width=160)
    worlds: dict[str, dict[str, dict[int, Figures]]] = {}  # world -> method -> seed -> figures
    for run, (method, seed) in runs.items():
        for world, values in figures[run].items():
            worlds.setdefault(world, {}).setdefault(method, {})[seed] = values
    for world, methods in worlds.items():
        console.print(table(world, methods))
    if why:
        console.print(f"no LPIPS: {why}", highlight=False, soft_wrap=True)
    if config.record:
        for path in record(worlds, config, why):
            console.print(f"written: {path}", highlight=False, soft_wrap=True)
    return 0


def listed(args: list[str], flag: str) -> list[str]:
    """``--models a b c`` as the one list argument that the parser knows; what is a list already is
    left alone.
    """
    out: list[str] = []
    values: list[str] | None = None
    for arg in [*args, "--"]:
        if arg.startswith("--"):
            if values is not None:
                out[-1] += "=" + (
                    values[0]
                    if len(values) == 1 and values[0].startswith("[")
                    else json.dumps(values)
                )
            values = [] if arg == flag else None
        elif values is not None:
            values.append(arg)
            continue
        out.append(arg)
    return out[:-1]


def find_runs(folders: list[str]) -> dict[Path, tuple[str, int]]:
    """Run folders with a model -> (method, seed), in METHODS' order. Raises UserError where there
    is none, or two of a kind.
    """
    if not folders:
        raise UserError(
            "no model: give run folders of training/pretrain.py with --models FOLDER ..."
        )
    runs: dict[Path, tuple[str, int]] = {}
    for folder in map(Path, folders):
        found = (
            [folder]
            if (folder / "model").is_dir()
            else sorted(path.parent for path in folder.glob("*/model") if path.is_dir())
        )
        if not found:
            raise UserError(
                f"'{folder}' holds no trained model: a run of training/pretrain.py that has ended holds it in model/"
            )
        for run in found:
            name = re.fullmatch(r"(.+)_s(\d+)", run.name)
            kind = (name[1], int(name[2])) if name else (run.name, run_config(run).loop.seed)
            twin = next((other for other, of in runs.items() if of == kind and other != run), None)
            if twin is not None:
                raise UserError(
                    f"'{twin}' and '{run}' are both {kind[0]}, seed {kind[1]}: give one of them, or rename it"
                )
            runs[run] = kind
    known = {method: place for place, method in enumerate(METHODS)}
    return dict(sorted(runs.items(), key=lambda item: (known.get(item[1][0], len(known)), item[1])))


def perceptual_distance(device: torch.device) -> tuple[ImageDistance | None, str]:
    """LPIPS of images on ``device``, or None and why not."""
    try:
        return PerceptualDistance().to(device), ""
    except UserError as error:
        return None, str(error)


def run_figures(
    run: Path, config: ProbeConfig, lpips: ImageDistance | None, device: torch.device
) -> dict[str, Figures]:
    """World -> figures of ``probe_horizons`` of the run's model, from <run>/probes.json where they
    were measured alike before.
    """
    trained = run_config(run)
    key = {
        "model": checkpoint_hash(run / "model"),
        "data": json.loads(json.dumps(data_identity(trained))),
        "gap": config.gap,
        "clips": config.clips,
        "lpips": lpips is not None,
    }
    path = run / CACHE
    if not config.fresh and path.is_file():
        try:
            kept = json.loads(path.read_text())
            if kept["key"] == key:
                return kept["worlds"]
        except (ValueError, KeyError, TypeError):
            pass  # broken: measured again
    model = TransitionEncoder.from_pretrained(run / "model").to(device)
    worlds = held_out_clips(run, trained, model.image_size, config.gap, config.clips)
    if lpips is not None and model.image_size < 32:
        lpips = None  # smaller than what AlexNet can see
    figures = {}
    with Progress(transient=True) as progress:
        for world, clips in worlds.items():
            task = progress.add_task(f"{run.name}, {world}", total=2 * len(clips.groups))
            figures[world] = {
                **probe_horizons(
                    model,
                    clips.frames,
                    clips.groups,
                    lpips,
                    progress=partial(progress.advance, task),
                ),
                "clips": len(clips.groups),
            }
    write_json(path, {"key": key, "worlds": figures})
    print(
        f"{run}: probed on {', '.join(f'{len(clips.groups)} clips of {world}' for world, clips in worlds.items())}",
        flush=True,
    )
    return figures


def table(world: str, methods: dict[str, dict[int, Figures]]) -> Table:
    """Figures of a world on a terminal, one column a method; deviations are in the result file."""
    out = Table(box=SIMPLE_HEAD, title=f"{world}, held out: means over so many seeds")
    out.add_column("", no_wrap=True)
    for name, parts in methods.items():
        out.add_column(f"{name} ({len(parts)})", justify="right")
    merged = {
        name: over_seeds({seed: with_ends(f) for seed, f in parts.items()})
        for name, parts in methods.items()
    }

    def row(label: str, name: str, t: str = "") -> None:
        values = [
            figures[name][t] if t and figures[name] else figures[name]
            for figures in merged.values()
        ]
        out.add_row(label, *("-" if value is None else f"{value:.4g}" for value in values))

    row("PSNR k", "psnr_k")
    row("PSNR k, shuffled z", "psnr_k_shuffled")
    row("PSNR 5k", "psnr_5k")
    row("PSNR 5k, cumulative", "psnr_cum_5k")
    row("SSIM k", "ssim", "1")
    row("SSIM 5k, cumulative", "ssim_cum", "5")
    row("LPIPS k", "lpips", "1")
    row("LPIPS 5k, cumulative", "lpips_cum", "5")
    for label, name, t in (
        ("additivity 5k", "add", "5"),
        ("reversal k", "rev", "1"),
        ("reversal 5k", "rev", "5"),
    ):
        row(f"{label}, relative", f"{name}_rel", t)
        row(f"{label}, centred z", f"{name}_centred", t)
        row(f"{label}, raw", name, t)
    for name in (
        "latent_norm",
        "constant_share",
        "effective_dims",
        "codebook_perplexity",
        "dead_codes",
    ):
        row(name.replace("_", " "), name)
    copied = next(iter(next(iter(methods.values())).values()))["psnr_copy"]
    lines = [f"copying the source: PSNR {copied['1']:.2f} at k, {copied['5']:.2f} at 5k"]
    if {"lam", "alam"} <= merged.keys():
        for label, centred in (("lam / alam", False), ("mean-subtracted lam / alam", True)):
            of = ratios(merged["lam"], merged["alam"], centred)
            lines.append(
                f"{label}: "
                + ", ".join(
                    f"{name} {'-' if value is None else f'{value:.3g}'}"
                    for name, value in of.items()
                )
            )
    out.caption = "\n".join(lines)
    return out


def record(
    worlds: dict[str, dict[str, dict[int, Figures]]], config: ProbeConfig, why: str
) -> list[Path]:
    """Write the result files; methods of Table 4 that are no others go into the ablation only."""
    seeds = sorted(
        {seed for methods in worlds.values() for parts in methods.values() for seed in parts}
    )
    trained = max(trained_frames(run_config(run)) for run in find_runs(config.models)) / config.gap
    notes = {
        "definitions": DEFINITIONS,
        "gap": config.gap,
        "trained_horizon": trained,
        **({"why": f"no LPIPS: {why}"} if why else {}),
    }
    values = {}
    for world, methods in worlds.items():
        chosen = {
            name: parts for name, parts in methods.items() if name not in ABLATION or name == "lam"
        }
        if chosen:
            values[world] = world_values(chosen, next(iter(next(iter(chosen.values())).values())))
    paths = (
        [write_result("transition_probes", {**values, **notes}, seeds, config.results)]
        if values
        else []
    )
    ablation = ablation_values(worlds)
    if any(row in ablation for row in set(ABLATION) - {"lam", "full"}):
        paths.append(
            write_result("transition_ablation", {**ablation, **notes}, seeds, config.results)
        )
    return paths
