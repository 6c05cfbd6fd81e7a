"""Reading speed: random frames and triplets, decoded before or on demand, beside LeRobot's own reader in one interleaved run."""

import itertools
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
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
from alam_core.data.lerobot import LeRobotDataset
from alam_core.errors import UserError
from alam_core.latent_action.triplet_reader import TripletReader
from alam_core.latent_action.triplets import GapConfig, TripletSampler
from alam_core.results import write_result

READER = Path(__file__).with_name("lerobot_reader.py")
SAME = 3.0  # levels of 255 by which the mean of the same picture may differ between two decoders


@dataclass
class DataConfig:
    """A comparison of readers.

    Args:
        data: folder of a LeRobot data set; all its views are read.
        lerobot_python: the python of an environment in which LeRobot is installed; none leaves LeRobot out.
        cores: cores that everything runs on, the same ones for both.
        image_size: side of our triplets' pictures in px; LeRobot gives its own at the size they are stored in.
        gap: frames between the pictures of a triplet.
        batch: triplets, and with workers also items, in a batch.
        items: random accesses in a measurement.
        workers: numbers of worker processes to read triplets with.
        repetitions: how often each is measured, in turn.
        seed: of the random accesses.
        save: write results/data_throughput.json.
    """

    data: str = "data/piper_place"
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


Measure = Callable[[np.random.Generator], tuple[float, float | None]]  # units a second, and units a second of one core's work


def main(config: DataConfig) -> int:
    """Measure, print a table and write the result file."""
    available = sorted(os.sched_getaffinity(0))
    if config.cores > len(available):
        raise UserError(f"--cores {config.cores}: this process may use {len(available)}")
    os.sched_setaffinity(0, available[: config.cores])  # LeRobot's process and all workers inherit it
    torch.set_num_threads(1)
    dataset = LeRobotDataset(config.data)
    lerobot = LeRobotReader(config) if config.lerobot_python else None
    try:
        if lerobot is not None:
            lerobot.check(dataset)
        arms = our_arms(config, dataset) | (lerobot.arms(len(dataset.views)) if lerobot is not None else {})
        for measure in arms.values():  # opens every file once
            measure(np.random.default_rng(config.seed))
        rates: dict[str, list[tuple[float, float | None]]] = {name: [] for name in arms}
        for repetition in track(range(config.repetitions), "measuring", transient=True):
            for name in _turned(list(arms), repetition):
                rates[name].append(arms[name](np.random.default_rng([config.seed, repetition])))
    finally:
        if lerobot is not None:
            lerobot.close()
        os.sched_setaffinity(0, available)
    values = summarise(config, rates, lerobot.versions if lerobot is not None else None)
    show(values)
    if config.save:
        command = f"python training/benchmark.py data --cores {config.cores}" + (" --lerobot_python PYTHON" if lerobot is not None else "")
        print(write_result("data_throughput", values, [config.seed], command=command))
    return 0


