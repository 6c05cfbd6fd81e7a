"""The command ``alam`` as a real process: errors in one line, echo of a real publisher, graphs
whose nodes fail or are stopped.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import rclpy
from alam_msgs.msg import LatentTransition, Observation
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

from alam_cli.echo import message_class, to_plain
from alam_common.processes import ChildProcess
from alam_core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
ALAM = str(ROOT / "ros2_ws/install/alam_cli/lib/alam_cli/alam")


def alam(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ALAM, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env=env,
    )


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], object], what: str, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.02)


# Errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "arguments are required"),
        (["fly"], "invalid choice: 'fly'"),
        (["up"], "required: GRAPH"),
        (["up", "plane"], "no graph is called 'plane'; the graphs are: piper"),
        (["up", "piper", "sin:=true"], "no argument 'sin'"),
        (["up", "piper", "sim:=perhaps"], "not true or false"),
        (["up", "piper", "--sim", "perhaps"], "not true or false"),
        (["up", "piper", "--sim"], "'--sim' needs a value"),
        (["up", "piper", "checkpoint:=/nowhere/policy"], "no folder '/nowhere/policy'"),
        (["run"], "required: INSTRUCTION"),
        (["echo"], "required: TOPIC"),
        (["arm", "hold", "--namespace", "le ft"], "--namespace 'le ft' is not a ROS name"),
        (["echo", "/x", "--timeout", "soon"], "invalid float value: 'soon'"),
    ],
)
def test_mistakes_get_one_line_and_code_2(arguments: list[str], said: str) -> None:
    done = alam(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")


def test_help_names_every_command() -> None:
    done = alam("--help")
    assert done.returncode == 0
    assert all(
        re.search(rf"^ +{command} ", done.stdout, re.MULTILINE)
        for command in ("up", "echo", "doctor", "demo")
    )


def test_sourcing_setup_bash_before_set_up_says_what_to_do(tmp_path: Path) -> None:
    shutil.copy(ROOT / "setup.bash", tmp_path)
    done = subprocess.run(
        ["bash", "-c", f"source {tmp_path}/setup.bash"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "make setup" in done.stderr


def test_doctor_agrees_with_its_exit_code(ros_env: dict[str, str]) -> None:
    done = alam("doctor", env=ros_env)
    lines = done.stdout.splitlines()
    missing = [line for line in lines if line.startswith("MISSING")]
    assert done.returncode == (1 if missing else 0)
    for subject in ("Python", "rendering", "ROS 2 Jazzy", "workspace", "DDS", "emulated CAN bus"):
        assert any(line.startswith("OK") and subject in line for line in lines), subject
    assert all("how to get it" in lines[lines.index(line) + 1] for line in missing)
    broken = alam("doctor", env=ros_env | {"MUJOCO_GL": "nothing", "ALAM_ROOT": "/nowhere"})
    assert broken.returncode != 0


# Echo


def test_echo_prints_a_message_of_a_real_publisher(ros, start: Callable[..., ChildProcess]) -> None:
    publisher = ros.node.create_publisher(LatentTransition, "/alam/latents", 10)
    message = LatentTransition(view="wrist", tokens=2, dim=16, data=[0.5] * 32)
    echo = start("echo", [ALAM, "echo", "/alam/latents", "--once"])

    def ended() -> bool:
        publisher.publish(message)
        return echo.poll() is not None

    ros.wait_for(ended, what="the end of alam echo")
    assert echo.wait(1) == 0
    echo.last_line()
    text = "\n".join(echo.lines)
    assert "view: wrist" in text and "... (32 in all)" in text and text.count("---") == 1


@pytest.mark.parametrize("reliability", [ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE])
def test_echo_adapts_to_the_publishers_qos(
    reliability: ReliabilityPolicy, ros, start: Callable[..., ChildProcess]
) -> None:
    """A transient-local message is printed even if it was published before echo started; a
    best-effort one is printed when it is published again.
    """
    latched = reliability == ReliabilityPolicy.RELIABLE
    durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    publisher = ros.node.create_publisher(
        String, "/word", QoSProfile(depth=1, reliability=reliability, durability=durability)
    )
    publisher.publish(String(data="hello"))
    echo = start("echo", [ALAM, "echo", "word", "--once"])

    def ended() -> bool:
        if not latched:
            publisher.publish(String(data="hello"))
        return echo.poll() is not None

    ros.wait_for(ended, what="the end of alam echo")
    assert echo.wait(1) == 0
    echo.last_line()
    assert "data: hello" in echo.lines


def test_echo_ends_quietly_with_the_reader_of_its_output(
    ros, start: Callable[..., ChildProcess]
) -> None:
    publisher = ros.node.create_publisher(String, "/word", 10)
    pipe = f"set -o pipefail; {ALAM} echo word | head -n 1"
    echo = start("echo", ["bash", "-c", pipe])

    def ended() -> bool:
        publisher.publish(String(data="hello"))
        return echo.poll() is not None

    ros.wait_for(ended, what="the end of alam echo")
    assert echo.wait(1) == 0
    echo.last_line()
    assert len(echo.lines) == 1, "one line and no traceback"


def test_echo_times_out_without_a_publisher(ros_env: dict[str, str]) -> None:
    done = alam("echo", "/nothing", "--timeout", "1", env=ros_env)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "no publisher of /nothing" in done.stderr


def test_echo_names_a_type_that_is_not_installed() -> None:
    with pytest.raises(UserError, match="foo_msgs/msg/Bar is not installed"):
        message_class("foo_msgs/msg/Bar")
    assert message_class("alam_msgs/msg/Observation") is Observation


def test_messages_become_plain_values() -> None:
    plain = to_plain(LatentTransition(view="wrist", data=[1.0, 2.0]))
    assert (
        plain["view"] == "wrist"
        and plain["data"] == [1.0, 2.0]
        and plain["header"]["stamp"] == {"sec": 0, "nanosec": 0}
    )
    assert to_plain(LatentTransition(data=[0.0] * 40), full=True)["data"] == [0.0] * 40


# Up


FLEET = """
    import sys
    from alam_bringup.description import Graph, NodeSpec
    from alam_bringup.graph import PIPER
    from alam_cli.up import up
    nodes = [NodeSpec("alam_fleet", name, name, required=required) for name, required in {nodes}]
    sys.exit(up(Graph("fleet", "a test", PIPER.arguments, lambda values: nodes), PIPER.defaults()))
