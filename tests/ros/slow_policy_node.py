"""The policy node with an artificial inference delay, started as a process by
``test_realtime_chunking.py``.

It prints "connected" once it is connected with the arm in both directions, and for every chunk a
line of JSON: ``sequence``, ``stamp``, ``now`` (s, when it was prepared for sending) and ``given``
(the steps it was conditioned on).
"""

import json
import sys
import time

from alam_common.main import run_node
from alam_core.runtime.runner import PolicyRunner
from alam_policy.policy_node import PolicyNode

DELAY = 0.25  # s, added to an inference
FIRST_DELAY = 0.7  # s, added to the first one, which the estimate of the delay must leave out


class SlowRunner(PolicyRunner):
    """Sleeps before each inference, except those of the warm-up."""

    delay = 0.0

    def infer(self, observation, generator=0, given=None):
        time.sleep(self.delay)
        if self.delay:
            SlowRunner.delay = DELAY
        return super().infer(observation, generator, given)


class SlowPolicyNode(PolicyNode):
    def __init__(self) -> None:
        super().__init__(load=SlowRunner.from_pretrained)
        SlowRunner.delay = FIRST_DELAY
        planner = self._planner
        given_steps, ready = planner.given_steps, planner.ready
        given: list[list[float]] = []

        def remember(stamp, upcoming):
            rows = given_steps(stamp, upcoming)
            given[:] = [] if rows is None else rows.tolist()
            return rows

        def report(now):
            chunk = planner.chunk
            line = {"sequence": chunk.sequence, "stamp": chunk.stamp, "now": now, "given": given}
            print(json.dumps(line), file=sys.stdout, flush=True)
            return ready(now)

        planner.given_steps, planner.ready = remember, report  # type: ignore[method-assign]
        self._connected = self.create_timer(0.1, self._print_when_connected)

    def _print_when_connected(self) -> None:
        # Two subscribers of chunks: the arm and the test.
        if self._chunks.get_subscription_count() >= 2 and self._execution.arm_state:
            print("connected", flush=True)
            self._connected.cancel()


if __name__ == "__main__":
    run_node(SlowPolicyNode)
