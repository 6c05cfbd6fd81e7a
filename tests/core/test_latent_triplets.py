"""Triplets: order, episodes, gaps, coverage, and dependence on the random generator only."""

from types import SimpleNamespace

import numpy as np
import pytest

from alam_core.config import from_dict
from alam_core.errors import UserError
from alam_core.latent_action.triplets import GapConfig, TripletSampler


def source(lengths: list[int], size: int = 2) -> SimpleNamespace:
    """Every pixel of a row holds the row's number."""
    total = sum(lengths)
    array = np.broadcast_to(
        np.arange(total, dtype=np.uint8)[:, None, None, None], (total, size, size, 3)
    )
    return SimpleNamespace(
        array=array, starts=np.cumsum(lengths) - lengths, lengths=np.array(lengths)
    )


@pytest.mark.parametrize("gaps", [GapConfig("uniform", 4), GapConfig("fixed", 2)])
def test_triplets_keep_to_their_episode_their_order_and_their_gaps(gaps: GapConfig) -> None:
    lengths = [12, 2, 5, 30]
    sampler = TripletSampler([source(lengths)], np.array([0, 1, 2]), gaps)
    which, rows = sampler.draw(4000, np.random.default_rng(0))
    assert set(which) == {0}
    episode = np.searchsorted(np.cumsum(lengths), rows, side="right")
    # 1 is too short, 3 is not requested.
    assert (episode == episode[:, :1]).all() and set(episode[:, 0]) == {0, 2}
    steps = np.diff(rows, axis=1)
    assert set(steps.flatten()) == ({1, 2, 3, 4} if gaps.kind == "uniform" else {2})
    assert {0, 11, 14, 18} <= set(rows.flatten())  # both ends of both episodes


def test_uniform_gaps_are_uniform_where_episodes_are_long() -> None:
    _, rows = TripletSampler([source([200])], np.array([0]), GapConfig("uniform", 4)).draw(
        8000, np.random.default_rng(0)
    )
    counts = np.bincount(np.diff(rows, axis=1).flatten(), minlength=5)[1:]
    assert (abs(counts / counts.sum() - 0.25) < 0.02).all()


@pytest.mark.parametrize("gaps", [GapConfig("uniform", 4), GapConfig("fixed", 3)])
def test_gaps_count_in_strides(gaps: GapConfig) -> None:
    sampler = TripletSampler([source([60, 13, 12])], np.array([0, 1, 2]), gaps, stride=6)
    _, rows = sampler.draw(3000, np.random.default_rng(0))
    steps = np.diff(rows, axis=1)
    assert set(steps.flatten()) == ({6, 12, 18, 24} if gaps.kind == "uniform" else {18})
    episodes = np.searchsorted([60, 73, 85], rows, side="right")
    assert (episodes == episodes[:, :1]).all() and set(episodes[:, 0]) == (
        {0, 1} if gaps.kind == "uniform" else {0}
    )
    _, fixed = TripletSampler(
        [source([60])], np.array([0]), GapConfig("fixed", 3), stride=6
    ).evenly_spaced(100)
    assert len(fixed) == 60 - 36 and (np.diff(fixed, axis=1) == 18).all() and fixed.max() == 59


def test_a_mixture_draws_by_weight_for_any_sizes() -> None:
    parts = [
        TripletSampler([source([30]), source([30])], np.array([0]), GapConfig("uniform", 2)),
        TripletSampler([source([200, 40])], np.array([0, 1]), GapConfig("uniform", 2), stride=5),
        TripletSampler([source([9])], np.array([0]), GapConfig("uniform", 2)),
    ]
    mixed = TripletSampler.mix(parts, [150, 50, 5])
    sources, rows = mixed.draw(20_000, np.random.default_rng(0))
    counts = np.bincount(mixed.sources[sources], minlength=3) / 20_000
    assert abs(counts - np.array([150, 50, 5]) / 205).max() < 0.015
    # The views of a source share its weight.
    assert abs((sources == 0).mean() - (sources == 1).mean()) < 0.015
    # All frames of a source are equally likely.
    assert abs((rows[sources == 2, 0] >= 200).mean() - 40 / 240) < 0.02
    assert set(np.diff(rows[sources == 2], axis=1).flatten()) == {5, 10} and set(
        np.diff(rows[sources == 3], axis=1).flatten()
    ) == {1, 2}
    assert rows[sources == 3].max() < 9
    for number in range(4):
        other, row = mixed.redraw(number, np.random.default_rng(number))
        assert mixed.sources[other] == mixed.sources[number] and mixed.episode(
            other, row[0]
        ) == mixed.episode(other, row[2])


def test_a_mixture_of_one_source_draws_as_that_source() -> None:
    part = TripletSampler([source([20, 9])], np.array([0, 1]), GapConfig())
    for own, mixed in zip(
        part.draw(50, np.random.default_rng(1)),
        TripletSampler.mix([part], [7]).draw(50, np.random.default_rng(1)),
        strict=True,
    ):
        assert np.array_equal(own, mixed)


def test_draw_is_a_function_of_the_generator() -> None:
    sampler = TripletSampler([source([20, 9]), source([20, 9])], np.array([0, 1]), GapConfig())
    first, again, other = (sampler.draw(16, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert all(np.array_equal(x, y) for x, y in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])
    assert set(first[0]) == {0, 1}


def test_frames_are_those_of_the_requested_rows() -> None:
    sampler = TripletSampler([source([20])], np.array([0]), GapConfig())
    which, rows = sampler.draw(6, np.random.default_rng(0))
    frames = sampler.frames(which, rows)
    assert frames.shape == (3, 6, 2, 2, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames[:, :, 0, 0, 0], rows.T)


def test_evenly_spaced_triplets_have_the_fixed_gap_and_cover_all_episodes() -> None:
    sampler = TripletSampler([source([20, 20, 20])], np.array([0, 1, 2]), GapConfig("fixed", 3))
    _, rows = sampler.evenly_spaced(10)
    assert len(rows) == 10 and (np.diff(rows, axis=1) == 3).all()
    assert set(rows[:, 0] // 20) == set(rows[:, 2] // 20) == {0, 1, 2}
    assert len(sampler.evenly_spaced(1000)[1]) == 3 * 14


def test_unusable_data_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="no episode has the 3 frames"):
        TripletSampler([source([2, 2])], np.array([0, 1]), GapConfig())
    with pytest.raises(UserError, match="kind is 'random': choose one of uniform, fixed"):
        from_dict(GapConfig, {"kind": "random"})
