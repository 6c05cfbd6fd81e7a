"""The arm behind the manufacturer's SDK: reads feedback as a snapshot, writes set-points.

The SDK uses integers of 0.001 degree and 0.001 mm; here everything is in rad, m and s. The SDK is
not thread-safe: call all methods of a backend from one thread.
"""

import contextlib
import logging
import math
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from piper_sdk import C_PiperInterface_V2, LogLevel

from alam_core.errors import UserError
from alam_piper.bus import BusConfig, claim_bus, open_bus, options_for_libraries
from alam_piper.frames import FEEDBACK_FRAMES, FrameReader
from alam_piper.startup import ArmLimits
from alam_piper.writers import BusWriters

UNITS_PER_RAD = 180_000.0 / math.pi  # units of 0.001 degree
UNITS_PER_M = 1_000_000.0  # units of 0.001 mm
CTRL_MODE_CAN = 1
MOVE_J = 1
MAX_GRIPPER_EFFORT = 5000  # units of 0.001 N*m
DRIVER_FAULTS = (
    "voltage_too_low",
    "motor_overheating",
    "driver_overcurrent",
    "driver_overheating",
    "collision_status",
    "driver_error_status",
    "stall_status",
)
GRIPPER_FAULTS = (
    "voltage_too_low",
    "motor_overheating",
    "driver_overcurrent",
    "driver_overheating",
    "sensor_status",
    "driver_error_status",
)
QUERY_PAUSE = 0.5  # s between two queries of what the arm has not told yet


@dataclass(frozen=True)
class Feedback:
    """A snapshot of the arm's newest feedback.

    stamp: s, wall-clock time of its newest joint frame; use it only to tell new feedback from old.
    positions: (7,) rad and m. velocities: (6,) rad/s, joints only.
    ctrl_mode, arm_status, teach_status, move_mode, error_code: codes of frame 0x2A1.
    drivers_enabled: six flags. driver_faults: texts like ``joint3 collision_status``.
    gripper_faults: texts like ``sensor_status``. counts: number of frames received so far of each
    kind, in the order of FEEDBACK_FRAMES; empty if the connection does not count them.
    """

    stamp: float
    positions: np.ndarray
    velocities: np.ndarray
    ctrl_mode: int
    arm_status: int
    teach_status: int
    drivers_enabled: tuple[bool, ...]
    driver_faults: tuple[str, ...]
    counts: tuple[int, ...] = ()
    error_code: int = 0
    move_mode: int = MOVE_J
    gripper_faults: tuple[str, ...] = ()


class Backend(Protocol):
    """The interface to an arm."""

    def connect(self) -> None:
        """Open the connection, or close it and open it again. Sends no motion. Raises UserError if
        that is impossible; ``read`` then returns None.
        """
        ...

    def read(self) -> Feedback | None:
        """The newest feedback; None while a part of it was not received on this connection or the
        connection fails. Never blocks. Until the first ``enable`` or ``write`` it also asks the arm
        for its firmware and limits, again after a pause.
        """
        ...

    def missing(self) -> str:
        """What ``read`` lacks, one line for the user; "" if nothing."""
        ...

    def enable(self) -> None:
        """Request motor power and CAN control once. Moves nothing; repeat it until the feedback
        shows both.
        """
        ...

    def write(self, set_point: np.ndarray) -> None:
        """Send one set-point (7,), rad and m."""
        ...

    def power_off(self) -> None:
        """Cut the power of all motors: the arm drops."""
        ...

    def firmware(self) -> str:
        """The version of the firmware, such as ``S-V1.8-2``; "" while unknown."""
        ...

    def arm_limits(self) -> ArmLimits | None:
        """The limits in the arm's firmware, None while a reply is missing."""
        ...

    def foreign_writer(self) -> str:
        """Who else sends on the bus, one line for the user; "" if nobody."""
        ...

    def close(self) -> None:
        """Close the connection. The arm keeps holding its last set-point."""
        ...


class _FirstOfMany(logging.Filter):
    """Lets the first of the SDK's errors pass. The SDK logs one for every frame that it cannot
    send, hundreds in a second.
    """

    PAUSE = 5.0  # s without an error after which the next one is shown again

    def __init__(self) -> None:
        super().__init__()
        self._last = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.ERROR:
            return True
        before, self._last = self._last, time.monotonic()
        record.local_area = "further errors are not shown"  # else a list of all its interfaces
        return self._last - before > self.PAUSE