"""


@pytest.fixture
def fleet(
    tmp_path: Path, start: Callable[..., ChildProcess], ros_env: dict[str, str]
) -> Callable[..., ChildProcess]:
    """``alam up`` of a graph whose nodes are shell scripts: ``fleet(name=(script, required),
    ...)``.
    """

    def start_fleet(**nodes: tuple[str, bool]) -> ChildProcess:
        index = tmp_path / "share/ament_index/resource_index/packages"
        index.mkdir(parents=True)
        (index / "alam_fleet").touch()
        binaries = tmp_path / "lib/alam_fleet"
        binaries.mkdir(parents=True)
        for name, (script, _) in nodes.items():
            (binaries / name).write_text(f"#!/bin/bash\n{script}\n")
            (binaries / name).chmod(0o755)
        code = textwrap.dedent(
            FLEET.format(nodes=[(name, required) for name, (_, required) in nodes.items()])
        )
        return start(
            "up",
            [sys.executable, "-c", code],
            {"AMENT_PREFIX_PATH": f"{tmp_path}:{os.environ['AMENT_PREFIX_PATH']}"},
        )

    return start_fleet


def pid_of(up: ChildProcess, name: str) -> int:
    """The process id that a node printed."""
    wait_until(
        lambda: any(re.search(rf"\[{name}\] +pid \d+", line) for line in up.lines),
        f"{name} to start",
    )
    return next(
        int(match[1]) for line in up.lines if (match := re.search(rf"\[{name}\] +pid (\d+)", line))
    )


RUNNING = "echo pid $$; exec sleep 600"
STUBBORN = "trap '' INT TERM; echo pid $$; while true; do sleep 0.2; done"


def test_up_stops_everything_when_a_required_node_fails(fleet: Callable[..., ChildProcess]) -> None:
    up = fleet(good=(RUNNING, True), bad=("echo; echo 'error: no camera'; sleep 1; exit 3", True))
    good = pid_of(up, "good")
    wait_until(lambda: up.poll() is not None, "alam up to end")
    assert up.wait(1) == 1
    # Not buried under what the other nodes say when they stop.
    assert re.fullmatch(r"\[alam\] +error: bad failed with exit code 3: no camera", up.last_line())
    assert any(
        "bad ended (exit code 3); its last line: error: no camera: stopping the other nodes" in line
        for line in up.lines
    )
    assert not is_alive(good)


def test_up_continues_when_a_required_node_is_killed(fleet: Callable[..., ChildProcess]) -> None:
    """So that the arm can hold its position and report why."""
    up = fleet(good=(RUNNING, True), victim=(RUNNING, True))
    good, victim = pid_of(up, "good"), pid_of(up, "victim")
    os.kill(victim, signal.SIGKILL)
    wait_until(
        lambda: any("victim ended (killed by SIGKILL)" in line for line in up.lines),
        "the report that it died",
    )
    assert up.poll() is None and is_alive(good)
    os.kill(up.pid, signal.SIGINT)
    assert up.wait(30) == 1
    assert not is_alive(good)


def test_up_continues_without_an_optional_node(fleet: Callable[..., ChildProcess]) -> None:
    up = fleet(good=(RUNNING, True), extra=("kill -SEGV $$", False))
    good = pid_of(up, "good")
    wait_until(
        lambda: any("extra ended (killed by SIGSEGV)" in line for line in up.lines),
        "the report that it died",
    )
    assert up.poll() is None and is_alive(good)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_no_process_behind(
    number: signal.Signals, fleet: Callable[..., ChildProcess]
) -> None:
    up = fleet(good=(RUNNING, True), stubborn=(STUBBORN, True))
    pids = [pid_of(up, "good"), pid_of(up, "stubborn")]
    os.kill(up.pid, number)
    wait_until(lambda: up.poll() is not None, "alam up to end", timeout=60)
    assert up.wait(1) == 0
    assert not any(map(is_alive, pids))


def test_a_killed_up_leaves_no_process_behind(fleet: Callable[..., ChildProcess]) -> None:
    up = fleet(good=(RUNNING, True), stubborn=(STUBBORN, True))
    pids = [pid_of(up, "good"), pid_of(up, "stubborn")]
    os.kill(up.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, pids)), "the nodes to die with it")


# DDS


def test_every_socket_of_a_node_is_on_loopback(ros, start: Callable[..., ChildProcess]) -> None:
    code = (
        "import rclpy; rclpy.init(); node = rclpy.create_node('quiet'); "
        "print('ready', flush=True); rclpy.spin(node)"
    )
    process = start("quiet", [sys.executable, "-c", code])
    wait_until(lambda: "ready" in process.lines, "the node to start")
    ros.wait_for(lambda: "quiet" in ros.node.get_node_names(), what="the node to be discovered")
    own = {os.readlink(link) for link in Path(f"/proc/{process.pid}/fd").iterdir()}
    bound = []
    for table in ("udp", "udp6", "tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            if f"socket:[{row.split()[9]}]" in own:
                bound.append(row.split()[1].split(":")[0])
    assert len(bound) >= 2
    assert set(bound) == {"0100007F"}  # 127.0.0.1, least significant byte first
    assert rclpy.get_rmw_implementation_identifier() == "rmw_fastrtps_cpp"
