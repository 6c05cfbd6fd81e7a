"""How a node ends: on a signal at any moment of its life, and by an error."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from std_msgs.msg import String
from test_platform_cli import ALAM, wait_until

from alam_common.processes import ChildProcess

INSTALL = Path(__file__).resolve().parents[2] / "ros2_ws" / "install"
NODES = {
    "camera_sync": "alam_perception",
    "latent_encoder": "alam_perception",
    "policy": "alam_policy",
    "arm_controller": "alam_piper",
    "sim_node": "alam_sim",
}
IMPORTING = """
import sys, time
from alam_common.stopping import entry
sys.path.insert(0, {folder!r})
entry("slow_module")()
"""
SLOW_MODULE = """
import time
print("importing", flush=True)
while True:
    try:
        time.sleep(0.01)
    except KeyboardInterrupt:
        raise ImportError("as a library may turn it into") from None
"""
NODE = """
import sys, time
from rclpy.node import Node
from std_msgs.msg import String
from alam_common.main import run_node
from alam_core.errors import UserError

class Sample(Node):
    def __init__(self):
        super().__init__("sample")
        print("building", flush=True)
        while {builds!r}:
            time.sleep(0.01)
        self.answers = self.create_publisher(String, "answer", 10)
        self.create_subscription(String, "ask", self.on_ask, 10)

    def on_ask(self, message):
        print("asked", flush=True)
        if message.data == "mistake":
            raise UserError("no such thing; ask for another")
        if message.data == "bug":
            [][1]
        time.sleep(1.0)
        print("answered", flush=True)

    def close(self):
        self.answers.publish(String(data="goodbye"))
        time.sleep(0.5)

run_node(Sample)
"""


def loaded(process: ChildProcess, library: str) -> bool:
    """Whether a process has begun to load a library."""
    try:
        return library in Path(f"/proc/{process.pid}/maps").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_import_ends_a_node_without_a_word(
    number: signal.Signals, start: Callable[..., ChildProcess], tmp_path: Path
) -> None:
    (tmp_path / "slow_module.py").write_text(SLOW_MODULE)
    process = start("slow", [sys.executable, "-c", IMPORTING.format(folder=str(tmp_path))])
    wait_until(lambda: "importing" in process.lines, "the import")
    process.send(number)
    assert process.wait(30) == 0
    assert process.last_line() == "importing"


@pytest.mark.parametrize("name", NODES)
def test_every_node_ends_without_a_word_while_it_imports(
    name: str, start: Callable[..., ChildProcess]
) -> None:
    package = NODES[name]
    process = start(name, [str(INSTALL / package / "lib" / package / name)])
    # The first large library that all nodes load, after the handlers are in place.
    wait_until(lambda: loaded(process, "/numpy/") or process.poll() is not None, "numpy")
    process.send(signal.SIGINT)
    assert process.wait(30) == 0
    assert process.last_line() == ""


def test_alam_up_ends_while_its_nodes_import(start: Callable[..., ChildProcess]) -> None:
    up = start("up", [ALAM, "up", "piper"])
    wait_until(lambda: any("started sim" in line for line in up.lines), "alam up")
    up.send(signal.SIGINT)
    assert up.wait(60) == 0
    assert "all nodes are stopped" in up.last_line()
    assert not any("Traceback" in line or " ended (" in line for line in up.lines)


def test_nohup_keeps_a_node_running(start: Callable[..., ChildProcess]) -> None:
    process = start("sample", ["nohup", sys.executable, "-c", NODE.format(builds=True)])
    wait_until(lambda: "building" in process.lines, "the node to be built")
    process.send(signal.SIGHUP)
    assert process.wait(1) is None
    process.send(signal.SIGTERM)
    assert process.wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_node_while_it_is_built(
    number: signal.Signals, start: Callable[..., ChildProcess]
) -> None:
    process = start("sample", [sys.executable, "-c", NODE.format(builds=True)])
    wait_until(lambda: "building" in process.lines, "the node to be built")
    process.send(number)
    assert process.wait(30) == 0
    assert process.last_line() == "building"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_node_completes_its_callback_and_can_still_publish(
    number: signal.Signals, ros, start: Callable[..., ChildProcess]
) -> None:
    answers = ros.collect(String, "/answer")
    ask = ros.node.create_publisher(String, "/ask", 10)
    process = start("sample", [sys.executable, "-c", NODE.format(builds=False)])
    ros.wait_for(
        lambda: "asked" in process.lines,
        what="a callback",
        again=lambda: ask.publish(String(data="a question")),
        every=5.0,
    )
    ros.wait_for(lambda: ros.node.count_publishers("/answer"), what="the publisher")
    process.send(number)
    process.send(number)  # a launcher and a terminal both send one
    ros.wait_for(lambda: answers or process.poll() is not None, what="the goodbye")
    assert process.wait(30) == 0
    ros.wait_for(lambda: answers, 10, "the goodbye")
    assert process.last_line() == "answered"


@pytest.mark.parametrize(
    ("word", "code", "said"),
    [
        ("mistake", 2, "error: no such thing; ask for another"),
        ("bug", 1, "error: a bug ended the node: IndexError: list index out of range"),
    ],
)
def test_a_node_that_ends_by_an_error_logs_one_line(
    word: str, code: int, said: str, ros, start: Callable[..., ChildProcess]
) -> None:
    ask = ros.node.create_publisher(String, "/ask", 10)
    process = start("sample", [sys.executable, "-c", NODE.format(builds=False)])
    ros.wait_for(
        lambda: process.poll() is not None,
        what="the node to end",
        again=lambda: ask.publish(String(data=word)),
    )
    assert process.wait(1) == code
    assert process.last_line().endswith(f"[sample]: {said}") and "[FATAL]" in process.last_line()
    assert sum("error:" in line for line in process.lines) == 1
    assert any("Traceback" in line for line in process.lines) == (word == "bug")
