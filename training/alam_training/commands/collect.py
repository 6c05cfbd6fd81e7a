"""Collect demonstrations of a scripted expert in a simulated world into a LeRobot data set.

Seeds are tried in order from ``first_seed``; an episode is kept if the expert succeeds
and the success lasts ``hold_steps`` steps. An episode depends on its seed only, so the data are the
same for any number of workers. Ctrl-C keeps the collected episodes; ``--resume true`` continues
from there. T: steps of an episode, H, W: image height
and width, S: state width, A: action width.
"""

import contextlib
import itertools
import sys
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console

from alam_core.config import parse_args
from alam_core.errors import UserError
from alam_core.robots.piper import JOINT_NAMES
from alam_core.runtime.rollout import DemonstrationRecorder, rollout
from alam_core.sim.world import World, make_expert, make_world
from alam_core.types import Observation
from alam_training.episodes.dataset_run import DatasetRun
from alam_training.episodes.episode import ExpertAgent, MakeExpert
from alam_training.episodes.workers import check_workers, workers
from alam_training.progress import episode_progress

INTRODUCTION = """Collect demonstrations of a scripted expert into a LeRobot data set.

  python training/collect.py --config training/configs/collect_piper.yaml
      1000 demonstrations of the Piper's place task
  ... --output data/more --episodes 300 --workers 8
      another folder, fewer demonstrations, more processes
  ... --workers 64 --ray auto
      processes on the machines of a Ray cluster: docs/scale.md
  python training/collect.py --config training/configs/collect_metaworld.yaml
      MetaWorld's tasks with their own experts
  python training/collect.py --help
      every option

Ctrl-C keeps the collected episodes; --resume true continues from there.
Next: python training/pretrain.py learns transitions from the video alone."""

SETTINGS = "meta/collect.json"  # in the data set: the settings it was collected with
FORMER_DEFAULTS = {"noise_seconds": [0.3, 0.8]}  # settings that older data sets do not name
HOPELESS = 20  # collecting stops at more failures than wanted episodes plus this number

MakeWorld = Callable[[str, int], World]


