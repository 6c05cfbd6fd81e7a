"""The split of a data set's episodes into a training set and a held-out set."""

import numpy as np

from alam_core.errors import UserError


def split_episodes(
    episodes: int, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and of the held-out episodes, both ascending, at least one of each.

    share: fraction of the episodes to hold out, between 0 and 1. Raises UserError if there are
    fewer than two episodes or the share is out of range.
    """
    if episodes < 2:
        raise UserError(
            f"{episodes} episode(s) cannot be split: at least 2 are needed, one to train on and "
            "one to hold out"
        )
    if not 0 < share < 1:
        raise UserError(f"a share of {share} cannot be held out: give one between 0 and 1")
    count = int(np.clip(round(share * episodes), 1, episodes - 1))
    order = rng.permutation(episodes)
    return np.sort(order[count:]), np.sort(order[:count])
