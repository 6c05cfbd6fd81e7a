"""``alam demo``: starts the whole graph, lets the policy do its task several times, films it and
counts.

The graph runs as ``alam up piper`` in a process of its own; what its nodes print goes to
``log/demo.log``. Arguments of the graph may be given as well. With ``realtime:=true`` latencies are
figures of the wall clock, and ``result:=latency_ros`` keeps them.
"""

import math
import os
import sys
import time
from collections.abc import Sequence

import rclpy
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from alam_bringup.graph import PIPER, Argument, Graph, environment, root, split_assignments
from alam_bringup.installed import config_folder
from alam_common.processes import ChildProcess
from alam_core.errors import UserError
from alam_core.results import write_result
from alam_core.types import VIEWS
from alam_demo.film import write_film
from alam_demo.task_client import Episode, TaskClient

START_LIMIT = (
    120.0  # s of wall time until all nodes answer; importing torch takes its time on a busy machine
)
RATE_WINDOW = 5.0  # s

ARGUMENTS = (
    Argument("episodes", 5, "how many times the task is done", bounds=(1, 10000)),
    Argument(
        "first_seed",
        1000,
        "seed of the first episode; the next ones follow it",
        bounds=(0, 2**31 - 1),
    ),
    Argument("time_limit", 15.0, "s of ROS time an episode may take", bounds=(1, 600)),
    Argument("film", True, "write a film of all episodes to log/demo.mp4"),
    Argument(
        "result",
        "demo",
        "which result file the figures go to",
        choices=("demo", "piper_place", "latency_ros"),
    ),
)
DEMO = Graph(
    "demo",
    "The shipped policy does its task several times in simulation",
    (*ARGUMENTS, *PIPER.arguments),
    PIPER.build,
)


def main(words: Sequence[str]) -> int:
    """Run the demo for ``name:=value`` words. Returns 0 if at least one episode succeeded, 1 if
    none did.
    """
    if any(word in ("-h", "--help") for word in words):
        print(f"usage: alam demo [name:=value ...]\n\n{DEMO.help()}")
        return 0
    texts = split_assignments(words)
    values = DEMO.values(texts)
    if not values["sim"]:
        raise UserError(
            "the demo judges success by the simulator; for the real arm use 'alam up piper sim:=false' and send a goal"
        )
    if values["result"] == "latency_ros" and not values["realtime"]:
        raise UserError(
            "result:=latency_ros needs realtime:=true: on simulated time a latency means nothing"
        )
    PIPER.build(
        {name: value for name, value in values.items() if name in PIPER.defaults()}
    )  # what is missing is said now
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
            episodes, figures = _run(values, graph, console)
        finally:
            graph.stop()
    run_s = time.monotonic() - started
    _report(values, episodes, figures, run_s, console)
    return 0 if any(episode.success for episode in episodes) else 1


def _run(values: dict, graph: ChildProcess, console: Console) -> tuple[list[Episode], dict[str, dict]]:
    def alive() -> None:
        if graph.poll() is not None:
            raise UserError(f"the graph ended: {graph.last_line()} (more in log/demo.log)")

    rclpy.init(args=[])
    episodes: list[Episode] = []
    try:
        with TaskClient(film=values["film"]) as client:
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

                    def show(feedback, began=began) -> None:
                        speed = feedback.elapsed / max(time.monotonic() - began, 1e-3)
                        note = (
                            f"{feedback.elapsed:4.1f} s, {speed:.2f} x real time, {feedback.chunks} chunks, "
                            f"inference {feedback.inference_ms:.0f} ms, latents {_latent_rates(client)}"
                        )
                        progress.update(bar, note=note)

                    alive()
                    episode = client.run_episode(seed, values["time_limit"], show)
                    episodes.append(episode)
                    mark = "[green]done[/]" if episode.success else "[red]failed[/]"
                    console.print(
                        f"  seed {seed}: {episode.instruction}: {mark} after {episode.duration:.1f} s"
                        f" ({episode.wall:.1f} s of wall time; latents {_latent_rates(client)})"
                        + ("" if episode.success else f"; {episode.reason}")
                    )
                    progress.update(bar, advance=1)
            client.disable()
            time.sleep(1.0)  # one more round of diagnostics
            figures = {
                "latents_hz": {view: _rate(client.latent_times[view]) for view in VIEWS},
                "diagnostics": dict(client.diagnostics),
            }
    finally:
        rclpy.try_shutdown()
    return episodes, figures


