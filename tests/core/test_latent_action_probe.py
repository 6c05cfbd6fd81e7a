"""The action probe: on transitions of which it is known what they say about the action."""

import numpy as np
import pytest

from alam_core.errors import UserError
from alam_core.latent_action.action_probe import Spans, action_probe, principal_components, r2

EPISODES, LENGTH = 60, 30


def spans(seed: int = 0) -> Spans:
    """Actions that change the state; one view shows the action bent, one shows nothing."""
    rng = np.random.default_rng(seed)
    count = EPISODES * LENGTH
    action = rng.normal(size=(count, 2)).repeat(1, 0)
    state = rng.normal(size=(count, 3))
    mix = rng.normal(size=(2, 6))
    seen = action @ mix + 0.3 * np.sin(2 * action) @ mix[::-1] + 0.02 * rng.normal(size=(count, 6))
    return Spans(
        state,
        np.pad(action, ((0, 0), (0, 1))),
        action + 0.1 * state[:, :2],
        np.repeat(np.arange(EPISODES) % 3, LENGTH),
        np.repeat(np.arange(EPISODES), LENGTH),
        {"top": seen, "wall": rng.normal(size=(count, 6))},
    )


def labelled(count: int) -> dict[int, list[int]]:
    return {count: list(range(3 * count))}


def test_it_tells_which_transitions_say_something() -> None:
    found = action_probe(spans(), labelled(5) | labelled(2), 6, ["x", "y"])
    assert found["r2"]["5"] > 0.9 and found["r2_motion"]["5"] > 0.95
    assert found["views"]["top"] > 0.9
    assert found["r2_without_z"]["5"] < 0.1 and found["views"]["wall"] < 0.1
    assert set(found["dimensions"]) == {"x", "y"}
    assert np.mean(list(found["dimensions"].values())) == pytest.approx(found["r2"]["5"])
    assert found["r2"]["2"] < found["r2"]["5"]


def test_labels_of_test_episodes_are_not_used() -> None:
    data = spans()
    chosen = data.episode < 15
    known = data.known(["top"], 6)
    before = r2(known, data, chosen)
    shuffled = np.random.default_rng(1).permutation(np.flatnonzero(~chosen))
    data.action[~chosen] = data.action[shuffled]
    assert r2(known, data, chosen).max() < 0 < before.min()


def test_principal_components_are_white_and_ordered() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2000, 5)) @ np.diag([5.0, 3.0, 1.0, 0.5, 0.1]) + 7.0
    parts = principal_components(z, 3)
    np.testing.assert_allclose(np.cov(parts.T), np.eye(3), atol=0.01)
    assert abs(np.corrcoef(parts[:, 0], z[:, 0])[0, 1]) > 0.99
    assert principal_components(z, 99).shape == (2000, 5)
    assert np.isfinite(principal_components(np.ones((10, 4)), 2)).all()


def test_two_episodes_are_needed_on_either_side() -> None:
    data = spans()
    for chosen in (data.episode == 0, data.episode > 0):
        with pytest.raises(UserError, match="at least two labelled episodes and two others"):
            r2(data.known([], 6), data, chosen)
