"""Toy runs of stage 1 for the tests of probes and clips: two small worlds and a folder of runs."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from alam_core.data.lerobot.writer import LeRobotWriter
from alam_core.data.mixture import SourceConfig, open_sources
from alam_core.errors import run_main
from alam_core.latent_action import TransitionConfig, TransitionModel
from alam_core.latent_action.triplets import GapConfig
from alam_training.commands.pretrain import pretrain
from alam_training.loop.config import LoopConfig
from alam_training.loop.state import STATE_FILE
from alam_training.stage1.config import PretrainConfig

RUNS = (
    "lam_s0",
    "lam_s1",
    "alam_s0",
    "alam_s1",
    "potential_s0",
    "no_rev_add_s0",
    "no_rev_s0",
    "no_add_s0",
)


def write_world(
    root: Path, views: list[str], episodes: int = 5, frames: int = 14, size: int = 32, seed: int = 0
) -> Path:
    """A LeRobot data set of bright squares that drift; the background has another shade in each
    episode.
    """
    rng = np.random.default_rng(seed)
    with LeRobotWriter(
        root, 10.0, {view: (size, size) for view in views}, ["x"], ["u"], "toy"
    ) as writer:
        for episode in range(episodes):
            images = {
                view: np.full((frames, size, size, 3), 40 + 10 * episode, np.uint8)
                for view in views
            }
            for video in images.values():
                place, speed = rng.uniform(4, 12, 2), rng.uniform(0.3, 0.9, 2)
                for t in range(frames):
                    y, x = (place + t * speed).astype(int)
                    video[t, y : y + 7, x : x + 7] = (250, 200, 50)
            writer.add_episode(images, np.zeros((frames, 1)), np.zeros((frames, 1)), "go")
    return root


def model_config(encoder: str) -> TransitionConfig:
    return TransitionConfig(
        encoder=encoder,
        image_size=32,
        patch_size=16,
        width=16,
        heads=2,
        encoder_layers=1,
        decoder_layers=1,
        latent_tokens=2,
        latent_dim=4,
        codebook_size=8,
        warmup_steps=1,
    )


def make_runs(root: Path) -> Path:
    """Make a folder with the runs ``RUNS``, as for Table 4, on a mixture of two worlds, one of them
    with two views. Only the first run is trained; the others have random weights.
    """
    worlds = [
        write_world(root / "north", ["third_person", "wrist"]),
        write_world(root / "south", ["third_person"], seed=1),
    ]
    config = PretrainConfig(
        data=[SourceConfig(str(world)) for world in worlds],
        run=str(root / "runs" / RUNS[0]),
        held_out=0.4,
        batch=2,
        gaps=GapConfig("fixed", 2),
        probe_gap=2,
        probe_triplets=2,
        model=model_config("relational"),
        loop=LoopConfig(steps=2, cpu=True),
    )
    pretrain(config, open_sources(config.sources, 32, True))
    for seed, name in enumerate(RUNS[1:], 1):
        torch.manual_seed(seed)
        model = TransitionModel(
            model_config("potential" if name.startswith("potential") else "relational")
        )
        model.steps.fill_(2)  # past the warm-up: the codebook is in use
        model.save_pretrained(root / "runs" / name / "model")
        shutil.copy(root / "runs" / RUNS[0] / STATE_FILE, root / "runs" / name / STATE_FILE)
    return root / "runs"


def call(monkeypatch: pytest.MonkeyPatch, main: object, *args: str) -> int:
    """Exit code of a script with these arguments, in this process."""
    monkeypatch.setattr(sys, "argv", ["script.py", *args])
    with pytest.raises(SystemExit) as stopped:
        run_main(main)  # type: ignore[arg-type]
    return int(stopped.value.code or 0)