_first_of_many = _FirstOfMany()


def to_units(set_point: np.ndarray) -> list[int]:
    """A set-point (7,) in rad and m as the SDK's integers, rounded to the nearest."""
    return [round(float(q) * UNITS_PER_RAD) for q in set_point[:6]] + [
        round(float(set_point[6]) * UNITS_PER_M)
    ]


def newer_frames(feedback: Feedback, than: Feedback | None) -> set[int]:
    """The kinds of frames that arrived between two snapshots; every kind if ``than`` is None. A
    connection that does not count frames has one stamp for all.
    """
    if than is None:
        return set(FEEDBACK_FRAMES)
    if not feedback.counts:
        return set(FEEDBACK_FRAMES) if feedback.stamp != than.stamp else set()
    pairs = zip(FEEDBACK_FRAMES, feedback.counts, than.counts, strict=True)
    return {frame for frame, count, before in pairs if count != before}


def read_newer(
    backend: Backend, than: Feedback | None, patience: float, frames: Sequence[int]
) -> Feedback | None:
    """Read feedback in which each kind of ``frames`` is newer than in ``than``. Waits for it for at
    most ``patience`` s of wall time, then returns the newest available.

    In simulated time the feedback of a tick is sent before its clock message, but on a busy machine
    the SDK's reading thread may not have processed it yet.
    """
    until = time.monotonic() + patience
    feedback = backend.read()
    while (
        feedback is None or not newer_frames(feedback, than).issuperset(frames)
    ) and time.monotonic() < until:
        time.sleep(0.0002)
        feedback = backend.read()
    return feedback


