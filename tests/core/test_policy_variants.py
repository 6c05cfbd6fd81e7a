"""Policies other than the default: two stages, learned projections, given first steps, and
interventions on the latents.
"""

import pytest
import torch
from policy_fixtures import random_batch, tiny_policy

from alam_core.errors import UserError
from alam_core.policy.sequence import ACTION

VIEWS = ("third_person", "wrist")


def sample(policy, batch, seed=0, **kwargs):
    return policy.sample(
        batch["images"],
        batch["state"],
        batch["words"],
        torch.Generator().manual_seed(seed),
        **kwargs,
    )


def training_inputs(policy, batch, monkeypatch):
    """What the network was given in one training pass: streams and times."""
    seen = {}
    predict = policy.predict

    def spy(x, tau, context, mask=None):
        seen["x"], seen["tau"] = x, tau
        return predict(x, tau, context, mask)

    monkeypatch.setattr(policy, "predict", spy)
    losses = policy(**batch)
    return seen["x"], seen["tau"], losses


def test_two_stages_train_latents_in_some_draws_and_actions_given_finished_latents_in_the_others(
    monkeypatch,
):
    policy = tiny_policy(coupling="two_stage")
    batch = random_batch(policy, 4, draws=5)
    planning = batch["drawn"]["planning"].flatten()
    assert 0 < planning.sum() < 20
    x, tau, _ = training_inputs(policy, batch, monkeypatch)
    for view in VIEWS:
        truth = batch["targets"][view].repeat_interleave(5, 0)
        assert (tau[view][planning] > 0).all() and (tau[view][~planning] == 0).all()
        assert torch.equal(x[view][~planning], truth[~planning])
        assert (x[view][planning] - truth[planning]).abs().amax((1, 2)).min() > 0.01
    assert (tau[ACTION] > 0).all()


def test_with_two_stages_each_loss_counts_only_its_own_draws():
    policy = tiny_policy(coupling="two_stage")
    batch = random_batch(policy, 5)
    planning = batch["drawn"]["planning"].flatten()
    before = policy(**batch)
    batch["targets"] = {name: value.clone() for name, value in batch["targets"].items()}
    batch["targets"][ACTION][planning] += 5.0  # the actions of the draws that train latents
    after = policy(**batch)
    for name in (*VIEWS, ACTION):
        torch.testing.assert_close(before[name], after[name])
    batch["targets"][ACTION][~planning] += 5.0
    assert (policy(**batch)[ACTION] - before[ACTION]).abs() > 0.01


def test_two_stages_finish_the_latents_before_the_actions_begin(monkeypatch):
    policy = tiny_policy(coupling="two_stage")
    batch = random_batch(policy, 2)
    seen = []
    predict = policy.predict
    monkeypatch.setattr(
        policy, "predict", lambda x, tau, *rest: seen.append((x, tau)) or predict(x, tau, *rest)
    )
    _, latents = sample(policy, batch)
    assert len(seen) == 6
    for x, tau in seen[3:]:
        assert all(torch.equal(x[view], latents[view]) and (tau[view] == 0).all() for view in VIEWS)
    assert [round(float(tau[ACTION][0]), 3) for _, tau in seen[3:]] == [1.0, 0.667, 0.333]


def test_two_stages_refuse_latents_that_attend_to_actions():
    with pytest.raises(UserError, match="two stages need latents that do not"):
        tiny_policy(coupling="two_stage", mask="block_causal")


@pytest.mark.parametrize("views", [(), VIEWS])
def test_a_shorter_chunk_is_the_start_of_the_full_one_for_the_same_noise(views, monkeypatch):
    policy = tiny_policy(views)
    batch = random_batch(policy, 2)
    noise = {name: torch.randn(2, 4, width) for name, width in policy.stream_widths().items()}
    monkeypatch.setattr(
        policy,
        "_noise",
        lambda like, generator=None: {
            name: noise[name][:, : y.shape[1]] for name, y in like.items()
        },
    )
    whole, whole_latents = sample(policy, batch)
    short, short_latents = sample(policy, batch, horizon=2)
    torch.testing.assert_close(short, whole[:, :2])
    assert all(
        torch.allclose(short_latents[view], whole_latents[view][:, :2], atol=1e-6) for view in views
    )


def test_given_first_steps_are_kept_and_the_rest_continues_from_them():
    policy = tiny_policy(given_steps=2)
    batch = random_batch(policy)
    free, _ = sample(policy, batch)
    given = free[:, :2] + 0.3
    after, _ = sample(policy, batch, given=given)
    torch.testing.assert_close(after[:, :2], given)
    other, _ = sample(policy, batch, given=given + 0.3)
    assert (after[:, 2:] - other[:, 2:]).abs().amax((1, 2)).min() > 1e-4


