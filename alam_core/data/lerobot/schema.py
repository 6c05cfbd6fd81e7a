"""What the values in the metadata of a data set must be: a table for each file, and the check."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from alam_core.errors import UserError


@dataclass(frozen=True)
class Field:
    """A value. expected: what it must be, in words. accepts: whether it is that. convert: to the
    type that the code works with. optional: it may be missing or null.
    """

    expected: str
    accepts: Callable[[Any], bool]
    convert: Callable[[Any], Any] = lambda value: value
    optional: bool = False

    def or_none(self) -> "Field":
        return replace(self, optional=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: Any) -> bool:  # pandas writes integers as 3.0 where another one is missing
    return _is_number(value) and value == int(value)


def _are_numbers(value: Any) -> bool:
    return all(map(_are_numbers, value)) if isinstance(value, list) else _is_number(value)


COUNT = Field("an integer of at least 0", lambda v: _is_integer(v) and v >= 0, int)
LENGTH = Field("an integer of at least 1", lambda v: _is_integer(v) and v >= 1, int)
RATE = Field("a number above 0", lambda v: _is_number(v) and v > 0, float)
SECONDS = Field("a number of at least 0", lambda v: _is_number(v) and v >= 0, float)
TEXT = Field("text", lambda v: isinstance(v, str))
OBJECT = Field("an object", lambda v: isinstance(v, dict))
SHAPE = Field(
    "a list of integers", lambda v: isinstance(v, list) and all(COUNT.accepts(n) for n in v)
)
NUMBERS = Field("numbers", _are_numbers)
INSTRUCTIONS = Field(
    "a list of instructions",
    lambda v: isinstance(v, str) or (isinstance(v, list) and all(isinstance(t, str) for t in v)),
    lambda v: [v] if isinstance(v, str) else v,
    optional=True,
)

INFO = {
    "codebase_version": TEXT,
    "fps": RATE,
    "features": OBJECT,
    "data_path": TEXT,
    "video_path": TEXT.or_none(),
    "total_episodes": COUNT,
    "total_frames": COUNT.or_none(),
    "chunks_size": LENGTH.or_none(),
    "robot_type": TEXT.or_none(),
}
FEATURE = {"dtype": TEXT, "shape": SHAPE.or_none()}
TASK = {"task_index": COUNT, "task": TEXT}
EPISODE_V2 = {"length": LENGTH, "tasks": INSTRUCTIONS}
EPISODE_V3 = {
    **EPISODE_V2,
    "dataset_from_index": COUNT,
    "dataset_to_index": LENGTH,
    "data/chunk_index": COUNT,
    "data/file_index": COUNT,
}
STATISTICS = dict.fromkeys(("min", "max", "mean", "std", "count"), NUMBERS)
VIDEO = {"chunk_index": COUNT, "file_index": COUNT, "from_timestamp": SECONDS}


def episode_fields(video_keys: list[str]) -> dict[str, Field]:
    """The fields of a row of meta/episodes of version 3, but for its number."""
    return EPISODE_V3 | {
        f"videos/{key}/{name}": field for key in video_keys for name, field in VIDEO.items()
    }


def check(values: Mapping[str, Any], fields: Mapping[str, Field], where: str) -> dict[str, Any]:
    """The values of ``fields``, converted. where: the place of ``values``, for the message.

    Raises UserError for the first value that is missing or not what it must be.
    """
    checked: dict[str, Any] = {}
    for name, field in fields.items():
        value = values.get(name)
        if value is None and field.optional:
            checked[name] = None
        elif field.accepts(value):
            checked[name] = field.convert(value)
        else:
            shown = "null" if value is None else repr(value)
            shown = shown if len(shown) <= 40 else shown[:37] + "..."
            fault = f"'{name}' is {shown if name in values else 'missing'}"
            raise UserError(f"{where}: {fault}; expected {field.expected}: restore the file")
    return checked
