"""The speed of a device: memory bandwidth and rate of matrix products, measured."""

import time
from collections.abc import Callable

import torch

COPIED = 2**28  # elements of the copied tensor, bfloat16
MULTIPLIED = 8192  # rows and columns of the multiplied matrices


def synchronise(device: str) -> None:
    """Wait until the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def bytes_per_second(device: str, count: int = COPIED) -> float:
    """Bytes per second that a copy of a large tensor reads and writes."""
    source = torch.zeros(count, dtype=torch.bfloat16, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), device)


def operations_per_second(device: str, side: int = MULTIPLIED) -> float:
    """Operations per second of a product of large matrices in bfloat16."""
    a = torch.randn(side, side, dtype=torch.bfloat16, device=device)
    return 2 * side**3 / _seconds(lambda: a @ a, device)


def _seconds(call: Callable[[], object], device: str, count: int = 10) -> float:
    """Duration in s of the shortest of ``count`` calls, after ``count`` warm-up calls."""
    found = []
    for _ in range(2 * count):
        synchronise(device)
        started = time.perf_counter()
        call()
        synchronise(device)
        found.append(time.perf_counter() - started)
    return min(found[count:])
