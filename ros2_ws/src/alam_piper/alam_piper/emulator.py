"""An emulated Piper on a CAN bus: it answers command frames as the arm's firmware does, and moves a
simulated plant.

The caller steps it every 5 ms of simulated time. Frames are big-endian with 8 bytes; units on the
bus are 0.001 degree, 0.001 mm and 0.001 rad/s. It emulates power and control mode (without both,
motion commands are ignored), joint targets with the firmware's speed limit and joint ranges, the
gripper, the emergency stop, status and driver feedback, and queries of limits and firmware version.
"""

import struct
import time
from collections.abc import Callable
from typing import Protocol

import can
import numpy as np

from alam_core.errors import UserError
from alam_core.robots.piper import (
    GRIPPER_STROKE,
    JOINT_LIMITS,
    MAX_ACCELERATION,
    MAX_VELOCITY,
)
from alam_piper.bus import BusConfig, open_bus
from alam_piper.hardware import CTRL_MODE_CAN, MOVE_J, UNITS_PER_M, UNITS_PER_RAD

FIRMWARE = b"S-V1.8-2"
FIRMWARE_QUERY = b"\x01" + bytes(7)
GRIPPER_RANGE = GRIPPER_STROKE + 0.001  # m, with a small tolerance
# Number of steps between two frames of 0x2A1, of 0x251 to 0x256, and of 0x261 to 0x266.
STATUS_EVERY, FAST_EVERY, SLOW_EVERY = 2, 4, 10
STATUS_OVER_LIMIT = 4
ENABLED, COLLISION, ERROR = 0x40, 0x10, 0x20  # bits of a driver's state
FEEDBACK_IDS = frozenset((0x2A1, 0x2A5, 0x2A6, 0x2A7, 0x2A8))


