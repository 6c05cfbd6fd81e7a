"""Episodes of a policy in a simulated world, for evaluate.py and the rollouts of finetune.py."""

import importlib
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from alam_core.errors import UserError, one_line
from alam_core.robots.piper import (
    JOINT_LIMITS,
    JOINT_NAMES,
    SIMULATED_MAX_ACCELERATION,
    SIMULATED_MAX_GRIPPER_VELOCITY,
    SIMULATED_MAX_JERK,
    SIMULATED_MAX_VELOCITY,
)
from alam_core.robots.workspace import Workspace
from alam_core.runtime.columns import parse_names_map
from alam_core.runtime.execution import ControllerExecution, PolicyExecution, StepExecution
from alam_core.runtime.motion import make_limits
from alam_core.runtime.planner import Planner
from alam_core.runtime.runner import PolicyRunner
from alam_core.sim.profiles import Profile, Rendering
from alam_core.sim.protocols import count_tasks, find_profile
from alam_core.sim.world import DrivenWorld, World, make_world
from alam_training.episodes.episode import ExpertAgent, Player, play
from alam_training.episodes.metrics import EpisodeResult
from alam_training.episodes.workers import workers

MakeWorld = Callable[..., World]  # as alam_core.sim.world.make_world
EXPERT = "expert"  # in place of a policy's folder
EPISODES = 4  # of a job, for each simulator of a batch


@dataclass
class EvaluateConfig:
    """An evaluation.

    Args:
        policy: folder of a policy. Several, separated by commas, count as trainings of one method:
            each runs all episodes, and the successes are added up. expert: the world's scripted
            expert, which the settings of plans and chunks do not concern.
        world: name of the world: piper_place, metaworld, metaworld/mt50, metaworld/<task>,
            metaworld/<task>,<task>, libero, libero/<suite> or libero/<suite>/<number>.
        protocol: play MetaWorld or LIBERO as others do: alam, evo1, lerobot or openpi (see
            docs/benchmarks.md); empty: as the world does by itself.
        rendering: full or fast, with or without shadows, of MetaWorld and LIBERO; by default what
            the protocol uses, fast without one.
        episodes: number of episodes per policy; by default 50, with a protocol as many as it plays.
        first_seed: seed of the first episode, 1000 by default; the next episodes have the seeds
            after it. A protocol begins with 0.
        replan_every: control steps between two plans.
        delay_steps: control steps from an observation until its plan takes effect, to simulate
            latency.
        denoising_steps: K, denoising steps per chunk; 0 takes the policy's own.
        horizon: steps of a chunk; 0 takes the policy's own, which is the maximum.
        device: cpu or cuda, where the policy runs.
        bfloat16: keep pi0's weights in bfloat16, half the memory.
        compiled: compile the network, on a GPU recorded as a CUDA graph; the first chunk takes a
            minute or more.
        intervention: change of the policy's latents (Appendix F): freeze, block or shuffle; empty:
            none.
        workers: processes, each with its own simulator and one thread; 0 runs in this process.
        batch: simulators of each worker, whose chunks one call of the policy computes: faster, but
            rounded differently, which may change an episode.
        ray: address of a Ray cluster (host:port; auto: the running cluster of this host) whose
            machines run the workers; empty: this machine. docs/scale.md says how to start one.
        videos: number of episodes to film, starting with the first; the videos play in real time.
        failure_videos: number of failed episodes to play again and film, the first ones.
        video_folder: folder of the videos.
        result: where to write the result: <key> in results/<world>.json (a / in the world's name
            becomes _), or <file>/<key>, with any keys between them. Empty: nothing is written.
        results: folder of the result files.
        joint_names_map: for a policy trained on data with other names of the joints, entries
            <name in the data>=<joint>, for example [joint_1.pos=joint1]; worlds of the Piper only.
        via: direct runs the policy in this process or its workers; ros runs each worker's world and
            policy as ROS nodes, in lockstep, which gives the same episodes.
        journal: a file that keeps each episode as it ends; an interrupted evaluation with the same
            journal continues where it stopped. Empty: none.
        execution: steps executes one row of a chunk per control step; controller executes chunks as
            the arm's controller does, every 5 ms under motion limits (worlds of the Piper only).
    """

    policy: str = ""
    world: str = "piper_place"
    episodes: int | None = None
    first_seed: int | None = None
    replan_every: int = 8
    delay_steps: int = 0
    denoising_steps: int = 0
    horizon: int = 0
    device: str = "cpu"
    bfloat16: bool = False
    compiled: bool = False
    intervention: Literal["", "freeze", "block", "shuffle"] = ""
    workers: int = 2
    batch: int = 1
    ray: str = ""
    videos: int = 0
    failure_videos: int = 0
    video_folder: str = "runs/videos"
    result: str = ""
    results: str = "results"
    joint_names_map: list[str] = field(default_factory=list)
    execution: Literal["steps", "controller"] = "steps"
    via: Literal["direct", "ros"] = "direct"
    journal: str = ""
    protocol: str = ""
    rendering: Rendering | None = None

    def __post_init__(self) -> None:
        self._choose_seeds()
        if (
            self.seeds.stop <= self.seeds.start
            or self.workers < 0
            or min(self.denoising_steps, self.horizon, self.videos, self.failure_videos) < 0
        ):
            raise UserError(
                "episodes must be at least 1; workers, denoising_steps, horizon, videos and "
                "failure_videos must not be negative"
            )
        if self.batch < 1 or (self.batch > 1 and self.intervention == "shuffle"):
            raise UserError("batch must be at least 1, and is 1 with --intervention shuffle")
        if self.ray and (self.workers == 0 or self.via == "ros"):
            raise UserError("--ray needs --workers 1 or more, and --via direct")
        if self.batch > 1 and self.via == "ros":
            raise UserError("--batch needs --via direct")
        parts = self.result.split("/")
        if self.result and (len(parts) > 3 or "" in parts):
            raise UserError(
                f"result is '{self.result}': give <key>, <file>/<key> or <file>/<group>/<key>"
            )
        if self.policy == EXPERT and (self.batch > 1 or self.via == "ros"):
            raise UserError("--policy expert needs --batch 1 and --via direct")
        if len(set(self.policies())) < len(self.policies()):
            raise UserError(f"a policy is named twice in '{self.policy}': name each training once")

    def _choose_seeds(self) -> None:
        """Set ``episodes`` and ``first_seed`` to the protocol's values, or where they are not given
        to their defaults. Raises UserError if a given value is not the protocol's.
        """
        profile = self.profile()
        if self.protocol and profile is not None:
            count = profile.episodes_per_task * count_tasks(self.world)
            if self.episodes not in (None, count) or self.first_seed not in (None, 0):
                raise UserError(
                    f"the protocol '{self.protocol}' plays {count} episodes in '{self.world}', "
                    "from seed 0: leave out --episodes and --first_seed"
                )
            self.episodes, self.first_seed = count, 0
        self.episodes = 50 if self.episodes is None else self.episodes
        self.first_seed = 1000 if self.first_seed is None else self.first_seed

    @property
    def seeds(self) -> range:
        """The seeds of the episodes."""
        assert self.episodes is not None and self.first_seed is not None  # since __post_init__
        return range(self.first_seed, self.first_seed + self.episodes)

    def profile(self) -> Profile | None:
        """How the world is played; None for a world without profiles. Raises UserError where the
        protocol or the rendering is not defined for the world.
        """
        return find_profile(self.world, self.protocol, self.rendering)

    def policies(self) -> list[str]:
        """The folders that ``policy`` names."""
        return [folder.strip() for folder in self.policy.split(",") if folder.strip()]


