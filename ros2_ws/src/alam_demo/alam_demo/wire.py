"""The CAN bus of an emulated arm that also records the set-points on the wire."""

import struct
import time
from collections import deque

import can
import numpy as np

from alam_piper.hardware import UNITS_PER_M, UNITS_PER_RAD

GRIPPER_FRAME, JOINT_FRAMES = 0x159, (0x155, 0x156, 0x157)
HELLO = can.Message(arbitration_id=0x7FF, data=bytes(8), is_extended_id=False)  # no arm's frame
SCALE = np.array([UNITS_PER_RAD] * 6 + [UNITS_PER_M])
Units = tuple[int, ...]  # a set-point as it is on the wire: 0.001 degree and 0.001 mm


class RecordingBus:
    """Gives an emulated arm the frames that others sent, with the time of arrival.

    ``listen`` reads the bus as frames arrive; ``recv`` then returns them. set_points: time of
    arrival in s on the wall clock, and the set-point, of every complete set-point. changes: times
    of those that differ from the one before. incomplete: number of set-points of which a frame was
    lost. A multicast bus returns the arm's own frames, which are left out.
    """

    def __init__(self, bus: can.BusABC) -> None:
        self.set_points: list[tuple[float, Units]] = []
        self.changes: list[float] = []
        self.incomplete = 0
        self._bus = bus
        self._frames: deque[can.Message] = deque()
        self._parts: dict[int, tuple[int, int]] = {}
        self._gripper = 0
        self._own = ""  # the sender of our frames
        bus.send(HELLO)
        until = time.monotonic() + 1.0
        while not self._own and time.monotonic() < until:
            heard = bus.recv(0.1)
            if heard is not None and heard.arbitration_id == HELLO.arbitration_id:
                self._own = str(heard.channel)

    def listen(self, until: float) -> None:
        """Read frames until a time in s on the steady clock; those that wait are read anyway."""
        while True:
            left = until - time.monotonic()
            message = self._bus.recv(max(0.0, left))
            if message is None:
                if left <= 0.0:
                    return
            elif str(message.channel) != self._own:
                self._record(message)
                self._frames.append(message)

    def recv(self, timeout: float | None = None) -> can.Message | None:
        """The next frame that was read, None if there is none."""
        return self._frames.popleft() if self._frames else None

    def send(self, message: can.Message) -> None:
        """Send a frame of the arm."""
        self._bus.send(message)

    def shutdown(self) -> None:
        """Close the bus."""
        self._bus.shutdown()

    def _record(self, message: can.Message) -> None:
        frame, data = message.arbitration_id, bytes(message.data)
        if len(data) != 8:
            return
        if frame == GRIPPER_FRAME and data[6] == 1:
            self._gripper = struct.unpack(">i", data[:4])[0]
        elif frame in JOINT_FRAMES:
            if frame == JOINT_FRAMES[0]:
                self._parts.clear()
            self._parts[frame] = struct.unpack(">ii", data)
            if frame != JOINT_FRAMES[-1]:
                return
            if len(self._parts) < len(JOINT_FRAMES):
                self.incomplete += 1
                return
            joints = [unit for part in JOINT_FRAMES for unit in self._parts[part]]
            units = (*joints, self._gripper)
            if self.set_points and units != self.set_points[-1][1]:
                self.changes.append(message.timestamp)
            self.set_points.append((message.timestamp, units))


def in_si_units(set_points: list[tuple[float, Units]]) -> tuple[np.ndarray, np.ndarray]:
    """Times (N,) in s and set-points (N, 7) in rad and m."""
    times = np.array([moment for moment, _ in set_points])
    units = np.array([units for _, units in set_points], dtype=float).reshape(-1, 7)
    return times, units / SCALE
