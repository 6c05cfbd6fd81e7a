"""Workers that each keep a costly object, such as a simulator, and run jobs with it: processes of
this machine, or of the machines of a Ray cluster.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from alam_core.errors import UserError
from alam_training.episodes.ray_workers import RayWorkers

# State of this worker process: what ``make`` returned, or the UserError that it raised, which the
# first job raises again.
_worker_state: Any


Submit = Callable[..., "Future[Any]"]


def check_workers(count: int, ray: str) -> None:
    """Raises UserError for the settings ``--workers`` and ``--ray`` that ``workers`` cannot have;
    with 0 workers a command does its work itself.
    """
    if count < 0 or (ray and not count):
        raise UserError("workers must not be negative, and --ray needs --workers 1 or more")


@contextlib.contextmanager
def workers(
    count: int, make: Callable[..., Any], *arguments: Any, ray: str = "", gpu: bool = False
) -> Iterator[Submit]:
    """Start ``count`` workers, each with a state of its own: ``make(*arguments)``.

    Yields ``submit(job, *values)``, which runs ``job(state, *values)`` in one of them; ``make`` and
    ``job`` must be importable functions. Jobs that have not ended by the end of the block are
    dropped. Each worker computes and renders with one thread, unless the environment sets another
    number. An error raised by ``make`` or ``job`` is raised by the job.

    ray: address of a Ray cluster, whose machines then run the workers; a job whose worker dies is
    run again. Without it, the block raises a UserError if a process dies. gpu: whether the workers
    need a GPU of the cluster.
    """
    if not ray:
        with _processes(count, make, arguments) as submit:
            yield submit
        return
    cluster = RayWorkers(ray, count, gpu, make, arguments)
    try:
        yield cluster.submit
    finally:
        cluster.close()


@contextlib.contextmanager
def _processes(
    count: int, make: Callable[..., Any], arguments: tuple[Any, ...]
) -> Iterator[Submit]:
    for name in ("OMP_NUM_THREADS", "LP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("spawn")  # a GL context does not survive a fork
    pool = ProcessPoolExecutor(count, context, _start, (make, arguments))
    try:
        yield lambda job, *values: pool.submit(_work, job, values)
    except BrokenProcessPool:
        raise UserError(
            "a worker died, possibly because of too little memory or missing OpenGL; --workers 0 "
            "shows its error"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    global _worker_state
    try:
        _worker_state = make(*arguments)
    except UserError as error:
        _worker_state = error


def _work(job: Callable[..., Any], values: tuple[Any, ...]) -> Any:
    if isinstance(_worker_state, UserError):
        raise _worker_state
    return job(_worker_state, *values)
