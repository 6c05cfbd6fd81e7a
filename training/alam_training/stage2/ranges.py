"""What is told about the ranges of recorded states and actions: units, the arm's limits, and
dimensions that hardly move.

T: rows, A: columns. Only columns of the Piper are compared with its ranges.
"""

from collections.abc import Sequence

import numpy as np

from alam_core.robots.piper import JOINT_NAMES
from alam_core.robots.units import RANGES, likely_units

UNNAMED = ("", "unknown", "ros2")  # robot types that name no arm; "ros2": converted from a bag
TOLERANCE = 0.01  # rad and m beyond the arm's range that are not worth a word


def is_piper(names: Sequence[str], robot_type: object) -> bool:
    """Whether columns are the Piper's: they have all its names, and the data set names no other
    arm. Other arms with six joints have the same names and other ranges.
    """
    robot = str(robot_type or "").lower()
    return set(JOINT_NAMES) <= set(names) and (robot in UNNAMED or "piper" in robot)


def wrong_units(names: Sequence[str], values: np.ndarray, robot_type: object) -> str:
    """In which units the values (T, A) of an episode seem to be, see ``likely_units``; "" if they
    are in rad and m, or not the Piper's. A few stray rows do not count.
    """
    if not len(values) or not is_piper(names, robot_type):
        return ""
    return likely_units(np.quantile(values, [0.01, 0.99], axis=0), names)


def beyond_the_robot(
    feature: str, names: Sequence[str], values: np.ndarray, robot_type: object
) -> str:
    """Which values (T, A) lie a little outside the Piper's ranges, for a warning; "" if none do."""
    if not is_piper(names, robot_type):
        return ""
    rows = values[:, [list(names).index(name) for name in JOINT_NAMES]]
    excess = np.maximum(RANGES[:, 0] - rows, rows - RANGES[:, 1]).max(0)  # (7,)
    found = [
        f"{name} by up to {excess[i]:.2g} {'m' if name == JOINT_NAMES[-1] else 'rad'}"
        for i, name in enumerate(JOINT_NAMES)
        if excess[i] > TOLERANCE
    ]
    if not found:
        return ""
    return (
        f"{feature} leaves the Piper's range: {', '.join(found)}; the arm's controller clamps what "
        "lies outside. Check the zero positions of the recorded arm"
    )


def hardly_moving(feature: str, names: Sequence[str], values: np.ndarray, floor: float) -> str:
    """Which columns of the values (T, A) have a standard deviation below ``floor``, for a warning;
    "" if none have.
    """
    still = [name for name, std in zip(names, values.std(0), strict=True) if std < floor]
    if not still:
        return ""
    return (
        f"{feature} hardly moves in {', '.join(still)} (standard deviation below --std_floor "
        f"{floor:g}): a policy learns nothing about what changes with them"
    )
