"""Checks how the action follows the state, for columns that have the same name in both: a set-point
is near the state, in the same units and the same order.

N: rows of all episodes together, n: columns that state and action share.
"""

from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from alam_core.data.checks.finding import Finding
from alam_core.data.checks.recorded import Recorded
from alam_core.data.checks.units import in_other_units
from alam_core.errors import listing

ENOUGH = 20  # rows; correlations of fewer mean nothing
LAGS = 0.9  # of the rows; the first row of an episode has no row before it
FOLLOWS, UNRELATED = 0.95, 0.6  # correlation of an action with a state, above and below
FACTORS = (
    (180 / np.pi, "the action is in degrees, the state in rad"),
    (np.pi / 180, "the action is in rad, the state in degrees"),
    (1e3, "the action is in thousandths of the state's unit"),
    (1e-3, "the state is in thousandths of the action's unit"),
    (-1.0, "their signs are opposite"),
)


class _Compared(NamedTuple):
    """Shared columns that move in state and action. state, action: (N, n)."""

    names: list[str]
    state: np.ndarray
    action: np.ndarray

    def centred(self) -> tuple[np.ndarray, np.ndarray]:
        return self.state - self.state.mean(0), self.action - self.action.mean(0)


def check_order(recorded: Recorded) -> list[Finding]:
    """One finding for all actions that follow another column of the state than that of their
    name.
    """
    compared = _compared(recorded)
    if not compared.names:
        return []
    s, a = compared.centred()
    correlation = (a.T @ s) / (np.outer(a.std(0), s.std(0)) * len(s))  # (actions, states)
    best, slope = correlation.argmax(1), _slope(s, a)
    followed = {
        name: compared.names[best[i]]
        for i, name in enumerate(compared.names)
        if correlation[i, i] < UNRELATED
        and correlation[i, best[i]] > FOLLOWS
        and not (correlation[i, i] < -FOLLOWS and _factor(slope[i]))
    }
    if not followed:
        return []
    likely = [followed.get(name, name) for name in recorded.action_names]
    pairs = listing(f"'{action}' follows '{state}'" for action, state in followed.items())
    order = (
        f": if the state's names are right, the likely order of the action's is {', '.join(likely)}"
        if len({*likely}) == len(likely)
        else ""
    )
    return [
        Finding(
            "error",
            f"action {listing(map(repr, followed))}",
            f"they follow other columns of the state ({pairs}): state or action has its columns in "
            f"another order than its names say; correct the names in meta/info.json{order}",
        )
    ]


def check_following(recorded: Recorded) -> list[Finding]:
    """Actions that repeat the state or lie far from it. Columns in other units than rad and m are
    left out: that is a finding of its own.
    """
    compared = _compared(recorded, _in_other_units(recorded))
    if not compared.names:
        return []
    if (compared.action == compared.state).all():
        return [
            Finding(
                "warning",
                "action",
                "every action is the state of the same row, so that a policy learns to stay where "
                "it is: take the commands, or the state one row later",
            )
        ]
    before = (compared.action[1:] == compared.state[:-1]).all(1).mean()
    after = (compared.action[:-1] == compared.state[1:]).all(1).mean()
    if before > LAGS > after:
        return [
            Finding(
                "error",
                "action",
                "the actions are the states of the row before, so that a policy learns to go back: "
                "take the commands, or the state one row later",
            )
        ]
    s, a = compared.centred()
    slope = _slope(s, a)
    correlation = (a * s).mean(0) / (a.std(0) * s.std(0))
    away = np.median(np.abs(compared.action - compared.state), axis=0)
    findings = []
    scaled: dict[str, list[int]] = defaultdict(list)
    far = []
    for i, name in enumerate(compared.names):
        factor = _factor(slope[i])
        if abs(correlation[i]) > FOLLOWS and factor:
            scaled[factor].append(i)
        elif away[i] > 2 * s[:, i].std() + a[:, i].std():
            far.append(name)
    for factor, found in scaled.items():
        findings.append(
            Finding(
                "error",
                f"action {listing(repr(compared.names[i]) for i in found)}",
                f"it is {slope[found[0]]:.3g} times the state of the same name: {factor}; convert "
                "one",
            )
        )
    if far:
        findings.append(
            Finding(
                "warning",
                f"action {listing(map(repr, far))}",
                "it is far from the state of the same name: if the actions are differences or "
                "velocities, give them other names, and no relative_joints; else check the units",
            )
        )
    return findings


def _slope(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    """By how much each centred action (N, n) changes with its state, (n,)."""
    return np.asarray((action * state).sum(0) / (state * state).sum(0))


def _factor(slope: float) -> str:
    """What a slope other than 1 is due to; "" if that is not known."""
    return next((why for factor, why in FACTORS if abs(slope / factor - 1) < 0.1), "")


def _compared(recorded: Recorded, left_out: Collection[str] = ()) -> _Compared:
    """The columns that state and action share, but for those ``left_out``; none if there are too
    few rows.
    """
    known = set(recorded.state_names) - set(left_out)
    shared = [name for name in recorded.action_names if name in known]
    episodes = [episode for episode in recorded.episodes.values() if len(episode.state)]
    if not shared or sum(len(episode.state) for episode in episodes) < ENOUGH:
        return _Compared([], np.zeros((0, 0)), np.zeros((0, 0)))
    of_state = [list(recorded.state_names).index(name) for name in shared]
    of_action = [list(recorded.action_names).index(name) for name in shared]
    state = np.concatenate([e.state[:, of_state] for e in episodes]).astype(np.float64)  # (N, n)
    action = np.concatenate([e.action[:, of_action] for e in episodes]).astype(np.float64)
    moving = np.flatnonzero((state.std(0) > 1e-6) & (action.std(0) > 1e-6))
    return _Compared([shared[i] for i in moving], state[:, moving], action[:, moving])


def _in_other_units(recorded: Recorded) -> set[str]:
    """Names of the columns of state or action that are not in rad and m in some episode."""
    return {
        str(name)
        for _, names, arrays in recorded.vectors()
        for array in arrays
        for name in np.array(names, object)[in_other_units(names, array)]
    }
