"""An emulated arm, the node ``arm_controller`` as a process, and a client: what the measurement of
faults needs.
"""

import contextlib
import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rclpy
from alam_msgs.msg import ActionChunk, ArmStatus
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from alam_common.messages import stamp_to_ns, stamp_to_seconds
from alam_common.processes import ChildProcess
from alam_core.errors import UserError
from alam_demo.motion_stream import CENTRE, MotionStream
from alam_demo.wire import RecordingBus, Units
from alam_piper.bus import BusConfig
from alam_piper.emulator import ArmEmulator, KinematicPlant, open_emulator_bus
from alam_piper.hardware import UNITS_PER_RAD, to_units
from alam_piper.parameters import PERIOD

START_LIMIT = 60.0  # s until the controller must answer
ANSWER = 5.0  # s without an answer before a request is sent again
ATTEMPTS = 4
LATE = 0.1  # s by which the emulator may be late; what exceeds it is not caught up
MAX_TRACKING_ERROR = 0.3  # rad, the controller's default
LONGEST_CHUNK = 5.0  # s, the controller's default
RENEWAL = 0.05  # s in which every kind of feedback arrives again
STARVED = 0.05  # s between two steps or ticks, due every 5 ms: this machine is too busy to measure
REST = 0.06  # s without a new set-point after which the arm counts as at rest


