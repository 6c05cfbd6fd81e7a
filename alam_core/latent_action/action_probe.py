"""How much transitions say about actions, if few episodes have labels: ``action_r2``.

A transition is useful to a policy if the action can be read from it. The probe predicts the mean
action of a span of frames from the transition over the span, the state at its start and the task.
It is fitted on a few labelled episodes and tested on all the others, in seconds, where training
and evaluating a policy takes an hour.

Letters: N spans, S state width, A action width, K tasks, F numbers of a transition, P principal
components of it, X numbers that are known.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from alam_core.errors import UserError

FEATURES = 500  # random features beside the numbers themselves
FOLDS = 3  # of the labelled episodes, to choose the ridge
RIDGES = tuple(10.0 ** np.arange(-1, 5))
DRAWS = 3  # of the random features; the results are averaged


@dataclass
class Spans:
    """Spans of equal length of the episodes of a data set, one per row.

    state, change: (N, S), the state at the start, and its difference to the end. action: (N, A),
    the mean over the span. task: int (N,), number of the instruction. episode: int (N,). latents:
    view -> transitions from the start to the end, (N, F).
    """

    state: np.ndarray
    change: np.ndarray
    action: np.ndarray
    task: np.ndarray
    episode: np.ndarray
    latents: Mapping[str, np.ndarray]

    def known(self, views: Sequence[str], width: int, change: bool = False) -> np.ndarray:
        """(N, X): state and task; the P = ``width`` first principal components of the transitions
        of ``views``, or all if F is smaller; with ``change``, the state's difference.
        """
        parts = [self.state, np.eye(self.task.max() + 1)[self.task]]
        parts += [principal_components(self.latents[view], width) for view in views]
        return np.concatenate([*parts, *([self.change] if change else [])], axis=1)


def action_probe(
    spans: Spans,
    labelled: Mapping[int, Collection[int]],
    width: int,
    names: Sequence[str],
) -> dict[str, dict[str, float]]:
    """R^2 of predicted actions, averaged over the dimensions, as tables by the number of labelled
    episodes a task, unless said.

    ``r2``: from the transitions of all views, state and task. ``r2_without_z``: from state and task
    alone. ``r2_motion``: from the state's own difference instead of transitions, which is what a
    perfect eye for motion would see. ``views``: from one view's transitions, and ``dimensions``:
    ``r2`` of each action dimension, for the first of the numbers.

    labelled: number of labelled episodes a task -> the episodes. width: principal components of
    each view. names: of the action's dimensions.
    """
    rows = {n: np.isin(spans.episode, list(chosen)) for n, chosen in labelled.items()}
    first = next(iter(rows.values()))
    views = list(spans.latents)

    def table(known: np.ndarray) -> dict[str, float]:
        return {str(n): float(r2(known, spans, chosen).mean()) for n, chosen in rows.items()}

    everything = spans.known(views, width)
    return {
        "r2": table(everything),
        "r2_without_z": table(spans.known([], width)),
        "r2_motion": table(spans.known([], width, change=True)),
        "views": {
            view: float(r2(spans.known([view], width), spans, first).mean()) for view in views
        },
        "dimensions": dict(zip(names, r2(everything, spans, first).tolist(), strict=True)),
    }


def r2(known: np.ndarray, spans: Spans, labelled: np.ndarray) -> np.ndarray:
    """R^2 (A,) of the actions on the spans outside ``labelled`` (N,) bool, predicted from ``known``
    (N, X) by a ridge regression on random features that is fitted on the spans inside.

    Raises UserError if either part has fewer than two episodes.
    """
    episodes = np.unique(spans.episode[labelled])
    if len(episodes) < 2 or len(np.unique(spans.episode[~labelled])) < 2:
        raise UserError(
            "the action probe needs at least two labelled episodes and two others: change the "
            "number of labelled episodes"
        )
    known = (known - known[labelled].mean(0)) / (known[labelled].std(0) + 1e-6)
    centre, scale = spans.action[labelled].mean(0), spans.action[labelled].std(0) + 1e-6
    target = (spans.action - centre) / scale
    predictions = []
    for draw in range(DRAWS):
        features = random_features(known, draw)
        predictions.append(_ridge(features, target, labelled, spans.episode, episodes))
    truth, prediction = target[~labelled], np.mean(predictions, axis=0)
    error = np.square(truth - prediction).sum(0)
    return 1.0 - error / (np.square(truth - truth.mean(0)).sum(0) + 1e-12)


def principal_components(z: np.ndarray, width: int) -> np.ndarray:
    """The ``width`` first principal components of z (N, F), or F if it has fewer: (N, P), each
    divided by its standard deviation.
    """
    centred = z.astype(np.float64) - z.mean(0)
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(z))
    order = np.argsort(variances)[::-1][:width]
    scale = np.sqrt(np.maximum(variances[order], 1e-4 * variances[order[0]] + 1e-12))
    return centred @ vectors[:, order] / scale


def random_features(known: np.ndarray, seed: int) -> np.ndarray:
    """``known`` (N, X), ``FEATURES`` tanh of random combinations of it, and a constant 1."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(known.shape[1], FEATURES)) / np.sqrt(known.shape[1])
    curved = np.tanh(known @ mix + rng.uniform(-1, 1, FEATURES))
    return np.concatenate([curved, known, np.ones((len(known), 1))], axis=1)


def _ridge(
    features: np.ndarray,
    target: np.ndarray,
    labelled: np.ndarray,
    episode: np.ndarray,
    episodes: np.ndarray,
) -> np.ndarray:
    """Predictions for the rows outside ``labelled``. The ridge is the one that predicts labelled
    episodes best that were left out of the fit: rows of one episode are too similar to tell.
    """
    x, y, own = features[labelled], target[labelled], episode[labelled]
    folds = np.array_split(
        np.random.default_rng(0).permutation(episodes), min(FOLDS, len(episodes))
    )
    error = np.zeros(len(RIDGES))
    for fold in folds:
        left_out = np.isin(own, fold)
        for i, weights in enumerate(_weights(x[~left_out], y[~left_out], RIDGES)):
            error[i] += np.square(y[left_out] - x[left_out] @ weights).sum()
    (weights,) = _weights(x, y, [RIDGES[int(error.argmin())]])
    return features[~labelled] @ weights


def _weights(x: np.ndarray, y: np.ndarray, ridges: Sequence[float]) -> list[np.ndarray]:
    """The weights of a ridge regression for each of ``ridges``."""
    gram, moments, one = x.T @ x, x.T @ y, np.eye(x.shape[1])
    return [linalg.solve(gram + ridge * one, moments, assume_a="pos") for ridge in ridges]
