"""Evaluate a policy in a simulated world, in process: episodes on given seeds, success rate,
videos.

    python training/evaluate.py --policy checkpoints/piper_place/policy --result alam
    python training/evaluate.py --policy runs/mine/policy --first_seed 500 --episodes 20

Seeds 0 to 499 are for experiments, 500 to 999 for choosing a checkpoint (validation), 1000 and
above for final results. The ROS policy node uses the same runner and planner.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from alam_core.config import parse_args
from alam_core.data.video import VideoWriter
from alam_core.errors import UserError, explain, one_line
from alam_core.files import replacing_file
from alam_core.results import write_result
from alam_core.sim.protocols import find_profile
from alam_core.sim.world import make_world
from alam_training.episodes.evaluation import EvaluateConfig, MakeWorld, check, episodes
from alam_training.episodes.journal import Journal
from alam_training.episodes.metrics import EpisodeResult, success_metrics
from alam_training.progress import episode_progress

INTRODUCTION = """Evaluate a policy in a simulated world.

  python training/evaluate.py --policy checkpoints/piper_place/policy
      runs 50 episodes on unseen seeds and prints the success rate
  ... --result alam                                 writes it to results/piper_place.json
  ... --first_seed 500 --episodes 20                validation seeds, to choose a checkpoint
  ... --videos 4                                    videos of the first four episodes
  ... --failure_videos 4                            videos of the first four failures
  ... --via ros                                     the same episodes as ROS nodes
  ... --journal runs/mine/episodes.jsonl            continues if it is interrupted
  ... --workers 64 --ray auto                       on the machines of a Ray cluster
  ... --execution controller                        chunks executed as the arm's controller does
  python training/evaluate.py --policy expert --world libero/goal --episodes 30 --videos 3
      the scripted expert in place of a policy
  ... --config training/configs/evaluate_metaworld.yaml
      in MetaWorld; also prints the successes of each task and tier
  ... --world metaworld/mt50 --protocol evo1        as Evo-1 plays it: docs/benchmarks.md
  python training/evaluate.py --help                every option

