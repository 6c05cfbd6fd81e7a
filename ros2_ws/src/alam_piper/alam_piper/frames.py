"""Reads the arm's frames from the SDK's bus in a thread, and knows which feedback was heard.

The SDK counts three joint frames as one message and shows a joint that it never heard at 0 rad, so
whether feedback is complete must be told from the frames themselves.
"""

import threading
import time

from piper_sdk import C_STD_CAN

from alam_core.errors import listing

# Identifier of each feedback frame -> what it carries.
FEEDBACK_FRAMES = {
    0x2A1: "arm status",
    0x2A5: "joint1 and joint2",
    0x2A6: "joint3 and joint4",
    0x2A7: "joint5 and joint6",
    0x2A8: "gripper",
    **{0x251 + i: f"joint{i + 1} velocity" for i in range(6)},
    **{0x261 + i: f"joint{i + 1} motor driver" for i in range(6)},
}
POSITION_FRAMES = (0x2A5, 0x2A6, 0x2A7, 0x2A8)  # the measured positions, the gripper last
OWN_QUERIES = frozenset((0x472, 0x4AF))  # sent at connecting; some buses return them to us
RETRY = 0.02  # s between two attempts to read from a bus that fails


class FrameReader:
    """Reads a bus until ``stop``; the SDK decodes the frames.

    heard: identifier -> time of the newest frame, s on the steady clock. failing: whether the last
    attempt to read was an error, as it is when the adapter was pulled.
    """

    def __init__(self, bus: C_STD_CAN) -> None:
        self.heard: dict[int, float] = {}
        self.failing = False
        self._bus = bus
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="CAN reader", daemon=True).start()

    def _run(self) -> None:
        status = self._bus.CAN_STATUS
        while not self._stop.is_set():
            outcome = self._bus.ReadCanMessage()
            self.failing = outcome not in (
                status.READ_CAN_MSG_OK,
                status.READ_CAN_MSG_TIMEOUT,
            )
            if outcome is status.READ_CAN_MSG_OK:
                self.heard[self._bus.GetRxMessage().arbitration_id] = time.monotonic()
            elif self.failing:
                self._stop.wait(RETRY)

    @property
    def complete(self) -> bool:
        """Whether each kind of feedback was heard and the bus can be read."""
        return not self.failing and self.heard.keys() >= FEEDBACK_FRAMES.keys()

    def missing(self) -> str:
        """Which feedback was never heard, or that the bus cannot be read; "" if complete."""
        if self.complete:
            return ""
        if self.failing:
            return "the CAN bus cannot be read: is its adapter plugged in?"
        heard = sorted(self.heard.keys() - OWN_QUERIES)
        if not heard:
            return "nothing is heard on the CAN bus: is the arm powered and connected?"
        absent = [frame for frame in FEEDBACK_FRAMES if frame not in self.heard]
        if len(absent) == len(FEEDBACK_FRAMES):
            return (
                f"only other frames are heard on the CAN bus: {listing([hex(n) for n in heard])}; "
                "is this the arm's bus, and is the arm set up as a follower?"
            )
        return f"frames are missing: {listing([f'{FEEDBACK_FRAMES[n]} ({n:#x})' for n in absent])}"

    def stop(self) -> None:
        """End the thread after the frame that it is waiting for, or within 1 s."""
        self._stop.set()
