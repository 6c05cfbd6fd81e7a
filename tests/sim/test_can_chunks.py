"""The controller's checks of incoming chunks: every invalid chunk is refused with a reason, and the
due times decide which rows are executed.
"""

from dataclasses import replace

import numpy as np
import pytest
from can_rig import make_chunk

from alam_core.robots.piper import JOINT_NAMES
from alam_piper.gate import ChunkGate, ChunkRejected, ChunkRules, parse_chunk

GOOD = {
    "stamp": 10.0,
    "sequence": 1,
    "joint_names": JOINT_NAMES,
    "dt": 0.1,
    "steps": 2,
    "positions": [0.1] * 14,
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"positions": [0.1] * 13 + [float("nan")]}, "finite"),
        ({"positions": [float("inf")] + [0.1] * 13}, "finite"),
        ({"positions": [0.1] * 13}, "13 positions"),
        ({"positions": []}, "0 positions"),
        ({"joint_names": JOINT_NAMES[:6]}, "missing joints: gripper"),
        ({"joint_names": (*JOINT_NAMES[:6], "joint7")}, "missing joints: gripper"),
        ({"joint_names": (*JOINT_NAMES, "joint7")}, "unknown joints: joint7"),
        ({"joint_names": (*JOINT_NAMES, "joint1")}, "named twice: joint1"),
        ({"steps": 0, "positions": []}, "0 steps"),
        ({"steps": 5000}, "5000 steps"),
        ({"dt": 0.0}, "dt"),
        ({"dt": -0.1}, "dt"),
        ({"dt": float("nan")}, "dt"),
        ({"dt": 60.0}, "dt"),
    ],
)
def test_bad_contents_are_refused(change, reason):
    with pytest.raises(ChunkRejected, match=reason):
        parse_chunk(**(GOOD | change))


def test_columns_are_put_into_order():
    names = JOINT_NAMES[::-1]
    chunk = parse_chunk(10.0, 1, names, 0.1, 2, [6, 5, 4, 3, 2, 1, 0, 16, 15, 14, 13, 12, 11, 10])
    assert chunk.actions.tolist() == [[0, 1, 2, 3, 4, 5, 6], [10, 11, 12, 13, 14, 15, 16]]


def test_the_rows_of_a_chunk_are_due_after_the_steps_that_were_dropped():
    chunk = parse_chunk(**GOOD, first_step=3)
    assert (chunk.first_step, chunk.sequence) == (3, 1)
    assert chunk.due(0) == pytest.approx(10.4)


def chunk(stamp=10.0, sequence=1, steps=16, dt=0.1):
    return make_chunk(stamp, sequence, dt, np.arange(1, steps + 1)[:, None] * np.ones(7))


def test_times_and_sequences_are_checked():
    gate = ChunkGate(ChunkRules(max_age=1.0, max_ahead=0.1))
    with pytest.raises(ChunkRejected, match="old"):
        gate.admit(chunk(stamp=8.9), 10.0, True)
    with pytest.raises(ChunkRejected, match="future"):
        gate.admit(chunk(stamp=10.2), 10.0, True)
    with pytest.raises(ChunkRejected, match="expired"):
        gate.admit(chunk(stamp=9.5, steps=4), 10.0, True)
    gate.admit(chunk(stamp=9.9, sequence=5), 10.0, True)
    with pytest.raises(ChunkRejected, match="replayed"):
        gate.admit(chunk(stamp=10.0, sequence=5), 10.0, True)
    with pytest.raises(ChunkRejected, match="replayed"):
        gate.admit(chunk(stamp=10.0, sequence=4), 10.0, True)
    gate.admit(chunk(stamp=10.0, sequence=6), 10.0, True)


def test_steps_that_are_still_to_be_executed_are_not_taken_for_dropped() -> None:
    gate = ChunkGate(ChunkRules(max_ahead=0.1))
    whole = chunk(stamp=10.0)
    for first_step in (6, 2**32 - 1):
        with pytest.raises(ChunkRejected, match=f"first_step {first_step} drops steps"):
            gate.admit(replace(whole, first_step=first_step), 10.4, True)
    gate.admit(whole.drop(4), 10.4, True)


def test_a_restarted_publisher_is_accepted_only_once_nothing_is_executed_and_with_a_new_chunk():
    gate = ChunkGate(ChunkRules())
    gate.admit(chunk(sequence=500), 10.0, True)
    with pytest.raises(ChunkRejected, match="replayed"):
        gate.admit(chunk(stamp=10.5, sequence=1), 10.6, True)
    with pytest.raises(ChunkRejected, match="replayed"):
        gate.admit(chunk(stamp=10.0, sequence=499), 10.6, False)
    gate.admit(chunk(stamp=10.5, sequence=1), 10.6, False)
