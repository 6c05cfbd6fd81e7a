"""Evaluate a policy in a simulated world, in process: episodes on given seeds, success rate,
videos.

    python training/evaluate.py --policy checkpoints/piper_place/policy --result alam
    python training/evaluate.py --policy runs/finetune_piper/policy --first_seed 500 --episodes 20      (validation seeds)

Seeds: 0 to 499 are for trying things, 500 to 999 for choosing among checkpoints, 1000 and up for
final figures. The same runtime acts here and in the ROS policy node.
"""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from alam_core.config import parse_args
from alam_core.data.video import VideoWriter
from alam_core.errors import UserError
from alam_core.results import write_result
from alam_core.runtime import PolicyRunner, Replanner
from alam_core.sim.world import World, make_world
from alam_training.episodes.workers import workers

INTRODUCTION = """Evaluate a policy in a simulated world.

  python training/evaluate.py --policy checkpoints/piper_place/policy                 50 unseen seeds, prints the success rate
  ... --result alam                                                             and writes it to results/piper_place.json
  ... --first_seed 500 --episodes 20                                            validation seeds, to choose a checkpoint by
  ... --videos 4                                                                films of the first episodes
  ... --config training/configs/evaluate_metaworld.yaml                         in MetaWorld; counts success for each task
  python training/evaluate.py --help                                            every option

No policy yet? python training/finetune.py trains one."""

MakeWorld = Callable[[str, int], World]


@dataclass
class EvaluateConfig:
    """An evaluation.

    Args:
        policy: folder of a policy; several with commas between, trainings of one method, are played
            alike and counted together.
        world: name of the world: piper_place, metaworld, metaworld/mt50, metaworld/<task> or
            metaworld/<task>,<task>.
        episodes: how many in all.
        first_seed: seed of the first episode; the next ones follow it.
        replan_every: control steps between two plans.
        delay_steps: control steps until a plan takes effect, as latency through ROS would have it.
        denoising_steps: K; 0 takes the policy's own.
        horizon: steps of a chunk; 0 takes the policy's own, the most there can be.
        device: cpu or cuda, where the policy runs.
        bfloat16: keep pi0's weights in bfloat16, half the memory.
        compiled: compile the network, on a GPU recorded as a CUDA graph; the first chunk takes a
            minute or more.
        intervention: on the policy's latents, "freeze", "block" or "shuffle"; none if empty
            (Appendix F).
        workers: processes, each with its own simulator and one thread; 0 runs in this process.
        videos: number of episodes to film, from the first on, at the world's own speed.
        video_folder: where the films go.
        result: key in results/<world>.json to write ("alam", "none"), with _ for / in the name, or
            <file>/<key>, or <file>/<group>/<key>; nothing if empty.
        results: folder of the result files.
    """

    policy: str = ""
    world: str = "piper_place"
    episodes: int = 50
    first_seed: int = 1000
    replan_every: int = 8
    delay_steps: int = 0
    denoising_steps: int = 0
    horizon: int = 0
    device: str = "cpu"
    bfloat16: bool = False
    compiled: bool = False
    intervention: str = ""
    workers: int = 2
    videos: int = 0
    video_folder: str = "runs/videos"
    result: str = ""
    results: str = "results"

    def __post_init__(self) -> None:
        if (
            self.episodes < 1
            or self.workers < 0
            or min(self.denoising_steps, self.horizon, self.videos) < 0
        ):
            raise UserError(
                "episodes must be at least 1; workers, denoising_steps, horizon and videos must not be negative"
            )
        parts = self.result.split("/")
        if self.result and (len(parts) > 3 or "" in parts):
            raise UserError(
                f"result is '{self.result}': give <key>, <file>/<key> or <file>/<group>/<key>"
            )
        if len(set(self.policies())) < len(self.policies()):
            raise UserError(f"a policy is named twice in '{self.policy}': name each training once")

    def policies(self) -> list[str]:
        """The folders that ``policy`` names."""
        return [folder.strip() for folder in self.policy.split(",") if folder.strip()]


