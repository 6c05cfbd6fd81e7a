"""Normalisation, and the samples that policies are trained on."""

import json

import numpy as np
import pytest
import torch

from alam_core.data.frames import FrameStore
from alam_core.errors import UserError
from alam_core.policy.normalization import (
    LatentProjection,
    PolicyStats,
    chunk_rows,
    fit_policy_stats,
    relative_targets,
)
from alam_core.policy.samples import AugmentConfig, PolicySamples, augment_images

RELATIVE = np.array([True, True, False])


def walks(rng, lengths=(9, 5)):
    states = [np.cumsum(rng.normal(size=(n, 3)), 0).astype(np.float32) for n in lengths]
    actions = [state + rng.normal(size=state.shape).astype(np.float32) for state in states]
    return states, actions


def test_chunks_repeat_the_last_row_past_the_end():
    assert chunk_rows(3, 4, 4).tolist() == [3, 4, 4, 4]
    assert chunk_rows(np.array([0, 3]), 3, np.array([1, 9])).tolist() == [[0, 1, 1], [3, 4, 5]]


def test_relative_targets_do_not_change_if_the_arm_starts_elsewhere():
    rng = np.random.default_rng(0)
    actions, state = rng.normal(size=(5, 4, 3)), rng.normal(size=(5, 3))
    offset = np.array([1.0, -2.0, 0.0])
    np.testing.assert_allclose(
        relative_targets(actions + offset, state + offset, RELATIVE),
        relative_targets(actions, state, RELATIVE),
    )
    np.testing.assert_array_equal(
        relative_targets(actions, state, RELATIVE)[..., 2], actions[..., 2]
    )


