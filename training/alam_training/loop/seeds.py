"""Random generators that depend on (seed, step) only, so that a resumed run draws the same
numbers.
"""

import numpy as np


def step_rng(seed: int, step: int, *stream: int) -> np.random.Generator:
    """Numpy generator of optimiser step ``step``. Draws for different purposes or ranks need
    different ``stream`` numbers.
    """
    return np.random.default_rng([seed, step, *stream])