def free_port() -> int:
    """A UDP port that no other program uses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Records:
    """What was recorded since the last time: set-points on the wire, and the controller's status
    of every tick.
    """

    wire: list[tuple[float, Units]] = field(default_factory=list)
    status: list[tuple[int, str, np.ndarray]] = field(default_factory=list)  # ns, state, (7,)


class FaultStage:
    """Use it as a context manager. ``emulator`` may be changed while ``lock`` is held.

    state, reason: of the controller's last status. diagnostics: its last values. stream: the
    publisher of chunks. other: a second one. chunk_end: when the last row of the last chunk that is
    not too long is due. away_since: since when the arm is reported further from the set-point on
    the wire than the controller allows. Both in s on the wall clock. gaps: when a pause of the
    emulated arm, of the controller or of its statuses' way here ended that was longer than
    ``STARVED``.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.state, self.reason = "", ""
        self.diagnostics: dict[str, str] = {}
        self.chunk_end = 0.0
        self.away_since = np.inf
        self.gaps: list[float] = []
        self._heard = 0.0  # when the last status came
        self.rng = np.random.default_rng(0)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "FaultStage":
        with self._stack:
            self._open()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self) -> None:
        port, self.namespace = free_port(), f"/faults_{os.getpid()}"
        self.bus = RecordingBus(open_emulator_bus(BusConfig(port=port)))
        self._stack.callback(self.bus.shutdown)
        self.plant = KinematicPlant(CENTRE[:6], CENTRE[6])
        self.emulator = ArmEmulator(self.bus, self.plant)  # type: ignore[arg-type]
        self._statuses: list[tuple[int, str, np.ndarray]] = []
        self._stack.enter_context(self._emulating())
        command = [sys.executable, "-m", "alam_piper.arm_controller_node", "--ros-args"]
        command += ["-p", f"can_port:={port}", "-p", "joint_state_divider:=1"]
        command += ["-r", f"__ns:={self.namespace}"]
        self.controller = ChildProcess("arm_controller", command)
        self._stack.callback(self.controller.stop)
        rclpy.init(args=[])
        self._stack.callback(rclpy.try_shutdown)
        self.node = Node("controller_faults", namespace=self.namespace)
        self._stack.callback(self.node.destroy_node)
        self.stream = MotionStream(self.node, f"controller_faults-{os.getpid()}")
        self.other = MotionStream(self.node, f"another-{os.getpid()}")
        self._clients = {
            "enable": self.node.create_client(SetBool, "alam/arm/enable"),
            "hold": self.node.create_client(Trigger, "alam/arm/hold"),
            "reset_fault": self.node.create_client(Trigger, "alam/arm/reset_fault"),
        }
        self.node.create_subscription(ActionChunk, "alam/action_chunk", self._on_chunk, 10)
        self.node.create_subscription(ArmStatus, "alam/arm/status", self._on_status, 1000)
        self.node.create_subscription(DiagnosticArray, "diagnostics", self._on_diagnostics, 10)
        self._stack.enter_context(self._spinning())
        self.until(lambda: self.state, START_LIMIT, "the controller to start")
        self.until(
            lambda: all(client.service_is_ready() for client in self._clients.values()),
            START_LIMIT,
            "the controller's services",
        )
        self.recover()

    @contextlib.contextmanager
    def _emulating(self) -> Iterator[None]:
        ended = threading.Event()

        def run() -> None:
            due = time.monotonic()
            while not ended.is_set():
                if time.monotonic() - due > STARVED:
                    self.gaps.append(time.time())
                with self.lock:
                    self.emulator.step(PERIOD)
                    self._watch_tracking()
                due = max(due + PERIOD, time.monotonic() - LATE)
                self.bus.listen(due)

        thread = threading.Thread(target=run, name="emulator")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextlib.contextmanager
    def _spinning(self) -> Iterator[None]:
        executor = SingleThreadedExecutor()
        executor.add_node(self.node)

        def spin() -> None:
            with contextlib.suppress(ExternalShutdownException):
                executor.spin()

        thread = threading.Thread(target=spin, name="client")
        thread.start()
        try:
            yield
        finally:
            executor.shutdown()
            thread.join()

    def _watch_tracking(self) -> None:
        if not self.bus.set_points:
            return
        wanted = np.array(self.bus.set_points[-1][1][:6]) / UNITS_PER_RAD
        error = np.abs(self.plant.joints + self.emulator.shift - wanted).max()
        if error <= MAX_TRACKING_ERROR:
            self.away_since = np.inf
        elif self.away_since == np.inf:
            self.away_since = time.time()

    def _on_chunk(self, message: ActionChunk) -> None:
        if message.steps * message.dt <= LONGEST_CHUNK and message.source != self.other.source:
            stamp = stamp_to_seconds(message.header.stamp)
            self.chunk_end = stamp + message.steps * message.dt

    def _on_status(self, message: ArmStatus) -> None:
        now, stamp = time.time(), stamp_to_ns(message.header.stamp)
        before = self._statuses[-1][0] if self._statuses else stamp
        if now - self._heard > STARVED or stamp - before > STARVED * 1e9:
            self.gaps.append(now)
        self._heard = now
        self._statuses.append((stamp, message.state, np.array(message.set_point)))
        self.state, self.reason = message.state, message.reason

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith("arm_controller"):
                self.diagnostics = {pair.key: pair.value for pair in status.values}

    # Waiting

    def until(self, done: Callable[[], Any], patience: float, what: str = "") -> bool:
        """Wait until ``done()`` is true. Returns whether it is after ``patience`` s; raises
        UserError then if ``what`` says what was waited for, and if the controller has ended.
        """
        deadline = time.monotonic() + patience
        while not done():
            if self.controller.poll() is not None:
                raise UserError(f"the controller has ended: {self.controller.last_line()}")
            if time.monotonic() > deadline:
                if what:
                    raise UserError(f"timed out after {patience:.0f} s waiting for {what}")
                return False
            time.sleep(0.004)
        return True

    def call(self, name: str, request: object) -> Any:
        """Call one of the controller's services, again without an answer. Raises UserError if it
        does not answer.
        """
        for _ in range(ATTEMPTS):
            future = self._clients[name].call_async(request)
            if self.until(future.done, ANSWER):
                return future.result()
        raise UserError(f"the controller does not answer to {name}")

    def set_enabled(self, on: bool) -> Any:
        """Call ``enable``."""
        return self.call("enable", SetBool.Request(data=on))

    def request_enable(self) -> Future:
        """Call ``enable`` without waiting for the answer."""
        return self._clients["enable"].call_async(SetBool.Request(data=True))

    # The arm

    @property
    def pose(self) -> np.ndarray:
        """Where the emulated arm is (7,)."""
        with self.lock:
            return np.append(self.plant.joints, self.plant.gripper)

    @property
    def rejections(self) -> int:
        """How many chunks the controller has rejected, as it said at the last change of state."""
        return int(self.diagnostics.get("chunks_rejected", 0))

    def states_since(self, moment: float) -> set[str]:
        """The controller's states in the ticks after a time in s on the wall clock."""
        newer = itertools.takewhile(lambda s: s[0] > moment * 1e9, reversed(self._statuses))
        return {state for _, state, _ in newer}

    @property
    def set_point(self) -> np.ndarray:
        """The controller's set-point (7,)."""
        return self._statuses[-1][2] if self._statuses else CENTRE

    def change(self, apply: Callable[[ArmEmulator], None]) -> None:
        """Apply a change to the emulated arm between two of its steps."""
        with self.lock:
            apply(self.emulator)

    def last_change(self, before: float = np.inf) -> float:
        """When the last set-point before a time came that differs from the one before it, in s on
        the wall clock; 0 if none does.
        """
        return next((t for t in reversed(self.bus.changes) if t < before), 0.0)

    def at(self, moment: float) -> Units | None:
        """The last set-point on the wire until a time in s on the wall clock."""
        return next((u for t, u in reversed(self.bus.set_points) if t <= moment), None)

    def rests(self) -> bool:
        """Whether the arm has stopped: no chunk is executed and the set-point does not change."""
        return self.state != "EXECUTING" and time.time() - self.last_change() > REST

    def recover(self) -> bool:
        """What a person does after a fault whose cause is gone: reset it, then enable the arm.
        Returns whether that worked.
        """
        self.stream.stop()
        time.sleep(RENEWAL)
        reset = self.until(lambda: self.call("reset_fault", Trigger.Request()).success, 10.0)
        return reset and self.until(lambda: self.set_enabled(True).success, 10.0)

    def settle(self) -> None:
        """Brake, and wait until the arm rests."""
        self.stream.stop()
        self.call("hold", Trigger.Request())
        self.until(self.rests, 10.0, "the arm to brake")
        self.set_enabled(True)

    def move(self, rising: bool) -> bool:
        """Publish chunks from the present set-point on. Returns whether the arm executes them and
        has moved.
        """
        began = self.set_point
        self.stream.begin(began, rising)
        return self.until(
            lambda: self.state == "EXECUTING" and np.abs(self.set_point - began).max() > 0.02, 5.0
        )

    def take(self) -> Records:
        """What was recorded since the last time; call it while the arm rests. The newest status
        stays, as the next start.
        """
        time.sleep(0.05)  # until the status of the last set-point on the wire is here
        count, number = len(self.bus.set_points), max(1, len(self._statuses))
        taken = Records(self.bus.set_points[:count], self._statuses[:number])
        del self.bus.set_points[:count], self._statuses[: number - 1]
        return taken


def claimed(records: Records) -> set[Units]:
    """The set-points that the controller's status names, as they are on the wire."""
    return {tuple(to_units(point)) for _, _, point in records.status}
