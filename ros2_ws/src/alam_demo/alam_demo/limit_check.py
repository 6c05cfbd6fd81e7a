"""Counts the set-points of an arm that break a limit, from their positions and times alone.

Velocity, acceleration and jerk are the divided differences of two, three and four set-points one
after another, times 1, 2 and 6. They are means of the derivatives, so a motion that keeps its
limits keeps them here too, whatever the lengths of its ticks. N: number of set-points.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from alam_core.robots.workspace import Workspace
from alam_core.runtime.motion import MotionLimits

KINDS = ("position", "velocity", "acceleration", "jerk", "workspace")
STALL = 4.0  # periods without a tick after which a set-point starts from rest, one period further
TOLERANCE = 1e-6  # relative
DEPTH = 1e-6  # m outside the workspace that are no violation
ROUNDING = 1e-14  # rad, of a position as a float


@dataclass
class LimitCount:
    """What was counted.

    set_points: how many were checked. broken: how many of them break a limit. by_kind: the same for
    each of KINDS. largest: the largest velocity, acceleration and jerk as parts of their limits.
    """

    set_points: int = 0
    broken: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    largest: dict[str, float] = field(default_factory=dict)

    def add(self, other: "LimitCount") -> None:
        """Add what another part of the same measurement counted."""
        self.set_points += other.set_points
        self.broken += other.broken
        self.by_kind += other.by_kind
        for kind, value in other.largest.items():
            self.largest[kind] = max(value, self.largest.get(kind, 0.0))

    def values(self) -> dict[str, object]:
        """For a result file."""
        return {
            "set_points": self.set_points,
            "limits_broken": self.broken,
            "limits_broken_by_kind": {kind: self.by_kind[kind] for kind in KINDS},
            "largest_part_of_limit": {k: round(v, 6) for k, v in self.largest.items()},
        }


def count_broken(
    times: np.ndarray,
    points: np.ndarray,
    fresh: np.ndarray,
    limits: MotionLimits,
    workspace: Workspace,
    period: float,
    clock_error: float = 0.0,
) -> LimitCount:
    """Count the set-points ``points`` (N, 7) that break a limit.

    times: (N,) s, of the ticks in which they were computed, increasing. fresh: (N,) whether a
    set-point starts anew, at rest, where the arm is measured to be. period: s, of the loop.
    clock_error: s by which the time between two ticks may differ from the truth; what it alone can
    explain is not counted.

    After more than STALL periods without a tick a set-point starts from rest. Where the arm was
    outside a limit of position or the workspace at a fresh start, it may only move inwards.
    """
    found = LimitCount(set_points=len(points))
    if not len(points):
        return found
    gaps = np.diff(times, prepend=times[0])
    stalled = (gaps > STALL * period) & ~fresh
    fresh = fresh.copy()
    fresh[0] = True
    starts = np.flatnonzero(fresh | stalled).tolist()
    broken = {kind: np.zeros(len(points), dtype=bool) for kind in KINDS}
    for start, end in zip(starts, [*starts[1:], len(points)], strict=True):
        before = points[start - 1] if stalled[start] and start else points[start]
        rest = times[start] - period * np.array([3.0, 2.0, 1.0])
        track = np.concatenate([np.tile(before, (3, 1)), points[start:end]])
        moments = np.concatenate([rest, times[start:end]])
        _check_derivatives(moments, track, limits, clock_error, broken, start, found.largest)
    last = np.vstack([points[:1], points[:-1]])
    last[fresh] = points[fresh]
    lower, upper = np.minimum(limits.lower, last), np.maximum(limits.upper, last)
    broken["position"] = ((points < lower - 1e-9) | (points > upper + 1e-9)).any(axis=1)
    depth = workspace.depth(points)
    depth_before = np.concatenate([depth[:1], depth[:-1]])
    depth_before[fresh] = depth[fresh]
    broken["workspace"] = depth > depth_before + DEPTH
    found.by_kind = Counter({kind: int(flags.sum()) for kind, flags in broken.items()})
    found.broken = int(np.any(list(broken.values()), axis=0).sum())
    return found


def _check_derivatives(
    times: np.ndarray,
    track: np.ndarray,
    limits: MotionLimits,
    clock_error: float,
    broken: dict[str, np.ndarray],
    start: int,
    largest: dict[str, float],
) -> None:
    """Check one motion without a break. The first three rows of ``track`` are before its first
    set-point, which is number ``start``.
    """
    values = track
    error = np.full_like(track, ROUNDING)
    bounds = {
        "velocity": limits.velocity,
        "acceleration": limits.acceleration,
        "jerk": limits.jerk,
    }
    for order, (kind, bound) in enumerate(bounds.items(), 1):
        span = (times[order:] - times[:-order])[:, None] / order
        values = np.diff(values, axis=0) / span
        error = (error[1:] + error[:-1] + np.abs(values) * clock_error) / span
        own = values[-(len(track) - 3) :]  # those that end at a set-point of this motion
        sure = np.abs(own) - error[-(len(track) - 3) :]
        bad = (sure > bound * (1.0 + TOLERANCE)).any(axis=1)
        broken[kind][start : start + len(bad)] |= bad
        part = float((np.maximum(sure, 0.0) / bound).max())
        largest[kind] = max(part, largest.get(kind, 0.0))
