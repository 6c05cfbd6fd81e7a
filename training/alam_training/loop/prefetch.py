"""Batches prepared ahead of time by a thread, so that the model does not wait for data."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from alam_training.loop.gradients import Batch

AHEAD = 2  # batches


class Prefetch:
    """The batches of steps ``first`` to ``steps`` - 1, made in order by one thread.

    batch_at(step, rank, ranks): this rank's share of the batch of a step.
    """

    def __init__(
        self,
        batch_at: Callable[[int, int, int], Batch],
        first: int,
        steps: int,
        rank: int,
        ranks: int,
    ) -> None:
        self._make, self._steps = (lambda step: batch_at(step, rank, ranks)), range(first, steps)
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Iterator[Batch]:
        waiting: list[Future[Batch]] = [
            self._pool.submit(self._make, step) for step in self._steps[:AHEAD]
        ]
        for ahead in [*self._steps[AHEAD:], *([None] * len(waiting))]:
            batch = waiting.pop(0).result()
            if ahead is not None:
                waiting.append(self._pool.submit(self._make, ahead))
            yield batch

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