def episodes(
    config: EvaluateConfig,
    make_world: MakeWorld = make_world,
    done: Collection[int] = (),
) -> Iterator[EpisodeResult]:
    """The episodes of an evaluation as they end, in any order, without those of the seeds ``done``.
    Warns once of each instruction that the policy was not trained on. Raises UserError for a policy
    or a world that is missing or does not fit.
    """
    # task after task: LIBERO takes seconds to load another one
    tasks = count_tasks(config.world)
    seeds = sorted(config.seeds, key=lambda seed: (seed % tasks, seed))
    jobs = [job for job in _jobs(seeds, config.batch) if not set(job) <= set(done)]
    if not jobs:
        return
    told = {""}
    if config.via == "ros":
        played = _through_ros().episodes(config, [seed for (seed,) in jobs])
    else:
        played = _played(make_world, config, jobs)
    for result in played:
        if result.seed in done:  # of a job that was interrupted
            continue
        if result.unknown not in told:
            told.add(result.unknown)
            print(f"warning: {result.unknown}", file=sys.stderr)
        yield result


def _jobs(seeds: Sequence[int], batch: int) -> list[Sequence[int]]:
    """The seeds of each job. A job is played as a whole: which episodes share a batch, and so their
    rounding, depends neither on the number of workers nor on interruptions.
    """
    size = 1 if batch == 1 else EPISODES * batch
    return [seeds[i : i + size] for i in range(0, len(seeds), size)]


