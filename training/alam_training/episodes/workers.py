"""Worker processes that each keep a costly object, such as a simulator, and run jobs with it."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from alam_core.errors import UserError

# State of this worker process: what ``make`` returned, or the UserError that it raised, which the
# first job raises again.
_worker_state: Any


@contextlib.contextmanager
def workers(
    count: int, make: Callable[..., Any], *arguments: Any
) -> Iterator[Callable[..., "Future[Any]"]]:
    """Start ``count`` processes, each with a state of its own: ``make(*arguments)``.

    Yields ``submit(job, *values)``, which runs ``job(state, *values)`` in one of them; ``make`` and
    ``job`` must be importable functions. Jobs that have not begun by the end of the block are
    dropped. Each process computes and renders with one thread, unless the environment sets another
    number. A UserError raised by ``make`` is raised by the jobs; if a process dies, the block
    raises a UserError.
    """
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
