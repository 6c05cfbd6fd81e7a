"""Collect demonstrations of a scripted expert in a simulated world into a LeRobot data set.

    python training/collect.py --config training/configs/collect_piper.yaml
    python training/collect.py --config training/configs/collect_piper.yaml --root data/more --episodes 1000 --workers 8

Seeds are tried in order from ``first_seed``; an episode is kept when its success holds. A seed
decides its episode wholly, so the data do not depend on the number of workers. Ctrl-C keeps what
was collected; ``--resume true`` goes on from there. T: steps of an episode, A: action width.
"""

import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from alam_core.config import parse_args
from alam_core.data.lerobot.reader import LeRobotDataset
from alam_core.data.lerobot.writer import LeRobotWriter
from alam_core.errors import UserError
from alam_core.files import write_json
from alam_core.robots.piper import JOINT_NAMES
from alam_core.runtime.rollout import DemonstrationRecorder, rollout
from alam_core.sim.world import Expert, World, make_expert, make_world
from alam_core.types import Observation
from alam_training.episodes.interrupts import uninterrupted
from alam_training.episodes.workers import workers

SETTINGS = "meta/collect.json"  # beside the data: the settings they were collected with
HOPELESS = 20  # failures beyond the number of wanted episodes after which collecting gives up

MakeWorld = Callable[[str, int], World]
MakeExpert = Callable[[World, int], Expert]


@dataclass
class CollectConfig:
    """What to collect.

    Args:
        world: name of the world: piper_place, metaworld, metaworld/mt50, metaworld/<task> or
            metaworld/<task>,<task>.
        root: folder of the data set.
        episodes: successful episodes to keep in all.
        first_seed: seed of the first episode tried; the next ones follow it.
        image_size: side of the square images, in pixels.
        noisy_fraction: share of episodes, 0 to 1, in which noise is added to the executed actions;
            labels stay the expert's.
        noise_std: standard deviation of that noise, in units of the action (rad for joints); the
            last action, the gripper, is spared.
        noise_rate: how often a push of noise begins, per second of rest.
        noise_seconds: shortest and longest push, in s.
        hold_steps: steps for which success must last; they end the episode.
        workers: processes, each with its own simulator; 0 runs in this process.
        resume: go on with a data set that is there already.
    """

    world: str = "piper_place"
    root: str = "data/piper_place"
    episodes: int = 300
    first_seed: int = 1_000_000
    image_size: int = 96
    noisy_fraction: float = 0.5
    noise_std: float = 0.05
    noise_rate: float = 0.6
    noise_seconds: tuple[float, float] = (0.3, 0.8)
    hold_steps: int = 5
    workers: int = 2
    resume: bool = False

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.hold_steps < 1 or self.workers < 0 or self.image_size < 8:
            raise UserError(
                "episodes and hold_steps must be at least 1, workers at least 0 and image_size at least 8"
            )
        if not 0 <= self.noisy_fraction <= 1 or self.noise_std < 0 or self.noise_rate < 0:
            raise UserError(
                "noisy_fraction must lie between 0 and 1, noise_std and noise_rate must not be negative"
            )
        if not 0 < self.noise_seconds[0] <= self.noise_seconds[1]:
            raise UserError(
                f"noise_seconds is {list(self.noise_seconds)}: give the shortest and the longest push, both above 0"
            )


@dataclass
class Demonstration:
    """One attempt of the expert; the arrays are empty unless it succeeded."""

    seed: int
    success: bool
    noisy: bool
    task: str
    images: dict[str, np.ndarray]  # view -> uint8 (T, H, W, 3)
    state: np.ndarray  # float32 (T, S)
    action: np.ndarray  # float32 (T, A), the expert's
    fps: float


@dataclass
class Summary:
    """What ``collect`` did; counts are of the whole data set, seconds and steps of this run."""

    episodes: int
    frames: int
    tried: int
    seconds: float

    @property
    def expert_success(self) -> float:
        """Share of tried seeds that were kept, 0 to 1."""
        return self.episodes / self.tried


