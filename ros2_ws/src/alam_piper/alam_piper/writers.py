"""Which programs send on the bus: a command that we did not send, and feedback of a second arm.

Some buses return our own frames to us, so a command counts as foreign if it differs from all that
we sent a short time before.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence

import can
from piper_sdk import C_STD_CAN

# Frames that move or configure the arm: motion, MIT control, leader or follower, power, limits.
COMMANDS = frozenset((*range(0x150, 0x160), 0x470, 0x471, 0x474, 0x475, 0x477, 0x479, 0x47A, 0x47D))
KEPT = 2000  # frames sent that are remembered: 3 s of set-points
MEMORY = 0.5  # s for which a foreign frame is reported, and an arm counts as the only one
COMMAND, FEEDBACK = "another program sends commands", "a second arm sends feedback"


class BusWriters:
    """Judges each frame of a bus by its sender."""

    def __init__(self) -> None:
        # Oldest first. The reader's thread looks frames up, so one that is sent again must not be
        # absent for a moment.
        self._sent: OrderedDict[tuple[int, bytes], None] = OrderedDict()
        self._foreign = ("", 0, 0.0)  # what is sent, identifier, s on the steady clock
        self._arm = ""  # the channel of the arm's feedback
        self._arm_heard = -MEMORY  # s on the steady clock

    def watch(self, bus: C_STD_CAN) -> None:
        """Remember every frame that the SDK sends on ``bus``."""
        send = bus.SendCanMessage

        def remember(frame: int, data: Sequence[int], *options: object) -> object:
            key = (frame, bytes(data))
            self._sent[key] = None
            self._sent.move_to_end(key)
            while len(self._sent) > KEPT:
                self._sent.popitem(last=False)
            return send(frame, data, *options)

        bus.SendCanMessage = remember

    def accept(self, message: can.Message, is_feedback: bool) -> bool:
        """Whether to use a frame: not if it is feedback of a second arm, which only a bus that
        names its senders can tell.
        """
        now, frame = time.monotonic(), message.arbitration_id
        if is_feedback:
            sender = str(message.channel)
            if sender != self._arm and now - self._arm_heard < MEMORY:
                self._foreign = (FEEDBACK, frame, now)
                return False
            self._arm, self._arm_heard = sender, now
        elif frame in COMMANDS and (frame, bytes(message.data)) not in self._sent:
            self._foreign = (COMMAND, frame, now)
        return True

    def foreign(self) -> str:
        """Who else sends on the bus, one line; "" if nobody did in the last ``MEMORY`` s."""
        what, frame, heard = self._foreign
        recent = what and time.monotonic() - heard < MEMORY
        return f"{what} on this bus ({frame:#x}): stop it" if recent else ""