def test_statistics_standardise_every_step_and_dimension_of_all_chunks():
    rng = np.random.default_rng(1)
    states, actions = walks(rng)
    stats = fit_policy_stats(states, actions, 4, RELATIVE)
    chunks = [
        relative_targets(action[chunk_rows(t, 4, len(action) - 1)], state[t], RELATIVE)
        for state, action in zip(states, actions, strict=True)
        for t in range(len(action))
    ]
    normal = (np.stack(chunks) - stats.action_mean) / stats.action_std
    np.testing.assert_allclose(normal.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(normal.std(0), 1, atol=1e-5)
    np.testing.assert_allclose(
        ((np.concatenate(states) - stats.state_mean) / stats.state_std).std(0), 1, atol=1e-5
    )


def test_quantiles_go_to_minus_one_and_one_and_outliers_have_no_effect():
    rng = np.random.default_rng(2)
    states, actions = walks(rng, (400, 300))
    stats = fit_policy_stats(states, actions, 2, np.zeros(3, bool), quantiles=True)
    normal = (np.concatenate(states) - stats.state_mean) / stats.state_std
    np.testing.assert_allclose(
        np.quantile(normal, [0.01, 0.99], axis=0), [[-1] * 3, [1] * 3], atol=1e-4
    )
    states[0][7], actions[0][7] = 1e4, -1e4
    again = fit_policy_stats(states, actions, 2, np.zeros(3, bool), quantiles=True)
    np.testing.assert_allclose(again.action_std, stats.action_std, rtol=0.1)
    assert (
        fit_policy_stats(states, actions, 2, np.zeros(3, bool)).action_std.min()
        > 10 * stats.action_std.max()
    )


def test_one_scale_keeps_the_proportions_of_the_components():
    rng = np.random.default_rng(3)
    z = rng.normal(size=(5000, 6)) * np.array([4.0, 2.0, 1.0, 0.5, 0.1, 0.1])
    deviations = LatentProjection.fit(z, 4, one_scale=True).project(z).std(0)
    np.testing.assert_allclose(deviations / deviations[0], [1, 0.5, 0.25, 0.125], rtol=0.05)
    assert np.mean(deviations**2) == pytest.approx(1.0, rel=0.02)


def test_a_dimension_that_never_moves_is_not_amplified():
    still = [np.ones((6, 3), np.float32)]
    stats = fit_policy_stats(still, still, 2, RELATIVE, floor=0.01)
    assert stats.action_std.min() == pytest.approx(0.01)
    assert stats.state_std.min() == pytest.approx(0.01)


def test_what_moves_in_few_rows_is_scaled_by_its_range_with_quantiles():
    states = np.zeros((1000, 3), np.float32)
    states[500:505, 2] = 0.1  # a gripper that opens for 5 of 1000 rows
    stats = fit_policy_stats([states], [states], 2, np.zeros(3, bool), quantiles=True)
    assert np.abs((states - stats.state_mean) / stats.state_std).max() <= 1.001
    assert np.abs((states[:, None] - stats.action_mean) / stats.action_std).max() <= 1.001


def test_states_outside_the_range_of_training_are_limited_and_named():
    rng = np.random.default_rng(9)
    states = rng.uniform([-1, 0.2, -0.01], [1, 0.2, 0.01], (500, 3)).astype(np.float32)
    states[:, 1] = 0.2
    stats = fit_policy_stats([states], [states], 2, RELATIVE)
    low, high = stats.state_limits()
    normal = (states - stats.state_mean) / stats.state_std
    assert (low <= normal - 0.99).all() and (normal + 0.99 <= high).all()
    assert (np.abs([low[1], high[1]]) < 1.01).all()  # not the 100 of 0.3 rad / std_floor
    names = ["pan", "lift", "grip"]
    assert all(not stats.unusual_states(state, names) for state in states)
    assert stats.unusual_states(np.array([0.0, 0.5, 0.0]), names) == (
        "lift is 0.5, 0.3 outside 0.2 to 0.2 (clipped)"
    )
    both = stats.unusual_states(np.array([-9.0, 0.2, 0.2]), names)
    assert both.startswith("pan is -9, 8 outside -") and "; grip is 0.2, 0.19 outside" in both


STILL = np.arange(400)


@pytest.mark.parametrize("quantiles", [False, True])
@pytest.mark.parametrize(
    "column",
    [
        np.full(400, 0.2),
        0.2 + 1e-7 * np.sin(STILL),  # what is left of a conversion to float32
        np.where(STILL % 40, 0.2, 0.21),  # one step of an encoder
        np.linspace(0.2, 0.203, 400),  # a joint that sags
        np.zeros(400),  # a gripper that is never used
        np.full(400, 50.0),  # in percent
    ],
    ids=["constant", "rounding", "two values", "sagging", "unused", "percent"],
)
def test_0_3_rad_from_a_joint_that_stood_still_is_a_few_standard_deviations(
    column: np.ndarray, quantiles: bool
) -> None:
    states = np.random.default_rng(9).uniform(-1, 1, (400, 3)).astype(np.float32)
    states[:, 1] = column
    stats = fit_policy_stats([states], [states], 2, np.zeros(3, bool), quantiles=quantiles)
    state = np.array([0, column.max() + 0.3, 0], np.float32)
    normal = (state - stats.state_mean) / stats.state_std
    assert normal[1] > 50 and np.clip(normal, *stats.state_limits())[1] < 5
    told = stats.unusual_states(state, ["pan", "lift", "grip"])
    assert told.startswith("lift is ") and told.endswith("(clipped)") and ";" not in told


def test_checkpoints_without_a_range_limit_nothing():
    rng = np.random.default_rng(9)
    values = fit_policy_stats(*walks(rng), 4, RELATIVE).to_dict()
    assert PolicyStats.from_dict(values).state_limits().shape == (2, 3)
    known = values["state"].pop("range")
    old = PolicyStats.from_dict(values)
    assert np.isinf(old.state_limits()).all() and "range" not in old.to_dict()["state"]
    assert old.unusual_states(old.state_mean + 9 * old.state_std, ["a", "b", "c"]) == ""
    far = old.state_mean + np.array([0, 12, 0]) * old.state_std
    assert old.unusual_states(far, ["a", "b", "c"]).endswith("12 standard deviations from its mean")
    assert old.unusual_states(far, ["a", "b", "c"]).startswith("b is ")
    values["state"]["range"] = [known[0], known[1][:2]]
    with pytest.raises(UserError, match="malformed"):
        PolicyStats.from_dict(values)


def test_projection_standardises_and_unprojects_to_the_nearest_point_of_its_subspace():
    rng = np.random.default_rng(2)
    z = (
        rng.normal(size=(5000, 3)) @ rng.normal(size=(3, 8))
        + 0.01 * rng.normal(size=(5000, 8))
        + 5.0
    )
    projection = LatentProjection.fit(z, 3)
    targets = projection.project(z)
    np.testing.assert_allclose(targets.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(targets, rowvar=False), np.eye(3), atol=1e-2)
    assert projection.variance_share > 0.99
    assert projection.targets(targets) is targets
    assert np.abs(projection.transitions(targets) - z).max() < 0.1
    np.testing.assert_allclose(
        projection.project(projection.transitions(targets)), targets, atol=1e-3
    )


@pytest.mark.parametrize("one_scale", [False, True])
def test_sums_of_additive_transitions_are_those_from_the_chunks_first_frame(one_scale):
    rng = np.random.default_rng(2)
    # z(i, j) = f(j) - f(i), with j = i + 1, for 4 steps.
    potentials = (rng.normal(size=(400, 5, 6)) * [3.0, 2.0, 1.0, 0.5, 0.1, 0.1]).cumsum(1)
    z = np.diff(potentials, axis=1)
    adjacent = LatentProjection.fit(z.reshape(-1, 6), 3, one_scale)
    projection = adjacent.cumulative(adjacent.project(z), one_scale)
    targets = projection.targets(projection.project(z))
    np.testing.assert_allclose(targets.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose((targets**2).mean((0, 2) if one_scale else 0), 1, atol=1e-4)
    for step in range(4):
        direct = (
            (potentials[:, step + 1] - potentials[:, 0] - (step + 1) * adjacent.mean)
            @ adjacent.components.T
            / adjacent.std
        )
        expected = (direct - projection.step_mean[step]) / projection.step_std[step]
        np.testing.assert_allclose(targets[:, step], expected, atol=1e-4)
    nearest = adjacent.transitions(adjacent.project(z))
    np.testing.assert_allclose(projection.transitions(targets), nearest, atol=1e-4)
    # The same holds for a shorter chunk.
    np.testing.assert_allclose(projection.transitions(targets[:, :2]), nearest[:, :2], atol=1e-4)


def test_a_collapsed_encoder_is_refused():
    with pytest.raises(UserError, match="collapsed"):
        LatentProjection.fit(np.ones((100, 8)), 3)
    with pytest.raises(UserError, match="width 4 cannot be projected to 5"):
        LatentProjection.fit(np.random.default_rng(0).normal(size=(100, 4)), 5)


def test_statistics_survive_json():
    rng = np.random.default_rng(3)
    states, actions = walks(rng)
    stats = fit_policy_stats(states, actions, 4, RELATIVE)
    stats.latents["wrist"] = LatentProjection.fit(rng.normal(size=(50, 6)), 3)
    stats.latents["third_person"] = stats.latents["wrist"].cumulative(rng.normal(size=(50, 4, 3)))
    back = PolicyStats.from_dict(json.loads(json.dumps(stats.to_dict())))
    for name in ("state_mean", "state_std", "action_mean", "action_std", "state_range"):
        np.testing.assert_array_equal(getattr(back, name), getattr(stats, name))
    np.testing.assert_array_equal(
        back.latents["wrist"].components, stats.latents["wrist"].components
    )
    assert back.latents["wrist"].step_std is None
    for name in ("step_mean", "step_std"):
        np.testing.assert_array_equal(
            getattr(back.latents["third_person"], name),
            getattr(stats.latents["third_person"], name),
        )


def data(rng, horizon=4):
    states, actions = walks(rng)
    lengths = np.array([9, 5])
    starts = np.array([0, 9])
    array = rng.integers(0, 256, (14, 16, 16, 3), dtype=np.uint8)
    latents = {"wrist": rng.normal(size=(14, 3)).astype(np.float32)}
    stats = fit_policy_stats(states, actions, horizon, RELATIVE)
    stats.latents["wrist"] = LatentProjection.fit(rng.normal(size=(50, 6)), 3)
    words = torch.tensor([[1, 2], [3, 0]])
    frames = {view: FrameStore(array, starts, lengths) for view in ("third_person", "wrist")}
    return (
        PolicySamples(
            frames,
            np.concatenate(states),
            np.concatenate(actions),
            words,
            np.repeat([0, 1], lengths),
            latents,
            stats,
            RELATIVE,
        ),
        states,
        actions,
    )


def test_a_sample_is_the_observation_and_the_chunk_that_begins_there():
    samples, states, actions = data(np.random.default_rng(4))
    rows = np.array([12, 0, 0, 7])  # episode 1 at t = 3, episode 0 at 0, 0 and 7
    batch = samples.batch(rows)
    assert batch["words"].tolist() == [[3, 0], [1, 2], [1, 2], [1, 2]]
    np.testing.assert_array_equal(
        batch["images"]["wrist"].permute(0, 2, 3, 1).numpy(), samples.frames["wrist"].array[rows]
    )
    for i, (e, t) in enumerate([(1, 3), (0, 0), (0, 0), (0, 7)]):
        np.testing.assert_array_equal(batch["state"][i], states[e][t])
        expected = relative_targets(
            actions[e][chunk_rows(t, 4, len(actions[e]) - 1)], states[e][t], RELATIVE
        )
        restored = (
            batch["targets"]["action"][i].numpy() * samples.stats.action_std
            + samples.stats.action_mean
        )
        np.testing.assert_allclose(restored, expected, atol=1e-5)
    chunk = samples.latents["wrist"][[12, 13, 13, 13]]
    np.testing.assert_array_equal(batch["targets"]["wrist"][0].numpy(), chunk)
    samples.stats.latents["wrist"] = projection = samples.stats.latents["wrist"].cumulative(
        np.random.default_rng(5).normal(size=(9, 4, 3))
    )
    np.testing.assert_array_equal(
        samples.batch(rows)["targets"]["wrist"][0].numpy(), projection.targets(chunk)
    )


def test_rows_of_some_episodes():
    samples, *_ = data(np.random.default_rng(5))
    assert samples.rows_of(np.array([1])).tolist() == list(range(9, 14))


def test_augmentation_differs_by_sample_and_view_and_depends_on_the_generator_only():
    samples, *_ = data(np.random.default_rng(6))
    drawn = samples.draw_augmentation(8, AugmentConfig(), np.random.default_rng(7))
    assert len(np.unique(drawn["images"].reshape(16, -1), axis=0)) == 16
    again = samples.draw_augmentation(8, AugmentConfig(), np.random.default_rng(7))
    assert all(np.array_equal(drawn[name], again[name]) for name in drawn)
    none = samples.draw_augmentation(8, AugmentConfig(0, 0, 0, 0), np.random.default_rng(7))
    rows = np.arange(8)
    plain, same, other = samples.batch(rows), samples.batch(rows, none), samples.batch(rows, drawn)
    for view in ("third_person", "wrist"):
        assert torch.equal(plain["images"][view], same["images"][view])
        assert (plain["images"][view] != other["images"][view]).flatten(1).any(1).all()
    assert torch.equal(plain["state"], same["state"])
    noise = (other["state"] - plain["state"]).numpy() / samples.stats.state_std
    np.testing.assert_allclose(noise, drawn["state"], atol=1e-5)


def test_a_share_of_a_batch_is_augmented_as_in_the_full_batch():
    samples, *_ = data(np.random.default_rng(6))
    drawn, rows = (
        samples.draw_augmentation(8, AugmentConfig(), np.random.default_rng(7)),
        np.arange(8),
    )
    whole = samples.batch(rows, drawn)
    part = samples.batch(rows[1::2], {name: values[1::2] for name, values in drawn.items()})
    assert torch.equal(whole["images"]["wrist"][1::2], part["images"]["wrist"]) and torch.equal(
        whole["state"][1::2], part["state"]
    )


def test_a_shift_moves_the_image_and_repeats_its_border():
    images = np.zeros((25, 16, 16, 3), np.uint8)
    images[:, 8, 8] = 255
    shifts = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
    shifted = augment_images(images, np.array([(*shift, 1.0, 1.0) for shift in shifts]))
    assert [tuple(np.argwhere(picture[..., 0])[0]) for picture in shifted] == [
        (8 - down, 8 - right) for down, right in shifts
    ]


def test_brightness_and_contrast_change_levels_around_the_mean():
    images = np.full((2, 8, 8, 3), 100, np.uint8)
    images[:, :, 4:] = 140  # mean 120
    bright, flat = augment_images(images, np.array([(0, 0, 1.1, 1.0), (0, 0, 1.0, 0.5)]))
    assert bright[0, 0, 0] == 110 and bright[0, 7, 0] == 154
    assert flat[0, 0, 0] == 110 and flat[0, 7, 0] == 130
