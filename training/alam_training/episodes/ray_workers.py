"""Workers on the machines of a Ray cluster, for ``workers.py``.

Each worker is a Ray actor with one CPU and, where asked for, a share of a GPU. A job whose worker
or machine dies runs again in another worker.
"""

import logging
import math
import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

from alam_core.errors import UserError, one_line

ATTEMPTS = 3  # to run a job whose worker dies each time
PATIENCE = 60.0  # s, that a job waits for a worker before a warning
ANSWER = 10.0  # s, within which a cluster must accept a connection


class RayWorker:
    """The actor: its state is ``make(*arguments)``, made for the first job, in the folder
    ``folder``. home: id of the node of the program that asks for the jobs.
    """

    def __init__(
        self, home: str, folder: str, make: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        os.environ.setdefault("LP_NUM_THREADS", "1")  # Ray itself sets OMP_NUM_THREADS
        self._home, self._folder = home, folder
        self._make, self._arguments = make, arguments
        self._state: Any = None

    def ping(self) -> None:
        """Answers if the worker runs."""

    def work(self, job: Callable[..., Any], values: tuple[Any, ...]) -> Any:
        """``job(state, *values)``. Raises what ``make`` or ``job`` raises."""
        if self._state is None:
            try:
                self._state = self._made()
            except UserError as error:
                raise UserError(f"{error}{self._place()}") from None
        return job(self._state, *values)

    def _made(self) -> Any:
        try:
            os.chdir(self._folder)  # relative paths mean what they mean to the program
        except OSError:
            raise UserError(f"there is no folder '{self._folder}'") from None
        return self._make(*self._arguments)

    def _place(self) -> str:
        """For a message: the machine, if it is another one than the program's."""
        import ray

        if ray.get_runtime_context().get_node_id() == self._home:
            return ""
        return (
            f" (on the machine '{socket.gethostname()}': each machine of the Ray cluster must see "
            "the project, its policies and its data under the same paths)"
        )


class RayWorkers:
    """``count`` workers on the cluster at ``address``, until ``close``.

    address: host:port, or auto for the running cluster of this host. gpu: whether the workers share
    the cluster's GPUs. Raises UserError if Ray is not installed, the cluster cannot be reached or
    is too small.
    """

    def __init__(
        self,
        address: str,
        count: int,
        gpu: bool,
        make: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        self._ray = ray = _connect(address)
        try:
            share = _gpu_share(address, count, ray.cluster_resources(), gpu)
            home = ray.get_runtime_context().get_node_id()
        except BaseException:
            ray.shutdown()
            raise
        # Placed on all machines alike.
        actor = ray.remote(num_cpus=1, num_gpus=share, scheduling_strategy="SPREAD")(RayWorker)
        self._make_actor = lambda: actor.remote(home, os.getcwd(), make, arguments)
        self._count = count
        self._threads = ThreadPoolExecutor(count)  # each waits for one job
        self._idle: SimpleQueue[Any] = SimpleQueue()  # actors that run; None at the end
        self._actors: set[Any] = set()
        self._closed = self._told = False
        self._lock = threading.Lock()  # of the three attributes before it
        for _ in range(count):
            self._start()

    def submit(self, job: Callable[..., Any], *values: Any) -> "Future[Any]":
        """Run ``job(state, *values)`` in the next idle worker."""
        return self._threads.submit(self._run, job, values)

    def close(self) -> None:
        """Ends all workers, whatever they do, and leaves the cluster."""
        with self._lock:
            self._closed = True
            actors = list(self._actors)
        self._threads.shutdown(wait=False, cancel_futures=True)  # no thread begins another job
        for actor in actors:
            self._ray.kill(actor)
        for _ in range(self._count):
            self._idle.put(None)
        self._threads.shutdown()
        self._ray.shutdown()

    def _start(self) -> None:
        """Start an actor; it is idle as soon as the cluster has a place for it."""
        with self._lock:
            if self._closed:
                raise CancelledError
            actor = self._make_actor()
            self._actors.add(actor)
        actor.ping.remote().future().add_done_callback(lambda _: self._idle.put(actor))

    def _replace(self, actor: Any) -> None:
        self._start()
        with self._lock:
            self._actors.discard(actor)
        self._ray.kill(actor)  # it may run on, where only its connection was lost

    def _take(self) -> Any:
        """An idle actor that answers; one may have died with its machine."""
        failure = ""
        for _ in range(2 * self._count):
            actor = self._next_idle()
            if actor is None:
                raise CancelledError
            try:
                self._ray.get(actor.ping.remote())
                return actor
            except self._ray.exceptions.RayError as error:
                failure = str(error).strip().splitlines()[-1]
                self._replace(actor)
        raise UserError(
            f"no worker starts on the Ray cluster ({failure}): is this project installed on each "
            "of its machines?"
        )

    def _next_idle(self) -> Any:
        """Waits for as long as it takes: there are as many jobs as workers at a time, so that a
        worker is free, or waits for a CPU of the cluster.
        """
        try:
            return self._idle.get(timeout=PATIENCE)
        except Empty:
            with self._lock:
                told, self._told = self._told, True
            if not told:
                print(
                    "warning: not all workers have a place in the Ray cluster: ray status shows "
                    "why; the others go on",
                    file=sys.stderr,
                )
            return self._idle.get()

    def _run(self, job: Callable[..., Any], values: tuple[Any, ...]) -> Any:
        for _ in range(ATTEMPTS):
            actor = self._take()
            try:
                result = self._ray.get(actor.work.remote(job, values))
            except self._ray.exceptions.RayTaskError as error:  # of make or the job
                self._idle.put(actor)
                raise error.cause from error
            except self._ray.exceptions.RayError:  # the worker or its machine has died
                self._replace(actor)
            else:
                self._idle.put(actor)
                return result
        raise UserError(
            f"a job's worker died {ATTEMPTS} times, possibly because of too little memory or "
            "missing OpenGL; its output is in the newest session of Ray's logs there"
        )


def _connect(address: str) -> Any:
    """The module ray, connected to the cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"--ray needs the package Ray ({one_line(error)}): pip install ray"
        ) from None
    advice = "start one with ray start --head (docs/scale.md), or leave out --ray"
    try:
        if address != "auto":  # Ray itself waits for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), ANSWER).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        why = "none runs on this host" if address == "auto" else one_line(error)
        raise UserError(f"--ray '{address}': no Ray cluster answers ({why}): {advice}") from None
    return ray


def _gpu_share(address: str, count: int, cluster: dict[str, float], gpu: bool) -> float:
    """The part of a GPU that a worker gets. Raises UserError if the cluster is too small."""
    cpus, gpus = (int(cluster.get(kind, 0)) for kind in ("CPU", "GPU"))
    if count > cpus:
        raise UserError(
            f"--ray '{address}': the cluster has {cpus} CPUs, fewer than --workers {count}: give "
            "fewer workers or add machines"
        )
    if gpu and not gpus:
        raise UserError(f"--ray '{address}': the cluster has no GPU: leave out --device cuda")
    return 1 / math.ceil(count / gpus) if gpu else 0
