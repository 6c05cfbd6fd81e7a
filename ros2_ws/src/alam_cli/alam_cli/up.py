"""``alam up GRAPH``: starts and stops the nodes of a graph without the ROS package ``launch``."""

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from threading import Event, Lock

from alam_bringup.description import Graph, NodeSpec, Values
from alam_bringup.graph import environment
from alam_bringup.installed import available, config_folder, executable, parameter_files
from alam_common.processes import ChildProcess, stop_all

COLOURS = (36, 33, 35, 32, 34, 31)


class Printer:
    """Prints the output of several processes, each line after the name of its process."""

    def __init__(self, names: list[str]) -> None:
        self._width = max(map(len, names))
        self._colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
        self._tty = sys.stdout.isatty()
        self._lock = Lock()

    def __call__(self, name: str, line: str) -> None:
        prefix = f"[{name}]".ljust(self._width + 2)
        if self._tty:
            prefix = f"\033[{self._colour.get(name, 37)}m{prefix}\033[0m"
        with self._lock:
            print(prefix, line, flush=True)


def node_command(node: NodeSpec, config: Path, scratch: Path) -> list[str]:
    """The command that runs a node. Its parameters are written to a YAML file in ``scratch``,
    which keeps their types. ``config``: folder of parameter files.
    """
    file = scratch / f"{node.name}.yaml"
    file.write_text(
        json.dumps({"/**": {"ros__parameters": node.parameters}}, indent=1)
    )  # JSON is YAML
    command = [
        executable(node.package, node.executable),
        "--ros-args",
        "-r",
        f"__node:={node.name}",
    ]
    if node.namespace:
        command += ["-r", f"__ns:={node.namespace}"]
    for path in [*parameter_files(node, config), str(file)]:
        command += ["--params-file", path]
    return command


def describe_end(process: ChildProcess) -> str:
    """One line about a process that has ended: exit code or signal, and its last line of output."""
    code = process.poll()
    assert code is not None
    how = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
    return f"{process.name} ended ({how}); its last line: {process.last_line() or '(none)'}"


def failure(process: ChildProcess) -> str:
    """One line about a node that has failed: the error that it reported, else its last line."""
    last = process.last_line()
    errors = (line.partition("error: ")[2] for line in reversed(process.lines))
    said = next(filter(None, errors), last) or "it printed nothing"
    return f"error: {process.name} failed with exit code {process.poll()}: {said}"


def up(graph: Graph, values: Values, stop: Event | None = None) -> int:
    """Run a graph until Ctrl-C, SIGTERM or ``stop``, or until a required node fails (see NodeSpec).

    Returns 0 if every required node ran until the stop was requested, else 1; if one failed, its
    error is the last line. Raises UserError before any node starts if an argument is wrong or a
    checkpoint or package is missing. Call it in the main thread.
    """
    stop = stop or Event()
    nodes, notes = available(graph.build(values))
    config = config_folder()
    say = Printer(["alam", *(node.name for node in nodes)])
    for note in notes:
        say("alam", note)
    handlers = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    running: dict[str, tuple[NodeSpec, ChildProcess]] = {}
    ended = False
    failed = ""  # the error of the first required node that failed
    env = os.environ | environment(values, config)
    with tempfile.TemporaryDirectory(prefix="alam_up_") as scratch:
        try:
            commands = [node_command(node, config, Path(scratch)) for node in nodes]
            for node, command in zip(nodes, commands, strict=True):
                if not stop.is_set():
                    running[node.name] = (
                        node,
                        ChildProcess(node.name, command, on_line=say, env=env),
                    )
            said = ", ".join(f"{name} ({process.pid})" for name, (_, process) in running.items())
            say("alam", f"started {said}; Ctrl-C stops all of them")
            while running and not failed and not stop.is_set():
                time.sleep(0.1)
                for name, (node, process) in list(running.items()):
                    if process.poll() is None or stop.is_set():
                        continue
                    del running[name]
                    ended = ended or node.required
                    if node.required and (process.poll() or 0) > 0:
                        failed = failed or failure(process)
                    say(
                        "alam",
                        describe_end(process) + (": stopping the other nodes" if failed else ""),
                    )
        finally:
            stop_all(process for _, process in running.values())
            for number, handler in handlers.items():
                signal.signal(number, handler)
    say("alam", "all nodes are stopped")
    if failed:
        say("alam", failed)
    return 1 if ended else 0
