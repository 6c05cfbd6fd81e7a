"""What the arm's status messages say about a goal: whether the arm can carry it out at all. Which
chunk it executes is in ``execution``.
"""

import time

from alam_msgs.msg import ArmStatus
from diagnostic_msgs.msg import DiagnosticArray

from alam_common.messages import stamp_to_ns

OFF = ("DISABLED", "FAULT")  # states that only a person ends, and in which chunks are rejected
ENABLE = "alam/arm/enable"  # a reason that names it: the arm rejects chunks until that is called
SILENCE = 1.0  # s of ROS time and of wall time without a status after which a goal is aborted


def refuses(state: str, reason: str) -> str:
    """Why an arm in this state rejects every chunk, "" if it does not."""
    held = state == "HOLDING" and ENABLE in reason
    return f"the arm is {state}: {reason}" if state in OFF or held else ""


class ArmWatch:
    """Watches the arm during a goal. ``heard``: whether a status came since the goal began.

    Times are ns of ROS time. Only the ROS thread uses it.
    """

    def __init__(self) -> None:
        self.heard = False
        self._start = 0
        self._last = (0, 0.0)  # when the newest status came: ROS time (ns), steady clock (s)
        self._silent = False  # whether the last call of ``silence`` found the arm silent
        self._rejected = 0  # chunks that the arm has rejected, according to its diagnostics
        self._rejected_before = 0  # the same when the goal began
        self._rejection = ""  # the reason of the last one

    def begin(self, start: int) -> None:
        """A goal begins at ``start``."""
        self.heard, self._start, self._silent = False, start, False
        self._rejected_before = self._rejected

    def on_status(self, message: ArmStatus, now: int) -> str:
        """Take a status. Returns why the goal must be aborted, "" if it can continue. A status from
        before the goal says nothing: the arm may have been enabled since.
        """
        if stamp_to_ns(message.header.stamp) < self._start:
            return ""
        self.heard, self._last = True, (now, time.monotonic())
        return refuses(message.state, message.reason)

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        """Take the arm's number of rejected chunks and the reason of the last one."""
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if "last_rejection" in values and values.get("chunks_rejected", "").isdecimal():
                self._rejected = int(values["chunks_rejected"])
                self._rejection = values["last_rejection"]

    @property
    def rejection(self) -> str:
        """Why the arm rejected the last chunk of this goal, "" if that is not known."""
        return self._rejection if self._rejected > self._rejected_before else ""

    def silence(self, now: int) -> str:
        """Why the goal must be aborted: the arm was heard and is silent now. "" if it is not.

        Two calls in a row must find it silent: after this process was kept from running, statuses
        wait to be taken.
        """
        seconds = min((now - self._last[0]) * 1e-9, time.monotonic() - self._last[1])
        before, self._silent = self._silent, self.heard and seconds > SILENCE
        if not (before and self._silent):
            return ""
        return f"no status of the arm for {seconds:.1f} s; has the arm controller stopped?"
