"""Settings of work that is continued: what may change, and a clear error for what may not."""

from typing import Any

from alam_core.errors import UserError


def check_same_settings(
    before: dict[str, Any], now: dict[str, Any], what: str, remedy: str
) -> None:
    """Raises UserError if two nested dictionaries of settings differ; leave out what may change.

    The message is "<what> (<dotted name> was <old> and is now <new>, ...): <remedy>".
    """
    old, new = _flat(before), _flat(now)
    differing = [
        f"{name} was {old.get(name)} and is now {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if differing:
        raise UserError(f"{what} ({', '.join(differing)}): {remedy}")


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        name: value
        for key, inner in values.items()
        for name, value in _flat(inner, f"{prefix}.{key}" if prefix else key).items()
    }
