"""How fast the same episodes of a policy are played: one after another, with several simulators
in a worker, in several workers, and on a Ray cluster of two nodes, all on this machine.

The ways take turns. Each is timed as a whole, from the start of its workers to its last episode.
"""

import contextlib
import importlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from alam_core.errors import UserError
from alam_core.results import write_result
from alam_training.episodes.evaluation import EvaluateConfig, episodes

NODE = "127.0.0.2"  # Ray replaces 127.0.0.1 by this host's address in the network


@dataclass
class EvaluationConfig:
    """Which episodes to play.

    Args:
        policy: folder of a policy.
        world: name of its world.
        episodes: number of episodes, with the seeds from 0 on.
        replan_every: control steps between two plans.
        workers: processes, of this machine or on both nodes together.
        batch: simulators of a worker.
        repetitions: how often each way is timed.
        ray: also start two nodes of a Ray cluster on this machine, and play the episodes there.
        results: folder of the result file.
        save: write evaluation_speed.json.
    """

    policy: str = "checkpoints/piper_place/policy"
    world: str = "piper_place"
    episodes: int = 64
    replan_every: int = 8
    workers: int = 2
    batch: int = 8
    repetitions: int = 3
    ray: bool = True
    results: str = "results"
    save: bool = True

    def __post_init__(self) -> None:
        if min(self.episodes, self.workers, self.batch, self.repetitions) < 1:
            raise UserError("episodes, workers, batch and repetitions must be at least 1")


def ways(config: EvaluationConfig, address: str) -> dict[str, EvaluateConfig]:
    """Name of a way -> the evaluation. address: of the Ray cluster; empty: none."""
    serial = EvaluateConfig(
        config.policy, config.world, config.episodes, 0, config.replan_every, workers=0
    )
    found = {
        "serial": serial,
        "batched": replace(serial, batch=config.batch),
        "workers": replace(serial, workers=config.workers),
        "workers, batched": replace(serial, workers=config.workers, batch=config.batch),
    }
    if address:
        found["ray, two nodes"] = replace(
            serial, workers=config.workers, batch=config.batch, ray=address
        )
    return found


def play(config: EvaluateConfig) -> tuple[float, dict[int, bool]]:
    """Episodes per minute, and seed -> success."""
    began = time.monotonic()
    results = list(episodes(config))
    minutes = (time.monotonic() - began) / 60
    return len(results) / minutes, {result.seed: result.success for result in results}


def main(config: EvaluationConfig) -> int:
    """Measure, print a table and write the result file."""
    with two_nodes(config.workers) if config.ray else contextlib.nullcontext("") as address:
        todo = ways(config, address)
        speeds: dict[str, list[float]] = {name: [] for name in todo}
        same: dict[str, int] = dict.fromkeys(todo, config.episodes)  # successes as in serial play
        first: dict[int, bool] = {}
        for name in track([*todo] * config.repetitions, "measuring", transient=True):
            speed, successes = play(todo[name])
            speeds[name].append(speed)
            first = first or successes
            same[name] = min(same[name], sum(first[seed] == won for seed, won in successes.items()))
    values = summarise(speeds, same)
    values |= {"world": config.world, "episodes": config.episodes, "workers": config.workers}
    values |= {"batch": config.batch, "repetitions": config.repetitions}
    console = Console()
    console.print(table(values["ways"]))
    if config.save:
        seeds = list(range(config.episodes))
        console.print(f"written: {write_result('evaluation_speed', values, seeds, config.results)}")
    return 0


def summarise(speeds: dict[str, list[float]], same: dict[str, int]) -> dict[str, Any]:
    """The values of the result file: medians of episodes per minute."""
    medians = {name: statistics.median(each) for name, each in speeds.items()}
    best = max((name for name in medians if "ray" not in name), key=lambda name: medians[name])
    ray = next((medians[name] for name in medians if "ray" in name), None)
    return {
        "episodes_min": round(medians[best], 2),
        "serial_episodes_min": round(medians["serial"], 2),
        "ratio": round(medians[best] / medians["serial"], 3),
        "ray_two_nodes_episodes_min": None if ray is None else round(ray, 2),
        "fastest": best,
        "ways": {
            name: {
                "episodes_min": round(medians[name], 2),
                "min": round(min(each), 2),
                "max": round(max(each), 2),
                "ratio": round(medians[name] / medians["serial"], 3),
                "equal_successes": same[name],
            }
            for name, each in speeds.items()
        },
    }


def table(found: dict[str, dict[str, float]]) -> Table:
    """The ways of ``summarise``, for the terminal."""
    shown = Table("way", "episodes/min", "min to max", "times serial", "successes as in serial")
    for name, values in found.items():
        shown.add_row(
            name,
            f"{values['episodes_min']:.1f}",
            f"{values['min']:.1f} to {values['max']:.1f}",
            f"{values['ratio']:.2f}",
            str(values["equal_successes"]),
        )
    return shown


@contextlib.contextmanager
def two_nodes(workers: int) -> Iterator[str]:
    """The address of a Ray cluster of two nodes with ``workers`` CPUs together, on this machine,
    until the end of the block. Raises UserError without Ray, and for fewer than two workers.
    """
    if workers < 2:
        raise UserError("two nodes need --workers 2 or more: or give --ray false")
    try:
        cluster_utils = importlib.import_module("ray.cluster_utils")
    except ImportError:
        raise UserError("Ray is not installed: pip install ray, or give --ray false") from None
    folder = tempfile.mkdtemp(prefix="ray")  # a short path, as sockets need
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # what the nodes' workers import
    os.environ["RAY_TMPDIR"], os.environ["RAY_USAGE_STATS_ENABLED"] = folder, "0"
    node = {"node_ip_address": NODE, "object_store_memory": 100_000_000}
    head = {**node, "num_cpus": workers // 2, "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(**node, num_cpus=workers - workers // 2)
        yield cluster.address
    finally:
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)
