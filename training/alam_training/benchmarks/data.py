"""Reading speed: random frames and triplets, decoded once or on demand, compared with LeRobot's own
reader in one interleaved run.

Both readers read the same files, encoded with our writer's defaults. The data set that these
files were made from is measured too, in its original encoding.
"""

import contextlib
import itertools
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from alam_core.data.frames import FrameStore, OnDemandFrames, frame_store
from alam_core.data.lerobot import LeRobotDataset, LeRobotWriter
from alam_core.errors import UserError
from alam_core.latent_action.triplet_reader import TripletReader
from alam_core.latent_action.triplets import GapConfig, TripletSampler
from alam_core.results import write_result
from alam_training.benchmarks.lerobot_process import LeRobotProcess, Measure

ORIGINAL = ", as it lies"  # marks, in result files, measurements of the original encoding


@dataclass
class DataConfig:
    """A comparison of readers.

    Args:
        data: folder of a LeRobot data set; all its views are read.
        reencode: the first ``reencode`` episodes are encoded again with our writer's defaults, and
            this copy is measured; single items of the same episodes in ``data`` are measured too. 0
            measures ``data`` itself.
        lerobot_python: path of the Python interpreter of an environment with LeRobot; empty leaves
            LeRobot out.
        cores: number of cores, the same ones for both readers.
        image_size: side of our triplets' images in pixels; LeRobot's have the stored size.
        gap: frames between the images of a triplet.
        batch: triplets per batch, and with workers also items per batch.
        items: random accesses per measurement.
        workers: numbers of worker processes to read triplets with.
        repetitions: number of measurements of each reader, in rotating order.
        seed: seed of the random accesses.
        save: write results/data_throughput.json.
    """

    data: str = "data/piper_place"
    reencode: int = 60
    lerobot_python: str = ""
    cores: int = 2
    image_size: int = 64
    gap: int = 5
    batch: int = 32
    items: int = 200
    workers: list[int] = field(default_factory=lambda: [0, 1, 2])
    repetitions: int = 7
    seed: int = 0
    save: bool = True

    def __post_init__(self) -> None:
        if min(self.cores, self.batch, self.items, self.repetitions, self.gap) < 1:
            raise UserError("cores, batch, items, repetitions and gap must be at least 1")
        if self.reencode < 0:
            raise UserError(
                f"--reencode {self.reencode}: give a number of episodes, "
                "or 0 to measure the data set itself"
            )


def main(config: DataConfig) -> int:
    """Measure, print a table and write the result file."""
    available = sorted(os.sched_getaffinity(0))
    if config.cores > len(available):
        raise UserError(f"--cores {config.cores}: this process may use {len(available)}")
    os.sched_setaffinity(0, available[: config.cores])  # inherited by LeRobot's and all workers
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, available)
        measures, versions = all_measures(config, stack)
        rates: dict[str, list[tuple[float, float | None]]] = {name: [] for name in measures}
        # Workers read ahead into the next measurement, so single items are measured first.
        items = [name for name in measures if "items" in name]
        for group in (items, [name for name in measures if name not in items]):
            for name in group:  # not counted: it opens every file once
                measures[name](np.random.default_rng(config.seed))
            for repetition in track(range(config.repetitions), "measuring", transient=True):
                for name in _rotated(group, repetition):
                    rates[name].append(
                        measures[name](np.random.default_rng([config.seed, repetition]))
                    )
    values = summarise(config, rates, versions)
    show(values)
    if config.save:
        options = "".join(
            f" --{name} '{getattr(config, name)}'"
            for name in ("data", "reencode", "cores", "items", "repetitions", "workers")
        )
        command = f"python training/benchmark.py data{options}" + (
            " --lerobot_python PYTHON" if versions is not None else ""
        )
        print(write_result("data_throughput", values, [config.seed], command=command))
    return 0