def burst_noise(
    steps: int,
    width: int,
    std: float,
    rate: float,
    dt: float,
    rng: np.random.Generator,
    seconds: tuple[float, float] = (0.3, 0.8),
) -> np.ndarray:
    """Pushes that begin at random (``rate`` a second), last ``seconds`` and fade in and out within
    a step or two: (steps, width).

    Each push has one direction, drawn with deviation ``std``; between pushes there is rest, so that
    the expert can show the way back.
    """
    noise = np.zeros((steps, width))
    now, goal, left = np.zeros(width), np.zeros(width), 0
    for t in range(steps):
        if left > 0:
            left -= 1
        elif rng.random() < rate * dt:
            left, goal = round(rng.uniform(*seconds) / dt), rng.normal(size=width) * std
        now = now + 0.5 * ((goal if left > 0 else 0.0) - now)
        noise[t] = now
    return noise


class NoisyExpert:
    """The agent of a demonstration: the expert's actions are recorded, and noise is added to what
    is executed, so that the data show how to recover.
    """

    def __init__(self, world: World, make_expert: MakeExpert, config: CollectConfig) -> None:
        self._world = world
        self._make_expert = make_expert
        self._config = config
        self.noisy = False  # whether this episode has noise

    def reset(self, seed: int) -> None:
        config, world = self._config, self._world
        rng = np.random.default_rng([seed, 1])
        self.noisy = bool(rng.random() < config.noisy_fraction)
        noise = np.zeros((world.max_steps, world.action_dim))
        if self.noisy:
            noise[:, :-1] = burst_noise(
                world.max_steps,
                world.action_dim - 1,
                config.noise_std,
                config.noise_rate,
                world.dt,
                rng,
                config.noise_seconds,
            )
        self._noise = iter(noise)
        self._expert = self._make_expert(world, seed)
        self._expert.reset()

    def act(self, observation: Observation) -> np.ndarray:
        return self._expert.act()

    def apply(self, world: World, action: np.ndarray, render: bool) -> Observation:
        return world.step(action + next(self._noise), render=render)

    def needs_images(self, stamp: float) -> bool:
        return False


def run_episode(
    world: World, make_expert: MakeExpert, config: CollectConfig, seed: int
) -> Demonstration:
    """Let the expert act from ``seed`` until success has lasted ``hold_steps`` steps or the world's
    step limit is reached.
    """
    agent, recorder = NoisyExpert(world, make_expert, config), DemonstrationRecorder()
    outcome = rollout(world, agent, seed, [recorder], config.hold_steps)
    kept = recorder.observations if outcome.success else []
    return Demonstration(
        seed=seed,
        success=outcome.success,
        noisy=agent.noisy,
        task=recorder.observations[0].instruction,
        images={
            view: np.stack([observation.images[view] for observation in kept])
            for view in (kept[0].images if kept else ())
        },
        state=np.array([observation.state for observation in kept], np.float32),
        action=np.array(recorder.actions if outcome.success else [], np.float32),
        fps=1 / world.dt,
    )


def collect(
    config: CollectConfig,
    make_world: MakeWorld = make_world,
    make_expert: MakeExpert = make_expert,
    console: Console | None = None,
) -> Summary:
    """Collect as ``config`` says, with a progress bar on ``console``. Raises UserError where
    nothing can be collected or written.
    """
    console = console or Console()
    started = time.monotonic()
    root = Path(config.root)
    seed, kept, frames = _begin(config, root)
    writer: LeRobotWriter | None = None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    attempts = _attempts(config, make_world, make_expert, seed)
    try:
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task(
                f"collecting {config.world}", total=config.episodes, completed=kept, note=""
            )
            while kept < config.episodes:
                episode = next(attempts)
                seed = episode.seed + 1
                if episode.success:
                    writer = writer or _writer(config, root, episode)
                    with uninterrupted():
                        writer.add_episode(
                            episode.images,
                            episode.state,
                            episode.action,
                            episode.task,
                            {"seed": episode.seed, "noisy": episode.noisy},
                        )
                        kept += 1
                        frames += len(episode.state)
                failures = seed - config.first_seed - kept
                if failures > config.episodes + HOPELESS:
                    raise UserError(
                        f"the expert of '{config.world}' failed {failures} times and succeeded {kept} times; is the world broken?"
                    )
                progress.update(bar, completed=kept, note=f"{frames} frames, {failures} failures")
    except KeyboardInterrupt:
        if writer is None:
            raise
        console.print(
            f"interrupted: the {kept} episodes collected so far are kept; --resume true goes on"
        )
    except BaseException:
        if writer is not None:
            writer.abort()
        raise
    finally:
        attempts.close()
    if writer is not None:
        with uninterrupted():  # without its settings a data set cannot be resumed
            writer.close()
            write_json(root / SETTINGS, _settings(config))
    return Summary(kept, frames, seed - config.first_seed, time.monotonic() - started)


