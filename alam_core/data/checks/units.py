"""Whether recorded values are in the units of the Piper.

T: rows, A: columns.
"""

from collections.abc import Sequence

import numpy as np

from alam_core.robots.piper import JOINT_NAMES
from alam_core.robots.units import NO_UNIT, likely_units

UNNAMED = ("", "unknown", "ros2")  # robot types that name no arm; "ros2": converted from a bag


def is_piper(names: Sequence[str], robot_type: object) -> bool:
    """Whether columns are the Piper's: they have all its names, and the data set names no other
    arm. Other arms with six joints have the same names and other ranges.
    """
    robot = str(robot_type or "").lower()
    return set(JOINT_NAMES) <= set(names) and (robot in UNNAMED or "piper" in robot)


def ends(values: np.ndarray) -> np.ndarray:
    """Lower and upper end (2, A) of the values (T, A), without a few stray rows."""
    return np.quantile(values, [0.01, 0.99], axis=0)


def in_other_units(names: Sequence[str], values: np.ndarray) -> np.ndarray:
    """Which of the columns of values (T, A) are the Piper's in other units than rad and m, bool
    (A,): all of its angles, or its gripper.
    """
    strange = np.zeros(len(names), bool)
    for kind in (JOINT_NAMES[:-1], JOINT_NAMES[-1:]):
        own = [name if name in kind else "" for name in names]
        hint = likely_units(ends(values), own) if len(values) else ""
        if hint and NO_UNIT not in hint:
            strange |= [bool(name) for name in own]
    return strange


def wrong_units(names: Sequence[str], values: np.ndarray, robot_type: object) -> str:
    """In which units the values (T, A) of an episode seem to be, see ``likely_units``; "" if they
    are in rad and m, or not the Piper's.
    """
    if not len(values) or not is_piper(names, robot_type):
        return ""
    return likely_units(ends(values), names)