No policy yet? python training/finetune.py trains one."""


def evaluate(
    config: EvaluateConfig, make_world: MakeWorld = make_world, console: Console | None = None
) -> dict[str, Any]:
    """Run an evaluation with a progress bar, and write the videos and the result file that
    ``config`` asks for. Returns the metrics.
    """
    started = time.monotonic()
    folders = config.policies()
    for folder in folders:  # report a policy that cannot be run before any episode
        check(replace(config, policy=folder), make_world)
    journal = Journal(config.journal, config) if config.journal else None
    played = {folder: journal.done(folder) if journal else [] for folder in folders}
    steps = 0  # control steps that were played now
    with episode_progress(console) as progress:
        bar = progress.add_task(
            f"episodes of {config.world}", total=len(config.seeds) * len(folders), note=""
        )
        progress.advance(bar, sum(map(len, played.values())))
        for folder in folders:
            filmed = config.videos if folder == folders[0] else 0
            own = replace(config, policy=folder, videos=filmed)
            done = [result.seed for result in played[folder]]
            for result in episodes(own, make_world, done):
                played[folder].append(result)
                steps += result.steps
                if journal is not None:
                    journal.add(folder, result)
                _film(config, result, progress.console)
                ended = [result.success for results in played.values() for result in results]
                progress.update(
                    bar,
                    advance=1,
                    note=f"{sum(ended)} of {len(ended)} succeeded ({sum(ended) / len(ended):.0%})",
                )
        seconds = time.monotonic() - started
        _film_failures(config, folders[0], played[folders[0]], make_world, progress)
    values = success_metrics(
        [
            result
            for results in played.values()
            for result in sorted(results, key=lambda result: result.seed)
        ]
    )
    values["per_training"] = [sum(r.success for r in results) for results in played.values()]
    if len(folders) > 1:
        del values["failed_seeds"]
        values["per_policy"] = {
            folder: sum(result.success for result in results) for folder, results in played.items()
        }
    values |= {
        "replan_every": config.replan_every,
        "delay_steps": config.delay_steps,
        "rendering": profile.rendering if (profile := config.profile()) else "fast",
        **({"via": config.via} if config.via != "direct" else {}),
        **({"protocol": config.protocol} if config.protocol else {}),
        **({"execution": config.execution} if config.execution != "steps" else {}),
        **({"intervention": config.intervention} if config.intervention else {}),
        "minutes": round(seconds / 60, 2),
        "steps_per_s": round(steps / seconds, 1),
    }
    if config.result:
        name, group, key = _result(config)
        write_result(
            name,
            {key: values},
            list(config.seeds),
            config.results,
            group=group,
        )
    return values


def _result(config: EvaluateConfig) -> tuple[str, str, str]:
    """Name of the result file, the group of keys in it (may be nested, with "/" between the keys;
    "" for none), and the key.
    """
    *before, key = config.result.split("/")
    file, *groups = before or [""]
    return file or config.world.replace("/", "_"), "/".join(groups), key


def _film_failures(
    config: EvaluateConfig,
    folder: str,
    played: list[EpisodeResult],
    make_world: MakeWorld,
    progress: Progress,
) -> None:
    """Play the first failed episodes of a policy again, in process, and write their videos."""
    failed = sorted(result.seed for result in played if not result.success)[: config.failure_videos]
    if not failed:
        return
    bar = progress.add_task("films of failures", total=len(failed), note="")
    every = replace(config, policy=folder, via="direct", videos=len(config.seeds))
    for result in episodes(every, make_world, set(config.seeds) - set(failed)):
        _film(config, result, progress.console)
        progress.advance(bar)


def _film(config: EvaluateConfig, result: EpisodeResult, console: Console) -> None:
    """Write the video of an episode if it was filmed. A full disk does not end the measurement."""
    if len(result.frames):
        try:
            write_video(config, result)
        except OSError as error:
            console.print(f"no video of seed {result.seed}: {explain(error) or one_line(error)}")


def write_video(config: EvaluateConfig, result: EpisodeResult) -> None:
    """Write an episode's frames as a video into ``config.video_folder``, named by task, seed and
    success or failure. Raises OSError.
    """
    folder = Path(config.video_folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{result.task}-{result.seed}-{'success' if result.success else 'failure'}.mp4"
    _, height, width, _ = result.frames.shape
    with replacing_file(folder / name) as path:
        writer = VideoWriter(path, result.fps, height, width)
        writer.add(result.frames)
        writer.close()


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
        f"{config.policy}: {values['successes']} of {values['episodes']} episodes succeeded "
        f"(95 % interval {low:.0%} to {high:.0%})"
    )
    for name, counts in [*values.get("per_task", {}).items(), *values.get("per_group", {}).items()]:
        low, high = counts["ci95"]
        print(f"  {name}: {counts['successes']} of {counts['episodes']} ({low:.0%} to {high:.0%})")
    if "macro_average" in values:
        print(f"  mean of {', '.join(values['per_group'])}: {values['macro_average']:.1%}")
    for policy, successes in values.get("per_policy", {}).items():
        print(f"  {policy}: {successes} of {len(config.seeds)}")
    own = find_profile(config.world, config.protocol)
    if config.protocol and own is not None and own.rendering != values["rendering"]:
        print(
            f"warning: the images are rendered '{values['rendering']}'; the protocol "
            f"'{config.protocol}' renders '{own.rendering}'"
        )
    if unusual := values.get("unusual_states"):
        print(
            f"warning: in {unusual['episodes']} episodes a state was outside the range of "
            f"training, for example: {unusual['example']}"
        )
    if values.get("failed_seeds"):
        print(f"failed seeds: {' '.join(map(str, values['failed_seeds']))}")
    if config.result:
        name, group, key = _result(config)
        print(f"written: {config.results}/{name}.json, key '{f'{group}/' * bool(group)}{key}'")
    return 0
