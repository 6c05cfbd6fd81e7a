"""Settings that must stay the same when a run or a data set is resumed."""

import json
from collections.abc import Collection
from typing import Any

from alam_core.errors import UserError


def check_same_settings(
    before: dict[str, Any],
    now: dict[str, Any],
    what: str,
    remedy: str,
    free: Collection[str] = (),
) -> None:
    """Raise UserError "<what> NAME = BEFORE, not NOW; <remedy>" for the first setting
    that differs.

    before, now: settings as JSON values, nested or not; a missing setting counts as None. what:
    such as "'data/mine' was collected with". free: names that may change, at any depth.
    """
    old, new = _flat(before), _flat(json.loads(json.dumps(now)))
    for name in dict.fromkeys([*new, *old]):
        if old.get(name) != new.get(name) and not set(name.split(".")) & set(free):
            raise UserError(f"{what} {name} = {old.get(name)!r}, not {new.get(name)!r}; {remedy}")


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries, and lists of them, as one, its names joined by dots. Settings that are
    empty are left out.
    """
    if values == []:
        return {}
    if isinstance(values, list) and isinstance(values[0], dict):
        values = dict(enumerate(values))
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        name: value
        for key, inner in values.items()
        for name, value in _flat(inner, f"{prefix}.{key}" if prefix else key).items()
    }
