"""How far loss curves differ between two processes and one, and between a run that is killed
repeatedly and an uninterrupted one.

The runs are real processes of ``training/pretrain.py`` on a small synthetic data set. The tests use
the same functions.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from alam_core.data.lerobot.writer import LeRobotWriter
from alam_core.errors import UserError
from alam_core.files import temporaries
from alam_core.results import write_result
from alam_training.loop.state import STATE_FILE

ROOT = Path(__file__).resolve().parents[3]
Curve = dict[str, list[tuple[int, float]]]  # name of a loss -> (step, value), by step
SMALL_LOOP = {
    "loop.log_every": "1",
    "loop.eval_every": "1000",
    "loop.save_every": "1000",
    "loop.cpu": "true",
    "loop.optim.lr": "1e-3",
    "loop.optim.warmup_steps": "5",
}
# A model of 16 px whose codebook is used from step 8 on and whose algebraic losses have their full
# weight from step 16 on.
SMALL = {
    "batch": "16",
    "gaps.frames": "4",
    "probe_gap": "2",
    "probe_triplets": "16",
    "model.image_size": "16",
    "model.patch_size": "4",
    "model.width": "32",
    "model.heads": "2",
    "model.encoder_layers": "2",
    "model.decoder_layers": "2",
    "model.latent_tokens": "4",
    "model.latent_dim": "8",
    "model.codebook_size": "32",
    "model.warmup_steps": "8",
    "model.ramp_steps": "8",
    "model.encoder": "residual",
    "model.losses.add": "1",
    "model.losses.rev": "1",
    "loop.steps": "30",
    **SMALL_LOOP,
}
# A policy of 32 px that generates latents together with its actions.
SMALL_POLICY = {
    "batch": "16",
    "held_out": "0.1",
    "model.horizon": "4",
    "model.image_size": "32",
    "model.small.width": "32",
    "model.small.layers": "2",
    "model.small.heads": "2",
    "model.small.mlp_width": "32",
    "model.small.channels": "[8,8,16,16]",
    "model.small.keypoints": "4",
    "latent_width": "3",
    "loop.steps": "20",
    **SMALL_LOOP,
}
# The scales of the algebraic losses. The encoders are those whose z is not constant after
# initialisation: the covariance and the codebook entries of a constant z are mostly rounding.
OBJECTIVES = {
    "whitened": {"model.losses.algebra": "whitened", "model.encoder": "antisymmetric"},
    "relative": {"model.losses.algebra": "relative"},
    "paper": {"model.losses.algebra": "paper"},
}
LOSSES = ("total", "rec", "vq", "add", "rev")
# After this step rounding may have decided which of two equally near codebook entries a latent is
# assigned to.
ROUNDING_ONLY = 20
# Options that ``accelerate launch`` would otherwise ask or warn about; port 0 is any free one.
LAUNCH = (
    "--num_machines=1",
    "--mixed_precision=no",
    "--dynamo_backend=no",
    "--main_process_port=0",
)


@dataclass
class ScaleConfig:
    """What to measure.

    Args:
        steps: optimiser steps of each run.
        kills: how many times the killed run is killed.
        seed: seed of the training, and of the times at which it is killed.
        save: write results/training_scale.json.
    """

    steps: int = 60
    kills: int = 6
    seed: int = 0
    save: bool = True


def main(config: ScaleConfig) -> int:
    """Measure, print and write the result file."""
    values: dict[str, Any] = {"steps": config.steps}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = make_data(folder / "data")
        steps = {"loop.steps": str(config.steps), "loop.seed": str(config.seed)}
        for algebra, options in OBJECTIVES.items():
            options = {**steps, **options}
            pretrain(data, folder / algebra / "one", options)
            pretrain(data, folder / algebra / "two", options, processes=2)
            values[f"two_processes_{algebra}"] = _differences(
                folder / algebra / "one", folder / algebra / "two"
            )
            difference = values[f"two_processes_{algebra}"]
            print(f"two processes and one, {algebra}: {difference}", flush=True)
        pretrain(
            data,
            folder / "sharded",
            {**steps, **OBJECTIVES["whitened"], "loop.sharded": "true"},
            processes=2,
        )
        values["two_processes_sharded"] = _differences(
            folder / "whitened" / "one", folder / "sharded"
        )
        print(f"two processes (FSDP) and one: {values['two_processes_sharded']}", flush=True)
        often = {**steps, "loop.save_every": "2"}
        pretrain(data, folder / "unbroken", often)
        kills = train_despite_kills(data, folder / "killed", often, config.kills, config.seed)
        values["killed"] = {**kills, **compare(folder / "unbroken", folder / "killed")}
        del values["killed"]["terms"]
        print(f"killed and resumed, and uninterrupted: {values['killed']}")
    if config.save:
        print(f"results: {write_result('training_scale', values, [config.seed])}")
    return 0


def _differences(one: Path, two: Path) -> dict[str, float]:
    return {
        f"first_{ROUNDING_ONLY}_steps": compare(one, two, ROUNDING_ONLY)["loss_curve"],
        "loss_curve": compare(one, two)["loss_curve"],
    }


def make_data(folder: Path, episodes: int = 12, frames: int = 20, size: int = 32) -> Path:
    """A LeRobot data set of a bright square that drifts over a grey background."""
    rng = np.random.default_rng(0)
    with LeRobotWriter(folder, 10.0, {"third_person": (size, size)}, ["x"], ["u"], "toy") as writer:
        for _ in range(episodes):
            video = np.full((frames, size, size, 3), 60, np.uint8)
            position, velocity = rng.uniform(2, size - 10, 2), rng.choice([-1.0, 1.0], 2)
            for t in range(frames):
                y, x = np.abs((position + t * velocity) % (2 * (size - 8)) - (size - 8)).astype(int)
                video[t, y : y + 8, x : x + 8] = (250, 200, 50)
            zeros = np.zeros((frames, 1), np.float32)
            writer.add_episode({"third_person": video}, zeros, zeros, "look")
    return folder


def start(
    data: Path,
    run: Path,
    options: dict[str, str] | None = None,
    processes: int = 1,
    output: int = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """Start ``training/pretrain.py`` on ``data`` with the options of ``SMALL`` and then
    ``options``, one thread per process.
    """
    return launch(
        "pretrain",
        {**SMALL, **(options or {}), "data": str(data), "run": str(run)},
        processes,
        output,
    )


def launch(
    script: str, options: dict[str, str], processes: int = 1, output: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """Start a script of ``training/`` with ``options``, one thread per process."""
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    several = (
        ["-m", "accelerate.commands.launch", "--multi_gpu", f"--num_processes={processes}", *LAUNCH]
        if processes > 1
        else []
    )
    command = [sys.executable, *several, f"training/{script}.py", *flags]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True
    )


def pretrain(
    data: Path, run: Path, options: dict[str, str] | None = None, processes: int = 1
) -> str:
    """``start`` and wait for the end; returns what it printed. Raises UserError if it fails."""
    process = start(data, run, options, processes)
    output, _ = process.communicate()
    if process.returncode:
        raise UserError(f"the training ended with exit code {process.returncode}:\n{output}")
    return output


def train_despite_kills(
    data: Path, run: Path, options: dict[str, str], kills: int, seed: int
) -> dict[str, int]:
    """Train to the end despite SIGKILLs, each after a few saves: every other one as soon as the
    next save begins, the others at a random time. Returns how many "kills" hit a running process,
    and how many of them "while_saving".
    """
    rng, hits, saving = random.Random(seed), 0, 0
    state = run / STATE_FILE
    for kill in range(kills):
        process = start(data, run, options, output=subprocess.DEVNULL)
        saves, seen = rng.randint(1, 3), _written(state)
        while process.poll() is None and saves:
            time.sleep(0.001)
            if _written(state) != seen:
                saves, seen = saves - 1, _written(state)
        if kill % 2:
            while process.poll() is None and not temporaries(state):
                pass
        else:
            time.sleep(rng.uniform(0, 0.2))
        hits += process.poll() is None
        process.kill()
        process.wait()
        saving += bool(temporaries(state))
    pretrain(data, run, options)
    return {"kills": hits, "while_saving": saving}


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def curve(run: Path) -> Curve:
    """The training losses that a run has logged."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    return {
        tag.removeprefix("train/"): [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag.startswith("train/")
    }


def compare(one: Path, other: Path, steps: int | None = None) -> dict[str, Any]:
    """Largest difference of each logged loss up to step ``steps``, relative to its mean magnitude
    over the run; and whether the exported weights are equal bit for bit.
    """
    curves = curve(one), curve(other)
    if [[step for step, _ in curves[0][name]] for name in curves[0]] != [
        [step for step, _ in curves[1].get(name, [])] for name in curves[0]
    ]:
        raise UserError(f"'{one.name}' and '{other.name}' have not logged the same steps")
    differences = {}
    for name, points in curves[0].items():
        a, b = (
            np.array([value for step, value in values if step <= (steps or step)])
            for values in (points, curves[1][name])
        )
        differences[name] = float(np.abs(a - b).max() / max(np.abs(a).mean(), 1e-12))
    weights = [
        safetensors.torch.load_file(run / "model" / "model.safetensors") for run in (one, other)
    ]
    equal = all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    return {
        "loss_curve": max(differences[name] for name in LOSSES),
        "terms": differences,
        "weights_equal": equal,
    }
