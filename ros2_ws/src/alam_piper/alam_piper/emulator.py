"""An emulated Piper on a CAN bus: it answers command frames as the arm's firmware does, and moves a
simulated plant.

The caller steps it every 5 ms of simulated time. Frames are big-endian with 8 bytes; units on the
bus are 0.001 degree, 0.001 mm and 0.001 rad/s. It emulates power and control mode (without both,
motion commands are ignored), joint targets with the firmware's speed limit and joint ranges, the
gripper, the emergency stop, status, end pose and driver feedback, and queries of limits and
firmware version. It does not emulate motion to a Cartesian pose, MIT control, drag teaching or
changes of the arm's settings; a powerless arm stays where it is.

The public attributes are the state that it reports; ``alam_piper.faults`` changes them.
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
    link_poses,
)
from alam_piper.bus import BusConfig, serve_bus
from alam_piper.hardware import CTRL_MODE_CAN, MOVE_J, UNITS_PER_M, UNITS_PER_RAD
from alam_piper.startup import (
    ACCELERATION_FRAME,
    FIRMWARE_FRAME,
    FIRMWARE_QUERY,
    RANGE_FRAME,
    ArmLimits,
)

# The reply of the firmware: hardware version, software version, date. As on a real arm the software
# version is split between two frames, and the date follows without a separator.
FIRMWARE = b"H-V1.2-1".ljust(60, b"\0") + b"S-V1.8-2250925".ljust(28, b"\0")
GRIPPER_RANGE = GRIPPER_STROKE + 0.001  # m, with a small tolerance
# Number of feedbacks between two frames of 0x2A1, of 0x2A2 to 0x2A4 and 0x251 to 0x256, and of
# 0x261 to 0x266. A real arm sends all but the last group in each feedback.
STATUS_EVERY, FAST_EVERY, SLOW_EVERY = 2, 4, 5
STATUS_STOPPED, STATUS_OVER_LIMIT = 1, 4
TEACHES = {2: 0, 6: 0}  # command of drag teaching -> teach status, if they differ
# Bits of the state of a driver and of the gripper.
HOT, COLLISION, ERROR, ENABLED, HOMED = 0x02, 0x10, 0x20, 0x40, 0x80
SENSOR = 0x10  # bit of the gripper's state where a driver has COLLISION
VOLTAGE, TEMPERATURE = 240, 30  # units of 0.1 V, degrees Celsius
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
    bus = serve_bus(config)
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


def firmware_limits() -> ArmLimits:
    """The limits that an arm is delivered with."""
    lower, upper = JOINT_LIMITS.T.copy()
    return ArmLimits(lower, upper, np.full(6, MAX_VELOCITY), np.full(6, MAX_ACCELERATION))


class ArmEmulator:
    """The arm's firmware. Call all methods from one thread."""

    def __init__(self, bus: can.BusABC, plant: Plant, feedback_every: int = 1):
        """feedback_every: number of steps between two feedbacks; python-can reads slcan slowly."""
        self.plant = plant
        self._feedback_every = feedback_every
        self.enabled = np.zeros(6, dtype=bool)
        # What 0x2A1 reports.
        self.ctrl_mode = 0
        self.move_mode = 0
        self.arm_status = 0
        self.teach_status = 0
        self.error_code = 0
        self.speed_percent = 0
        self.driver_bits = [0] * 6  # faults of the motor drivers, as bits of 0x261 to 0x266
        self.gripper_bits = 0  # faults of the gripper, as bits of 0x2A8
        self.feedback_frozen = False  # whether the arm sends no feedback
        self.muted_frames: frozenset[int] = frozenset()  # frames it does not send
        self.frame_offset = 0  # added to the identifiers 0x2A1 to 0x2A8: the arm is a leader
        self.firmware = FIRMWARE  # the reply to the firmware query; b"": none
        self.limits = firmware_limits()  # the replies to the queries of the limits
        self.stuck = np.zeros(6, dtype=bool)  # joints that do not follow their target
        self.shift = np.zeros(6)  # rad, added to the joint positions that are reported
        self.impostor = False  # whether another program sends a command too, which is not obeyed
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
        pull = np.clip(self._target - self._pull, -reach, reach)
        self._pull = self._pull + np.where(self.stuck, 0.0, pull)
        self.plant.set_target(self._pull, self._gripper_target)
        if not self.feedback_frozen and self._steps % self._feedback_every == 0:
            self._send_feedback(self._steps // self._feedback_every)
        if self.impostor:
            self._send(0x155, struct.pack(">ii", 1, 1))
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
            self.arm_status = STATUS_STOPPED
        elif data[0] == 2:
            self.arm_status = 0
            self._cut_power(range(6))
        if data[2]:
            self.teach_status = TEACHES.get(data[2], data[2])

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
        motor, limits = data[0], self.limits
        if not 1 <= motor <= 6:
            return
        if data[1] == 1:
            lower, upper = np.degrees([limits.lower[motor - 1], limits.upper[motor - 1]]) * 10
            speed = limits.speed[motor - 1] * 1000
            reply = struct.pack(">BhhHx", motor, round(upper), round(lower), round(speed))
            self._send(RANGE_FRAME, reply)
        elif data[1] == 2:
            acceleration = round(limits.acceleration[motor - 1] * 100)
            self._send(ACCELERATION_FRAME, struct.pack(">BH5x", motor, acceleration))

    def _on_firmware_query(self, data: bytes) -> None:
        if data != FIRMWARE_QUERY:  # some buses return our own answer, which has the same id
            return
        for start in range(0, len(self.firmware), 8):
            self._send(FIRMWARE_FRAME, self.firmware[start : start + 8].ljust(8, b"\0"))

    # Feedback

    def _send_feedback(self, number: int) -> None:
        joints, velocities, gripper = self.plant.state()
        joints = joints + self.shift
        offset = self.frame_offset
        if number % STATUS_EVERY == 0:
            moving = bool(np.abs(self._target - joints).max() > 0.005)
            status = (self.ctrl_mode, self.arm_status, self.move_mode, self.teach_status)
            self._send(0x2A1 + offset, struct.pack(">BBBBBBH", *status, moving, 0, self.error_code))
        units = np.rint(joints * UNITS_PER_RAD).astype(int)
        for i, frame in enumerate((0x2A5, 0x2A6, 0x2A7)):
            self._send(frame + offset, struct.pack(">ii", units[2 * i], units[2 * i + 1]))
        grip_bits = self.gripper_bits | HOMED | (ENABLED if self._gripper_enabled else 0)
        self._send(0x2A8 + offset, struct.pack(">ihBx", round(gripper * UNITS_PER_M), 0, grip_bits))
        if number % FAST_EVERY == 0:
            pose = end_pose(joints)
            for i, frame in enumerate((0x2A2, 0x2A3, 0x2A4)):
                self._send(frame + offset, struct.pack(">ii", pose[2 * i], pose[2 * i + 1]))
            for i in range(6):
                speed = round(min(max(velocities[i] * 1000.0, -32768.0), 32767.0))
                position = round(joints[i] * 1000.0)  # 0.001 rad, unlike the joint frames
                self._send(0x251 + i, struct.pack(">hhi", speed, 0, position))
        if number % SLOW_EVERY == 0:
            for i in range(6):
                bits = self.driver_bits[i] | (ENABLED if self.enabled[i] else 0)
                state = struct.pack(">HhbBH", VOLTAGE, TEMPERATURE, TEMPERATURE, bits, 0)
                self._send(0x261 + i, state)

    def _send(self, frame: int, data: bytes) -> None:
        if frame in self.muted_frames:
            return
        self._bus.send(can.Message(arbitration_id=frame, data=data, is_extended_id=False))


def end_pose(joints: np.ndarray) -> list[int]:
    """Pose of link 6 for joint angles (6,) in rad as the arm reports it: x, y, z in 0.001 mm, then
    the rotations about the fixed axes x, y, z in 0.001 degree.
    """
    pose = link_poses(joints)[5]
    rotation = pose[:3, :3]
    pitch = np.arctan2(-rotation[2, 0], np.hypot(rotation[0, 0], rotation[1, 0]))
    roll = np.arctan2(rotation[2, 1], rotation[2, 2])
    yaw = np.arctan2(rotation[1, 0], rotation[0, 0])
    angles = np.array([roll, pitch, yaw]) * UNITS_PER_RAD
    return [*np.rint(pose[:3, 3] * UNITS_PER_M).astype(int), *np.rint(angles).astype(int)]
