"""How an episode ended, and the metrics of many."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import binomtest


@dataclass
class EpisodeResult:
    """How one episode ended. steps: control steps executed. group: the suite or tier of the task;
    "" if there is none. unknown: one line if the policy was not trained on the episode's
    instruction. unusual: the first states outside the range of training. Both are "" if there is
    nothing to tell. actions: see ``ActionDigest``. frames: uint8 RGB (steps + 1, S, S * views, 3)
    if it was filmed, at ``fps`` frames per second.
    """

    seed: int
    success: bool
    steps: int
    task: str
    unknown: str = ""
    unusual: str = ""
    frames: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0, 3), np.uint8))
    fps: float = 0.0
    group: str = ""
    actions: str = ""


class ActionDigest:
    """A short hash of the actions of an episode, as float32: equal if all of them are."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, action: np.ndarray) -> None:
        """Add the action of the next control step."""
        self._hash.update(np.ascontiguousarray(action, np.float32).tobytes())

    @property
    def digest(self) -> str:
        """16 hexadecimal digits."""
        return self._hash.hexdigest()[:16]


def success_metrics(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Number of successes, 95 % confidence interval of the success rate (Wilson), failed seeds and
    the mean length of successful episodes in control steps. With several tasks ``per_task`` counts
    each of them, with several groups of tasks ``per_group`` each suite or tier; ``macro_average``
    is the mean of the groups' rates. If in some episodes states were outside the range of training,
    "unusual_states" has their number and an example.
    """
    succeeded = [result for result in results if result.success]
    metrics = {
        **_counts(results),
        "failed_seeds": [result.seed for result in results if not result.success],
        "mean_steps": (
            round(float(np.mean([result.steps for result in succeeded])), 1) if succeeded else None
        ),
    }
    if unusual := [result.unusual for result in results if result.unusual]:
        metrics["unusual_states"] = {"episodes": len(unusual), "example": unusual[0]}
    tasks = _counts_by(results, "task")
    if len(tasks) > 1:
        metrics["per_task"] = tasks
    groups = _counts_by([result for result in results if result.group], "group")
    if len(groups) > 1:
        metrics["per_group"] = groups
        metrics["macro_average"] = float(np.mean([counts["success"] for counts in groups.values()]))
    return metrics


def _counts_by(results: Sequence[EpisodeResult], field: str) -> dict[str, dict[str, Any]]:
    """``_counts`` for each value of a field, in alphabetical order."""
    parts: dict[str, list[EpisodeResult]] = {}
    for result in results:
        parts.setdefault(getattr(result, field), []).append(result)
    return {value: _counts(part) for value, part in sorted(parts.items())}


def _counts(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Episodes, successes, their share and its 95 % confidence interval (Wilson)."""
    successes = sum(result.success for result in results)
    interval = binomtest(successes, len(results)).proportion_ci(method="wilson")
    return {
        "episodes": len(results),
        "successes": successes,
        "success": successes / len(results),
        "ci95": [round(float(interval.low), 4), round(float(interval.high), 4)],
    }
