"""Checks of states and actions: names, finite values, ranges, jumps, constant columns, and how the
action follows the state.

N: rows of all episodes together, n: columns.
"""

from dataclasses import replace

import numpy as np

from alam_core.data.checks.finding import Finding, Level, episodes_called
from alam_core.data.checks.following import check_following, check_order
from alam_core.data.checks.recorded import Recorded
from alam_core.data.checks.units import ends, in_other_units, is_piper
from alam_core.data.lerobot.features import name_fault
from alam_core.errors import listing
from alam_core.robots.piper import JOINT_NAMES, MAX_VELOCITY
from alam_core.robots.units import FAR, RANGES, likely_units
from alam_core.types import STD_FLOOR

JITTER = 1.5  # rows from a bag may be this much further apart than they say
SMALLEST_JUMP = 0.05  # rad, a smaller one may be noise
SMALL_EXCESS = 0.1  # of what counts as far outside the range; a calibration may explain it
FULL_TURN = 2 * np.pi
SPIKE = 0.25  # of the column's range
JUMPS = (
    "it wraps around by a full turn: unwrap the angle (numpy.unwrap)",
    "a single row is far from both its neighbours: a lost reading? Repair it",
    f"it moves faster than the arm can ({MAX_VELOCITY:g} rad/s): rows are missing, or the rate is "
    "not the one stated",
)


def check_numbers(recorded: Recorded) -> list[Finding]:
    """Findings about the states and actions of a data set that has any. Ranges and speeds are
    compared with the Piper's, for the columns that have its joints' names.
    """
    findings = check_names(recorded) + check_finite(recorded)
    if any(finding.level == "error" for finding in findings):
        return findings  # what follows needs finite numbers and unique names
    if order := check_order(recorded):
        return findings + check_constant(recorded) + order  # the rest needs the right names
    return (
        findings
        + check_ranges(recorded)
        + check_jumps(recorded)
        + check_constant(recorded)
        + check_following(recorded)
    )


def check_names(recorded: Recorded) -> list[Finding]:
    """Doubled names, joints that one of state and action lacks, and missing joints of the Piper."""
    findings = []
    for vector, names, _ in recorded.vectors():
        if fault := name_fault(names):
            findings.append(Finding("error", vector, f"it {fault}"))
        found = [name for name in JOINT_NAMES if name in names]
        if len(found) >= 3 and len(found) < len(JOINT_NAMES):
            lacking = [name for name in JOINT_NAMES if name not in names]
            findings.append(
                Finding(
                    "warning",
                    vector,
                    f"there is no {listing(lacking)}: if this is the Piper, a policy trained on "
                    "these data cannot drive the whole arm; record all its joints",
                )
            )
        elif all(name.isdigit() for name in names):
            findings.append(
                Finding(
                    "note",
                    vector,
                    "the columns have no names, so that they cannot be compared with an arm's "
                    "joints: write them in meta/info.json",
                )
            )
        elif not found:
            findings.append(
                Finding(
                    "note",
                    vector,
                    f"no column has the name of a Piper joint ({JOINT_NAMES[0]}, ..., "
                    f"{JOINT_NAMES[-1]}): ranges and speeds are not compared with the arm's",
                )
            )
    state, action = set(recorded.state_names), set(recorded.action_names)
    if state & action and (lacking := [n for n in recorded.action_names if n not in state]):
        findings.append(
            Finding(
                "warning",
                "state",
                f"no column for {listing(lacking)} of the action: the policy would command "
                "joints that it does not observe; record them",
            )
        )
    return findings


def check_finite(recorded: Recorded) -> list[Finding]:
    """NaN and infinite values, an error for each column with any."""
    findings = []
    numbers = recorded.numbers()
    for vector, names, arrays in recorded.vectors():
        wrong = [~np.isfinite(array) for array in arrays]
        counts = np.sum([bad.sum(0) for bad in wrong], axis=0)
        for column in np.flatnonzero(counts).tolist():
            at = next(i for i, bad in enumerate(wrong) if bad[:, column].any())
            row = int(np.flatnonzero(wrong[at][:, column])[0])
            findings.append(
                Finding(
                    "error",
                    f"{vector} '{names[column]}'",
                    f"{counts[column]} values are not finite, the first in episode {numbers[at]}, "
                    f"row {row}: repair or remove the episode",
                )
            )
    return findings