def our_arms(config: DataConfig, dataset: LeRobotDataset) -> dict[str, Measure]:
    """Name -> measurement, of our own readers."""
    lengths = np.array([dataset.episode_length(e) for e in range(dataset.num_episodes)])
    ends = np.cumsum(lengths)
    stores: list[FrameStore] = [frame_store(dataset, view, config.image_size) for view in dataset.views]
    lazy = [OnDemandFrames(LeRobotDataset(config.data), view, config.image_size) for view in dataset.views]
    gaps = GapConfig("fixed", config.gap)

    def items(read: Callable[[int, int, int], list[np.ndarray]]) -> Measure:
        """read(episode, frame in it, row in the whole set): a picture of each view."""

        def measure(rng: np.random.Generator) -> tuple[float, float]:
            rows = rng.integers(0, ends[-1], config.items)
            started, cpu = time.perf_counter(), time.process_time()
            for row in rows:
                e = int(np.searchsorted(ends, row, side="right"))
                t = int(row - ends[e] + lengths[e])
                arrays = dataset.episode(e)
                item = [*read(e, t, int(row)), arrays.state[t], arrays.action[t], arrays.task]
                assert len(item) == len(dataset.views) + 3
            return config.items / (time.perf_counter() - started), config.items / (time.process_time() - cpu)

        return measure

    def triplets(sources: list[Any], workers: int) -> Measure:
        sampler = TripletSampler(sources, np.arange(dataset.num_episodes), gaps)
        reader = TripletReader(sampler, config.batch, config.seed, workers=workers)
        steps = itertools.count()

        def measure(rng: np.random.Generator) -> tuple[float, float | None]:
            for _ in range(3 * workers):  # what was decoded before the clock starts does not count
                reader(next(steps), 0, 1)
            batches = max(config.items // config.batch, 1)
            started, cpu = time.perf_counter(), time.process_time()
            for _ in range(batches):
                reader(next(steps), 0, 1)
            seconds, work = time.perf_counter() - started, time.process_time() - cpu
            return batches * config.batch / seconds, batches * config.batch / work if workers == 0 else None

        return measure

    return {
        "ours items": items(lambda e, t, row: [dataset.frames(e, view, [t])[0] for view in dataset.views]),
        "ours items, decoded once": items(lambda e, t, row: [np.array(store.array[row]) for store in stores]),
        "ours triplets, decoded once": triplets(stores, 0),
        **{f"ours triplets, on demand, {n} workers": triplets(lazy, n) for n in config.workers},
    }


class LeRobotReader:
    """LeRobot in a process of its own python. Raises UserError where it does not start."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (read when the process fails)
        arguments = [config.lerobot_python, str(READER), config.data, str(config.gap)]
        try:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )
        except OSError as error:
            raise UserError(f"--lerobot_python '{config.lerobot_python}' cannot be started ({error.strerror})") from None
        self.versions = self._answer()
        self._items = int(self.versions.pop("items"))
        self.versions.pop("ready")

    def arms(self, views: int) -> dict[str, Measure]:
        """Name -> measurement, of LeRobot's readers. An item of three times counts as a triplet for each of the ``views``."""
        most = max(self._config.workers, default=0)
        return {
            "lerobot items": self._measure("items", 0, 1),
            "lerobot triplets, 0 workers": self._measure("triplets", 0, views),
            **({f"lerobot triplets, {most} workers": self._measure("triplets", most, views)} if most else {}),
        }

    def check(self, dataset: LeRobotDataset) -> None:
        """Raises UserError unless both readers give the same pictures."""
        indices = [0, self._items // 3, self._items - 1]
        theirs = np.array(self._ask({"kind": "frames", "indices": indices})["means"])  # (3, views, 3)
        ends = np.cumsum([dataset.episode_length(e) for e in range(dataset.num_episodes)])
        for index, means in zip(indices, theirs, strict=True):
            e = int(np.searchsorted(ends, index, side="right"))
            t = index - int(ends[e]) + dataset.episode_length(e)
            for view, mean in zip(dataset.views, means, strict=True):
                ours = dataset.frames(e, view, [t])[0].mean((0, 1))
                if abs(ours - mean).max() > SAME:
                    raise UserError(f"frame {index} of '{dataset.root}' differs between LeRobot and here: {mean} and {ours}")

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(30)

    def _measure(self, kind: str, workers: int, units: int) -> Measure:
        def measure(rng: np.random.Generator) -> tuple[float, float | None]:
            batch = self._config.batch
            count = self._config.items if workers == 0 else (self._config.items // batch + 1 + 2 * workers) * batch
            indices = rng.integers(0, self._items, count).tolist()
            answer = self._ask({"kind": kind, "indices": indices, "workers": workers, "batch": batch})
            cpu = answer.get("cpu_seconds")
            return units * answer.get("counted", count) / answer["seconds"], units * count / cpu if cpu else None

        return measure

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(request) + "\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            self._errors.seek(0)
            said = [text for text in self._errors.read().splitlines() if text.strip()]
            raise UserError(
                f"LeRobot's reader ended: {said[-1] if said else 'it said nothing'}; is LeRobot installed for --lerobot_python?"
            )
        return dict(json.loads(line))


def summarise(config: DataConfig, rates: dict[str, list[tuple[float, float | None]]], versions: dict[str, Any] | None) -> dict[str, Any]:
    """The result file's values: medians over the repetitions, each arm's spread beside."""
    wall = {name: [rate for rate, _ in measured] for name, measured in rates.items()}
    work = {name: [rate for _, rate in measured if rate is not None] for name, measured in rates.items()}
    median = {name: statistics.median(measured) for name, measured in wall.items()}
    values: dict[str, Any] = {"ours_items_s": median["ours items"], "lerobot_items_s": median.get("lerobot items"), "ratio": None}
    if versions is not None:
        pairs = [ours / theirs for ours, theirs in zip(wall["ours items"], wall["lerobot items"], strict=True)]
        values |= {
            "ratio": values["ours_items_s"] / values["lerobot_items_s"],
            "ratio_range": [min(pairs), max(pairs)],
            "ratio_of_cpu_time": statistics.median(work["ours items"]) / statistics.median(work["lerobot items"]),
        }
    else:
        values["why"] = "no --lerobot_python was given"
    values["ours_decoded_once_items_s"] = median["ours items, decoded once"]
    if versions is not None:
        values["ratio_decoded_once"] = median["ours items, decoded once"] / median["lerobot items"]
    values["triplets_s"] = {name: rate for name, rate in median.items() if "triplets" in name}
    values["frames_s"] = {name: 3 * rate for name, rate in values["triplets_s"].items()}
    values["range"] = {name: [min(measured), max(measured)] for name, measured in wall.items()}
    values["items_per_cpu_s"] = {name: statistics.median(measured) for name, measured in work.items() if measured and "items" in name}
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


def show(values: dict[str, Any]) -> None:
    """Print the rates as a table."""
    table = Table("reader", "a second", "lowest", "highest")
    medians = {"ours items": values["ours_items_s"], "lerobot items": values["lerobot_items_s"], **values["triplets_s"]}
    medians["ours items, decoded once"] = values["ours_decoded_once_items_s"]
    for name, (low, high) in values["range"].items():
        table.add_row(name, f"{medians[name]:.0f}", f"{low:.0f}", f"{high:.0f}")
    Console().print(table)
    if values["ratio"] is not None:
        low, high = values["ratio_range"]
        work = values["ratio_of_cpu_time"]
        print(f"items: {values['ratio']:.2f} times LeRobot's (in pairs {low:.2f} to {high:.2f}; by CPU time {work:.2f})")


def _turned(names: list[str], by: int) -> list[str]:
    """So that no reader is always measured first."""
    by %= len(names)
    return names[by:] + names[:by]
