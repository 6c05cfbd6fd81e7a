"""Measurements of pi0: naive generation, a lower bound of the time per chunk on a GPU, and one
pass at full size on a CPU.
"""

import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from alam_core.policy.generation import integrate, sample_noise
from alam_core.policy.joint import JointPolicy
from alam_core.policy.sequence import ACTION
from alam_training.benchmarks.device import bytes_per_second, operations_per_second

WORDS = 48  # tokens of an instruction in the published model


class NoWords:
    """Replaces pi0's tokenizer, whose vocabulary may be missing here: every instruction has
    ``WORDS`` tokens.
    """

    def __call__(self, instructions: Sequence[str]) -> Tensor:
        return torch.ones(len(instructions), WORDS, dtype=torch.long)

    def files(self) -> dict[str, str | bytes]:
        return {}


def observation(policy: JointPolicy, device: str) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Images, state and instruction tokens of one random observation."""
    size = policy.config.model.image_size
    images = {
        view: torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8, device=device)
        for view in policy.config.views
    }
    return (
        images,
        torch.randn(1, policy.config.state_dim, device=device),
        policy.tokenizer(["put it there"]).to(device),
    )


def streams(policy: JointPolicy, device: str) -> dict[str, Tensor]:
    """Zeros in the shapes of one chunk's noise."""
    return {
        name: torch.zeros(1, policy.config.model.horizon, width, device=device)
        for name, width in policy.stream_widths().items()
    }


@torch.inference_mode()
def naive(policy: JointPolicy, device: str) -> Tensor:
    """Normalised actions (1, H, A), generated without a cache: every denoising step encodes the
    whole observation again.
    """
    seen = observation(policy, device)
    noise = sample_noise(streams(policy, device))
    ones = torch.ones(1, 1, 1, device=device)

    def field(x: dict[str, Tensor], time: float) -> dict[str, Tensor]:
        return policy.predict(x, dict.fromkeys(x, time * ones), policy.encode(*seen))

    return integrate(policy.process, field, noise, policy.config.model.denoising_steps)[ACTION]


@torch.inference_mode()
def floor(policy: JointPolicy, device: str) -> dict[str, Any]:
    """Lower bound of the time for a chunk (roofline): each of its two phases takes at least its
    bytes at the GPU's bandwidth and its operations at the GPU's rate, both measured here. Weights
    are read once for the observation and once for every denoising step.
    """
    seen = observation(policy, device)
    context = policy.encode(*seen)
    noise = streams(policy, device)
    tau = dict.fromkeys(noise, torch.ones(1, 1, 1, device=device))
    kept = sum(key.nbytes + value.nbytes for key, value in context.keys)
    again = _used(policy, lambda: policy.predict(noise, tau, context))
    once = _used(policy, lambda: policy.encode(*seen))
    steps = policy.config.model.denoising_steps
    bandwidth, rate = bytes_per_second(device), operations_per_second(device)
    encode = max(once["bytes"] / bandwidth, once["operations"] / rate)
    denoise = max((again["bytes"] + kept) / bandwidth, again["operations"] / rate)
    return {
        "floor_ms": round(1e3 * (encode + steps * denoise), 3),
        "floor_encode_ms": round(1e3 * encode, 3),
        "floor_denoise_ms": round(1e3 * denoise, 3),
        "bandwidth_tb_s": round(bandwidth / 1e12, 3),
        "rate_tflop_s": round(rate / 1e12, 1),
    }


def _used(policy: JointPolicy, call: Callable[[], object]) -> dict[str, float]:
    """Operations of a call, and bytes of the weights that it reads. Embeddings are left out: a call
    looks up a few rows.
    """
    read: dict[int, int] = {}

    def note(module: nn.Module, *_: object) -> None:
        if not isinstance(module, nn.Embedding):
            read.update(
                {id(parameter): parameter.nbytes for parameter in module.parameters(recurse=False)}
            )

    hooks = [module.register_forward_hook(note) for module in policy.modules()]
    with FlopCounterMode(display=False) as counter:
        call()
    for hook in hooks:
        hook.remove()
    return {"operations": counter.get_total_flops(), "bytes": sum(read.values())}


@torch.inference_mode()
def one_pass(policy: JointPolicy) -> dict[str, Any]:
    """Time and memory of encoding an observation and of one denoising step, on the CPU."""
    started = time.perf_counter()
    context = policy.eval().encode(*observation(policy, "cpu"))
    encoded = time.perf_counter()
    noise = sample_noise(streams(policy, "cpu"))
    predicted = policy.predict(noise, dict.fromkeys(noise, torch.ones(1, 1, 1)), context)
    ended = time.perf_counter()
    return {
        "parameters": sum(parameter.numel() for parameter in policy.parameters()),
        "encode_s": round(encoded - started, 1),
        "denoise_s": round(ended - encoded, 1),
        "finite": all(bool(value.isfinite().all()) for value in predicted.values()),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
