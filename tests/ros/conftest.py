"""What tests with real nodes share: a ROS domain of one's own on loopback only, real node
processes, and nothing left behind.

Run them in a shell that was made ready: ``source setup.bash`` (``make test`` does so).
"""

import fcntl
import json
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
    from alam_msgs.msg import Observation  # noqa: F401  (needs the library path of a shell that is ready)
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node

    from alam_common.processes import ChildProcess, stop_all
except ImportError as error:
    raise pytest.UsageError(
        f"the tests in tests/ros need the built workspace ({error}): make setup && source setup.bash"
    ) from None

# Whatever the calling shell says, tests stay on this host.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = (
    "SYSTEM_DEFAULT"  # as the profile below says: loopback only
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
    """A ROS domain that no other test on this machine uses while this one runs."""
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
    pytest.fail("no ROS domain is free: 60 tests run already?")


@pytest.fixture
def ros_env(domain: int) -> dict[str, str]:
    """The environment for processes of this test: its own domain, loopback only."""
    return os.environ | {"ROS_DOMAIN_ID": str(domain), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def can_udp_port(domain: int) -> int:
    """A UDP port for this test's emulated CAN bus."""
    return 43113 + domain


class RosClient:
    """This test's own node, in its domain, spun only inside ``wait_for``."""

    def __init__(self, node: Node, executor: SingleThreadedExecutor) -> None:
        self.node = node
        self.executor = executor

    def collect(self, message_type: type, topic: str, qos: Any = 10) -> list:
        """Subscribe; the list that is returned grows with every message that arrives while waiting."""
        messages: list = []
        self.node.create_subscription(message_type, topic, messages.append, qos)
        return messages

    def wait_for(self, condition: Callable[[], Any], timeout: float = 30.0, what: str = "") -> Any:
        """Spin until the condition holds and return its value; fails the test after ``timeout`` s
        (a bound, not a measurement).
        """
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > deadline:
                pytest.fail(f"waited {timeout:.0f} s in vain for {what or condition}")
            self.executor.spin_once(timeout_sec=0.05)
        return value

    def call(self, service_type: type, name: str, request: Any, timeout: float = 30.0) -> Any:
        """Call a service and return its answer."""
        client = self.node.create_client(service_type, name)
        self.wait_for(client.service_is_ready, timeout, f"service {name}")
        future = client.call_async(request)
        self.wait_for(future.done, timeout, f"answer of {name}")
        return future.result()


@pytest.fixture
def ros(domain: int) -> Iterator[RosClient]:
    """A node of this test's own, in its domain, in this process."""
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
    """Start any command as a process of this test: ``start("name", ["command", ...], env={...})``.
    All are stopped at the end.
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
