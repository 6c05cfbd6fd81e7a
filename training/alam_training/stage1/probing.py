"""Metrics of one trained transition model on the held-out clips of its own data, cached in its run
folder.
"""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from rich.progress import Progress

from alam_core.checkpoints import checkpoint_hash
from alam_core.data.mixture import open_sources
from alam_core.errors import UserError
from alam_core.files import write_json
from alam_core.latent_action.action_probe import action_probe
from alam_core.latent_action.interface import TransitionEncoder
from alam_core.latent_action.perceptual import PerceptualDistance
from alam_core.latent_action.probes import ImageDistance, probe_horizons
from alam_training.stage1.actions import ActionProbeConfig, action_spans, read_labels
from alam_training.stage1.clips import held_out_clips
from alam_training.stage1.runs import data_identity, run_config
from alam_training.stage1.summary import Metrics

CACHE = "probes.json"  # in the run's folder
ACTION_METRICS = ("r2", "r2_without_z", "r2_motion", "views", "dimensions")
ALEXNET_PX = 32  # the smallest images that LPIPS can compare


def perceptual_distance(device: torch.device) -> tuple[ImageDistance | None, str]:
    """LPIPS on ``device`` and "", or None and why it cannot be computed."""
    try:
        return PerceptualDistance().to(device), ""
    except UserError as error:
        return None, str(error)


def probe_run(
    run: Path,
    gap: int,
    clips: int,
    lpips: ImageDistance | None,
    device: torch.device,
    actions: ActionProbeConfig,
    fresh: bool = False,
    bars: bool = True,
) -> dict[str, Metrics]:
    """World -> metrics of ``probe_horizons`` of the run's model, and those of ``action_probe``,
    with the prefix ``action_``; None in a world without labels.

    gap: k in frames. clips: at most this many per world. If the same model was probed on the same
    clips before, the metrics are read from <run>/probes.json, unless ``fresh``. bars: show progress
    bars.
    """
    trained = run_config(run)
    key = {
        "model": checkpoint_hash(run / "model"),
        "data": json.loads(json.dumps(data_identity(trained))),
        "gap": gap,
        "clips": clips,
        "lpips": lpips is not None,
        "actions": asdict(actions),
    }
    path = run / CACHE
    if not fresh and path.is_file():
        try:
            cached = json.loads(path.read_text())
            if cached["key"] == key:
                return cached["worlds"]
        except (ValueError, KeyError, TypeError):
            pass  # a broken file: probe again
    model = TransitionEncoder.from_pretrained(run / "model").to(device)
    size = model.image_size
    worlds = held_out_clips(run, trained, size, gap, clips)
    metrics = {}
    with Progress(transient=True, disable=not bars) as progress:
        for world, own in worlds.items():
            count = len(own.groups)
            task = progress.add_task(f"{run.name}, {world}", total=2 * count)
            measured = probe_horizons(
                model,
                own.frames,
                own.groups,
                lpips if size >= ALEXNET_PX else None,
                progress=partial(progress.advance, task),
            )
            metrics[world] = {**measured, "clips": count}
    for config, source in zip(
        trained.sources, open_sources(trained.sources, size, trained.cache), strict=True
    ):
        labels = read_labels(config, actions) if actions.labelled else None
        found = {}
        if labels is not None:
            spans = action_spans(model, source, labels, actions)
            found = action_probe(spans, labels.labelled, actions.width, labels.action_names)
        metrics[source.name] |= {f"action_{name}": found.get(name) for name in ACTION_METRICS}
    write_json(path, {"key": key, "worlds": metrics})
    counts = ", ".join(f"{len(own.groups)} clips of {world}" for world, own in worlds.items())
    print(f"{run}: probed on {counts}", flush=True)
    return metrics
