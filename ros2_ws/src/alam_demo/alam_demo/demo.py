"""``alam demo``: runs the shipped policy in simulation, records a video and counts successes.

The whole graph runs as ``alam up piper`` in a child process; its output goes to ``log/demo.log``.
Arguments of the graph are accepted too. With ``realtime:=true`` latencies are measured on the wall
clock, and ``result:=latency_ros`` writes them to their result file.
"""

import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import rclpy
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from alam_bringup.description import Argument, Graph, Values, split_assignments
from alam_bringup.folders import root
from alam_bringup.graph import PIPER, environment
from alam_bringup.installed import config_folder
from alam_common.processes import ChildProcess
from alam_core.errors import UserError
from alam_core.results import write_result
from alam_core.types import VIEWS
from alam_demo.film import write_film
from alam_demo.task_client import TaskClient, TaskResult

START_LIMIT = 120.0  # s of wall time until all nodes must answer; importing torch may be slow
RATE_WINDOW = 5.0  # s, window of the displayed rates
Metrics = dict[str, Any]

ARGUMENTS = (
    Argument("episodes", 5, "number of episodes", bounds=(1, 10000)),
    Argument(
        "first_seed",
        1000,
        "seed of the first episode; each further episode adds 1",
        bounds=(0, 2**31 - 1),
    ),
    Argument("time_limit", 15.0, "time limit of an episode in s of ROS time", bounds=(1, 600)),
    Argument("film", True, "record a video of all episodes, log/demo.mp4"),
    Argument(
        "result",
        "demo",
        "name of the result file: results/<name>.json",
        choices=("demo", "piper_place", "latency_ros"),
    ),
)
DEMO = Graph(
    "demo",
    "Runs the shipped policy several times in simulation and counts successes",
    (*ARGUMENTS, *PIPER.arguments),
    PIPER.build,
)


def main(words: Sequence[str]) -> int:
    """Run the demo. ``words``: arguments as ``--name value`` or ``name:=value``.

    Returns 0 if at least one episode succeeded, else 1. Raises UserError for wrong arguments and if
    the graph fails.
    """
    if any(word in ("-h", "--help") for word in words):
        print(f"usage: alam demo [--name value ...]\n\n{DEMO.help()}")
        return 0
    texts = split_assignments(words)
    values = DEMO.values(texts)
    if not values["sim"]:
        raise UserError(
            "the demo needs the simulator, which judges success; "
            "for the real arm run 'alam up piper sim:=false' and send a goal"
        )
    if values["result"] == "latency_ros" and not values["realtime"]:
        raise UserError(
            "result:=latency_ros needs realtime:=true: in simulated time latencies are meaningless"
        )
    # Reports a missing checkpoint now; later only a node's output in the log would show it.
    PIPER.build({name: value for name, value in values.items() if name in PIPER.defaults()})
    console = Console(highlight=False)
    own = {argument.name for argument in ARGUMENTS}
    graph_words = [f"{name}:={text}" for name, text in texts.items() if name not in own]
    os.environ |= environment(values, config_folder())
    log = root() / "log" / "demo.log"
    log.parent.mkdir(exist_ok=True)
    started = time.monotonic()
    console.print(f"starting the graph (its log: {log.relative_to(root())}) ...")
    with log.open("w", buffering=1) as file:
        command = [sys.executable, "-m", "alam_cli", "up", "piper", *graph_words]
        graph = ChildProcess("graph", command, lambda _, line: print(line, file=file))
        try:
            results, metrics = _run(values, graph, console)
        finally:
            graph.stop()
    run_s = time.monotonic() - started
    if values["film"]:
        _film(results, console)
    _report(values, results, metrics, run_s, console)
    return 0 if any(result.success for result in results) else 1


