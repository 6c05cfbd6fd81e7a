"""Settings that must stay the same when a run or a data set is resumed."""

import json
from collections.abc import Collection, Iterator
from typing import Any

from alam_core.errors import UserError


def check_same_settings(
    before: dict[str, Any],
    now: dict[str, Any],
    what: str,
    remedy: str,
    free: Collection[str] = (),
) -> None:
    """Raise UserError "<what> NAME = BEFORE, not NOW; <remedy>" for the first setting that differs.
    A setting that only one of the two has is named as one of another version of this program.

    before, now: settings as JSON values, nested or not. A setting that is empty counts as missing.
    what: such as "'data/mine' was collected with". free: names that may change, at any depth.
    """
    old, new = dict(_flat(before)), dict(_flat(json.loads(json.dumps(now))))
    for name in dict.fromkeys([*new, *old]):
        if _value(old, name) == _value(new, name) or set(name.split(".")) & set(free):
            continue
        other = f"{what} another version of this program, which has"
        if not _knows(old, name):
            raise UserError(
                f"{other} no setting {name}, now {new[name]!r}: leave it out if you gave it, else "
                f"resume with that version; or {_other_place(remedy)}"
            )
        if not _knows(new, name):
            raise UserError(
                f"{other} the setting {name} = {old[name]!r}: resume with that version, or "
                f"{_other_place(remedy)}"
            )
        raise UserError(
            f"{what} {name} = {_value(old, name)!r}, not {_value(new, name)!r}; {remedy}"
        )


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values in nested dictionaries, and in lists of them, with their names joined by dots."""
    if isinstance(values, list) and values and isinstance(values[0], dict):
        values = dict(enumerate(values))
    if not isinstance(values, dict) or not values:
        yield prefix, values
        return
    for key, inner in values.items():
        yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))


def _other_place(remedy: str) -> str:
    return remedy.removeprefix("give the same value or ")


def _value(values: dict[str, Any], name: str) -> Any:
    """The value of a setting; None if it is missing or empty."""
    value = values.get(name)
    return None if value in ([], {}) else value


def _knows(values: dict[str, Any], name: str) -> bool:
    """Whether there is such a setting, a group of it, or an empty group that it would be in."""
    parts = name.split(".")
    above = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(part in values for part in above) or any(
        known.startswith(f"{name}.") for known in values
    )
