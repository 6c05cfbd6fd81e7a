"""The check that a resumed run or data set has the settings it was begun with."""

import json

import pytest

from alam_core.errors import UserError
from alam_training.settings import check_same_settings

BEFORE = {"steps": 9, "model": {"width": 8, "small": None}, "noise_seconds": (0.3, 0.8)}


def check(now: dict, free: tuple[str, ...] = ()) -> None:
    before = json.loads(json.dumps(BEFORE))
    check_same_settings(before, now, "'runs/a' was begun with", "choose another --run", free)


def test_equal_settings_pass_whatever_json_made_of_them() -> None:
    check(BEFORE)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"steps": 10}, "steps = 9, not 10; choose another --run"),
        ({"model": {"width": 16, "small": None}}, "model.width = 8, not 16; choose another --run"),
        ({"model": {"width": 8, "small": {"layers": 2}}}, "model.small.layers = None, not 2"),
        ({"name": "x", "steps": 1}, "steps = 9, not 1;"),  # the first in the order of the settings
    ],
)
def test_the_first_difference_is_named(now: dict, said: str) -> None:
    with pytest.raises(UserError, match="^'runs/a' was begun with ") as raised:
        check(BEFORE | now)
    assert said in str(raised.value)


def test_a_run_of_an_older_version_is_told_from_one_with_another_value() -> None:
    with pytest.raises(UserError) as raised:
        check(BEFORE | {"order": "bgr"})
    assert str(raised.value) == (
        "'runs/a' was begun with another version of this program, which has no setting order, now "
        "'bgr': leave it out if you gave it, else resume with that version; or choose another --run"
    )
    words = ("'runs/a' was begun with", "choose another --run")
    for before in ({"names": [], "views": {}}, {"names": ["x"], "views": {"a": "b"}}):
        with pytest.raises(UserError, match="(names|views.*) = "):
            check_same_settings(before, {"names": ["y"], "views": {"a": "c"}}, *words)


def test_a_setting_that_is_gone_is_a_difference() -> None:
    with pytest.raises(UserError, match="another version .* has the setting steps = 9: resume"):
        check({name: value for name, value in BEFORE.items() if name != "steps"})


def test_free_settings_may_change_at_any_depth() -> None:
    check(BEFORE | {"steps": 10}, free=("steps",))
    check(BEFORE | {"model": {"width": 16, "small": None}}, free=("width",))
    check(BEFORE | {"model": {"width": 16, "small": 1}}, free=("model",))


def test_new_settings_that_are_empty_do_not_stop_a_run_that_was_begun_before_them() -> None:
    check(BEFORE | {"exclude": [], "model": {"width": 8, "small": None, "names": []}})
    sources = {"data": [{"path": "a", "weight": 1}]}
    words = ("'runs/a' was begun with", "choose another --run")
    check_same_settings(sources, {"data": [{"path": "a", "weight": 1, "exclude": []}]}, *words)
    for exclude, weight, said in (
        ([3], 1, r"no setting data\.0\.exclude, now \[3\]: leave it out if you gave it"),
        ([], 2, "weight"),
    ):
        now = {"data": [{"path": "a", "weight": weight, "exclude": exclude}]}
        with pytest.raises(UserError, match=said):
            check_same_settings(sources, now, *words)
