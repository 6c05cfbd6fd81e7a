"""What the policy node knows about the arm's execution. No node is started."""

import numpy as np
import pytest

from alam_common.messages import seconds_to_stamp, stamp_to_seconds
from alam_core.types import ActionChunk
from alam_policy.execution import Execution
from alam_policy.messages import latents_to_message


def chunk(sequence: int, stamp: float, value: float = 0.0) -> ActionChunk:
    rows = value + np.arange(16)[:, None] * np.ones(7)
    return ActionChunk(rows, 0.1, stamp, sequence=sequence)


def test_upcoming_steps_are_those_of_the_chunk_that_the_arm_reports() -> None:
    execution = Execution()
    assert execution.upcoming(10.0) is None
    execution.sent(chunk(7, 10.0, 100.0), 10.2)
    assert execution.upcoming(10.2) is None  # not reported yet
    execution.reported("EXECUTING", 7, 10.25)
    execution.sent(chunk(8, 10.8, 200.0), 11.0)
    execution.reported("EXECUTING", 7, 11.0)  # the newer one has not arrived yet
    upcoming = execution.upcoming(11.0)
    assert upcoming is not None and upcoming(10.1) == pytest.approx(np.full(7, 100.0))
    execution.reported("EXECUTING", 8, 11.05)
    upcoming = execution.upcoming(11.1)
    assert upcoming is not None and upcoming(10.95) == pytest.approx(np.full(7, 200.5))


@pytest.mark.parametrize(
    ("state", "sequence", "now"),
    [("HOLDING", 0, 10.3), ("FAULT", 7, 10.3), ("EXECUTING", 6, 10.3), ("EXECUTING", 7, 11.0)],
)
def test_nothing_is_upcoming_from_a_stopped_arm_an_unknown_chunk_or_an_old_report(
    state: str, sequence: int, now: float
) -> None:
    execution = Execution()
    execution.sent(chunk(7, 10.0), 10.2)
    execution.reported(state, sequence, 10.25)
    assert execution.upcoming(now) is None


def test_each_delay_is_measured_once_from_the_observation_to_the_first_report() -> None:
    execution = Execution()
    execution.sent(chunk(7, 10.0), 10.2)
    execution.reported("EXECUTING", 7, 10.25)
    execution.reported("EXECUTING", 7, 10.3)
    execution.reported("EXECUTING", 5, 10.35)  # not sent by this node
    assert execution.new_delays() == [pytest.approx(0.25)]
    assert execution.new_delays() == []
    execution.sent(chunk(8, 10.8), 11.0)
    execution.reported("HOLDING", 0, 11.1)
    assert execution.new_delays() == []


def test_delays_are_measured_after_a_policy_whose_sequence_numbers_were_higher() -> None:
    """The wall clock, which sequence numbers begin from, may be set back between two policies."""
    execution = Execution()
    execution.reported("EXECUTING", 5000, 9.9)
    execution.sent(chunk(7, 10.0), 10.2)
    execution.reported("EXECUTING", 7, 10.25)
    assert execution.new_delays() == [pytest.approx(0.25)]


@pytest.mark.parametrize(("state", "sequence"), [("EXECUTING", 7), ("HOLDING", 0), ("DISABLED", 0)])
def test_a_chunk_that_the_arm_does_not_execute_in_time_is_noticed(
    state: str, sequence: int
) -> None:
    execution = Execution()
    assert not execution.ignores_newest(10.0)
    execution.sent(chunk(7, 10.0), 10.2)
    execution.reported("EXECUTING", 7, 10.9)
    assert not execution.ignores_newest(10.9)
    execution.sent(chunk(8, 10.8), 11.0)
    assert not execution.ignores_newest(11.0)
    execution.reported(state, sequence, 11.1)
    assert not execution.ignores_newest(11.1)  # the chunk may not have arrived yet
    execution.reported(state, sequence, 11.4)
    assert execution.ignores_newest(11.4)
    assert not execution.ignores_newest(12.5)  # an old report says nothing
    execution.reported("EXECUTING", 8, 12.6)
    assert not execution.ignores_newest(12.6)


def test_latents_are_stamped_by_their_own_step():
    z = {"wrist": np.arange(3.0, dtype=np.float32)[:, None]}
    chunk = ActionChunk(np.zeros((3, 7)), 0.1, 5.0, z, latent_dt=0.4).drop(1)
    message = latents_to_message(chunk, seconds_to_stamp(5.0), (1, 1))
    spans = [
        (stamp_to_seconds(t.from_stamp), stamp_to_seconds(t.to_stamp)) for t in message.transitions
    ]
    assert np.allclose(spans, [(5.0, 5.4), (5.4, 5.8), (5.8, 6.2)])
    assert [t.data[0] for t in message.transitions] == [0, 1, 2]