def all_measures(
    config: DataConfig, stack: contextlib.ExitStack
) -> tuple[dict[str, Measure], dict[str, Any] | None]:
    """Name -> measurement, and LeRobot's versions (None without LeRobot). ``stack`` ends the
    processes and removes the files.
    """
    original = dataset = LeRobotDataset(config.data)
    if config.reencode:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="reencoded_"))
        dataset = encode_again(original, config.reencode, Path(folder) / "set")
    frames = dataset.num_frames  # the same number, and the same frames, of the original
    measured = {"": dataset, ORIGINAL: original} if config.reencode else {"": dataset}
    measures: dict[str, Measure] = {}
    versions = None
    for suffix, each in measured.items():
        measures[f"ours items{suffix}"] = our_items(config, each, frames)
        if config.lerobot_python:
            lerobot = LeRobotProcess(config.lerobot_python, each.root, config.gap, frames)
            stack.callback(lerobot.close)
            lerobot.check(each)
            versions = lerobot.versions
            measures[f"lerobot items{suffix}"] = lerobot.items(config.items)
            for n in sorted({0, max(config.workers, default=0)}) if each is dataset else ():
                measures[f"lerobot triplets, {n} workers"] = lerobot.triplets(
                    config.items, len(each.views), n, config.batch
                )
    return measures | our_measures(config, dataset), versions


def encode_again(original: LeRobotDataset, episodes: int, root: Path) -> LeRobotDataset:
    """The first episodes of a data set, decoded and encoded with our writer's defaults."""
    sizes = {view: tuple(original.frames(0, view, [0]).shape[1:3]) for view in original.views}
    with LeRobotWriter(
        root,
        original.fps,
        sizes,
        original.state_names,
        original.action_names,
        original.info["robot_type"],
    ) as writer:
        for e in range(min(episodes, original.num_episodes)):
            images = {
                view: original.frames(e, view, range(original.episode_length(e)))
                for view in original.views
            }
            arrays = original.episode(e)
            writer.add_episode(images, arrays.state, arrays.action, arrays.task)
    return LeRobotDataset(root)


def our_items(
    config: DataConfig, dataset: LeRobotDataset, frames: int, stores: list[FrameStore] | None = None
) -> Measure:
    """Single items among the first ``frames`` of a data set, decoded on demand, or taken from
    ``stores`` (one per view).
    """
    lengths = np.array([dataset.episode_length(e) for e in range(dataset.num_episodes)])
    ends = np.cumsum(lengths)

    def measure(rng: np.random.Generator) -> tuple[float, float]:
        rows = rng.integers(0, frames, config.items)
        started, cpu = time.perf_counter(), time.process_time()
        for row in rows:
            e = int(np.searchsorted(ends, row, side="right"))
            t = int(row - ends[e] + lengths[e])
            arrays = dataset.episode(e)
            if stores is None:
                images = [dataset.frames(e, view, [t])[0] for view in dataset.views]
            else:
                images = [np.array(store.array[row]) for store in stores]
            item = [*images, arrays.state[t], arrays.action[t], arrays.tasks[t]]
            assert len(item) == len(dataset.views) + 3
        return config.items / (time.perf_counter() - started), config.items / (
            time.process_time() - cpu
        )

    return measure


