"""Single episodes of a policy or of a scripted expert, and episodes of a policy side by side."""

from collections.abc import Callable, Collection, Generator, Iterator, Sequence

import numpy as np

from alam_core.runtime.batch import play_batched
from alam_core.runtime.execution import PolicyExecution
from alam_core.runtime.rollout import Agent, Observer, VideoRecorder, finish, rollout_steps
from alam_core.runtime.runner import PolicyRunner
from alam_core.sim.world import Expert, GroupedWorld, World, make_expert
from alam_core.types import Observation
from alam_training.episodes.metrics import ActionDigest, EpisodeResult

Player = tuple[World, Agent]
MakeExpert = Callable[[World, int], Expert]


class ExpertAgent:
    """The scripted expert of a world, which sees the simulator's state and no images."""

    def __init__(self, world: World, make_expert: MakeExpert = make_expert) -> None:
        self._world = world
        self._make_expert = make_expert

    def reset(self, seed: int) -> None:
        """Begin an episode; ``seed`` determines how the expert acts. Raises UserError for a world
        without an expert.
        """
        self._expert = self._make_expert(self._world, seed)
        self._expert.reset()

    def act(self, observation: Observation) -> np.ndarray:
        return self._expert.act()

    def apply(self, world: World, action: np.ndarray, render: bool) -> Observation:
        return world.step(action, render=render)

    def needs_images(self, stamp: float) -> bool:
        return False


class PolicyCheck:
    """Observes what a policy was not trained on: the episode's instruction, and the first states
    outside the range of training; one line each.
    """

    needs_images = False

    def __init__(self, runner: PolicyRunner) -> None:
        self._runner = runner
        self.unknown = self.unusual = ""

    def on_start(self, observation: Observation) -> None:
        self.unknown = self._runner.unknown(observation.instruction)
        self.unusual = self._runner.unusual_states(observation)

    def on_step(self, observation: Observation, action: np.ndarray, after: Observation) -> None:
        self.unusual = self.unusual or self._runner.unusual_states(after)


class ActionRecord:
    """Observes the actions of an episode."""

    needs_images = False

    def __init__(self) -> None:
        self.actions = ActionDigest()

    def on_start(self, observation: Observation) -> None:
        self.actions = ActionDigest()

    def on_step(self, observation: Observation, action: np.ndarray, after: Observation) -> None:
        self.actions.add(action)


def run_episode(world: World, agent: Agent, seed: int, film: bool = False) -> EpisodeResult:
    """One episode, until success or the world's step limit."""
    return finish(_episode(world, agent, seed, film))


def _episode(
    world: World, agent: Agent, seed: int, film: bool
) -> Generator[Observation, None, EpisodeResult]:
    """The same as a generator, see ``rollout_steps``."""
    filming, record, check = VideoRecorder(), ActionRecord(), None
    observers: list[Observer] = [record, filming] if film else [record]
    if isinstance(agent, PolicyExecution):  # a policy
        check = PolicyCheck(agent.planner.runner)
        observers.append(check)
    outcome = yield from rollout_steps(world, agent, seed, observers)
    result = EpisodeResult(seed, outcome.success, outcome.steps, world.task, fps=1 / world.dt)
    if isinstance(world, GroupedWorld):
        result.group = world.group
    result.actions = record.actions.digest
    if film:
        result.frames = filming.frames
    if check is not None:
        result.unknown, result.unusual = check.unknown, check.unusual
    return result


def play(
    players: list[Player], seeds: Sequence[int], filmed: Collection[int]
) -> Iterator[EpisodeResult]:
    """The episodes of a job: one after another with one player, else batched."""
    if len(players) == 1:
        ((world, agent),) = players
        yield from (run_episode(world, agent, seed, seed in filmed) for seed in seeds)
        return
    agents = [agent for _, agent in players if isinstance(agent, PolicyExecution)]

    def begin(number: int, seed: int) -> Generator[Observation, None, EpisodeResult]:
        return _episode(*players[number], seed, seed in filmed)

    yield from play_batched(agents[0].planner.runner, agents, begin, seeds)
