"""A whole arm on a virtual CAN bus in one process, stepped in lock step: emulator, the real SDK,
controller.
"""

import itertools

import numpy as np

from alam_core.types import ActionChunk
from alam_piper.bus import BusConfig
from alam_piper.config import ControllerConfig
from alam_piper.controller import ArmController
from alam_piper.emulator import ArmEmulator, KinematicPlant, open_emulator_bus
from alam_piper.faults import Fault
from alam_piper.feedback_watch import take_reading
from alam_piper.frames import POSITION_FRAMES
from alam_piper.hardware import SdkBackend

HOME = np.array([0.0, 1.57, -1.3485, 0.0, 0.0, 0.0])
PERIOD = 0.005
_names = itertools.count()  # the SDK keeps an interface per channel name until the process ends


def make_chunk(stamp: float, sequence: int, dt: float, rows: np.ndarray) -> ActionChunk:
    return ActionChunk(rows, dt, stamp, sequence=sequence)


class CanRig:
    def __init__(
        self,
        joints: np.ndarray = HOME,
        gripper: float = 0.05,
        config: ControllerConfig | None = None,
        fault: Fault | None = None,
    ):
        """fault: one that the arm has when the controller connects."""
        self.bus_config = BusConfig("virtual", f"rig{next(_names)}")
        self.plant = KinematicPlant(joints, gripper)
        self.emulator_bus = open_emulator_bus(self.bus_config, listen=0.0)
        self.emulator = ArmEmulator(self.emulator_bus, self.plant)
        if fault:
            fault.inject(self.emulator)
        self.backend = SdkBackend(self.bus_config)
        self.backend.connect()
        self.transitions: list[str] = []
        self.controller = ArmController(config or ControllerConfig(), self.transitions.append)
        self.now = 100.0
        self.sent: list[tuple[float, np.ndarray]] = []
        self.first_of_chunk: list[float] = []

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / PERIOD)):
            self.now = round(self.now + PERIOD, 6)
            self.emulator.step(PERIOD)
            heard = not self.emulator.feedback_frozen
            patience = 0.0 if not heard else 0.02 if self.backend.missing() else 5.0
            sent = [frame for frame in POSITION_FRAMES if frame not in self.emulator.muted_frames]
            reading = take_reading(self.backend, self.controller.feedback, patience, sent)
            output = self.controller.tick(self.now, reading)
            if output.enable:
                self.backend.enable()
            if output.set_point is not None:
                self.backend.write(output.set_point)
                self.sent.append((self.now, output.set_point))
                if output.first_of_chunk is not None:
                    self.first_of_chunk.append(output.first_of_chunk)

    def enable(self) -> None:
        self.run(0.05)
        assert self.controller.enable() is None
        self.run(0.3)
        assert self.controller.state == "HOLDING", self.controller.reason

    def straight(
        self,
        sequence: int,
        joints: np.ndarray,
        gripper: float = 0.05,
        steps: int = 8,
        dt: float = 0.1,
    ) -> ActionChunk:
        """A chunk from the set-point to a pose in a straight line, stamped now."""
        start, end = self.controller.set_point.position, np.append(joints, gripper)
        return make_chunk(
            self.now, sequence, dt, start + (end - start) * np.arange(1, steps + 1)[:, None] / steps
        )

    def offer(self, sequence: int, joints: np.ndarray, source: str = "test", **how: float) -> None:
        """Offer a straight chunk to the controller."""
        self.controller.offer(self.straight(sequence, joints, **how), source)

    def stall(self, seconds: float) -> None:
        """The loop stands still while the arm goes on."""
        for _ in range(round(seconds / PERIOD)):
            self.now = round(self.now + PERIOD, 6)
            self.emulator.step(PERIOD)

    def close(self) -> None:
        self.backend.close()
        self.emulator_bus.shutdown()
