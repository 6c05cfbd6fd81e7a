"""Batches prepared ahead of time by a thread, so that the model does not wait for data."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

from alam_training.loop.gradients import Batch

AHEAD = 2  # batches
POLL = 0.2  # seconds


class Prefetch:
    """The batches of steps ``first`` to ``steps`` - 1, made in order by one thread.

    batch_at(step, rank, ranks): this rank's share of the batch of a step. stopping(): whether the
    training is to stop; None then takes the place of a batch that is not ready yet.
    """

    def __init__(
        self,
        batch_at: Callable[[int, int, int], Batch],
        first: int,
        steps: int,
        rank: int,
        ranks: int,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._make, self._steps = (lambda step: batch_at(step, rank, ranks)), range(first, steps)
        self._pool, self._stopping = ThreadPoolExecutor(1), stopping

    def __enter__(self) -> Iterator[Batch | None]:
        waiting: list[Future[Batch]] = [
            self._pool.submit(self._make, step) for step in self._steps[:AHEAD]
        ]
        for ahead in [*self._steps[AHEAD:], *([None] * len(waiting))]:
            batch = waiting.pop(0)
            if not self._is_ready(batch):
                yield None
                return
            made = batch.result()
            if ahead is not None:
                waiting.append(self._pool.submit(self._make, ahead))
            yield made

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)  # a batch may never come

    def _is_ready(self, batch: Future[Batch]) -> bool:
        """Wait for a batch; False if the training is to stop before it is ready."""
        while not batch.done():
            if self._stopping():
                return False
            wait([batch], POLL)
        return True
