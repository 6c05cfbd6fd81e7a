"""Episodes of a policy through ROS, for ``training/evaluate.py --via ros``: each worker runs the
graph ``steps`` in a namespace of its own, in lockstep.
"""

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import rclpy
from alam_msgs.msg import ArmStatus

from alam_bringup.folders import root
from alam_bringup.graph import STEPS, environment
from alam_bringup.installed import config_folder
from alam_common.messages import stamp_to_ns
from alam_common.processes import ChildProcess
from alam_core.errors import UserError
from alam_demo.task_client import ANSWER, TaskClient
from alam_training.episodes.evaluation import EvaluateConfig
from alam_training.episodes.metrics import ActionDigest, EpisodeResult

START_LIMIT = 300.0  # s of wall time until simulator and policy must answer
# s of ROS time of a goal, longer than any episode: at its step limit the simulator executes no more
# chunks, and the policy gives up.
TIME_LIMIT = 3600.0
KEPT = 5000  # reports of executed actions that may wait for this process
# Settings of a direct evaluation that the graph does not have.
DIRECT_ONLY = (
    "delay_steps",
    "denoising_steps",
    "horizon",
    "bfloat16",
    "compiled",
    "intervention",
    "videos",
    "joint_names_map",
    "execution",
)


def check(config: EvaluateConfig) -> None:
    """Raises UserError for a setting that only a direct evaluation has."""
    default = EvaluateConfig()
    given = [name for name in DIRECT_ONLY if getattr(config, name) != getattr(default, name)]
    if given:
        raise UserError(f"--{given[0]} is for a direct evaluation: leave it out, or --via ros")


def episodes(config: EvaluateConfig, seeds: Sequence[int]) -> Iterator[EpisodeResult]:
    """The episodes of ``seeds`` as they end, in any order. Raises UserError if the graph fails."""
    os.environ |= environment({**STEPS.defaults(), "network": False}, config_folder())
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for seed in seeds:
        waiting.put(seed)
    found: queue.SimpleQueue[EpisodeResult | BaseException] = queue.SimpleQueue()
    stop = threading.Event()
    rclpy.init(args=[])
    threads = [
        threading.Thread(target=_work, args=(config, number, waiting, found, stop))
        for number in range(min(max(config.workers, 1), len(seeds)))
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in seeds:
            result = found.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        rclpy.try_shutdown()


def _work(
    config: EvaluateConfig,
    number: int,
    seeds: "queue.SimpleQueue[int]",
    found: "queue.SimpleQueue[EpisodeResult | BaseException]",
    stop: threading.Event,
) -> None:
    """A worker: its graph, and its episodes one after the other. An error is put into ``found``."""
    try:
        namespace = f"evaluation_{os.getpid()}_{number}"
        words = {
            "world": config.world,
            "checkpoint": str(Path(config.policy).absolute()),
            "replan_every": config.replan_every,
            "device": config.device,
            "protocol": config.protocol,
            "rendering": config.rendering or "",
            "speed": 0,
            "namespace": namespace,
        }
        log = root() / "log" / f"evaluation_{number}.log"
        log.parent.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "alam_cli", "up", "steps"]
        command += [f"{name}:={value}" for name, value in words.items() if value != ""]
        with log.open("w", buffering=1) as file:
            graph = ChildProcess("graph", command, lambda _, line: print(line, file=file))
            try:
                _play(graph, namespace, seeds, found, stop)
            finally:
                graph.stop()
    except BaseException as error:  # the main thread raises it
        found.put(error)


def _play(
    graph: ChildProcess,
    namespace: str,
    seeds: "queue.SimpleQueue[int]",
    found: "queue.SimpleQueue[EpisodeResult | BaseException]",
    stop: threading.Event,
) -> None:
    def alive() -> None:
        if stop.is_set():
            raise UserError("the evaluation was stopped")
        if graph.poll() is not None:
            raise UserError(f"the graph ended: {graph.last_line()}")

    with TaskClient(namespace=namespace, arm=False) as client:
        executed = ExecutedActions(client)
        client.wait_for_graph(START_LIMIT, alive)
        while not stop.is_set():
            try:
                seed = seeds.get_nowait()
            except queue.Empty:
                return
            executed.clear()
            result = client.run_episode(seed, TIME_LIMIT, alive=alive)
            found.put(
                EpisodeResult(
                    seed,
                    result.success,
                    result.steps,
                    result.task,
                    group=result.group,
                    actions=executed.digest(result.steps),
                )
            )


class ExecutedActions:
    """The actions that the world of single steps reports to execute."""

    def __init__(self, client: TaskClient) -> None:
        self._actions: dict[int, np.ndarray] = {}  # by their stamp in ns
        client.create_subscription(ArmStatus, "alam/arm/status", self._on_status, KEPT)

    def clear(self) -> None:
        """An episode begins."""
        self._actions = {}

    def digest(self, steps: int) -> str:
        """See ``ActionDigest``; "" if not all reports of an episode's ``steps`` arrive."""
        deadline = time.monotonic() + ANSWER
        while len(self._actions) < steps:
            if time.monotonic() > deadline:
                return ""
            time.sleep(0.01)
        digest = ActionDigest()
        for _, action in sorted(self._actions.items()):
            digest.add(action)
        return digest.digest

    def _on_status(self, message: ArmStatus) -> None:
        if message.state == "EXECUTING":
            self._actions[stamp_to_ns(message.header.stamp)] = np.array(message.set_point)
