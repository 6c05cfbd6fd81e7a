"""The split of episodes: disjoint, complete, repeatable, and the same as in runs made before."""

import numpy as np
import pytest

from alam_core.errors import UserError
from alam_training.splits import split_episodes

STAGE1 = [1, 11, 72, 81, 99]  # held out of 100 episodes, 5 %
STAGE2 = [20, 36, 82]  # 3 %


def split(episodes: int, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return split_episodes(episodes, share, np.random.default_rng(seed))


def test_a_split_is_disjoint_complete_and_repeatable() -> None:
    training, held_out = split(100, 0.05)
    assert len(held_out) == 5 and not set(training) & set(held_out)
    assert set(training) | set(held_out) == set(range(100))
    assert np.array_equal(held_out, split(100, 0.05)[1])
    assert [len(part) for part in split(2, 0.05)] == [1, 1]


def test_both_stages_hold_out_the_episodes_of_runs_made_before() -> None:
    """A run that is resumed must not train on what it held out."""
    _, stage1 = split_episodes(100, 0.05, np.random.default_rng([0, 100]))
    _, stage2 = split_episodes(100, 0.03, np.random.default_rng(0))
    assert stage1.tolist() == STAGE1 and stage2.tolist() == STAGE2


@pytest.mark.parametrize(
    ("episodes", "share", "words"),
    [(1, 0.05, "cannot be split"), (9, 0.0, "between 0 and 1"), (9, 1.0, "between 0 and 1")],
)
def test_a_split_that_cannot_be_is_refused(episodes: int, share: float, words: str) -> None:
    with pytest.raises(UserError, match=words):
        split(episodes, share)
