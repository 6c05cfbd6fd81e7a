"""Reads batches of triplets ahead in worker processes. A batch depends only on (seed, step); a
triplet from a broken episode is replaced and reported.

Letters: B triplets of one rank, S image side in px.
"""

import itertools
import math
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alam_core.errors import UserError, explain, one_line, worker_ended
from alam_core.latent_action.triplets import TripletSampler

ATTEMPTS = 50  # draws for one triplet before giving up
AHEAD = 2  # batches that each worker reads ahead
IN_USE = 4  # further batches that lie in shared memory: on their way, prefetched or trained on
SHARED_MEMORY = Path("/dev/shm")  # where workers put batches
POLL = 1.0  # seconds after which a waiting reader looks whether it is closed or a worker has ended
PATIENCE = 600.0  # seconds without a batch after which the workers are given up
GIB = 2**30
REMEDY = "start the container with more (docker run --shm-size {}g), or read with --workers 0"
# Index of the source, episode, reason, number of triplets replaced.
Fault = tuple[int, int, str, int]


class TripletReader:
    """``reader(step, rank, ranks)`` returns the rank's share of the step's triplets, uint8 RGB (3,
    B, S, S, 3).

    All ranks together read the same triplets as a single process, for any number of workers. A
    triplet from a broken episode is drawn again from the same source, by a generator seeded with
    (seed, step, index in the batch), so the other triplets do not change.

    batch: triplets per step, over all ranks. broken: episodes known to be broken, for each source
    of the sampler. workers: processes that decode ahead; 0 reads in the calling thread.
    on_fault(source, episode, reason, replaced) is called in this process for each replaced triplet;
    an exception that it raises ends the reading.
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
        self._broken = broken or [set() for _ in range(int(sampler.sources.max()) + 1)]
        self._workers, self._on_fault = workers, on_fault
        # The next (step, rank, ranks), and the iterator that yields it.
        self._running: tuple[tuple[int, int, int], Iterator[Any]] | None = None
        self._closed = threading.Event()
        self._reading = threading.Lock()

    def __call__(self, step: int, rank: int, ranks: int) -> Tensor:
        """See the class. Raises UserError if too many triplets in a row are broken, if the shared
        memory is too small for the workers, if a worker ends or none of them delivers a batch for
        ``PATIENCE``, and after ``close``.
        """
        with self._reading:
            if self._running is None or self._running[0] != (step, rank, ranks):
                steps = _Steps(self._sampler, self._batch, self._seed, self._broken, rank, ranks)
                self._running = (step, rank, ranks), self._start(steps, step)
            batches = self._running[1]
            frames, faults, error = self._wait_for(batches)
            self._running = (step + 1, rank, ranks), batches
            if error:
                raise UserError(error)
            for fault in faults:
                self._on_fault(*fault)
            triplets = torch.as_tensor(frames)
            return triplets.pin_memory() if torch.cuda.is_available() else triplets

    def close(self) -> None:
        """Stop the workers. A call that waits for them in another thread ends at once."""
        self._closed.set()
        with self._reading:
            self._running = None

    def _wait_for(self, batches: Iterator[Any]) -> Any:
        for _ in range(math.ceil(PATIENCE / POLL)):
            if self._closed.is_set():
                raise UserError("the reader of triplets is closed")
            try:
                return next(batches)
            except (RuntimeError, ConnectionError, EOFError) as error:  # what a DataLoader raises
                why = one_line(error)
                if (
                    not isinstance(error, RuntimeError)
                    or "exited unexpectedly" in why
                    or "killed by signal" in why
                ):
                    raise UserError(worker_ended(error)) from None
                if not why.startswith("DataLoader timed out"):
                    raise
        raise UserError(
            f"{self._workers} workers have delivered no batch for {PATIENCE / 60:.0f} minutes: if "
            "the videos are large and have few key frames, encode them again; if "
            f"{SHARED_MEMORY} is full, {REMEDY.format(1)}"
        )

    def _check_shared_memory(self) -> None:
        """Raises UserError if the batches that lie in shared memory do not fit into it: a worker
        would fail to hand over its batch, and the training wait for it.
        """
        if not SHARED_MEMORY.is_dir():  # other systems than Linux have no such limit
            return
        batch = 3 * self._batch * max(view.size for view in self._sampler.views) ** 2 * 3
        needed = (self._workers * AHEAD + IN_USE) * batch
        free = shutil.disk_usage(SHARED_MEMORY).free
        if free < needed:
            raise UserError(
                f"{SHARED_MEMORY} has {free / 1e6:.0f} MB free, but {self._workers} workers need "
                f"{needed / 1e6:.0f} MB to hand over batches: "
                + REMEDY.format(math.ceil(2 * needed / GIB))
            )

    def _start(self, steps: "_Steps", first: int) -> Iterator[Any]:
        if self._workers == 0:
            return map(steps.__getitem__, itertools.count(first))
        self._check_shared_memory()
        loader = DataLoader(
            steps,
            batch_size=None,
            sampler=itertools.count(first),
            num_workers=self._workers,
            prefetch_factor=AHEAD,
            timeout=POLL,
            multiprocessing_context="spawn",  # fork is unsafe with threads and CUDA
            worker_init_fn=_ignore_interrupt,
        )
        before = {
            name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        }
        os.environ.update({name: "1" for name in before})  # otherwise each worker uses all cores
        try:
            return iter(loader)
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def _ignore_interrupt(_: int) -> None:
    """Ctrl-C also reaches the workers; only the training process reacts to it, and stops them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Steps(Dataset[tuple[Any, list[Fault], str]]):
    """Step -> a rank's triplets, the faults found while reading them, and an error message, "" for
    none.
    """

    def __init__(
        self,
        sampler: TripletSampler,
        batch: int,
        seed: int,
        broken: list[set[int]],
        rank: int,
        ranks: int,
    ) -> None:
        self.sampler, self.batch, self.seed, self.broken = sampler, batch, seed, broken
        self.rank, self.ranks = rank, ranks

    def __getitem__(self, step: int) -> tuple[Any, list[Fault], str]:
        views, rows = self.sampler.draw(self.batch, np.random.default_rng([self.seed, step]))
        faults: list[Fault] = []
        triplets = []
        try:
            for number in range(self.rank, self.batch, self.ranks):
                triplets.append(
                    self._triplet(step, number, int(views[number]), rows[number], faults)
                )
        except Exception as error:  # a worker would hand it over as a long text without its cause
            if (why := explain(error)) is None:
                raise
            return np.zeros(0, np.uint8), faults, why
        return np.stack(triplets, axis=1), faults, ""

    def _triplet(
        self, step: int, number: int, view: int, rows: np.ndarray, faults: list[Fault]
    ) -> np.ndarray:
        """Triplet ``number`` of the step, uint8 (3, S, S, 3): the one drawn, or the first
        replacement that is not broken. Appends to ``faults``.
        """
        why = ""
        for attempt in range(1, ATTEMPTS + 1):
            source, episode = int(self.sampler.sources[view]), self.sampler.episode(view, rows[0])
            if episode in self.broken[source]:
                faults.append((source, episode, why, 1))
            else:
                try:
                    return self.sampler.views[view].array[rows]
                except UserError as error:
                    why = str(error)
                    faults.append((source, episode, why, 1))
            view, rows = self.sampler.redraw(
                view, np.random.default_rng([self.seed, step, number + 1, attempt])
            )
        raise UserError(
            f"{ATTEMPTS} triplets in a row were broken{': ' + why if why else ''}; restore the data"
        )