def test_training_gives_first_steps_without_noise_and_does_not_count_them(monkeypatch):
    policy = tiny_policy(given_steps=2)
    batch = random_batch(policy, 5, draws=20)
    x, tau, losses = training_inputs(policy, batch, monkeypatch)
    given = (tau[ACTION] == 0)[..., 0]  # (N, H)
    assert torch.equal(given.sum(1), batch["drawn"]["given"].flatten()) and set(
        given.sum(1).tolist()
    ) == {0, 1, 2}
    assert not given[:, 2:].any()
    assert torch.equal(x[ACTION][given], batch["targets"][ACTION].repeat_interleave(20, 0)[given])
    always = random_batch(policy, 5)
    always["drawn"]["given"].fill_(2)
    monkeypatch.undo()
    before = policy(**always)[ACTION]
    monkeypatch.setattr(
        policy.process, "target", lambda data, noise, tau: torch.where(tau > 0, noise - data, 100.0)
    )
    torch.testing.assert_close(policy(**always)[ACTION], before)


@pytest.mark.parametrize(
    ("given", "horizon", "message"),
    [(3, None, "at most 2"), (1, 1, "chunk of 1"), (0, 5, "trained on 4")],
)
def test_requests_that_a_policy_was_not_trained_for_are_refused(given, horizon, message):
    policy = tiny_policy(given_steps=2)
    batch = random_batch(policy)
    with pytest.raises(UserError, match=message):
        sample(policy, batch, given=torch.zeros(3, given, 7) if given else None, horizon=horizon)


def test_frozen_latents_stay_at_noise_and_change_the_actions():
    policy = tiny_policy()
    batch = random_batch(policy)
    actions, _ = sample(policy, batch)
    frozen, latents = sample(policy, batch, intervention="freeze")
    generator = torch.Generator().manual_seed(0)
    for view in VIEWS:
        assert torch.equal(latents[view], torch.randn(3, 4, 3, generator=generator))
    assert (frozen - actions).abs().amax((1, 2)).min() > 1e-4


def test_blocked_actions_do_not_depend_on_latents(monkeypatch):
    policy = tiny_policy()
    batch = random_batch(policy)
    noise = {name: torch.randn(3, 4, width) for name, width in policy.stream_widths().items()}
    monkeypatch.setattr(policy, "_noise", lambda like, generator=None: noise)
    before, _ = sample(policy, batch, intervention="block")
    free, _ = sample(policy, batch)
    noise |= {view: torch.randn(3, 4, 3) for view in VIEWS}
    after, _ = sample(policy, batch, intervention="block")
    assert torch.equal(before, after)
    assert (free - before).abs().max() > 1e-4


def test_shuffling_leaves_the_latents_as_they_are_and_changes_the_actions():
    policy = tiny_policy()
    batch = random_batch(policy)
    actions, latents = sample(policy, batch)
    shuffled, same = sample(policy, batch, intervention="shuffle")
    assert all(torch.equal(latents[view], same[view]) for view in VIEWS)
    assert (shuffled - actions).abs().amax((1, 2)).min() > 1e-4


def test_an_intervention_needs_latents_and_a_known_name():
    with pytest.raises(UserError, match="this policy has no latents"):
        sample(tiny_policy(()), random_batch(tiny_policy(())), intervention="block")
    with pytest.raises(UserError, match="freeze, block, shuffle"):
        sample(tiny_policy(), random_batch(tiny_policy()), intervention="erase")


def test_shared_noise_is_shared_by_the_views_and_not_by_the_actions(monkeypatch):
    policy = tiny_policy(shared_noise=True)
    like = {name: torch.zeros(2, 4, width) for name, width in policy.stream_widths().items()}
    noise = policy._noise(like)
    assert torch.equal(noise["wrist"], noise["third_person"])
    assert not torch.equal(noise[ACTION][..., :3], noise["wrist"])


@pytest.mark.parametrize(
    ("projection", "through_targets"), [("learned", True), ("detached", False)]
)
def test_a_learned_projection_is_trained_through_its_targets_only_where_asked(
    projection, through_targets
):
    # It predicts 0 for any input: only targets can carry a gradient.
    policy = tiny_policy(projection=projection, noise=0.0)
    losses = policy(**random_batch(policy))
    losses["total"].backward()
    gradient = policy.projections["wrist"].weight.grad
    assert (gradient is not None and gradient.abs().max() > 0) == through_targets
    assert losses["wrist_variance"] > 0


def test_a_projection_that_collapses_is_seen_in_its_variance():
    policy = tiny_policy(projection="learned")
    with torch.no_grad():
        policy.projections["wrist"].weight.zero_()
    losses = policy(**random_batch(policy))
    assert losses["wrist_variance"] < 1e-12 < losses["third_person_variance"]


def test_learned_latents_map_back_to_transitions_that_project_to_them():
    policy = tiny_policy(projection="learned")
    stream = torch.randn(2, 4, 3)
    z = policy.transitions("wrist", stream)
    again = policy.projections["wrist"](torch.from_numpy(policy.stats.latents["wrist"].project(z)))
    torch.testing.assert_close(again, stream, atol=1e-4, rtol=1e-4)