class SdkBackend:
    """A Piper behind ``piper_sdk``, on any CAN bus that python-can knows."""

    def __init__(self, bus: BusConfig, speed_percent: int = 100, gripper_effort: float = 1.0):
        """speed_percent: 1 to 100, the firmware's own speed limit. gripper_effort: N*m, 0 to 5."""
        self._config = bus
        self._speed = min(max(int(speed_percent), 1), 100)
        self._effort = min(max(round(gripper_effort * 1000.0), 0), MAX_GRIPPER_EFFORT)
        self._claim: socket.socket | None = None
        self._arm: Any = None
        self._reader: FrameReader | None = None
        self._writers = BusWriters()
        self._counts = (0,) * len(FEEDBACK_FRAMES)  # of the connections before this one
        self._queried = 0.0  # s on the steady clock
        self._commanded = False  # whether power or motion was requested on this connection
        self._gripper_sent: int | None = None
        self._since_gripper = 0

    def __str__(self) -> str:
        return f"CAN bus {self._config}"

    def connect(self) -> None:
        self.close()
        if self._config.interface != "virtual":  # which exists in this process only
            self._claim = claim_bus(self._config)
        open_bus(self._config).shutdown()  # the SDK hides why a bus cannot be opened
        arm = C_PiperInterface_V2(
            self._config.channel, can_auto_init=False, logger_level=LogLevel.ERROR
        )
        try:
            with options_for_libraries(self._config):
                arm.CreateCanBus(
                    self._config.channel, bustype=self._config.interface, judge_flag=False
                )
                if arm.GetCanBus().recv_bus is None:
                    raise ConnectionError("no socket")
                self._writers.watch(arm.GetCanBus())
                arm.ConnectPort(start_thread=False)  # also asks for firmware and limits
        except ConnectionError as error:
            raise UserError(f"cannot open CAN bus {self._config}: {error}") from error
        arm.logger.logger.addFilter(_first_of_many)
        arm.DisableFilterAbnormalData()  # else an impossible position is dropped silently
        self._arm = arm
        self._reader = FrameReader(arm.GetCanBus(), arm.ParseCANFrame, self._writers, self._counts)
        self._queried = time.monotonic()
        self._commanded = False
        self._gripper_sent = None

    def _query(self) -> None:
        """Ask for firmware and limits again if the arm has not told them and nothing is sent."""
        assert self._reader is not None
        if (
            self._commanded
            or self._reader.answers.complete
            or self._reader.failing
            or time.monotonic() - self._queried < QUERY_PAUSE
        ):
            return
        self._arm.PiperInit()
        self._queried = time.monotonic()

    def read(self) -> Feedback | None:
        if self._reader is None:
            return None
        self._query()
        if not self._reader.complete:
            return None
        counts = self._reader.counts  # before the content, which is then at least as new
        joints, gripper = self._arm.GetArmJointMsgs(), self._arm.GetArmGripperMsgs()
        status, fast, slow = (
            self._arm.GetArmStatus(),
            self._arm.GetArmHighSpdInfoMsgs(),
            self._arm.GetArmLowSpdInfoMsgs(),
        )
        stamp = joints.time_stamp
        state = joints.joint_state
        units = (
            state.joint_1,
            state.joint_2,
            state.joint_3,
            state.joint_4,
            state.joint_5,
            state.joint_6,
        )
        positions = np.empty(7)
        positions[:6] = units
        positions[:6] /= UNITS_PER_RAD
        positions[6] = gripper.gripper_state.grippers_angle / UNITS_PER_M
        motors = (
            fast.motor_1,
            fast.motor_2,
            fast.motor_3,
            fast.motor_4,
            fast.motor_5,
            fast.motor_6,
        )
        drivers = [
            d.foc_status
            for d in (
                slow.motor_1,
                slow.motor_2,
                slow.motor_3,
                slow.motor_4,
                slow.motor_5,
                slow.motor_6,
            )
        ]
        return Feedback(
            stamp=stamp,
            positions=positions,
            velocities=np.array([m.motor_speed for m in motors]) / 1000.0,
            ctrl_mode=int(status.arm_status.ctrl_mode),
            arm_status=int(status.arm_status.arm_status),
            teach_status=int(status.arm_status.teach_status),
            drivers_enabled=tuple(bool(d.driver_enable_status) for d in drivers),
            driver_faults=tuple(
                f"joint{i + 1} {fault}"
                for i, driver in enumerate(drivers)
                for fault in DRIVER_FAULTS
                if getattr(driver, fault)
            ),
            counts=counts,
            error_code=int(status.arm_status.err_code),
            move_mode=int(status.arm_status.mode_feed),
            gripper_faults=tuple(
                fault
                for fault in GRIPPER_FAULTS
                if getattr(gripper.gripper_state.foc_status, fault)
            ),
        )

    def missing(self) -> str:
        return self._reader.missing() if self._reader else "the CAN bus is not open"

    def enable(self) -> None:
        if self._arm is None:
            return
        self._commanded = True
        self._arm.EnableArm(7)
        self._arm.MotionCtrl_2(CTRL_MODE_CAN, MOVE_J, self._speed, 0x00)
        gripper = self._arm.GetArmGripperMsgs().gripper_state.grippers_angle
        self._arm.GripperCtrl(max(int(gripper), 0), self._effort, 0x01, 0)
        self._gripper_sent = None

    def write(self, set_point: np.ndarray) -> None:
        if self._arm is None:
            return
        self._commanded = True
        *joints, gripper = to_units(set_point)
        # The gripper's frame is sent first, so that the last joint frame completes a set-point. An
        # unchanged gripper is sent only ten times a second.
        self._since_gripper += 1
        if gripper != self._gripper_sent or self._since_gripper >= 20:
            self._arm.GripperCtrl(gripper, self._effort, 0x01, 0)
            self._gripper_sent, self._since_gripper = gripper, 0
        self._arm.JointCtrl(*joints)

    def power_off(self) -> None:
        if self._arm is not None:
            self._arm.DisableArm(7)

    def firmware(self) -> str:
        return self._reader.answers.firmware if self._reader else ""

    def arm_limits(self) -> ArmLimits | None:
        return self._reader.answers.limits if self._reader else None

    def foreign_writer(self) -> str:
        return self._writers.foreign()

    def close(self) -> None:
        if self._claim is not None:
            self._claim.close()
            self._claim = None
        if self._arm is None or self._reader is None:
            return
        self._reader.stop()
        self._counts = self._reader.counts
        with contextlib.suppress(Exception):
            self._arm.DisconnectPort()
        self._arm = self._reader = None
