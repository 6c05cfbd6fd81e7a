"""The cost of generating latents together with actions: latency of a chunk, joint compared with
action-only, and training throughput.
"""

import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from alam_core.errors import UserError
from alam_core.policy.backbone import Tokenizer
from alam_core.policy.config import ModelConfig, PolicyConfig
from alam_core.policy.joint import JointPolicy
from alam_core.policy.normalization import LatentProjection, PolicyStats
from alam_core.results import write_result
from alam_core.robots.piper import JOINT_NAMES
from alam_core.runtime.runner import PolicyRunner
from alam_core.types import VIEWS, Observation
from alam_training.benchmarks import pi0
from alam_training.benchmarks.device import synchronise
from alam_training.loop.config import OptimConfig
from alam_training.loop.optim import adamw
from alam_training.loop.state import WeightAverage

LATENT_SHAPE = (7, 32)  # of the shipped encoder's transitions
CAMERA = 192  # px of the cameras' images


@dataclass
class PolicyBenchmarkConfig:
    """What to measure.

    Args:
        parts: small_cpu: the small backbone on this machine's CPU. pi0_cpu: one denoising pass of
            pi0 at full size on the CPU, which takes a minute or more and 8 GiB. pi0_gpu: pi0 at
            full size on a GPU. If empty: small_cpu, and pi0_gpu if there is a GPU.
        threads: torch's number of threads; 0 takes all cores that this process may use.
        chunks: number of measured chunks per policy, after a warm-up of a fifth as many.
        batch: samples per training step.
        train_steps: number of measured training steps per policy, after a warm-up of a fifth as
            many.
        small: the network of small_cpu.
        pi0: the network of pi0_cpu and pi0_gpu.
        save: write latency_policy.json.
        results: folder of the result file.
    """

    parts: list[Literal["small_cpu", "pi0_cpu", "pi0_gpu"]] = field(default_factory=list)
    threads: int = 2
    chunks: int = 200
    batch: int = 32
    train_steps: int = 10
    small: ModelConfig = field(default_factory=ModelConfig)
    pi0: ModelConfig = field(
        default_factory=lambda: ModelConfig(
            backbone="pi0", horizon=16, image_size=224, denoising_steps=10
        )
    )
    save: bool = True
    results: str = "results"

    def __post_init__(self) -> None:
        if self.threads < 0 or min(self.chunks, self.batch, self.train_steps) < 1:
            raise UserError(
                "chunks, batch and train_steps must be at least 1, threads not negative"
            )


def main(config: PolicyBenchmarkConfig) -> int:
    """Measure, print and write the result file."""
    torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))
    gpu = torch.cuda.is_available()
    if "pi0_gpu" in config.parts and not gpu:
        raise UserError("no GPU on this machine: leave pi0_gpu out of --parts")
    parts = config.parts or (["small_cpu", "pi0_gpu"] if gpu else ["small_cpu"])
    values: dict[str, Any] = {}
    if "small_cpu" in parts:
        values["small_cpu"] = small_cpu(config)
    if "pi0_cpu" in parts:
        values["pi0_cpu"] = pi0.one_pass(
            random_policy(config.pi0, VIEWS, pi0.NoWords(), torch.bfloat16)
        )
    if "pi0_gpu" in parts:
        values |= {"pi0_gpu": pi0_gpu(config), "why": None}
    elif not (Path(config.results) / "latency_policy.json").is_file():
        values |= {"pi0_gpu": None, "why": "no GPU on this machine"}
    print(json.dumps(values, indent=2))
    if config.save:
        print(f"results: {write_result('latency_policy', values, [0], config.results)}")
    return 0


def small_cpu(config: PolicyBenchmarkConfig) -> dict[str, Any]:
    """Latency of a chunk, joint and action-only, and samples per second in training."""
    policies = {
        "joint": random_policy(config.small, VIEWS),
        "action_only": random_policy(config.small, ()),
    }
    values: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "denoising_steps": config.small.denoising_steps,
    }
    observation = random_observation(policies["joint"])
    runners = {name: PolicyRunner(policy) for name, policy in policies.items()}
    times = side_by_side(
        {name: partial(runner.infer, observation) for name, runner in runners.items()},
        config.chunks,
    )
    values |= {f"{name}_ms": quantiles(seconds) for name, seconds in times.items()}
    values["joint_over_action_only"] = ratio(times["joint"], times["action_only"])
    steps = {name: TrainingStep(policy, config.batch) for name, policy in policies.items()}
    times = side_by_side(steps, config.train_steps)
    return values | {
        f"{name}_samples_s": round(config.batch / statistics.median(seconds), 1)
        for name, seconds in times.items()
    }


def pi0_gpu(config: PolicyBenchmarkConfig, device: str = "cuda") -> dict[str, Any]:
    """Latency of a chunk of pi0, with the policy runner and by naive generation, and its lower
    bound on this GPU; training throughput in samples per second.
    """

    def make(views: tuple[str, ...], model: ModelConfig = config.pi0) -> JointPolicy:
        with torch.device(device):  # three billion random numbers take minutes on a CPU
            return random_policy(model, views, pi0.NoWords())

    values = _latencies(config, make, device)
    gc.collect()  # a compiled policy refers to itself
    torch.cuda.empty_cache()
    saving = replace(config.pi0, pi0=replace(config.pi0.pi0, gradient_checkpointing=True))
    try:
        step = TrainingStep(make(VIEWS, saving), config.batch, device)
        seconds = side_by_side({"joint": step}, config.train_steps, partial(synchronise, device))[
            "joint"
        ]
    except torch.cuda.OutOfMemoryError:
        return values | {
            "joint_samples_s": None,
            "why": f"a batch of {config.batch} does not fit this GPU: give a smaller --batch",
        }
    return values | {"joint_samples_s": round(config.batch / statistics.median(seconds), 1)}


