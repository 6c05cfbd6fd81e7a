"""Whether a policy's episodes through ROS are those of a direct evaluation: the same seeds give the
same actions, bit by bit, the same number of steps and the same success.
"""

from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from alam_core.errors import UserError
from alam_core.results import write_result
from alam_training.episodes.evaluation import EvaluateConfig, episodes
from alam_training.episodes.metrics import EpisodeResult


@dataclass
class ParityConfig:
    """Which episodes to compare.

    Args:
        policy: folder of a policy.
        world: name of its world.
        episodes: number of episodes.
        first_seed: seed of the first one.
        replan_every: control steps between two plans.
        workers: processes of the direct evaluation, and graphs at a time of the one through ROS.
        key: where to write the result in ros_parity.json: metaworld, libero or piper.
        results: folder of the result file.
        save: write ros_parity.json.
    """

    policy: str = "checkpoints/piper_place/policy"
    world: str = "piper_place"
    episodes: int = 20
    first_seed: int = 0
    replan_every: int = 8
    workers: int = 1
    key: str = "piper"
    results: str = "results"
    save: bool = True

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.workers < 1 or not self.key.isidentifier():
            raise UserError("episodes and workers must be at least 1, and key a word")


def main(config: ParityConfig) -> int:
    """Compare, print and write the result. Returns 0 if all episodes are equal."""
    direct = EvaluateConfig(
        config.policy,
        config.world,
        config.episodes,
        config.first_seed,
        config.replan_every,
        workers=config.workers,
    )
    console = Console()
    with console.status("direct episodes"):
        wanted = {result.seed: result for result in episodes(direct)}
    with console.status("the same episodes through ROS"):
        found = {result.seed: result for result in episodes(replace(direct, via="ros"))}
    values = compare(wanted, found)
    console.print(
        f"{config.world}: {values['equal']} of {values['episodes']} episodes are equal, "
        f"{values['successes']} successes; different: {values['different'] or 'none'}"
    )
    if config.save:
        seeds = list(direct.seeds)
        path = write_result("ros_parity", {config.key: values}, seeds, config.results)
        console.print(f"written: {path}")
    return 0 if values["equal"] == values["episodes"] else 1


def compare(wanted: dict[int, EpisodeResult], found: dict[int, EpisodeResult]) -> dict[str, Any]:
    """The values of one world in the result file. Both: seed -> episode, direct and through ROS."""

    def what(result: EpisodeResult) -> tuple[str, int, bool]:
        return result.actions, result.steps, result.success

    different = [seed for seed, own in wanted.items() if what(own) != what(found[seed])]
    return {
        "episodes": len(wanted),
        "equal": len(wanted) - len(different),
        "successes": sum(result.success for result in wanted.values()),
        "steps": sum(result.steps for result in wanted.values()),
        "different": sorted(different),
    }