def our_measures(config: DataConfig, dataset: LeRobotDataset) -> dict[str, Measure]:
    """Name -> measurement, of our readers apart from single items on demand."""
    stores: list[FrameStore] = [
        frame_store(dataset, view, config.image_size) for view in dataset.views
    ]
    lazy = [
        OnDemandFrames(LeRobotDataset(dataset.root), view, config.image_size)
        for view in dataset.views
    ]
    gaps = GapConfig("fixed", config.gap)

    def triplets(sources: list[Any], workers: int) -> Measure:
        sampler = TripletSampler(sources, np.arange(dataset.num_episodes), gaps)
        reader = TripletReader(sampler, config.batch, config.seed, workers=workers)
        steps = itertools.count()

        def measure(rng: np.random.Generator) -> tuple[float, float | None]:
            for _ in range(3 * workers):  # batches decoded before the clock starts do not count
                reader(next(steps), 0, 1)
            batches = max(config.items // config.batch, 1)
            started, cpu = time.perf_counter(), time.process_time()
            for _ in range(batches):
                reader(next(steps), 0, 1)
            seconds, work = time.perf_counter() - started, time.process_time() - cpu
            return (
                batches * config.batch / seconds,
                batches * config.batch / work if workers == 0 else None,
            )

        return measure

    return {
        "ours items, decoded once": our_items(config, dataset, dataset.num_frames, stores),
        "ours triplets, decoded once": triplets(stores, 0),
        **{f"ours triplets, on demand, {n} workers": triplets(lazy, n) for n in config.workers},
    }


def summarise(
    config: DataConfig,
    rates: dict[str, list[tuple[float, float | None]]],
    versions: dict[str, Any] | None,
) -> dict[str, Any]:
    """The result file's values: medians and ranges over the repetitions."""
    wall = {name: [rate for rate, _ in measured] for name, measured in rates.items()}
    work = {
        name: [rate for _, rate in measured if rate is not None] for name, measured in rates.items()
    }
    median = {name: statistics.median(measured) for name, measured in wall.items()}
    values = compared(wall, work, "")
    if versions is None:
        values["why"] = "no --lerobot_python was given"
    values["data"] = (
        f"{config.data}, the first {config.reencode} episodes written anew"
        if config.reencode
        else config.data
    )
    if config.reencode:
        values["original"] = {
            **compared(wall, work, ORIGINAL),
            "data": f"{config.data}, the same episodes{ORIGINAL}",
        }
    values["ours_decoded_once_items_s"] = median["ours items, decoded once"]
    if versions is not None:
        values["ratio_decoded_once"] = median["ours items, decoded once"] / median["lerobot items"]
    values["triplets_s"] = {name: rate for name, rate in median.items() if "triplets" in name}
    values["frames_s"] = {name: 3 * rate for name, rate in values["triplets_s"].items()}
    values["median"] = median
    values["range"] = {name: [min(measured), max(measured)] for name, measured in wall.items()}
    values["items_per_cpu_s"] = {
        name: statistics.median(measured)
        for name, measured in work.items()
        if measured and "items" in name
    }
    values["setting"] = {
        "cores": config.cores,
        "items": config.items,
        "repetitions": config.repetitions,
        "image_size": config.image_size,
        "gap": config.gap,
        "load_average": round(os.getloadavg()[1], 1),
        "av": av.__version__,
        **(versions or {}),
    }
    return values


def compared(
    wall: dict[str, list[float]], work: dict[str, list[float]], suffix: str
) -> dict[str, Any]:
    """Medians of our and LeRobot's items per second of one data set, their ratio, the range of the
    ratios of paired repetitions, and the ratio by CPU time.
    """
    ours, theirs = f"ours items{suffix}", f"lerobot items{suffix}"
    values: dict[str, Any] = {
        "ours_items_s": statistics.median(wall[ours]),
        "lerobot_items_s": None,
        "ratio": None,
    }
    if theirs in wall:
        pairs = [mine / other for mine, other in zip(wall[ours], wall[theirs], strict=True)]
        values["lerobot_items_s"] = statistics.median(wall[theirs])
        values["ratio"] = values["ours_items_s"] / values["lerobot_items_s"]
        values["ratio_range"] = [min(pairs), max(pairs)]
        values["ratio_of_cpu_time"] = statistics.median(work[ours]) / statistics.median(
            work[theirs]
        )
    return values


def show(values: dict[str, Any]) -> None:
    """Print the rates as a table."""
    table = Table("reader", "per second", "lowest", "highest")
    for name, (low, high) in values["range"].items():
        table.add_row(name, f"{values['median'][name]:.0f}", f"{low:.0f}", f"{high:.0f}")
    Console().print(table)
    for each in (values, values.get("original")):
        if each and each["ratio"] is not None:
            low, high = each["ratio_range"]
            work = each["ratio_of_cpu_time"]
            print(
                f"{each['data']}: {each['ratio']:.2f} times LeRobot's items "
                f"(in pairs {low:.2f} to {high:.2f}; by CPU time {work:.2f})"
            )


def _rotated(names: list[str], by: int) -> list[str]:
    """The names in another order each time, so that no reader is always measured first."""
    by %= len(names)
    return names[by:] + names[:by]
