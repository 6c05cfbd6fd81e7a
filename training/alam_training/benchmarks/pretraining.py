"""Stage 1 at the paper's size: parameters, peak memory and time per step on this machine's CPU and,
if it has one, its GPU.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from alam_core.config import from_dict, to_dict
from alam_core.errors import UserError
from alam_core.latent_action import TransitionConfig, TransitionModel
from alam_core.results import write_result
from alam_training.benchmarks.device import operations_per_second
from alam_training.loop.config import OptimConfig
from alam_training.loop.optim import adamw
from alam_training.loop.state import WeightAverage

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class PretrainingConfig:
    """A benchmark of stage 1.

    Args:
        model: file with the model's size and losses.
        batch: triplets per step on the CPU.
        gpu_batch: triplets per step on the GPU.
        steps: optimiser steps to time, after one step of warm-up.
        save: write results/pretraining_paper_size.json.
    """

    model: str = "training/configs/models/paper.yaml"
    batch: int = 1
    gpu_batch: int = 32
    steps: int = 3
    save: bool = True

    def __post_init__(self) -> None:
        if min(self.batch, self.gpu_batch, self.steps) < 1:
            raise UserError("batch, gpu_batch and steps must be at least 1")


def main(config: PretrainingConfig) -> int:
    """Measure, print and write the result file."""
    model = read_model(config.model)
    values: dict[str, Any] = {
        "model": Path(config.model).stem,
        "batch": config.batch,
        "perceptual_loss": model.losses.perc > 0,
    }
    for precision in ("no", "bf16"):
        measured = _in_subprocess(model, config, precision)
        values["parameters"] = measured["parameters"]
        suffix = "" if precision == "no" else f"_{precision}"
        names = {"peak_gib": "peak_gib", "step_s": "cpu_step_s", "step_core_s": "cpu_step_core_s"}
        values |= {name + suffix: measured[key] for key, name in names.items()}
        print(f"CPU, mixed precision {precision}: {measured}", flush=True)
    if torch.cuda.is_available():
        values["gpu"] = on_gpu(model, config.gpu_batch, config.steps)
    else:
        values |= {"gpu": None, "why": "no GPU on this machine"}
    print(json.dumps(values, indent=2))
    if config.save:
        print(f"results: {write_result('pretraining_paper_size', values, [0])}")
    return 0


def read_model(path: str) -> TransitionConfig:
    """Size and losses from a YAML file. Raises UserError if it cannot be read or does not fit."""
    try:
        values = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(
            f"cannot read the model '{path}' ({error}): give a file such as "
            "training/configs/models/paper.yaml"
        ) from None
    return from_dict(TransitionConfig, values, path)


class Steps:
    """Optimiser steps on random frames like those of ``train``: forward, backward, clipping, AdamW,
    moving average of the weights.
    """

    def __init__(self, config: TransitionConfig, batch: int, device: str, bf16: bool) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = TransitionModel(config).to(device).train()
        self.optimizer, self.average = (
            adamw(self.model, OptimConfig()),
            WeightAverage(self.model, 0.99),
        )
        self.frames = [
            torch.rand(batch, 3, config.image_size, config.image_size, device=device)
            for _ in range(3)
        ]
        self._autocast = lambda: torch.autocast(device, torch.bfloat16, enabled=bf16)

    def gradients(self) -> Tensor:
        with self._autocast():
            total = self.model(*self.frames)["total"]
        total.backward()
        return total.detach()

    def __call__(self) -> None:
        total = self.gradients()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.model)
        if not torch.isfinite(total):
            raise UserError("the loss is not finite: the time of the step is meaningless")


def on_cpu(config: TransitionConfig, batch: int, steps: int, precision: str) -> dict[str, Any]:
    """Parameters, peak memory of this process in GiB, and the cost of a step on all cores it may
    use: median wall-clock seconds, and CPU seconds, which other processes do not affect.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    step = Steps(config, batch, "cpu", precision == "bf16")
    step()
    worked = time.process_time()
    seconds = sorted(_seconds(step) for _ in range(steps))[steps // 2]
    worked = (time.process_time() - worked) / steps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # from KiB
    parameters = sum(parameter.numel() for parameter in step.model.parameters())
    return {
        "parameters": parameters,
        "peak_gib": round(peak, 2),
        "step_s": round(seconds, 2),
        "step_core_s": round(worked, 2),
    }


def on_gpu(config: TransitionConfig, batch: int, steps: int) -> dict[str, float]:
    """Triplets per second in bf16, peak memory in GiB, and the fraction reached of the bf16 matrix
    product throughput measured on the same GPU.
    """
    step = Steps(config, batch, "cuda", bf16=True)
    step()
    with FlopCounterMode(display=False) as counter:
        step.gradients()
    step.optimizer.zero_grad()
    torch.cuda.reset_peak_memory_stats()
    seconds = sorted(_seconds(step) for _ in range(steps))[steps // 2]
    peak = torch.cuda.max_memory_allocated() / 2**30
    share = counter.get_total_flops() / seconds / operations_per_second("cuda")
    return {
        "triplets_s": round(batch / seconds, 1),
        "peak_gib": round(peak, 2),
        "bf16_share": round(share, 3),
    }


def _seconds(do: Callable[[], Any]) -> float:
    started = time.perf_counter()
    do()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _in_subprocess(
    model: TransitionConfig, config: PretrainingConfig, precision: str
) -> dict[str, Any]:
    """``on_cpu`` in a separate process, so that its peak memory is that of the training alone."""
    request = json.dumps([to_dict(model), config.batch, config.steps, precision])
    command = [sys.executable, "-m", "alam_training.benchmarks.pretraining", request]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(
            f"the steps on the CPU failed with exit code {done.returncode}: "
            f"{done.stderr.strip()[-500:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    size, *rest = json.loads(sys.argv[1])
    print(json.dumps(on_cpu(from_dict(TransitionConfig, size), *rest)))
