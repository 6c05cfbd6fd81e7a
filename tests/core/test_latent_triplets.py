"""Triplets stay in their episode and in order, honour their gaps, cover what they should, and are a function of the generator."""

from types import SimpleNamespace

import numpy as np
import pytest

from alam_core.errors import UserError
from alam_core.latent_action.triplets import GapConfig, TripletSampler, split_episodes


def source(lengths: list[int], size: int = 2) -> SimpleNamespace:
    """Every pixel of a row holds the row's number."""
    total = sum(lengths)
    array = np.broadcast_to(np.arange(total, dtype=np.uint8)[:, None, None, None], (total, size, size, 3))
    return SimpleNamespace(array=array, starts=np.cumsum(lengths) - lengths, lengths=np.array(lengths))


@pytest.mark.parametrize("gaps", [GapConfig("uniform", 4), GapConfig("fixed", 2)])
def test_triplets_keep_to_their_episode_their_order_and_their_gaps(gaps: GapConfig) -> None:
    lengths = [12, 2, 5, 30]
    sampler = TripletSampler([source(lengths)], np.array([0, 1, 2]), gaps)
    which, rows = sampler.draw(4000, np.random.default_rng(0))
    assert set(which) == {0}
    episode = np.searchsorted(np.cumsum(lengths), rows, side="right")
    assert (episode == episode[:, :1]).all() and set(episode[:, 0]) == {0, 2}  # 1 is too short, 3 is not asked for
    steps = np.diff(rows, axis=1)
    assert set(steps.flatten()) == ({1, 2, 3, 4} if gaps.kind == "uniform" else {2})
    assert {0, 11, 14, 18} <= set(rows.flatten())  # both ends of both episodes


def test_uniform_gaps_are_uniform_where_episodes_are_long() -> None:
    _, rows = TripletSampler([source([200])], np.array([0]), GapConfig("uniform", 4)).draw(8000, np.random.default_rng(0))
    counts = np.bincount(np.diff(rows, axis=1).flatten(), minlength=5)[1:]
    assert (abs(counts / counts.sum() - 0.25) < 0.02).all()


def test_draw_is_a_function_of_the_generator() -> None:
    sampler = TripletSampler([source([20, 9]), source([20, 9])], np.array([0, 1]), GapConfig())
    first, again, other = (sampler.draw(16, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert all(np.array_equal(x, y) for x, y in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])
    assert set(first[0]) == {0, 1}


def test_frames_are_the_rows_asked_for() -> None:
    sampler = TripletSampler([source([20])], np.array([0]), GapConfig())
    which, rows = sampler.draw(6, np.random.default_rng(0))
    frames = sampler.frames(which, rows)
    assert frames.shape == (3, 6, 2, 2, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames[:, :, 0, 0, 0], rows.T)


def test_spread_has_the_fixed_gap_and_reaches_over_all_episodes() -> None:
    sampler = TripletSampler([source([20, 20, 20])], np.array([0, 1, 2]), GapConfig("fixed", 3))
    _, rows = sampler.spread(10)
    assert len(rows) == 10 and (np.diff(rows, axis=1) == 3).all()
    assert set(rows[:, 0] // 20) == set(rows[:, 2] // 20) == {0, 1, 2}
    assert len(sampler.spread(1000)[1]) == 3 * 14


def test_split_is_by_episode_disjoint_complete_and_repeatable() -> None:
    training, held = split_episodes(100, 0.05)
    assert len(held) == 5 and not set(training) & set(held) and set(training) | set(held) == set(range(100))
    assert np.array_equal(held, split_episodes(100, 0.05)[1])
    assert [len(part) for part in split_episodes(2, 0.05)] == [1, 1]


def test_hopeless_data_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="no episode has the 3 frames"):
        TripletSampler([source([2, 2])], np.array([0, 1]), GapConfig())
    with pytest.raises(UserError, match="cannot be split"):
        split_episodes(1, 0.05)
    with pytest.raises(UserError, match="choose uniform or fixed"):
        GapConfig("random")
