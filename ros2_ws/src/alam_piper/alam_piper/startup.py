"""What the arm tells about itself when asked: its firmware and the limits of its motors.

The replies are read from the frames. The SDK's getters for all motors at once return the last
reply six times, and its firmware getter can lose a part of the answer.
"""

import re
import struct
from dataclasses import dataclass

import numpy as np

FIRMWARE_FRAME, RANGE_FRAME, ACCELERATION_FRAME = 0x4AF, 0x473, 0x47C
FIRMWARE_QUERY = b"\x01" + bytes(7)  # some buses return our own query, which has the reply's id
# In the reply a date follows without a separator, so the last number has one digit.
FIRMWARE = re.compile(rb"S-V\d+\.\d+-\d")
LONGEST = 256  # bytes of firmware replies that are kept
JOINTS = range(1, 7)


@dataclass(frozen=True)
class ArmLimits:
    """The limits in the arm's firmware, each (6,). lower, upper: rad. speed: rad/s. acceleration:
    rad/s^2.
    """

    lower: np.ndarray
    upper: np.ndarray
    speed: np.ndarray
    acceleration: np.ndarray


class StartupAnswers:
    """Collects the replies of one arm; ``take`` every frame that is received.

    firmware: the version, such as ``S-V1.8-2``; "" while none of this form was heard. limits: of
    all motors, None while a reply is missing.
    """

    def __init__(self) -> None:
        self.firmware = ""
        self.limits: ArmLimits | None = None
        self._text = b""
        self._ranges: dict[int, tuple[float, float, float]] = {}  # motor -> rad, rad, rad/s
        self._accelerations: dict[int, float] = {}  # motor -> rad/s^2

    @property
    def complete(self) -> bool:
        return bool(self.firmware) and self.limits is not None

    def take(self, frame: int, data: bytes) -> None:
        """Keep the content of a reply; other frames do nothing. data: 8 bytes."""
        if frame == FIRMWARE_FRAME and data != FIRMWARE_QUERY:
            self._text = (self._text + data)[-LONGEST:]
            if found := FIRMWARE.findall(self._text):
                self.firmware = found[-1].decode()
        elif frame == RANGE_FRAME:
            motor, upper, lower, speed = struct.unpack(">BhhHx", data)
            span = np.radians([lower / 10.0, upper / 10.0])
            self._ranges[motor] = (float(span[0]), float(span[1]), speed / 1000.0)
            self._collect()
        elif frame == ACCELERATION_FRAME:
            motor, acceleration = struct.unpack(">BH5x", data)
            self._accelerations[motor] = acceleration / 100.0
            self._collect()

    def _collect(self) -> None:
        if all(n in self._ranges and n in self._accelerations for n in JOINTS):
            lower, upper, speed = np.array([self._ranges[n] for n in JOINTS]).T
            accelerations = np.array([self._accelerations[n] for n in JOINTS])
            self.limits = ArmLimits(lower, upper, speed, accelerations)
