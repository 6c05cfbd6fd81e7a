"""Reading speed: random frames and triplets, decoded before or on demand, beside LeRobot's own
reader in one interleaved run.

Both read the same files, encoded as our writer does it now; the data set they are made from is
measured beside, as it lies.
"""

import contextlib
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
from alam_core.data.lerobot.reader import LeRobotDataset
from alam_core.data.lerobot.writer import LeRobotWriter
from alam_core.errors import UserError
from alam_core.latent_action.triplet_reader import TripletReader
from alam_core.latent_action.triplets import GapConfig, TripletSampler
from alam_core.results import write_result

READER = Path(__file__).with_name("lerobot_reader.py")
ORIGINAL = ", as it lies"  # what is measured of the data set that was encoded anew
SAME = 3.0  # levels of 255 by which the mean of the same picture may differ between two decoders


@dataclass
class DataConfig:
    """A comparison of readers.

    Args:
        data: folder of a LeRobot data set; all its views are read.
        reencode: first episodes of it to write anew, as our writer encodes by default: what is
            measured then, with the single items of the same episodes in ``data`` as it lies beside.
            0 measures ``data`` itself.
        lerobot_python: the python of an environment in which LeRobot is installed; none leaves
            LeRobot out.
        cores: cores that everything runs on, the same ones for both.
        image_size: side of our triplets' pictures in px; LeRobot gives its own at the size they are
            stored in.
        gap: frames between the pictures of a triplet.
        batch: triplets, and with workers also items, in a batch.
        items: random accesses in a measurement.
        workers: numbers of worker processes to read triplets with.
        repetitions: how often each is measured, in turn.
        seed: of the random accesses.
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
                f"--reencode {self.reencode}: give a number of episodes, or 0 to measure the data set as it lies"
            )


Measure = Callable[
    [np.random.Generator], tuple[float, float | None]
]  # units a second, and units a second of one core's work


def main(config: DataConfig) -> int:
    """Measure, print a table and write the result file."""
    available = sorted(os.sched_getaffinity(0))
    if config.cores > len(available):
        raise UserError(f"--cores {config.cores}: this process may use {len(available)}")
    os.sched_setaffinity(
        0, available[: config.cores]
    )  # LeRobot's process and all workers inherit it
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, available)
        arms, versions = all_arms(config, stack)
        rates: dict[str, list[tuple[float, float | None]]] = {name: [] for name in arms}
        items = [name for name in arms if "items" in name]
        for group in (
            items,
            [name for name in arms if name not in items],
        ):  # workers read ahead into what comes next: items go first
            for name in group:  # opens every file once
                arms[name](np.random.default_rng(config.seed))
            for repetition in track(range(config.repetitions), "measuring", transient=True):
                for name in _turned(group, repetition):
                    rates[name].append(arms[name](np.random.default_rng([config.seed, repetition])))
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


def all_arms(
    config: DataConfig, stack: contextlib.ExitStack
) -> tuple[dict[str, Measure], dict[str, Any] | None]:
    """Name -> measurement, and LeRobot's versions (None without it). ``stack`` undoes what was
    started and written for them.
    """
    original = dataset = LeRobotDataset(config.data)
    if config.reencode:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="reencoded_"))
        dataset = written_anew(original, config.reencode, Path(folder) / "set")
    frames = dataset.num_frames  # of the original too only as many are read, the same ones
    measured = {"": dataset, ORIGINAL: original} if config.reencode else {"": dataset}
    arms: dict[str, Measure] = {}
    versions = None
    for suffix, each in measured.items():
        arms[f"ours items{suffix}"] = our_items(config, each, frames)
        if config.lerobot_python:
            lerobot = LeRobotReader(config, each.root, frames)
            stack.callback(lerobot.close)
            lerobot.check(each)
            versions = lerobot.versions
            arms[f"lerobot items{suffix}"] = lerobot.items()
            arms |= lerobot.triplets(len(each.views)) if each is dataset else {}
    return arms | our_arms(config, dataset), versions


def written_anew(original: LeRobotDataset, episodes: int, root: Path) -> LeRobotDataset:
    """The first episodes of a data set, decoded and encoded again as our writer does by default."""
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
    """Single items among the first ``frames`` of a data set, decoded when they are read, or before
    where ``stores`` are given.
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
            item = [*images, arrays.state[t], arrays.action[t], arrays.task]
            assert len(item) == len(dataset.views) + 3
        return config.items / (time.perf_counter() - started), config.items / (
            time.process_time() - cpu
        )

    return measure


