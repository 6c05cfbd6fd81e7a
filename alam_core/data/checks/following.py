"""Checks how the action follows the state, for columns that have the same name in both: a set-point
is near the state, in the same units and the same order.

N: rows of all episodes together, n: columns that state and action share.
"""

import numpy as np

from alam_core.data.checks.finding import Finding
from alam_core.data.checks.recorded import Recorded
from alam_core.errors import listing

ENOUGH = 20  # rows; correlations of fewer mean nothing
FOLLOWS, UNRELATED = 0.95, 0.6  # correlation of an action with a state, above and below
FACTORS = (
    (180 / np.pi, "the action is in degrees, the state in rad"),
    (np.pi / 180, "the action is in rad, the state in degrees"),
    (1e3, "the action is in thousandths of the state's unit"),
    (1e-3, "the state is in thousandths of the action's unit"),
    (-1.0, "their signs are opposite"),
)


def check_following(recorded: Recorded) -> list[Finding]:
    """Actions that repeat the state, lie far from it, or follow another column of it."""
    shared = [name for name in recorded.action_names if name in set(recorded.state_names)]
    episodes = [episode for episode in recorded.episodes.values() if len(episode.state)]
    if not shared or not episodes:
        return []
    of_state = [list(recorded.state_names).index(name) for name in shared]
    of_action = [list(recorded.action_names).index(name) for name in shared]
    state = np.concatenate([e.state[:, of_state] for e in episodes]).astype(np.float64)  # (N, n)
    action = np.concatenate([e.action[:, of_action] for e in episodes]).astype(np.float64)
    if len(state) < ENOUGH:
        return []
    moving = (state.std(0) > 1e-6) & (action.std(0) > 1e-6)
    findings = []
    if moving.any() and (action[:, moving] == state[:, moving]).all():
        return [
            Finding(
                "warning",
                "action",
                "every action is the state of the same row, so that a policy learns to stay where "
                "it is: take the commands, or the state one row later",
            )
        ]
    columns = np.flatnonzero(moving)
    if not len(columns):
        return []
    s, a = (x[:, columns] - x[:, columns].mean(0) for x in (state, action))
    scale = np.outer(a.std(0), s.std(0)) * len(s)
    correlation = (a.T @ s) / scale  # (actions, states)
    slope = (a * s).sum(0) / (s * s).sum(0)
    names = [shared[i] for i in columns]
    away = np.median(np.abs(action[:, columns] - state[:, columns]), axis=0)
    far = []
    for i, name in enumerate(names):
        own, best = correlation[i, i], int(correlation[i].argmax())
        factor = next((why for f, why in FACTORS if abs(slope[i] / f - 1) < 0.1), "")
        if abs(own) > FOLLOWS and factor:
            findings.append(
                Finding(
                    "error",
                    f"action '{name}'",
                    f"it is {slope[i]:.3g} times the state of the same name: {factor}; convert one",
                )
            )
        elif own < UNRELATED and correlation[i, best] > FOLLOWS:
            findings.append(
                Finding(
                    "error",
                    f"action '{name}'",
                    f"it follows the state '{names[best]}', not '{name}': the columns have another "
                    "order than their names say; correct the names in meta/info.json",
                )
            )
        elif away[i] > 2 * s[:, i].std() + a[:, i].std():
            far.append(name)
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