def check_ranges(recorded: Recorded) -> list[Finding]:
    """Values in other units than rad and m, or beyond the Piper's ranges."""
    findings: list[Finding] = []
    strange: dict[tuple[str, ...], Finding] = {}  # unit of each kind of column -> its finding
    for vector, names, arrays in recorded.vectors():
        columns = {name: list(names).index(name) for name in JOINT_NAMES if name in names}
        ours = is_piper(names, recorded.robot_type)
        far = [
            (e, hint)
            for e, array in zip(recorded.numbers(), arrays, strict=True)
            if (hint := likely_units(ends(array), names))
        ]
        if far:
            level: Level = "error" if ours else "warning"
            where = episodes_called(e for e, _ in far)
            hint = far[0][1] + ("" if ours else "; ignore this if it is another arm")
            units = (level, where, *(fault.partition(": ")[2] for fault in far[0][1].split("; ")))
            if units in strange:  # the state and the action, for one reason
                both = replace(strange[units], where=f"state and action, {where}")
                findings[findings.index(strange[units])] = both
            else:
                strange[units] = Finding(level, f"{vector}, {where}", hint)
                findings.append(strange[units])
            continue
        everything = np.concatenate(arrays)
        for name, column in columns.items():
            joint = JOINT_NAMES.index(name)
            lower, upper = RANGES[joint]
            excess = np.maximum(lower - everything[:, column], everything[:, column] - upper)
            share = float((excess > SMALL_EXCESS * FAR[joint]).mean())
            if share:
                findings.append(
                    Finding(
                        "warning" if share > 0.01 else "note",
                        f"{vector} '{name}'",
                        f"up to {excess.max():.3g} beyond the arm's range of {lower:g} to "
                        f"{upper:g}, in {share:.1%} of the rows: the controller will clamp them; "
                        "check the calibration",
                    )
                )
    return findings


def check_jumps(recorded: Recorded) -> list[Finding]:
    """Angles that wrap around, single rows far from both neighbours, and, for the Piper's joints,
    motions faster than the arm moves, unless they are in other units than rad.
    """
    findings = []
    for vector, names, arrays in recorded.vectors():
        span = np.ptp(np.concatenate(arrays), axis=0)  # (n,)
        limits = np.array([MAX_VELOCITY if name in JOINT_NAMES[:-1] else np.inf for name in names])
        limits = np.maximum(limits * JITTER / recorded.fps, SMALLEST_JUMP)  # rad per row, (n,)
        found: dict[str, list[tuple[float, int, int, int]]] = {what: [] for what in JUMPS}
        for e, array in zip(recorded.numbers(), arrays, strict=True):
            steps = np.diff(array.astype(np.float64), axis=0)  # (T-1, n)
            wrapped = (np.abs(np.abs(steps) - FULL_TURN) < 0.1 * FULL_TURN) & (
                span < 1.2 * FULL_TURN
            )
            lost = _lost(steps, span) if vector == "state" else np.zeros_like(wrapped)
            fast = (np.abs(steps) > limits) & ~wrapped & ~lost & ~_after(lost)
            fast[:, in_other_units(names, array)] = False
            for what, mask in zip(JUMPS, (wrapped, lost, fast), strict=True):
                found[what] += [
                    (float(abs(steps[t, column])), column, e, t + 1)
                    for t, column in np.argwhere(mask).tolist()
                ]
        for what, jumps in found.items():
            if jumps:
                size, column, e, row = max(jumps)
                findings.append(
                    Finding(
                        "warning",
                        f"{vector}, {episodes_called(sorted({jump[2] for jump in jumps}))}",
                        f"{len(jumps)} jumps, the largest in '{names[column]}' by {size:.3g} at "
                        f"row {row} of episode {e}: {what}",
                    )
                )
    return findings


def check_constant(recorded: Recorded) -> list[Finding]:
    """Columns that never change, and joints of the Piper that hardly move."""
    findings = []
    for vector, names, arrays in recorded.vectors():
        everything = np.concatenate(arrays).astype(np.float64)
        if len(everything) < 2:
            continue
        constant = np.ptp(everything, axis=0) <= 1e-6
        joint = np.array([name in JOINT_NAMES for name in names])
        still = joint & ~constant & (everything.std(0) < STD_FLOOR)
        if vector == "action" and constant.all():
            findings.append(
                Finding(
                    "error",
                    vector,
                    "no column ever changes, so that there is nothing to learn: is this the right "
                    "feature (--action)?",
                )
            )
            continue
        for mask, what in ((constant, "never changes"), (still, "hardly moves")):
            if mask.any():
                which = listing(repr(name) for name, hit in zip(names, mask, strict=True) if hit)
                findings.append(
                    Finding(
                        "warning" if vector == "state" and mask is constant else "note",
                        f"{vector} {which}",
                        f"{what}: a policy knows no other values of it; if it should, record it in "
                        "motion",
                    )
                )
    return findings


def _lost(steps: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Where, in the steps (T-1, n), a column leaves for a single row. span: its range, (n,)."""
    lost = np.zeros(steps.shape, bool)
    if len(steps) > 1:
        smaller = np.minimum(np.abs(steps[:-1]), np.abs(steps[1:]))
        lost[:-1] = (
            (steps[:-1] * steps[1:] < 0)
            & (smaller > np.maximum(SPIKE * span, 20 * np.median(np.abs(steps), axis=0)))
            & (np.abs(steps[:-1] + steps[1:]) < 0.2 * smaller)
        )
    return lost


def _after(mask: np.ndarray) -> np.ndarray:
    """(T-1, n) bool, True one row after a True."""
    later = np.zeros_like(mask)
    later[1:] = mask[:-1]
    return later