def _latencies(
    config: PolicyBenchmarkConfig, make: Callable[[tuple[str, ...]], JointPolicy], device: str
) -> dict[str, Any]:
    plain, joint, alone = make(VIEWS), make(VIEWS), make(())
    observation = random_observation(joint)
    acting = {
        "joint": PolicyRunner(joint, device, bfloat16=True, compiled=True),
        "action_only": PolicyRunner(alone, device, bfloat16=True, compiled=True),
        "eager": PolicyRunner(plain, device, bfloat16=True),
    }
    calls: dict[str, Callable[[], object]] = {
        name: partial(runner.infer, observation) for name, runner in acting.items()
    }
    calls["naive"] = partial(pi0.naive, plain, device)
    times = side_by_side(calls, config.chunks, partial(synchronise, device))
    floor = pi0.floor(plain, device)
    values = {f"{name}_ms": quantiles(seconds) for name, seconds in times.items()} | floor
    values["joint_over_action_only"] = ratio(times["joint"], times["action_only"])
    values["joint_over_floor"] = round(
        1e3 * statistics.median(times["joint"]) / floor["floor_ms"], 3
    )
    return values


def random_policy(
    model: ModelConfig,
    latent_views: tuple[str, ...],
    tokenizer: Tokenizer | None = None,
    dtype: torch.dtype = torch.float32,
) -> JointPolicy:
    """A policy with the Piper's views, state and actions and random weights of type ``dtype``."""
    torch.manual_seed(0)
    width, size = len(JOINT_NAMES), int(np.prod(LATENT_SHAPE))
    config = PolicyConfig(
        model,
        list(VIEWS),
        list(latent_views),
        width,
        list(JOINT_NAMES),
        list(JOINT_NAMES[:6]),
        0.1,
        width,
        list(LATENT_SHAPE),
        "random",
    )
    projection = LatentProjection(
        np.zeros(size, np.float32),
        np.eye(width, size, dtype=np.float32),
        np.ones(width, np.float32),
        1.0,
    )
    zeros, ones = (
        np.zeros((model.horizon, width), np.float32),
        np.ones((model.horizon, width), np.float32),
    )
    stats = PolicyStats(zeros[0], ones[0], zeros, ones, dict.fromkeys(latent_views, projection))
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return JointPolicy(config, stats, tokenizer)
    finally:
        torch.set_default_dtype(before)


def random_observation(policy: JointPolicy) -> Observation:
    """A random observation of the same shape as the demo's."""
    rng = np.random.default_rng(0)
    images = {
        view: rng.integers(0, 256, (CAMERA, CAMERA, 3), dtype=np.uint8)
        for view in policy.config.views
    }
    return Observation(
        images,
        rng.normal(size=policy.config.state_dim).astype(np.float32),
        "put the red cube on the plate",
        0.0,
    )


class TrainingStep:
    """One optimiser step on a random batch, as in ``train``."""

    def __init__(self, policy: JointPolicy, batch: int, device: str = "cpu") -> None:
        generator = torch.Generator().manual_seed(0)
        model, size = policy.config.model, policy.config.model.image_size
        self.policy, self.device = (
            policy.train().to(device).to(memory_format=torch.channels_last),
            device,
        )
        self.optimizer, self.average = adamw(policy, OptimConfig()), WeightAverage(policy, 0.995)
        batches: dict[str, Any] = {
            "images": {
                view: torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
                for view in policy.config.views
            },
            "state": torch.randn(batch, policy.config.state_dim, generator=generator),
            "words": policy.tokenizer(["put the red cube on the plate"] * batch),
            "targets": {
                name: torch.randn(batch, model.horizon, width)
                for name, width in policy.target_widths().items()
            },
            "drawn": policy.draw(batch, 2),
        }
        self.batch = tree_map(lambda tensor: tensor.to(device), batches)

    def __call__(self) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16):
            total = self.policy(**self.batch)["total"]
        total.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.policy)
        return total.detach()


def side_by_side(
    calls: Mapping[str, Callable[[], object]], count: int, finish: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Durations in s of ``count`` calls of each function, after a warm-up of a fifth as many. The
    functions take turns, so that other load on the machine affects all of them equally.

    finish: waits for work that a call has started on a device.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(count + max(1, count // 5)):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            finish()
            if number >= max(1, count // 5):
                times[name].append(time.perf_counter() - started)
    return times


def quantiles(seconds: list[float]) -> dict[str, float]:
    """p50 and p99 in ms."""
    p50, p99 = np.quantile(seconds, [0.5, 0.99])
    return {"p50": round(1e3 * float(p50), 2), "p99": round(1e3 * float(p99), 2)}


def ratio(above: list[float], below: list[float]) -> dict[str, Any]:
    """Median and quartiles of the ratios of calls made at about the same time."""
    low, middle, high = np.quantile(np.array(above) / np.array(below), [0.25, 0.5, 0.75])
    return {
        "median": round(float(middle), 3),
        "quartiles": [round(float(low), 3), round(float(high), 3)],
    }