@dataclass
class CollectConfig:
    """What to collect.

    Args:
        world: name of the world: piper_place, metaworld, metaworld/mt50, metaworld/<task>,
            metaworld/<task>,<task>, or libero/<suite>/<number>.
        output: folder of the data set.
        episodes: total number of successful episodes in the data set.
        first_seed: seed of the first attempt; each further attempt uses the next seed.
        image_size: side of the square images, in pixels.
        noisy_fraction: share of episodes, 0 to 1, in which noise is added to the executed actions;
            the recorded actions stay the expert's.
        noise_std: standard deviation of that noise, in units of the action (rad for joints); the
            last column, the gripper, gets none.
        noise_rate: expected number of pushes that begin per second while there is none.
        noise_seconds: duration of the shortest and the longest push, in s.
        hold_steps: consecutive steps of success after which the episode ends and is kept.
        workers: processes, each with its own simulator; 0 simulates in this process.
        ray: address of a Ray cluster (host:port; auto: the running cluster of this host) whose
            machines run the workers; empty: this machine. docs/scale.md says how to start one.
        resume: add to an existing data set; false refuses one.
    """

    world: str = "piper_place"
    output: str = "data/piper_place"
    episodes: int = 300
    first_seed: int = 1_000_000
    image_size: int = 96
    noisy_fraction: float = 0.5
    noise_std: float = 0.05
    noise_rate: float = 0.6
    noise_seconds: tuple[float, float] = (0.3, 0.8)
    hold_steps: int = 5
    workers: int = 2
    ray: str = ""
    resume: bool = False

    def __post_init__(self) -> None:
        check_workers(self.workers, self.ray)
        if self.episodes < 1 or self.hold_steps < 1 or self.image_size < 8:
            raise UserError("episodes and hold_steps must be at least 1 and image_size at least 8")
        if not 0 <= self.noisy_fraction <= 1 or self.noise_std < 0 or self.noise_rate < 0:
            raise UserError(
                "noisy_fraction must lie between 0 and 1, "
                "noise_std and noise_rate must not be negative"
            )
        if not 0 < self.noise_seconds[0] <= self.noise_seconds[1]:
            raise UserError(
                f"noise_seconds is {list(self.noise_seconds)}: "
                "give the shortest and the longest push, both above 0"
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
class CollectSummary:
    """What ``collect`` did. ``episodes``, ``frames`` and ``tried`` (seeds) count the whole data
    set; ``seconds`` is the duration of this run.
    """

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
    """Pushes that begin at random (``rate`` per second), last ``seconds`` (shortest, longest) and
    fade in and out within one or two steps: (steps, width).

    Each push has one direction, drawn with standard deviation ``std``. There is no noise between
    pushes, so that the expert can show how to recover. dt: seconds per step.
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


class NoisyExpert(ExpertAgent):
    """The agent of a demonstration: the expert's actions are recorded, and noise is added to what
    is executed, so that the data show how to recover.
    """

    def __init__(self, world: World, make_expert: MakeExpert, config: CollectConfig) -> None:
        super().__init__(world, make_expert)
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
        super().reset(seed)

    def apply(self, world: World, action: np.ndarray, render: bool) -> Observation:
        return super().apply(world, action + next(self._noise), render)


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
) -> CollectSummary:
    """Collect as ``config`` says, with a progress bar on ``console``. Raises UserError if nothing
    can be collected or written.
    """
    console = console or Console()
    started = time.monotonic()
    settings = _settings(config)
    run = DatasetRun(config.output, SETTINGS, settings)
    run.resume(config.resume, settings, "collected", "--output", "seed", defaults=FORMER_DEFAULTS)
    seed = max(run.dataset.extras["seed"]) + 1 if run.dataset else config.first_seed
    with (
        run,
        contextlib.closing(_attempts(config, make_world, make_expert, seed)) as attempts,
        episode_progress(console) as progress,
    ):
        bar = progress.add_task(
            f"collecting {config.world}",
            total=config.episodes,
            completed=run.num_episodes,
            note="",
        )
        while run.num_episodes < config.episodes:
            attempt = next(attempts)
            seed = attempt.seed + 1
            if attempt.success:
                _keep(run, config, attempt)
            failures = seed - config.first_seed - run.num_episodes
            if failures > config.episodes + HOPELESS:
                raise UserError(
                    f"the expert of '{config.world}' failed {failures} times and succeeded "
                    f"{run.num_episodes} times; is the world broken?"
                )
            progress.update(
                bar,
                completed=run.num_episodes,
                note=f"{run.num_frames} frames, {failures} failures",
            )
    if run.interrupted:
        console.print(
            f"interrupted: the {run.num_episodes} episodes collected so far are kept; "
            "--resume true continues"
        )
    return CollectSummary(
        run.num_episodes, run.num_frames, seed - config.first_seed, time.monotonic() - started
    )


def _settings(config: CollectConfig) -> dict[str, Any]:
    """The settings that decide what an episode looks like, as JSON values."""
    values = {
        name: value
        for name, value in asdict(config).items()
        if name not in ("output", "episodes", "workers", "ray", "resume")
    }
    return values | {"noise_seconds": list(config.noise_seconds)}


def _keep(run: DatasetRun, config: CollectConfig, attempt: Demonstration) -> None:
    """Add a successful attempt to the data set."""
    run.open(
        attempt.images,
        attempt.fps,
        _column_names(attempt.state.shape[1], "state"),
        _column_names(attempt.action.shape[1], "action"),
        config.world,
    )
    run.add(
        attempt.images,
        attempt.state,
        attempt.action,
        attempt.task,
        {"seed": attempt.seed, "noisy": attempt.noisy},
    )


def _column_names(width: int, prefix: str) -> list[str]:
    """The arm's joint names if there is one per column, else numbered names."""
    return (
        list(JOINT_NAMES) if width == len(JOINT_NAMES) else [f"{prefix}_{i}" for i in range(width)]
    )


def _attempts(
    config: CollectConfig, make_world: MakeWorld, make_expert: MakeExpert, first_seed: int
) -> Generator[Demonstration, None, None]:
    """One attempt for each seed from ``first_seed`` on, in order, endlessly."""
    seeds = itertools.count(first_seed)
    if config.workers == 0:
        world = make_world(config.world, config.image_size)
        try:
            for seed in seeds:
                yield run_episode(world, make_expert, config, seed)
        finally:
            world.close()
    with workers(
        config.workers, make_world, config.world, config.image_size, ray=config.ray
    ) as submit:
        running: deque[Future[Demonstration]] = deque(
            submit(run_episode, make_expert, config, next(seeds)) for _ in range(2 * config.workers)
        )
        while True:
            attempt = running.popleft().result()
            running.append(submit(run_episode, make_expert, config, next(seeds)))
            yield attempt


def main() -> int:
    if len(sys.argv) == 1:
        print(INTRODUCTION)
        return 0
    config = parse_args(CollectConfig, INTRODUCTION.splitlines()[0])
    summary = collect(config)
    print(
        f"{config.output}: {summary.episodes} episodes, {summary.frames} frames, "
        f"expert success {summary.expert_success:.1%} of {summary.tried} seeds, "
        f"{summary.seconds:.0f} s"
    )
    return 0 if summary.episodes >= config.episodes else 130  # interrupted