def _begin(config: CollectConfig, root: Path) -> tuple[int, int, int]:
    """First seed to try, and the episodes and frames that are there already."""
    if not root.exists():
        return config.first_seed, 0, 0
    if not config.resume:
        raise UserError(
            f"'{root}' exists already; add --resume true to go on with it, or choose another --root"
        )
    dataset = LeRobotDataset(root)
    try:
        before = {
            "noise_seconds": [0.3, 0.8],
            **json.loads((root / SETTINGS).read_text()),
        }  # before there was a choice
    except (OSError, json.JSONDecodeError):
        raise UserError(
            f"'{root}/{SETTINGS}' is missing or broken: only data sets made by this script can be resumed"
        ) from None
    for name, value in _settings(config).items():
        if before.get(name) != value:
            raise UserError(
                f"'{root}' was collected with {name} = {before.get(name)}, not {value}; give the same or choose another --root"
            )
    return max(dataset.extras["seed"]) + 1, dataset.num_episodes, dataset.num_frames


def _settings(config: CollectConfig) -> dict[str, Any]:
    """The part of the configuration that decides what an episode looks like, as JSON values."""
    values = {
        name: value
        for name, value in asdict(config).items()
        if name not in ("root", "episodes", "workers", "resume")
    }
    return values | {"noise_seconds": list(config.noise_seconds)}


def _writer(config: CollectConfig, root: Path, episode: Demonstration) -> LeRobotWriter:
    """A writer for episodes that look like this one."""
    views = {view: (images.shape[1], images.shape[2]) for view, images in episode.images.items()}
    state_names = _column_names(episode.state.shape[1], "state")
    action_names = _column_names(episode.action.shape[1], "action")
    return LeRobotWriter(
        root, episode.fps, views, state_names, action_names, config.world, append=root.exists()
    )


def _column_names(width: int, prefix: str) -> list[str]:
    """The arm's joint names where they fit, else numbered ones."""
    return (
        list(JOINT_NAMES) if width == len(JOINT_NAMES) else [f"{prefix}_{i}" for i in range(width)]
    )


def _attempts(
    config: CollectConfig, make_world: MakeWorld, make_expert: MakeExpert, first_seed: int
) -> Generator[Demonstration, None, None]:
    """Episodes of all seeds from ``first_seed`` on, in order, without end."""
    seeds = itertools.count(first_seed)
    if config.workers == 0:
        world = make_world(config.world, config.image_size)
        try:
            for seed in seeds:
                yield run_episode(world, make_expert, config, seed)
        finally:
            world.close()
    with workers(config.workers, make_world, config.world, config.image_size) as submit:
        running: deque[Future[Demonstration]] = deque(
            submit(run_episode, make_expert, config, next(seeds)) for _ in range(2 * config.workers)
        )
        while True:
            episode = running.popleft().result()
            running.append(submit(run_episode, make_expert, config, next(seeds)))
            yield episode


def main() -> int:
    config = parse_args(
        CollectConfig, "Collect demonstrations of a scripted expert into a LeRobot data set."
    )
    summary = collect(config)
    print(
        f"{config.root}: {summary.episodes} episodes, {summary.frames} frames, "
        f"expert success {summary.expert_success:.1%} of {summary.tried} seeds, {summary.seconds:.0f} s"
    )
    return 0 if summary.episodes >= config.episodes else 130  # interrupted
