"""Reads the arm's frames from the SDK's bus in a thread, and knows which feedback was heard.

The SDK counts three joint frames as one message and shows a joint that it never heard at 0 rad, so
whether feedback is complete and new must be told from the frames themselves.
"""

import threading
from collections.abc import Callable, Sequence

import can
from piper_sdk import C_STD_CAN

from alam_core.errors import listing
from alam_piper.startup import StartupAnswers
from alam_piper.writers import BusWriters

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
# What a leader arm sends in place of 0x2A1 to 0x2A8, by the offset that it is set to.
LEADER_FRAMES = frozenset(0x2A1 + i + offset for i in range(8) for offset in (0x10, 0x20, 0x100))
RETRY = 0.02  # s between two attempts to read from a bus that fails


def frame_names(frames: Sequence[int]) -> list[str]:
    """Feedback frames as texts such as ``gripper (0x2a8)``."""
    return [f"{FEEDBACK_FRAMES[frame]} ({frame:#x})" for frame in frames]


class FrameReader:
    """Reads a bus until ``stop``; ``decode`` gets each frame that is used.

    heard: identifiers of the frames received. answers: what the arm told about itself. failing:
    whether the last attempt to read was an error, as it is when the adapter was pulled.
    """

    def __init__(
        self,
        bus: C_STD_CAN,
        decode: Callable[[can.Message], None],
        writers: BusWriters,
        counts: Sequence[int] = (0,) * len(FEEDBACK_FRAMES),
    ) -> None:
        """counts: of the frames received before, on an earlier connection."""
        self.heard: set[int] = set()
        self.answers = StartupAnswers()
        self.failing = False
        self._counts = dict(zip(FEEDBACK_FRAMES, counts, strict=True))
        self._bus = bus
        self._decode = decode
        self._writers = writers
        self._stop = threading.Event()
        bus.callback_function = self._on_frame
        threading.Thread(target=self._run, name="CAN reader", daemon=True).start()

    def _run(self) -> None:
        status = self._bus.CAN_STATUS
        while not self._stop.is_set():
            outcome = self._bus.ReadCanMessage()  # calls _on_frame
            self.failing = outcome not in (
                status.READ_CAN_MSG_OK,
                status.READ_CAN_MSG_TIMEOUT,
            )
            if self.failing:
                self._stop.wait(RETRY)

    def _on_frame(self, message: can.Message) -> None:
        frame = message.arbitration_id
        is_feedback = frame in FEEDBACK_FRAMES
        if (
            self._stop.is_set()
            or len(message.data) != 8
            or message.is_extended_id
            or message.is_error_frame
            or not self._writers.accept(message, is_feedback)
        ):
            return
        self._decode(message)
        self.answers.take(frame, bytes(message.data))
        if is_feedback:  # counted once decoded: who sees the count also sees the content
            self._counts[frame] += 1
        self.heard.add(frame)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many frames of each kind were received, in the order of FEEDBACK_FRAMES."""
        return tuple(self._counts.values())

    @property
    def complete(self) -> bool:
        """Whether each kind of feedback was heard and the bus can be read."""
        return not self.failing and self.heard >= FEEDBACK_FRAMES.keys()

    def missing(self) -> str:
        """Which feedback was never heard, or that the bus cannot be read; "" if complete."""
        if self.complete:
            return ""
        if self.failing:
            return "the CAN bus cannot be read: is its adapter plugged in?"
        heard = sorted(self.heard.copy() - OWN_QUERIES)
        if not heard:
            return "nothing is heard on the CAN bus: is the arm powered and connected?"
        absent = [frame for frame in FEEDBACK_FRAMES if frame not in heard]
        if leader := [frame for frame in heard if frame in LEADER_FRAMES]:
            return (
                f"the arm is set up as a leader (it sends {leader[0]:#x}): "
                "make it a follower with the SDK's MasterSlaveConfig(0xFC, 0, 0, 0)"
            )
        if len(absent) == len(FEEDBACK_FRAMES):
            return (
                f"only other frames are heard on the CAN bus: {listing([hex(n) for n in heard])}; "
                "is this the arm's bus, and is the arm set up as a follower?"
            )
        return f"frames are missing: {listing(frame_names(absent))}"

    def stop(self) -> None:
        """End the thread after the frame that it is waiting for, or within 1 s."""
        self._stop.set()
