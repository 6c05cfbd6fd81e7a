"""What tests with real nodes share: a ROS domain of one's own on loopback only, real node
processes, and nothing left behind.

Run them in a shell that was made ready: ``source setup.bash`` (``make test`` does so).
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
    from alam_msgs.msg import Observation  # noqa: F401  (needs a prepared shell's library path)
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
        self._clients: dict[str, Any] = {}

    def collect(self, message_type: type, topic: str, qos: Any = 10) -> list:
        """Subscribe; the returned list grows with every message that arrives while waiting."""
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
        """Spin until the condition holds and return its value; fails the test after ``timeout`` s
        (a bound, not a measurement).

        again: called at once and then every ``every`` s while the condition does not hold, to send
        what may get lost: an endpoint that is discovered on one side may not be on the other.
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
                pytest.fail(f"waited {timeout:.0f} s in vain for {what or condition}")
            self.executor.spin_once(timeout_sec=0.05)

    def call(self, service_type: type, name: str, request: Any, timeout: float = 90.0) -> Any:
        """Call a service, again where no answer comes, and return its answer."""
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
        """Send a goal to the action ``name`` and return its handle, accepted or not. Where no
        answer comes it is cancelled, as it may be carried out, and sent again.
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
