"""An emulated arm and its clock, for tests with a real controller process. Each step takes 5 ms of
simulated time.
"""

import threading
import time

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.node import Node
from rosgraph_msgs.msg import Clock

from alam_piper.bus import BusConfig
from alam_piper.emulator import ArmEmulator, KinematicPlant, open_emulator_bus

# Joint angles of the home pose, rad.
HOME = np.array([0.0, 1.57, -1.3485, 0.0, 0.0, 0.0])
STEP = 5_000_000  # ns


class EmulatedArm:
    """Steps the arm in its own thread, in about real time, or slower if the controller is slower.

    ``clock_stopped``: set it to stop the arm and its clock. ``nanoseconds``: the simulated time.
    """

    def __init__(self, node: Node, port: int, clock: str = "/clock"):
        self.plant = KinematicPlant(HOME, 0.05)
        self.bus = open_emulator_bus(BusConfig(port=port))
        self.emulator = ArmEmulator(self.bus, self.plant)
        self.nanoseconds = 1_000_000_000
        self.clock_stopped = False
        self._publisher = node.create_publisher(Clock, clock, 10)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stamp(self, age: float = 0.0) -> Time:
        """The simulated time ``age`` s ago."""
        now = self.nanoseconds - round(age * 1e9)
        return Time(sec=now // 1_000_000_000, nanosec=now % 1_000_000_000)

    def _run(self) -> None:
        while not self._stop.is_set():
            started = time.monotonic()
            if not self.clock_stopped:
                self.emulator.step(STEP * 1e-9)
                self.nanoseconds += STEP
                self._publisher.publish(Clock(clock=self.stamp()))
                self.emulator.wait_for_command(0.1)
            time.sleep(max(0.0, started + STEP * 1e-9 - time.monotonic()))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.bus.shutdown()
