"""Batches of triplets as a function of (seed, step) alone, read ahead by worker processes; what is
broken is replaced and told.

Letters: B triplets of one rank, S image side.
"""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alam_core.errors import UserError
from alam_core.latent_action.triplets import TripletSampler

ATTEMPTS = 50  # draws for one triplet before giving up
AHEAD = 2  # batches that each worker keeps ready
Fault = tuple[
    int, int, str, int
]  # part of the sampler, episode, what is wrong, number of triplets replaced


class TripletReader:
    """``reader(step, rank, ranks)``: the rank's share of the step's triplets, uint8 RGB (3, B, S,
    S, 3).

    All ranks together read the very triplets that one process alone would read, for any number of
    workers. A triplet from a broken episode is drawn again from the same part, by a function of
    (seed, step, its number in the batch), so all others stay what they are.

    batch: triplets a step, over all ranks. broken: for each part of the sampler the episodes known
    to be broken. workers: processes that decode ahead; 0 reads in the calling thread.
    on_fault(part, episode, why, replaced) is told, in this process, of each triplet that was
    replaced; what it raises ends the reading.
    """

    def __init__(
        self,
        sampler: TripletSampler,
        batch: int,
        seed: int,
        broken: list[set[int]] | None = None,
        workers: int = 0,
        on_fault: Callable[[int, int, str, int], None] = lambda *_: None,
    ) -> None:
        self._sampler, self._batch, self._seed = sampler, batch, seed
        self._broken = broken or [set() for _ in range(int(sampler.parts.max()) + 1)]
        self._workers, self._on_fault = workers, on_fault
        self._running: tuple[tuple[int, int, int], Iterator[Any]] | None = (
            None  # what comes next, and where from
        )

    def __call__(self, step: int, rank: int, ranks: int) -> Tensor:
        if self._running is None or self._running[0] != (step, rank, ranks):
            steps = _Steps(self._sampler, self._batch, self._seed, self._broken, rank, ranks)
            self._running = (step, rank, ranks), self._start(steps, step)
        batches = self._running[1]
        frames, faults, error = next(batches)
        self._running = (step + 1, rank, ranks), batches
        if error:
            raise UserError(error)
        for fault in faults:
            self._on_fault(*fault)
        triplets = torch.as_tensor(frames)
        return triplets.pin_memory() if torch.cuda.is_available() else triplets

    def close(self) -> None:
        """End the workers."""
        self._running = None

    def _start(self, steps: "_Steps", first: int) -> Iterator[Any]:
        if self._workers == 0:
            return map(steps.__getitem__, itertools.count(first))
        loader = DataLoader(
            steps,
            batch_size=None,
            sampler=itertools.count(first),
            num_workers=self._workers,
            prefetch_factor=AHEAD,
            multiprocessing_context="spawn",  # this process has threads already, and perhaps a GPU
            worker_init_fn=_leave_signals,
        )
        before = {
            name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        }
        os.environ.update({name: "1" for name in before})  # else each worker would use all cores
        try:
            return iter(loader)
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def _leave_signals(_: int) -> None:
    """Ctrl-C reaches the workers too; the training process alone decides when to stop, and ends
    them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Steps(Dataset[tuple[Any, list[Fault], str]]):
    """Step -> a rank's triplets, what was found broken on the way, and why there are none."""

    def __init__(
        self,
        sampler: TripletSampler,
        batch: int,
        seed: int,
        broken: list[set[int]],
        rank: int,
        ranks: int,
    ) -> None:
        self.sampler, self.batch, self.seed, self.broken, self.rank, self.ranks = (
            sampler,
            batch,
            seed,
            broken,
            rank,
            ranks,
        )

    def __getitem__(self, step: int) -> tuple[Any, list[Fault], str]:
        sources, rows = self.sampler.draw(self.batch, np.random.default_rng([self.seed, step]))
        faults: list[Fault] = []
        triplets = []
        try:
            for number in range(self.rank, self.batch, self.ranks):
                triplets.append(
                    self._triplet(step, number, int(sources[number]), rows[number], faults)
                )
        except UserError as error:
            return np.zeros(0, np.uint8), faults, str(error)
        return np.stack(triplets, axis=1), faults, ""

    def _triplet(
        self, step: int, number: int, source: int, rows: np.ndarray, faults: list[Fault]
    ) -> np.ndarray:
        """Triplet ``number`` of the step, uint8 (3, S, S, 3): the one drawn, or the first of its
        successors that is not broken.
        """
        why = ""
        for attempt in range(1, ATTEMPTS + 1):
            part, episode = int(self.sampler.parts[source]), self.sampler.episode(source, rows[0])
            if episode in self.broken[part]:
                faults.append((part, episode, why, 1))
            else:
                try:
                    return self.sampler.sources[source].array[rows]
                except UserError as error:
                    why = str(error)
                    faults.append((part, episode, why, 1))
            source, rows = self.sampler.redraw(
                source, np.random.default_rng([self.seed, step, number + 1, attempt])
            )
        raise UserError(
            f"{ATTEMPTS} triplets in a row were broken{': ' + why if why else ''}; restore the data"
        )
