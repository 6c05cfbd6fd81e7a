"""Processes that each hold something costly to make, such as a simulator, and run jobs with it."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from alam_core.errors import UserError

# Of this process, if it is a worker: what it holds, or why it cannot work, for its first job to
# tell.
_held: Any


@contextlib.contextmanager
def workers(
    count: int, make: Callable[..., Any], *arguments: Any
) -> Iterator[Callable[..., "Future[Any]"]]:
    """Start ``count`` processes that each hold ``make(*arguments)``.

    Gives ``submit(job, *values)``, which runs ``job(held, *values)`` in one of them; make and job
    must be importable functions. Jobs not begun by the end of the block are dropped. Each process
    computes and renders with one thread, unless the environment says otherwise. A UserError that
    ``make`` raises comes from the jobs; where a process dies, the block raises one.
    """
    for name in ("OMP_NUM_THREADS", "LP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("spawn")  # a GL context does not survive a fork
    pool = ProcessPoolExecutor(count, context, _start, (make, arguments))
    try:
        yield lambda job, *values: pool.submit(_work, job, values)
    except BrokenProcessPool:
        raise UserError(
            "a worker died, perhaps for lack of memory or GL; --workers 0 shows its error"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    global _held
    try:
        _held = make(*arguments)
    except UserError as error:
        _held = error


def _work(job: Callable[..., Any], values: tuple[Any, ...]) -> Any:
    if isinstance(_held, UserError):
        raise _held
    return job(_held, *values)