def _run(values: Values, graph: ChildProcess, console: Console) -> tuple[list[TaskResult], Metrics]:
    """Run all episodes on the running graph. Returns their results, and the rates of latents (Hz)
    and the diagnostics of the nodes.
    """

    def alive() -> None:
        if graph.poll() is not None:
            raise UserError(f"the graph ended: {graph.last_line()} (more in log/demo.log)")

    rclpy.init(args=[])
    results: list[TaskResult] = []
    try:
        with TaskClient(film=values["film"], namespace=values["namespace"]) as client:
            client.wait_for_graph(START_LIMIT, alive)
            console.print("all nodes are up")
            columns = (
                TextColumn("{task.description}"),
                BarColumn(20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
            )
            with Progress(*columns, console=console, refresh_per_second=4) as progress:
                bar = progress.add_task("episodes", total=values["episodes"], note="")
                for seed in range(values["first_seed"], values["first_seed"] + values["episodes"]):
                    began = time.monotonic()

                    def show(feedback: Any, began: float = began) -> None:
                        speed = feedback.elapsed / max(time.monotonic() - began, 1e-3)
                        note = (
                            f"{feedback.elapsed:4.1f} s, {speed:.2f} x real time, "
                            f"{feedback.chunks} chunks, inference {feedback.inference_ms:.0f} ms, "
                            f"latents {_latent_rates(client)}"
                        )
                        progress.update(bar, note=note)

                    alive()
                    result = client.run_episode(seed, values["time_limit"], show)
                    results.append(result)
                    mark = "[green]done[/]" if result.success else "[red]failed[/]"
                    console.print(
                        f"  seed {seed}: {result.instruction}: {mark} after {result.duration:.1f} s"
                        f" ({result.wall:.1f} s of wall time; latents {_latent_rates(client)})"
                        + ("" if result.success else f"; {result.reason}")
                    )
                    progress.update(bar, advance=1)
            client.disable()
            time.sleep(1.0)  # one more period of diagnostics
            metrics: Metrics = {
                "latents_hz": {view: _rate(client.latent_times[view]) for view in VIEWS},
                "diagnostics": dict(client.diagnostics),
            }
    finally:
        rclpy.try_shutdown()
    return results, metrics


def _rate(times: list[float], window: float | None = None) -> float:
    """Mean rate in Hz of arrivals at ``times`` (s), over the last ``window`` s if given. Gaps of 1
    s or more, the pauses between episodes, do not count.
    """
    if window is not None:
        times = [moment for moment in times if moment > time.monotonic() - window]
    gaps = [
        later - earlier
        for earlier, later in zip(times, times[1:], strict=False)
        if later - earlier < 1.0
    ]
    return len(gaps) / sum(gaps) if gaps else 0.0


def _latent_rates(client: TaskClient) -> str:
    rates = (f"{_rate(client.latent_times[view], RATE_WINDOW):.1f}" for view in VIEWS)
    return " / ".join(rates) + " Hz"


def _film(results: list[TaskResult], console: Console) -> None:
    """Write ``log/demo.mp4``."""
    path = root() / "log" / "demo.mp4"
    episodes = [
        (f"{i + 1}/{len(results)}   {result.instruction}", result.success, result.frames)
        for i, result in enumerate(results)
    ]
    write_film(path, episodes, fps=10.0)
    console.print(f"video: {path.relative_to(root())}")


def _report(
    values: Values, results: list[TaskResult], metrics: Metrics, run_s: float, console: Console
) -> None:
    """Print the metrics and write the result file."""
    successes = sum(result.success for result in results)
    setup = os.environ.get("ALAM_SETUP_S")
    setup_s = round(float(setup), 1) if setup else None
    latents = metrics["latents_hz"]
    _print_metrics(values["realtime"], metrics, console)
    measured: Metrics = {"episodes": len(results), "successes": successes}
    if values["result"] == "demo":
        measured |= {"setup_s": setup_s, "run_s": round(run_s, 1)}
    elif values["result"] == "piper_place":
        failed = [result.seed for result in results if not result.success]
        measured |= {"failed_seeds": failed, "realtime": values["realtime"]}
        measured = {"alam_ros": measured}
    else:
        arm = metrics["diagnostics"].get("arm_controller", {})
        measured = {
            "image_to_can_ms": _numbers(arm, "image_to_can_ms", ("p50", "p99")),
            "controller_jitter_ms": _numbers(arm, "jitter_ms", ("p50", "p99", "max")),
            "latents_hz": {view: round(rate, 2) for view, rate in latents.items()},
            **measured,
        }
    command = "alam demo " + " ".join(
        f"{name}:={values[name]}".lower()
        for name in ("episodes", "first_seed", "result", "realtime")
    )
    seeds = [result.seed for result in results]
    path = write_result(
        values["result"], measured, seeds, folder=root() / "results", command=command
    )
    console.print(
        f"[bold]{successes} of {len(results)} tasks done[/]   ({path.relative_to(root())})"
    )
    console.print(f"set-up {setup_s or 0:.0f} s, run {run_s:.0f} s")


def _print_metrics(realtime: bool, metrics: Metrics, console: Console) -> None:
    rates = (f"{view} {rate:.1f} Hz" for view, rate in metrics["latents_hz"].items())
    console.print("latents: " + ", ".join(rates))
    shown = [("policy", "inference_ms", "inference of a chunk")]
    if realtime:
        shown += [
            ("arm_controller", "image_to_can_ms", "image stamp to CAN frame"),
            ("arm_controller", "jitter_ms", "controller loop jitter"),
        ]
    for node, key, label in shown:
        numbers = _numbers(metrics["diagnostics"].get(node, {}), key, ("p50", "p99", "max"))
        texts = (f"{name} {value:.1f} ms" for name, value in numbers.items() if value is not None)
        console.print(f"{label}: {', '.join(texts)}")
    if not realtime:
        console.print(
            "to measure the latency from image to CAN frame and the loop jitter, use "
            "realtime:=true; in simulated time the simulator waits for slow nodes"
        )


def _numbers(values: dict[str, str], key: str, names: tuple[str, ...]) -> dict[str, float | None]:
    """Name -> the value ``<key>_<name>`` of a node's diagnostics; None if missing or not finite."""
    found: dict[str, float | None] = {}
    for name in names:
        try:
            value = float(values[f"{key}_{name}"])
        except (KeyError, ValueError):
            value = math.nan
        found[name] = round(value, 3) if math.isfinite(value) else None
    return found
