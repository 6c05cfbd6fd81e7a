"""The controller's checks of incoming chunks: every invalid chunk is refused with a reason, and the
due times decide which rows are executed.
"""

from dataclasses import replace

import numpy as np
import pytest
from can_rig import make_chunk

from alam_core.robots.piper import JOINT_LIMITS, JOINT_NAMES
from alam_core.runtime.motion import make_limits
from alam_piper.gate import ChunkGate, ChunkRejected, ChunkRules, beyond_limits, parse_chunk

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
        ({"dt": 1e-308}, "dt"),  # divisions by it overflow
        ({"positions": [1e308] * 14}, "but its range is"),
    ],
)
def test_bad_contents_are_refused(change, reason):
    with pytest.raises(ChunkRejected, match=reason):
        parse_chunk(**(GOOD | change))


def test_columns_are_put_into_order():
    names = JOINT_NAMES[::-1]
    rows = np.array([[0, 1, 2, 3, 4, 5, 6], [10, 11, 12, 13, 14, 15, 16]]) / 1000
    chunk = parse_chunk(10.0, 1, names, 0.1, 2, rows[:, ::-1].ravel().tolist())
    assert np.array_equal(chunk.actions, rows)


HOME = (0.0, 1.57, -1.3485, 0.0, 0.0, 0.0, 0.05)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((10, 60, -45, 5, 20, -15, 0.04), "joint2 is 60, .* in degrees"),
        ((10, 60, -45, 5, 20, -15, 40), "in degrees.*gripper is 40, .* millimetres"),
        ((0, 90_000, -77_264, 0, 0, 0, 0.05), "joint2 is 90000, .*0.001 degrees"),
        ((0, 1.57, -1.3, 0, 0, 0, 0.8), "gripper is 0.8, .* fractions of the full opening"),
        ((0, 1.57, -1.3, 0, 0, 0, 70), "gripper is 70, .* millimetres or percent"),
        ((0, 1.57, -1.3, 0, -15, 0, 0.05), "joint5 is -15, .* in degrees"),
    ],
)
def test_a_chunk_in_other_units_is_refused_with_a_hint(row, reason):
    rows = [*HOME, *row]  # one wrong row is enough
    with pytest.raises(ChunkRejected, match=reason):
        parse_chunk(10.0, 1, JOINT_NAMES, 0.1, 2, rows)


def test_a_row_a_little_beyond_the_limits_is_clamped_and_named():
    limits = make_limits(JOINT_LIMITS, gripper_stroke=0.07)
    rows = np.tile(HOME, (4, 1))
    assert beyond_limits(make_chunk(10.0, 1, 0.1, rows), limits) == ""
    rows[2, 4], rows[1, 6], rows[0, 2], rows[3, 0] = 1.6, 0.1, 0.3, 2.6  # joint1: within noise
    said = beyond_limits(make_chunk(10.0, 1, 0.1, rows), limits)
    assert said == (
        "joint3 is clamped from 0.300 to -0.020, joint5 is clamped from 1.600 to 1.200, "
        "gripper is clamped from 0.100 to 0.070"
    )
    parse_chunk(10.0, 1, JOINT_NAMES, 0.1, 4, rows.ravel().tolist())


def test_the_rows_of_a_chunk_are_due_after_the_steps_that_were_dropped():
    chunk = parse_chunk(**GOOD, first_step=3)
    assert (chunk.first_step, chunk.sequence) == (3, 1)
    assert chunk.due(0) == pytest.approx(10.4)


REST = np.array(HOME)


def chunk(stamp=10.0, sequence=1, steps=16, dt=0.1):
    return make_chunk(stamp, sequence, dt, np.tile(REST, (steps, 1)))


def test_times_and_sequences_are_checked():
    gate = ChunkGate(ChunkRules(max_age=1.0, max_ahead=0.1))
    with pytest.raises(ChunkRejected, match="old"):
        gate.admit(chunk(stamp=8.9), "a", 10.0, REST)
    with pytest.raises(ChunkRejected, match="future"):
        gate.admit(chunk(stamp=10.2), "a", 10.0, REST)
    with pytest.raises(ChunkRejected, match="expired"):
        gate.admit(chunk(stamp=9.5, steps=4), "a", 10.0, REST)
    gate.admit(chunk(stamp=9.9, sequence=5), "a", 10.0, REST)
    with pytest.raises(ChunkRejected, match="replayed"):
        gate.admit(chunk(stamp=10.0, sequence=5), "a", 10.0, REST)
    with pytest.raises(ChunkRejected, match="replayed"):
        gate.admit(chunk(stamp=10.0, sequence=4), "a", 10.0, REST)
    gate.admit(chunk(stamp=10.0, sequence=6), "a", 10.0, REST)


def test_steps_that_are_still_to_be_executed_are_not_taken_for_dropped() -> None:
    gate = ChunkGate(ChunkRules(max_ahead=0.1))
    whole = chunk(stamp=10.0)
    for first_step in (6, 2**32 - 1):
        with pytest.raises(ChunkRejected, match=f"first_step {first_step} drops steps"):
            gate.admit(replace(whole, first_step=first_step), "a", 10.4, REST)
    gate.admit(whole.drop(4), "a", 10.4, REST)


def test_the_length_in_time_counts_from_the_observation() -> None:
    gate = ChunkGate(ChunkRules(max_duration=1.6))
    gate.admit(chunk(steps=16), "a", 10.0, REST)
    with pytest.raises(ChunkRejected, match=r"1\.700 s long, at most 1\.6 s"):
        gate.admit(chunk(steps=17, sequence=2), "a", 10.0, REST)
    with pytest.raises(ChunkRejected, match=r"1\.700 s long"):
        gate.admit(chunk(steps=17, sequence=2).drop(10), "a", 11.0, REST)


def test_the_position_for_the_present_must_be_near_the_set_point() -> None:
    """The rows before it have expired, and the ones after it are reached in time."""
    gate = ChunkGate(ChunkRules(max_start_jump=0.5))
    rows = np.tile(REST, (16, 1))
    rows[:, 0] = np.linspace(-1.0, 2.0, 16)  # 0 at row 5, which is due at 10.6
    ramp = make_chunk(10.0, 1, 0.1, rows)
    with pytest.raises(ChunkRejected, match=r"joint1 begins 1\.000 rad from its set-point"):
        gate.admit(ramp, "a", 10.05, REST)
    with pytest.raises(ChunkRejected, match=r"joint1 begins 0\.700 rad"):
        gate.admit(ramp, "a", 10.6, REST + [0.7, 0, 0, 0, 0, 0, 0])
    gate.admit(ramp, "a", 10.6, REST)


def test_only_one_source_is_followed_until_it_is_forgotten() -> None:
    gate = ChunkGate(ChunkRules())
    gate.admit(chunk(sequence=500), "a", 10.0, REST)
    with pytest.raises(ChunkRejected, match="source 'b' is refused while the arm follows 'a'"):
        gate.admit(chunk(sequence=501), "b", 10.0, REST)
    with pytest.raises(ChunkRejected, match="source is empty"):
        gate.admit(chunk(sequence=501), "", 10.0, REST)
    gate.forget()
    gate.admit(chunk(sequence=1), "b", 10.0, REST)
    with pytest.raises(ChunkRejected, match="source 'a' is refused"):
        gate.admit(chunk(sequence=501), "a", 10.0, REST)
