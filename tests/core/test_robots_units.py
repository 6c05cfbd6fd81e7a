"""Units: values in other units than rad and m are noticed, values of a real arm are not."""

import numpy as np
import pytest

from alam_core.robots.piper import HOME, JOINT_LIMITS, JOINT_NAMES
from alam_core.robots.units import FAR, RANGES, likely_units

DEGREES = [10, 60, -45, 5, 20, -15]


@pytest.mark.parametrize(
    ("row", "hints"),
    [
        ([*DEGREES, 0.04], ["joint2 is 60", "0 to 3.14 rad", "degrees, multiply"]),
        ([1000.0 * angle for angle in DEGREES] + [40_000], ["0.001 degrees", "0.001 mm"]),
        ([*HOME[:6], 70.0], ["gripper is 70", "0 to 0.1 m", "millimetres or percent"]),
        ([*HOME[:6], 1.0], ["fractions of the full opening", "multiply it by 0.1"]),
        ([*DEGREES, 40], ["degrees", "millimetres"]),
        ([0, 4e6, 0, 0, 0, 0, 0.0], ["joint2 is 4e+06", "no unit of the Piper"]),
    ],
)
def test_the_unit_of_values_far_outside_is_named(row: list[float], hints: list[str]) -> None:
    found = likely_units(np.array([HOME, row]))
    assert all(hint in found for hint in hints), found


def test_values_within_the_ranges_or_a_little_outside_are_in_the_right_units() -> None:
    rng = np.random.default_rng(0)
    rows = rng.uniform(RANGES[:, 0] - FAR, RANGES[:, 1] + FAR, (1000, 7))
    rows[5, 3], rows[7, 6] = np.nan, np.inf
    assert likely_units(rows) == ""
    assert likely_units(rows[0]) == ""
    assert likely_units(np.zeros((0, 7))) == ""


def test_columns_are_found_by_name_and_others_ignored() -> None:
    names = ["gripper", "force", *JOINT_NAMES[:6]]
    row = np.array([0.05, 900.0, *JOINT_LIMITS.mean(1)])
    assert likely_units(row, names) == ""
    assert "gripper is 50" in likely_units(np.where(row == 0.05, 50, row), names)
    assert likely_units(np.array([400.0, 90.0]), ["x", "pan"]) == ""
