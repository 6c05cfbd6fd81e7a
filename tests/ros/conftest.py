"""Fixtures for tests with real nodes: each test has its own ROS domain, on loopback only, starts
nodes as processes, and stops them all at its end.

Run these tests in a shell that sourced setup.bash (``make test`` does so).
"""

import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALL = ROOT / "ros2_ws" / "install"

try:
    import rclpy
    from action_msgs.srv import CancelGoal
    from alam_msgs.msg import Observation  # noqa: F401  (needs setup.bash's library path)
    from rclpy.action import ActionClient
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node

    from alam_common.processes import ChildProcess, stop_all
except ImportError as error:
    raise pytest.UsageError(
        f"the tests in tests/ros need the built workspace ({error}): "
        "make setup && source setup.bash"
    ) from None

RESEND = 15.0  # s without an answer before a request is sent again

# Tests stay on this host, whatever the shell has set.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = (
    "SYSTEM_DEFAULT"  # leaves discovery to the profile below: loopback only
)
os.environ["RMW_IMPLEMENTATION"] = "rmw_fastrtps_cpp"
os.environ["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(
    INSTALL / "alam_bringup/share/alam_bringup/config/fastdds_local.xml"
)
os.environ.pop("FASTDDS_DEFAULT_PROFILES_FILE", None)
os.environ.setdefault("CAN_CONFIG", '{"hop_limit": 0}')
os.environ.setdefault("MUJOCO_GL", "egl")


@pytest.fixture
def domain() -> Iterator[int]:
    """A ROS domain that no other test on this machine uses while this test runs."""
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp") / f"alam_test_domains_{os.getuid()}"
    folder.mkdir(exist_ok=True)
    start = os.getpid() % 60
    for number in [20 + (start + i) % 60 for i in range(60)]:
        with open(folder / str(number), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield number
            return
    pytest.fail("no ROS domain is free: do 60 tests run already?")


@pytest.fixture
def ros_env(domain: int) -> dict[str, str]:
    """The environment for this test's processes: its own domain, loopback only."""
    return os.environ | {"ROS_DOMAIN_ID": str(domain), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def can_udp_port(domain: int) -> int:
    """A UDP port for this test's emulated CAN bus."""
    return 43113 + domain


class RosClient:
    """A node of this test, in its domain. It is spun only inside ``wait_for``."""

    def __init__(self, node: Node, executor: SingleThreadedExecutor) -> None:
        self.node = node
        self.executor = executor
        self._clients: dict[str, Any] = {}

    def collect(self, message_type: type, topic: str, qos: Any = 10) -> list:
        """Subscribe to a topic. Returns a list to which messages are appended while waiting."""
        messages: list = []
        self.node.create_subscription(message_type, topic, messages.append, qos)
        return messages

    def wait_for(
        self,
        condition: Callable[[], Any],
        timeout: float = 60.0,
        what: str = "",
        again: Callable[[], Any] | None = None,
        every: float = 1.0,
    ) -> Any:
        """Spin until ``condition()`` is true and return its value; fail the test after ``timeout``
        s.

        what: what is waited for, for the error message. again: called at once and then every
        ``every`` s until the condition is true, to send messages that may get lost: discovery may
        be complete on one side and not on the other.
        """
        deadline = time.monotonic() + timeout
        send_at = time.monotonic() if again else math.inf
        while True:
            if again and time.monotonic() >= send_at:
                again()
                send_at = time.monotonic() + every
            if value := condition():
                return value
            if time.monotonic() > deadline:
                pytest.fail(f"timed out after {timeout:.0f} s waiting for {what or condition}")
            self.executor.spin_once(timeout_sec=0.05)

    def call(self, service_type: type, name: str, request: Any, timeout: float = 90.0) -> Any:
        """Call a service, again every ``RESEND`` s without a response, and return the response."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(service_type, name)
        client = self._clients[name]
        self.wait_for(client.service_is_ready, timeout, f"service {name}")
        futures: list[Any] = []
        done = self.wait_for(
            lambda: [future for future in futures if future.done()],
            timeout,
            f"answer of {name}",
            again=lambda: futures.append(client.call_async(request)),
            every=RESEND,
        )
        return done[-1].result()

    def send_goal(self, client: ActionClient, name: str, goal: Any, **options: Any) -> Any:
        """Send a goal to the action ``name`` and return its handle, accepted or not. Without an
        answer the goal is cancelled, because it may have been accepted, and sent again.
        """
        self.wait_for(client.server_is_ready, 120.0, f"action {name}")
        lost = False
        for _ in range(6):
            future = client.send_goal_async(goal, **options)
            deadline = time.monotonic() + RESEND
            self.wait_for(lambda f=future, d=deadline: f.done() or time.monotonic() > d)
            if future.done() and (future.result().accepted or not lost):
                return future.result()
            lost = True
            self.call(CancelGoal, f"{name}/_action/cancel_goal", CancelGoal.Request())
            ended = time.monotonic() + 0.5
            self.wait_for(lambda t=ended: time.monotonic() > t)
        pytest.fail(f"no answer to a goal for {name}")


@pytest.fixture
def ros(domain: int) -> Iterator[RosClient]:
    """A node in this test's process and domain."""
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = Node("test", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    yield RosClient(node, executor)
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def ros_arguments(
    name: str | None, parameters: Mapping[str, Any], remappings: Mapping[str, str]
) -> list[str]:
    """The command line arguments that give a node its name, parameters and remappings."""
    arguments = ["--ros-args"]
    if name:
        arguments += ["-r", f"__node:={name}"]
    for key, value in parameters.items():
        arguments += ["-p", f"{key}:={json.dumps(value)}"]
    for old, new in remappings.items():
        arguments += ["-r", f"{old}:={new}"]
    return arguments


@pytest.fixture
def start(ros_env: dict[str, str]) -> Iterator[Callable[..., ChildProcess]]:
    """Start any command as a process: ``start("name", ["command", ...], env={...})``. All are
    stopped at the end of the test.
    """
    processes: list[ChildProcess] = []

    def start_process(
        name: str, command: list[str], env: Mapping[str, str] | None = None
    ) -> ChildProcess:
        process = ChildProcess(
            name,
            command,
            on_line=lambda who, line: print(f"[{who}] {line}"),
            env=ros_env | dict(env or {}),
        )
        processes.append(process)
        return process

    yield start_process
    stop_all(processes)
    assert all(process.poll() is not None for process in processes)


@pytest.fixture
def start_node(start: Callable[..., ChildProcess]) -> Callable[..., ChildProcess]:
    """Start a node of the workspace: ``start_node("alam_policy", "policy", parameters={...},
    remappings={...}, name=None)``.
    """

    def start_one(
        package: str,
        executable: str,
        parameters: Mapping[str, Any] | None = None,
        remappings: Mapping[str, str] | None = None,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> ChildProcess:
        command = [
            str(INSTALL / package / "lib" / package / executable),
            *ros_arguments(name, parameters or {}, remappings or {}),
        ]
        return start(name or executable, command, env)

    return start_one
