"""The reference over time: rows by their due times, and chunks that join without a jump."""

import numpy as np
import pytest

from alam_core.runtime.timeline import Timeline
from alam_core.types import ActionChunk

DT = 0.1


def make_chunk(stamp, rows):
    return ActionChunk(rows, DT, stamp)


def test_row_i_is_due_at_stamp_plus_i_plus_1_steps():
    chunk = make_chunk(10.0, np.arange(1, 17)[:, None] * np.ones(7))
    for i in range(16):
        assert chunk.at(10.0 + (i + 1) * DT) == pytest.approx(np.full(7, i + 1))
    assert chunk.at(10.25) == pytest.approx(np.full(7, 2.5))  # linear in between
    assert chunk.at(9.0) == pytest.approx(np.ones(7))
    assert chunk.at(99.0) == pytest.approx(np.full(7, 16))


def test_dropping_rows_leaves_the_others_due_when_they_were():
    whole = ActionChunk(np.arange(16.0)[:, None], DT, 10.0, {"wrist": np.arange(16.0)[:, None]})
    rest = whole.drop(2).drop(1)
    assert rest.latents["wrist"][0] == 0  # they begin at the observation
    assert rest.end == whole.end
    for time in np.arange(10.4, 12.0, 0.03):
        assert rest.at(time) == pytest.approx(whole.at(time))
        assert rest.actions[rest.row_at(time)] == whole.actions[whole.row_at(time)]


@pytest.mark.parametrize("seed", range(10))
def test_splices_are_continuous_and_end_on_the_new_chunk(seed):
    rng = np.random.default_rng(seed)
    reference = Timeline(fade=0.15)
    now, wanted = 10.0, rng.normal(size=7)
    for _ in range(6):
        new = make_chunk(now - rng.uniform(0, 0.1), rng.normal(size=(16, 7)))
        reference.splice(new, now, wanted)
        assert reference.at(now) == pytest.approx(wanted)
        step = np.abs(reference.at(now + 1e-5) - wanted).max()
        # There is no jump behind the splice either.
        assert step < 1e-5 * 2 * np.abs(new.actions).max() / DT + 1e-5 * 100
        assert reference.at(now + 0.15) == pytest.approx(new.at(now + 0.15))
        assert reference.at(now + 0.7) == pytest.approx(new.at(now + 0.7))
        now += rng.uniform(0.01, 0.4)
        wanted = reference.at(now)


def test_a_fade_begins_and_ends_at_rest() -> None:
    timeline = Timeline(fade=0.15)
    timeline.splice(make_chunk(10.0, np.zeros((16, 7))), 10.0, np.zeros(7))
    timeline.splice(make_chunk(10.4, np.ones((16, 7))), 10.5, np.zeros(7))
    for time, wanted in ((10.5, 0.0), (10.575, 0.5), (10.65, 1.0)):
        assert timeline.at(time) == pytest.approx(np.full(7, wanted))
    for time in (10.501, 10.649):
        assert (np.abs(timeline.at(time + 1e-4) - timeline.at(time - 1e-4)) < 1e-4).all()


@pytest.mark.parametrize("passed", [1, 2, 3, 4])
@pytest.mark.parametrize("late", [0.0, 0.03, 0.099])
def test_a_chunk_that_continues_what_is_executed_joins_without_a_gap(passed, late):
    """Also without the given steps that have passed: the reference is that of the whole chunk."""
    rng = np.random.default_rng(passed)
    timeline = Timeline()
    timeline.splice(make_chunk(10.0, rng.normal(size=(16, 7))), 10.0, np.zeros(7))
    stamp = 10.8
    given = np.stack([timeline.at(stamp + (i + 1) * DT) for i in range(4)])
    whole = make_chunk(stamp, np.concatenate([given, rng.normal(size=(12, 7))]))
    now = stamp + passed * DT + late
    before = timeline.at(now)
    timeline.splice(whole.drop(passed), now, np.full(7, np.nan))
    assert timeline.at(now) == pytest.approx(before)
    times = [time for time in np.arange(now, 12.4, 0.005) if time >= stamp + 4 * DT + 0.15 + late]
    for time in times:
        assert timeline.at(time) == pytest.approx(whole.at(time))
    if late == 0.0:  # spliced on a row: no gap at all
        for time in np.arange(now, 12.4, 0.005):
            assert timeline.at(time) == pytest.approx(whole.at(time))


def test_a_cleared_timeline_starts_from_the_set_point():
    timeline = Timeline()
    timeline.splice(make_chunk(10.0, np.ones((16, 7))), 10.0, np.zeros(7))
    timeline.clear()
    assert timeline.chunk is None
    timeline.splice(make_chunk(10.2, np.ones((16, 7))).drop(1), 10.3, np.full(7, 5.0))
    assert timeline.at(10.3) == pytest.approx(np.full(7, 5.0))


def test_without_a_fade_the_reference_jumps():
    timeline = Timeline(fade=0.0)
    timeline.splice(make_chunk(10.0, np.ones((16, 7))), 10.0, np.zeros(7))
    assert timeline.at(10.0) == pytest.approx(np.ones(7))