@dataclass
class Episode:
    """How one episode went; ``frames`` are uint8 (T, S, S * views, 3) where it was filmed, ``fps``
    of them a second.
    """

    seed: int
    success: bool
    steps: int
    task: str
    frames: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0, 3), np.uint8))
    fps: float = 0.0


def run_episode(world: World, replanner: Replanner, seed: int, film: bool = False) -> Episode:
    """One episode, until success or the world's step limit; the seed also decides the policy's
    noise.
    """
    observation = world.reset(seed)
    replanner.reset(seed)
    frames, success, steps = [], False, 0
    while True:
        if film:
            frames.append(
                np.concatenate([observation.images[view] for view in observation.images], axis=1)
            )
        if success or steps == world.max_steps:
            break
        action = replanner.act(observation)
        observation = world.step(action, look=film or replanner.due())
        steps += 1
        success = world.success()
    return Episode(
        seed,
        success,
        steps,
        world.task,
        np.stack(frames) if film else np.zeros((0, 0, 0, 3), np.uint8),
        1 / world.dt,
    )


def episodes(config: EvaluateConfig, make_world: MakeWorld = make_world) -> Iterator[Episode]:
    """The episodes of an evaluation as they end, in any order. Raises UserError for a policy or
    world that cannot be had.
    """
    seeds = range(config.first_seed, config.first_seed + config.episodes)
    filmed = set(seeds[: config.videos])
    if config.workers == 0:
        world, replanner = _prepare(config, make_world)
        try:
            for seed in seeds:
                yield run_episode(world, replanner, seed, seed in filmed)
        finally:
            world.close()
        return
    with workers(min(config.workers, config.episodes), _prepare, config, make_world) as submit:
        for future in as_completed([submit(_run, seed, seed in filmed) for seed in seeds]):
            yield future.result()


def check(config: EvaluateConfig, make_world: MakeWorld = make_world) -> None:
    """Raises UserError where a policy cannot be played as ``config`` says."""
    world, _ = _prepare(config, make_world)
    world.close()


def evaluate(
    config: EvaluateConfig, make_world: MakeWorld = make_world, console: Console | None = None
) -> dict[str, Any]:
    """Run an evaluation with a progress bar; films and the result file are written as ``config``
    says. Returns the figures.
    """
    started = time.monotonic()
    folders = config.policies()
    for folder in folders:  # one that is broken or does not fit is told before any is played
        check(replace(config, policy=folder), make_world)
    played: dict[str, list[Episode]] = {folder: [] for folder in folders}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console or Console()
    ) as progress:
        bar = progress.add_task(
            f"episodes of {config.world}", total=config.episodes * len(folders), note=""
        )
        for folder in folders:
            filmed = config.videos if folder == folders[0] else 0
            for episode in episodes(replace(config, policy=folder, videos=filmed), make_world):
                played[folder].append(episode)
                if len(episode.frames):
                    film(config, episode)
                done = [e.success for ends in played.values() for e in ends]
                progress.update(
                    bar,
                    advance=1,
                    note=f"{sum(done)} of {len(done)} succeeded ({sum(done) / len(done):.0%})",
                )
    values = figures([e for ends in played.values() for e in sorted(ends, key=lambda e: e.seed)])
    if len(folders) > 1:
        del values["failed_seeds"]
        values["per_policy"] = {
            folder: sum(e.success for e in ends) for folder, ends in played.items()
        }
    values |= {
        "replan_every": config.replan_every,
        "delay_steps": config.delay_steps,
        **({"intervention": config.intervention} if config.intervention else {}),
        "minutes": round((time.monotonic() - started) / 60, 2),
    }
    if config.result:
        name, group, key = _result(config)
        write_result(
            name,
            {key: values},
            list(range(config.first_seed, config.first_seed + config.episodes)),
            config.results,
            group=group,
        )
    return values