def _rate(times: list[float], window: float | None = None) -> float:
    """Arrivals a second: over the last ``window`` s, or from the first to the last, without the
    pauses between episodes.
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
    return (
        " / ".join(f"{_rate(client.latent_times[view], RATE_WINDOW):.1f}" for view in VIEWS) + " Hz"
    )


def _report(
    values: dict, episodes: list[Episode], figures: dict[str, dict], run_s: float, console: Console
) -> None:
    successes = sum(episode.success for episode in episodes)
    seeds = [episode.seed for episode in episodes]
    setup = os.environ.get("ALAM_SETUP_S")
    setup_s = round(float(setup), 1) if setup else None
    counts = {"episodes": len(episodes), "successes": successes}
    if values["film"]:
        film = root() / "log" / "demo.mp4"
        write_film(
            film,
            [
                (f"{i + 1}/{len(episodes)}   {e.instruction}", e.success, e.looks)
                for i, e in enumerate(episodes)
            ],
            fps=10.0,
        )
        console.print(f"film: {film.relative_to(root())}")
    arm = figures["diagnostics"].get("arm_controller", {})
    latents = figures["latents_hz"]
    if values["result"] == "demo":
        measured = {**counts, "setup_s": setup_s, "run_s": round(run_s, 1)}
    elif values["result"] == "piper_place":
        failed = [episode.seed for episode in episodes if not episode.success]
        measured = {"alam_ros": {**counts, "failed_seeds": failed, "realtime": values["realtime"]}}
    else:
        measured = {
            "image_to_can_ms": _numbers(arm, "image_to_can_ms", ("p50", "p99")),
            "controller_jitter_ms": _numbers(arm, "jitter_ms", ("p50", "p99", "max")),
            "latents_hz": {view: round(rate, 2) for view, rate in latents.items()},
            **counts,
        }
    console.print(
        "latents: " + ", ".join(f"{view} {rate:.1f} Hz" for view, rate in latents.items())
    )
    shown = [("policy", "inference_ms", "inference of a chunk")]
    if values["realtime"]:
        shown += [
            ("arm_controller", "image_to_can_ms", "image stamp to CAN frame"),
            ("arm_controller", "jitter_ms", "controller loop jitter"),
        ]
    for node, key, label in shown:
        numbers = _numbers(figures["diagnostics"].get(node, {}), key, ("p50", "p99", "max"))
        console.print(
            f"{label}: "
            + ", ".join(
                f"{name} {value:.1f} ms" for name, value in numbers.items() if value is not None
            )
        )
    if not values["realtime"]:
        console.print(
            "latency from image to CAN frame and loop jitter: with realtime:=true; here simulated time waits for slow nodes"
        )
    command = "alam demo " + " ".join(
        f"{name}:={values[name]}".lower()
        for name in ("episodes", "first_seed", "result", "realtime")
    )
    path = write_result(
        values["result"], measured, seeds, folder=root() / "results", command=command
    )
    console.print(
        f"[bold]{successes} of {len(episodes)} tasks done[/]   ({path.relative_to(root())})"
    )
    console.print(f"set-up {setup_s or 0:.0f} s, run {run_s:.0f} s")


def _numbers(values: dict[str, str], key: str, names: tuple[str, ...]) -> dict[str, float | None]:
    """``key_name`` entries of a node's diagnostics as numbers; None where there is none."""
    found: dict[str, float | None] = {}
    for name in names:
        try:
            value = float(values[f"{key}_{name}"])
        except (KeyError, ValueError):
            value = math.nan
        found[name] = round(value, 3) if math.isfinite(value) else None
    return found
