"""Latency of a chunk, joint and action-only side by side, and training throughput: what generating latents beside actions costs."""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alam_core.data.normalization import LatentProjection, PolicyStats
from alam_core.errors import UserError
from alam_core.policy.config import ModelConfig, PolicyConfig
from alam_core.policy.joint import JointPolicy
from alam_core.results import write_result
from alam_core.runtime import PolicyRunner
from alam_core.types import JOINT_NAMES, VIEWS, Observation
from training.train_loop import OptimConfig, adamw
from training.train_state import Average

LATENT_SHAPE = (7, 32)  # of the shipped encoder's transitions
CAMERA = 192  # px of the pictures that come in


@dataclass
class PolicyBenchmarkConfig:
    """What to measure.

    Args:
        threads: of torch; 0 takes all cores that this process may use.
        chunks: measured of each policy, after a fifth as many that are not.
        batch: samples of a training step.
        train_steps: measured of each policy.
        model: the network, the small backbone's default size.
        save: write results/latency_policy.json.
    """

    threads: int = 2
    chunks: int = 200
    batch: int = 32
    train_steps: int = 10
    model: ModelConfig = field(default_factory=ModelConfig)
    save: bool = True

    def __post_init__(self) -> None:
        if self.threads < 0 or min(self.chunks, self.batch, self.train_steps) < 1:
            raise UserError("chunks, batch and train_steps must be at least 1, threads not negative")


def main(config: PolicyBenchmarkConfig) -> int:
    """Measure, print and write the result file."""
    torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))
    policies = {"joint": random_policy(config.model, VIEWS), "action_only": random_policy(config.model, ())}
    small: dict[str, Any] = {"threads": torch.get_num_threads(), "denoising_steps": config.model.denoising_steps}
    observation = random_observation(policies["joint"])
    runners = {name: PolicyRunner(policy) for name, policy in policies.items()}
    times = side_by_side({name: partial(runner.infer, observation) for name, runner in runners.items()}, config.chunks)
    small |= {f"{name}_ms": quantiles(seconds) for name, seconds in times.items()}
    small["joint_over_action_only"] = ratio(times["joint"], times["action_only"])
    steps = {name: TrainingStep(policy, config.batch) for name, policy in policies.items()}
    times = side_by_side(steps, config.train_steps)
    small |= {f"{name}_samples_s": round(config.batch / statistics.median(seconds), 1) for name, seconds in times.items()}
    values = {"small_cpu": small, "pi0_gpu": None, "why": "no GPU on this machine"}
    print(json.dumps(values, indent=2))
    if config.save:
        print(f"results: {write_result('latency_policy', values, [0])}")
    return 0


def random_policy(model: ModelConfig, latent_views: tuple[str, ...]) -> JointPolicy:
    """A policy of the Piper's shape with random weights."""
    torch.manual_seed(0)
    width, size = len(JOINT_NAMES), int(np.prod(LATENT_SHAPE))
    config = PolicyConfig(
        model, list(VIEWS), list(latent_views), width, list(JOINT_NAMES), list(JOINT_NAMES[:6]), 0.1, width, list(LATENT_SHAPE), "random"
    )
    projection = LatentProjection(np.zeros(size, np.float32), np.eye(width, size, dtype=np.float32), np.ones(width, np.float32), 1.0)
    zeros, ones = np.zeros((model.horizon, width), np.float32), np.ones((model.horizon, width), np.float32)
    return JointPolicy(config, PolicyStats(zeros[0], ones[0], zeros, ones, dict.fromkeys(latent_views, projection)))


def random_observation(policy: JointPolicy) -> Observation:
    """What the cameras and the arm of the demo would deliver."""
    rng = np.random.default_rng(0)
    images = {view: rng.integers(0, 256, (CAMERA, CAMERA, 3), dtype=np.uint8) for view in policy.config.views}
    return Observation(images, rng.normal(size=policy.config.state_dim).astype(np.float32), "put the red cube on the plate", 0.0)


class TrainingStep:
    """One optimiser step on a random batch, as ``train`` does it."""

    def __init__(self, policy: JointPolicy, batch: int) -> None:
        generator = torch.Generator().manual_seed(0)
        model, size = policy.config.model, policy.config.model.image_size
        self.policy = policy.train().to(memory_format=torch.channels_last)
        self.optimizer, self.average = adamw(policy, OptimConfig()), Average(policy, 0.995)
        self.batch: dict[str, Any] = {
            "images": {view: torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8) for view in policy.config.views},
            "state": torch.randn(batch, policy.config.state_dim, generator=generator),
            "words": policy.tokenizer(["put the red cube on the plate"] * batch),
            "targets": {name: torch.randn(batch, model.horizon, width) for name, width in policy.target_widths().items()},
            "drawn": policy.draw(batch, 2),
        }

    def __call__(self) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            total = self.policy(**self.batch)["total"]
        total.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.policy)
        return total.detach()


def side_by_side(calls: Mapping[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    """Seconds of ``count`` calls of each, taken in turn, so that whatever else the machine does falls on all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(count + max(1, count // 5)):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if number >= max(1, count // 5):
                times[name].append(time.perf_counter() - started)
    return times


def quantiles(seconds: list[float]) -> dict[str, float]:
    """p50 and p99 in ms."""
    p50, p99 = np.quantile(seconds, [0.5, 0.99])
    return {"p50": round(1e3 * float(p50), 2), "p99": round(1e3 * float(p99), 2)}


def ratio(above: list[float], below: list[float]) -> dict[str, Any]:
    """Median of the ratios of neighbours in time, and their quartiles."""
    low, middle, high = np.quantile(np.array(above) / np.array(below), [0.25, 0.5, 0.75])
    return {"median": round(float(middle), 3), "quartiles": [round(float(low), 3), round(float(high), 3)]}