def figures(done: list[Episode]) -> dict[str, Any]:
    """Success count, 95 % interval of the rate (Wilson), failed seeds and the mean length of
    successful episodes in steps.

    ``per_task`` counts the tasks apart where there are several.
    """
    won = [e for e in done if e.success]
    rate, count, z = len(won) / len(done), len(done), 1.96
    centre = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = (
        z / (1 + z * z / count) * (rate * (1 - rate) / count + z * z / (4 * count * count)) ** 0.5
    )
    values = {
        "episodes": count,
        "successes": len(won),
        "success": rate,
        "ci95": [round(max(0.0, centre - half), 4), round(min(1.0, centre + half), 4)],
        "failed_seeds": [e.seed for e in done if not e.success],
        "mean_steps": round(float(np.mean([e.steps for e in won])), 1) if won else None,
    }
    tasks = {
        task: [e.success for e in done if e.task == task] for task in sorted({e.task for e in done})
    }
    if len(tasks) > 1:
        values["per_task"] = {
            task: {"episodes": len(ends), "successes": sum(ends)} for task, ends in tasks.items()
        }
    return values


def _result(config: EvaluateConfig) -> tuple[str, str, str]:
    """Name of the result file, the group of keys in it, "" for none, and the key."""
    *before, key = config.result.split("/")
    file, group = [*before, "", ""][:2]
    return file or config.world.replace("/", "_"), group, key


def film(config: EvaluateConfig, episode: Episode) -> None:
    """Write an episode's frames as a video into ``config.video_folder``, named by task, seed and
    end.
    """
    folder = Path(config.video_folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{episode.task}-{episode.seed}-{'success' if episode.success else 'failure'}.mp4"
    _, height, width, _ = episode.frames.shape
    writer = VideoWriter(folder / name, episode.fps, height, width)
    writer.add(episode.frames)
    writer.close()


def _prepare(config: EvaluateConfig, make_world: MakeWorld) -> tuple[World, Replanner]:
    runner = PolicyRunner.from_pretrained(
        config.policy,
        config.device,
        threads=1,
        denoising_steps=config.denoising_steps or None,
        horizon=config.horizon or None,
        intervention=config.intervention,
        bfloat16=config.bfloat16,
        compiled=config.compiled,
    )
    world = make_world(config.world, runner.image_size)
    if (
        world.action_dim != len(runner.joint_names)
        or world.state_dim != runner.state_dim
        or abs(world.dt - runner.dt) > 1e-6
    ):
        world.close()
        raise UserError(
            f"'{config.policy}' takes a state of {runner.state_dim} and gives {len(runner.joint_names)} actions every {runner.dt} s, "
            f"the world '{config.world}' has {world.state_dim}, {world.action_dim} and {world.dt} s: give a policy trained on its data"
        )
    return world, Replanner(runner, config.replan_every, config.delay_steps, world.hold)


def _run(prepared: tuple[World, Replanner], seed: int, film: bool) -> Episode:
    return run_episode(*prepared, seed, film)


def main() -> int:
    if len(sys.argv) == 1:
        print(INTRODUCTION)
        return 0
    config = parse_args(EvaluateConfig, INTRODUCTION.splitlines()[0])
    if not config.policy:
        raise UserError("no policy: give one with --policy FOLDER; training/finetune.py makes one")
    values = evaluate(config)
    low, high = values["ci95"]
    print(
        f"{config.policy}: {values['successes']} of {values['episodes']} episodes succeeded (95 % interval {low:.0%} to {high:.0%})"
    )
    for task, counts in values.get("per_task", {}).items():
        print(f"  {task}: {counts['successes']} of {counts['episodes']}")
    for policy, successes in values.get("per_policy", {}).items():
        print(f"  {policy}: {successes} of {config.episodes}")
    if values.get("failed_seeds"):
        print(f"failed seeds: {' '.join(map(str, values['failed_seeds']))}")
    if config.result:
        name, group, key = _result(config)
        print(f"written: {config.results}/{name}.json, key '{f'{group}/' * bool(group)}{key}'")
    return 0
