"""Notices joint values that are not in rad and m: degrees, millimetres, the SDK's own units.

Values are compared with the Piper's ranges. Only values far outside count, so that a joint that
was pushed a little over its limit, or calibrated a little off, is not taken for another unit.
"""

from collections.abc import Sequence

import numpy as np

from alam_core.robots.piper import GRIPPER_STROKE, JOINT_LIMITS, JOINT_NAMES

GRIPPER = JOINT_NAMES[-1]
RANGES = np.vstack([JOINT_LIMITS, (0.0, GRIPPER_STROKE)])
"""(7, 2) rad and m: lower and upper end of each of JOINT_NAMES."""
FAR = np.array([0.5] * len(JOINT_LIMITS) + [0.05])  # rad and m beyond an end of the range

NO_UNIT = "it fits no unit of the Piper"

# What a value far outside may be, smallest first: the unit, units per rad or m, and how to convert.
_ANGLES = (
    ("degrees", 180 / np.pi, "multiply all angles by pi / 180"),
    ("the SDK's 0.001 degrees", 180e3 / np.pi, "multiply all angles by pi / 180000"),
)
_OPENINGS = (
    (
        "fractions of the full opening (0 to 1)",
        1 / GRIPPER_STROKE,
        f"multiply it by {GRIPPER_STROKE}",
    ),
    ("millimetres or percent", 1e3, "divide it by 1000"),
    ("the SDK's 0.001 mm", 1e6, "divide it by 1000000"),
)


def likely_units(values: np.ndarray, names: Sequence[str] = JOINT_NAMES) -> str:
    """What is wrong with the units of joint values (..., A), as a sentence without its end: the
    column that is furthest outside the Piper's range, and what unit it seems to have. "" if no
    value is far outside. One wrong value is enough; of long recordings, give quantiles.

    names: of the A columns; columns that are not the Piper's are ignored, as are values that are
    not finite.
    """
    findings = []
    for kind, units in ((JOINT_NAMES[:-1], _ANGLES), ((GRIPPER,), _OPENINGS)):
        columns = [(list(names).index(n), JOINT_NAMES.index(n)) for n in kind if n in names]
        if not columns:
            continue
        here, there = (list(c) for c in zip(*columns, strict=True))
        rows = np.asarray(values, float)[..., here].reshape(-1, len(here))  # (N, columns)
        rows = np.where(np.isfinite(rows), rows, RANGES[there].mean(1))
        excess = _excess(rows, there)
        if (excess <= 1.0).all():
            continue
        row, column = np.unravel_index(excess.argmax(), excess.shape)
        lower, upper = RANGES[there[column]]
        hint = next(
            (
                f"it seems to be in {unit}, {convert}"
                for unit, scale, convert in units
                if (_excess(rows / scale, there) <= 1.0).all() and _possible(rows, kind)
            ),
            f"{NO_UNIT}; are these differences, or another column's values?",
        )
        findings.append(
            f"{JOINT_NAMES[there[column]]} is {rows[row, column]:.6g}, but its range is "
            f"{lower:.6g} to {upper:.6g} {'m' if kind == (GRIPPER,) else 'rad'}: {hint}"
        )
    return "; ".join(findings)


def _possible(rows: np.ndarray, kind: Sequence[str]) -> bool:
    """Whether values (N, columns) may be in another unit: an opening is never negative, and angles
    within a full turn may well be in rad.
    """
    if kind == (GRIPPER,):
        return bool(rows.min() >= 0)
    return bool(np.abs(rows).max() > 2 * np.pi)


def _excess(rows: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """How far values (N, columns) are outside their ranges, 1 where ``FAR`` begins."""
    beyond = np.maximum(RANGES[columns, 0] - rows, rows - RANGES[columns, 1])
    return beyond / FAR[columns]
