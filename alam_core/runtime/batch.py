"""Episodes of several worlds side by side, whose chunks are planned in one call of the policy."""

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import groupby
from typing import TypeVar

import torch

from alam_core.runtime.execution import PolicyExecution
from alam_core.runtime.runner import PlanRequest, PolicyRunner
from alam_core.types import ActionChunk, Observation

T = TypeVar("T")
Begin = Callable[[int, int], Generator[Observation, None, T]]


def play_batched(
    runner: PolicyRunner, agents: Sequence[PolicyExecution], begin: Begin[T], seeds: Sequence[int]
) -> Iterator[T]:
    """The episodes of ``seeds`` as they end, at any time one for each of ``agents``, which share
    ``runner``.

    begin: (number of an agent, seed) -> the episode, a generator such as ``rollout_steps``. Every
    episode runs to its next plan; then all plans are computed together. What an episode gives
    depends on the order of the seeds by no more than rounding.
    """
    waiting = list(reversed(seeds))
    running: dict[int, Generator[Observation, None, T]] = {}
    while True:
        asked: dict[int, PlanRequest] = {}
        for number, agent in enumerate(agents):
            while number not in asked and (number in running or waiting):
                if number not in running:
                    running[number] = begin(number, waiting.pop())
                try:
                    asked[number] = agent.request(next(running[number]))
                except StopIteration as end:
                    del running[number]
                    yield end.value
        if not asked:
            return
        for number, chunk in _plan(runner, asked, len(agents)):
            agents[number].accept(chunk)


def _plan(
    runner: PolicyRunner, requests: dict[int, PlanRequest], size: int
) -> Iterator[tuple[int, ActionChunk]]:
    """The chunk of each request. The network always computes ``size`` chunks: a compiled one is
    compiled for one size, and rounding does not depend on how many are needed.
    """

    def given(item: tuple[int, PlanRequest]) -> int:
        return 0 if item[1].given is None else len(item[1].given)

    for _, group in groupby(sorted(requests.items(), key=given), given):
        numbers, batch = zip(*group, strict=True)
        unused = PlanRequest(batch[0].observation, torch.Generator(runner.device), batch[0].given)
        chunks = runner.infer_batch([*batch, *[unused] * (size - len(batch))])
        yield from zip(numbers, chunks, strict=False)