def our_arms(config: DataConfig, dataset: LeRobotDataset) -> dict[str, Measure]:
    """Name -> measurement, of what else our readers do."""
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
            for _ in range(3 * workers):  # what was decoded before the clock starts does not count
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


class LeRobotReader:
    """LeRobot in a process of its own python, reading among the first ``frames`` of a set. Raises
    UserError where it does not start.
    """

    def __init__(self, config: DataConfig, root: Path, frames: int) -> None:
        self._config = config
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (read when the process fails)
        arguments = [config.lerobot_python, str(READER), str(root), str(config.gap)]
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
            raise UserError(
                f"--lerobot_python '{config.lerobot_python}' cannot be started ({error.strerror})"
            ) from None
        self.versions = self._answer()
        self._items = min(int(self.versions.pop("items")), frames)
        self.versions.pop("ready")

    def items(self) -> Measure:
        """Single items."""
        return self._measure("items", 0, 1)

    def triplets(self, views: int) -> dict[str, Measure]:
        """Name -> measurement. An item of three times counts as a triplet for each of the
        ``views``.
        """
        numbers = {0, max(self._config.workers, default=0)}
        return {
            f"lerobot triplets, {n} workers": self._measure("triplets", n, views)
            for n in sorted(numbers)
        }

    def check(self, dataset: LeRobotDataset) -> None:
        """Raises UserError unless both readers give the same pictures."""
        indices = [0, self._items // 3, self._items - 1]
        theirs = np.array(
            self._ask({"kind": "frames", "indices": indices})["means"]
        )  # (3, views, 3)
        ends = np.cumsum([dataset.episode_length(e) for e in range(dataset.num_episodes)])
        for index, means in zip(indices, theirs, strict=True):
            e = int(np.searchsorted(ends, index, side="right"))
            t = index - int(ends[e]) + dataset.episode_length(e)
            for view, mean in zip(dataset.views, means, strict=True):
                ours = dataset.frames(e, view, [t])[0].mean((0, 1))
                if abs(ours - mean).max() > SAME:
                    raise UserError(
                        f"frame {index} of '{dataset.root}' differs between LeRobot and here: {mean} and {ours}"
                    )

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(30)

    def _measure(self, kind: str, workers: int, units: int) -> Measure:
        def measure(rng: np.random.Generator) -> tuple[float, float | None]:
            batch = self._config.batch
            count = (
                self._config.items
                if workers == 0
                else (self._config.items // batch + 1 + 2 * workers) * batch
            )
            indices = rng.integers(0, self._items, count).tolist()
            answer = self._ask(
                {"kind": kind, "indices": indices, "workers": workers, "batch": batch}
            )
            cpu = answer.get("cpu_seconds")
            return units * answer.get("counted", count) / answer[
                "seconds"
            ], units * count / cpu if cpu else None

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


def summarise(
    config: DataConfig,
    rates: dict[str, list[tuple[float, float | None]]],
    versions: dict[str, Any] | None,
) -> dict[str, Any]:
    """The result file's values: medians over the repetitions, each arm's spread beside."""
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
    """Medians of our and LeRobot's items a second of one data set, their ratio, its range over
    pairs, and that of the CPU time.
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
    table = Table("reader", "a second", "lowest", "highest")
    for name, (low, high) in values["range"].items():
        table.add_row(name, f"{values['median'][name]:.0f}", f"{low:.0f}", f"{high:.0f}")
    Console().print(table)
    for each in (values, values.get("original")):
        if each and each["ratio"] is not None:
            low, high = each["ratio_range"]
            work = each["ratio_of_cpu_time"]
            print(
                f"{each['data']}: {each['ratio']:.2f} times LeRobot's items (in pairs {low:.2f} to {high:.2f}; by CPU time {work:.2f})"
            )


def _turned(names: list[str], by: int) -> list[str]:
    """So that no reader is always measured first."""
    by %= len(names)
    return names[by:] + names[:by]