def _through_ros() -> Any:
    """The module that plays episodes through ROS. Raises UserError if the workspace is missing."""
    try:
        return importlib.import_module("alam_demo.evaluation")
    except ImportError as error:
        raise UserError(
            f"--via ros needs the workspace ({one_line(error)}): make setup, then source setup.bash"
        ) from None


def _played(
    make_world: MakeWorld, config: EvaluateConfig, jobs: Sequence[Sequence[int]]
) -> Iterator[EpisodeResult]:
    filmed = set(config.seeds[: config.videos])
    if config.workers == 0:
        players = _prepare(config, make_world)
        try:
            for job in jobs:
                yield from play(players, job, filmed)
        finally:
            for world, _ in players:
                world.close()
        return
    count, gpu = min(config.workers, len(jobs)), config.device.startswith("cuda")
    with workers(count, _prepare, config, make_world, ray=config.ray, gpu=gpu) as submit:
        for future in as_completed([submit(_run, job, filmed) for job in jobs]):
            yield from future.result()


def _run(players: list[Player], seeds: Sequence[int], filmed: set[int]) -> list[EpisodeResult]:
    return list(play(players, seeds, filmed))


def check(config: EvaluateConfig, make_world: MakeWorld = make_world) -> None:
    """Raises UserError if the policy cannot be run as ``config`` says."""
    if config.via == "ros":
        _through_ros().check(config)
    ((world, _),) = _prepare(replace(config, batch=1), make_world)
    world.close()


def _prepare(config: EvaluateConfig, make_world: MakeWorld) -> list[Player]:
    """A simulator and an agent for each episode of a batch."""
    if config.policy == EXPERT:
        world = make_world(config.world, 0, *filter(None, [config.profile()]))
        return [(world, ExpertAgent(world))]
    runner = _load(config)
    players: list[Player] = []
    try:
        for _ in range(config.batch):
            players.append(_player(config, runner, make_world))
    except UserError:
        for world, _ in players:
            world.close()
        raise
    return players


def _load(config: EvaluateConfig) -> PolicyRunner:
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
    profile = config.profile()
    missing = set(runner.views) - set(profile.views if profile else runner.views)
    if missing:
        raise UserError(
            f"'{config.policy}' needs the view '{missing.pop()}', which the protocol "
            f"'{config.protocol}' does not show in '{config.world}': give a policy without it"
        )
    return runner


def _player(config: EvaluateConfig, runner: PolicyRunner, make_world: MakeWorld) -> Player:
    profile = config.profile()
    if config.protocol or config.rendering:
        world = make_world(config.world, runner.image_size, profile)
    else:
        world = make_world(config.world, runner.image_size)
    try:
        _fit_names(config, runner, world)
        if (
            world.action_dim != len(runner.joint_names)
            or world.state_dim != runner.state_dim
            or abs(world.dt - runner.dt) > 1e-6
        ):
            raise UserError(
                f"'{config.policy}' takes {runner.state_dim} state values and gives "
                f"{len(runner.joint_names)} action values every {runner.dt} s; the world "
                f"'{config.world}' has {world.state_dim}, {world.action_dim} and {world.dt} s: "
                "give a policy trained on its data"
            )
        return world, _agent(config, runner, world)
    except UserError:
        world.close()
        raise


def _fit_names(config: EvaluateConfig, runner: PolicyRunner, world: World) -> None:
    """Take the policy's columns by name where the world has names: those of the Piper's joints. In
    other worlds the columns are in the data's order.
    """
    renamed = parse_names_map(config.joint_names_map)
    if isinstance(world, DrivenWorld):
        try:
            runner.fit_joints(JOINT_NAMES, renamed)
        except UserError as error:
            raise UserError(f"'{config.policy}' in the world '{config.world}': {error}") from None
    elif renamed:
        raise UserError(
            f"the joints of the world '{config.world}' have no names: leave out --joint_names_map"
        )


def _agent(config: EvaluateConfig, runner: PolicyRunner, world: World) -> PolicyExecution:
    planner = Planner(runner, config.replan_every, config.delay_steps)
    if config.execution == "steps":
        return StepExecution(planner, world.hold)
    if not isinstance(world, DrivenWorld):
        raise UserError(
            f"the world '{config.world}' has no arm that a controller can drive: leave out "
            "--execution controller"
        )
    limits = make_limits(
        JOINT_LIMITS,
        velocity=SIMULATED_MAX_VELOCITY,
        acceleration=SIMULATED_MAX_ACCELERATION,
        jerk=SIMULATED_MAX_JERK,
        gripper_velocity=SIMULATED_MAX_GRIPPER_VELOCITY,
    )
    return ControllerExecution(planner, limits, workspace=Workspace())