class Plant(Protocol):
    """The mechanics that the emulated arm moves."""

    def set_target(self, joints: np.ndarray, gripper: float) -> None:
        """Set the target of the motors: joints (6,) in rad, gripper opening in m."""
        ...

    def state(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Joint positions (6,) in rad, joint velocities (6,) in rad/s, gripper opening in m."""
        ...


class KinematicPlant:
    """A plant without dynamics: it reaches each target at once. ``dt``: s between two targets."""

    def __init__(self, joints: np.ndarray, gripper: float = 0.0, dt: float = 0.005):
        self.joints = np.array(joints, dtype=float)
        self.gripper = gripper
        self._velocities = np.zeros(6)
        self._dt = dt

    def set_target(self, joints: np.ndarray, gripper: float) -> None:
        self._velocities = (joints - self.joints) / self._dt
        self.joints = np.array(joints, dtype=float)
        self.gripper = gripper

    def state(self) -> tuple[np.ndarray, np.ndarray, float]:
        return self.joints, self._velocities, self.gripper


def open_emulator_bus(config: BusConfig, listen: float = 0.5) -> can.BusABC:
    """Open the bus for an emulated arm. Raises UserError if that fails, or if another arm is heard
    on it within ``listen`` s.
    """
    bus = open_bus(config)
    until = time.monotonic() + listen
    while (left := until - time.monotonic()) > 0.0:
        message = bus.recv(left)
        if message is not None and message.arbitration_id in FEEDBACK_IDS:
            bus.shutdown()
            raise UserError(
                f"an arm is already answering on CAN bus {config}; "
                "stop it or choose another channel or UDP port"
            )
    return bus


class ArmEmulator:
    """The arm's firmware. Call all methods from one thread."""

    def __init__(self, bus: can.BusABC, plant: Plant):
        self.plant = plant
        self.enabled = np.zeros(6, dtype=bool)
        self.ctrl_mode = 0
        self.move_mode = 0
        self.speed_percent = 0
        self.arm_status = 0  # tests set it, or driver_bits, to inject a fault
        self.driver_bits = [0] * 6
        self.feedback_frozen = False  # tests set it: the arm sends no feedback
        self.muted_frames: frozenset[int] = frozenset()  # tests set it: frames it does not send
        self.joint_commands = 0  # number of complete joint commands received
        self.ignored_commands = 0  # number of them ignored: no power, no CAN mode, or out of range
        self.power_cuts = 0  # number of disable and reset frames received
        self._bus = bus
        self._gripper_enabled = False
        self._partial = [0] * 6
        self._steps = 0
        self._seen = 0  # value of joint_commands at the last step
        self._awaited = True  # whether wait_for_command waits
        self._handlers: dict[int, Callable[[bytes], None]] = {
            0x150: self._on_emergency,
            0x151: self._on_mode,
            0x155: lambda data: self._on_joints(0, data),
            0x156: lambda data: self._on_joints(2, data),
            0x157: lambda data: self._on_joints(4, data),
            0x159: self._on_gripper,
            0x471: self._on_power,
            0x472: self._on_limit_query,
            0x4AF: self._on_firmware_query,
        }
        self.teleport()

    def teleport(self) -> None:
        """Set the target to the current pose of the plant. Call it after placing the plant by
        hand.
        """
        joints, _, self._gripper_target = self.plant.state()
        self._target = np.array(joints, dtype=float)
        self._pull = self._target.copy()
        self.plant.set_target(self._pull, self._gripper_target)

    def step(self, dt: float) -> None:
        """Process the frames received, move the plant's target by ``dt`` s of motion, and send
        feedback. Does not block.
        """
        self._drain()
        self._seen = self.joint_commands
        reach = MAX_VELOCITY * self.speed_percent / 100.0 * dt
        self._pull = self._pull + np.clip(self._target - self._pull, -reach, reach)
        self.plant.set_target(self._pull, self._gripper_target)
        if not self.feedback_frozen:
            self._send_feedback()
        self._steps += 1

    def wait_for_command(self, timeout: float) -> bool:
        """Wait until a joint command has arrived since the last step, for at most ``timeout`` s of
        wall time. Returns whether one has arrived.

        After a timeout it does not wait again until the next command arrives, so that a controller
        that sends nothing does not slow down the caller.
        """
        self._drain()
        until = time.monotonic() + timeout
        while (
            self._awaited
            and self.joint_commands == self._seen
            and (left := until - time.monotonic()) > 0.0
        ):
            message = self._bus.recv(left)
            if message is not None:
                self._take(message)
        self._awaited = self.joint_commands > self._seen
        return self._awaited

    def _drain(self) -> None:
        while (message := self._bus.recv(0)) is not None:
            self._take(message)

    def _take(self, message: can.Message) -> None:
        handler = self._handlers.get(message.arbitration_id)
        if handler is not None and len(message.data) == 8:
            handler(bytes(message.data))

    # Commands

    def _on_emergency(self, data: bytes) -> None:
        if data[0] == 1:
            self.arm_status = 1
        elif data[0] == 2:
            self.arm_status = 0
            self._cut_power(range(6))

    def _on_mode(self, data: bytes) -> None:
        self.ctrl_mode, self.move_mode, self.speed_percent = data[0], data[1], min(data[2], 100)

    def _on_joints(self, first: int, data: bytes) -> None:
        self._partial[first : first + 2] = struct.unpack(">ii", data)
        if first != 4:
            return
        self.joint_commands += 1
        joints = np.array(self._partial) / UNITS_PER_RAD
        if (
            not self.enabled.all()
            or self.ctrl_mode != CTRL_MODE_CAN
            or self.move_mode != MOVE_J
            or self.arm_status not in (0, 4)
        ):
            self.ignored_commands += 1
        elif (joints < JOINT_LIMITS[:, 0] - 1e-4).any() or (
            joints > JOINT_LIMITS[:, 1] + 1e-4
        ).any():
            self.ignored_commands += 1
            self.arm_status = STATUS_OVER_LIMIT
        else:
            self._target = joints
            self.arm_status = 0

    def _on_gripper(self, data: bytes) -> None:
        opening, _, code, _ = struct.unpack(">iHBB", data)
        self._gripper_enabled = code in (1, 3)
        if self._gripper_enabled and self.ctrl_mode == CTRL_MODE_CAN:
            self._gripper_target = min(max(opening / UNITS_PER_M, 0.0), GRIPPER_RANGE)

    def _on_power(self, data: bytes) -> None:
        motors = (
            range(6)
            if data[0] in (7, 0xFF)
            else range(data[0] - 1, data[0])
            if 1 <= data[0] <= 6
            else range(0)
        )
        if data[1] == 2:
            if not self.enabled.any():
                self.teleport()
            self.enabled[list(motors)] = True
        elif data[1] == 1:
            self._cut_power(motors)

    def _cut_power(self, motors: range) -> None:
        self.power_cuts += 1
        self.enabled[list(motors)] = False

    def _on_limit_query(self, data: bytes) -> None:
        if not 1 <= data[0] <= 6:
            return
        if data[1] == 1:
            low, high = np.degrees(JOINT_LIMITS[data[0] - 1])
            self._send(
                0x473,
                struct.pack(
                    ">BhhHx", data[0], round(high * 10), round(low * 10), round(MAX_VELOCITY * 1000)
                ),
            )
        elif data[1] == 2:
            self._send(0x47C, struct.pack(">BH5x", data[0], round(MAX_ACCELERATION * 100)))

    def _on_firmware_query(self, data: bytes) -> None:
        if data != FIRMWARE_QUERY:  # some buses return our own answer, which has the same id
            return
        self._send(0x4AF, FIRMWARE.ljust(8, b"\0"))
        self._send(0x4AF, b"emulated")

    # Feedback

    def _send_feedback(self) -> None:
        joints, velocities, gripper = self.plant.state()
        if self._steps % STATUS_EVERY == 0:
            moving = bool(np.abs(self._target - joints).max() > 0.005)
            self._send(
                0x2A1,
                struct.pack(
                    ">BBBBBBH", self.ctrl_mode, self.arm_status, self.move_mode, 0, moving, 0, 0
                ),
            )
        units = np.rint(joints * UNITS_PER_RAD).astype(int)
        for i, frame in enumerate((0x2A5, 0x2A6, 0x2A7)):
            self._send(frame, struct.pack(">ii", units[2 * i], units[2 * i + 1]))
        grip_bits = 0x80 | (ENABLED if self._gripper_enabled else 0)
        self._send(0x2A8, struct.pack(">ihBx", round(gripper * UNITS_PER_M), 0, grip_bits))
        if self._steps % FAST_EVERY == 0:
            for i in range(6):
                speed = round(min(max(velocities[i] * 1000.0, -32768.0), 32767.0))
                self._send(0x251 + i, struct.pack(">hhi", speed, 0, units[i]))
        if self._steps % SLOW_EVERY == 0:
            for i in range(6):
                bits = self.driver_bits[i] | (ENABLED if self.enabled[i] else 0)
                self._send(0x261 + i, struct.pack(">HhbBH", 240, 30, 30, bits, 0))

    def _send(self, frame: int, data: bytes) -> None:
        if frame in self.muted_frames:
            return
        self._bus.send(can.Message(arbitration_id=frame, data=data, is_extended_id=False))
