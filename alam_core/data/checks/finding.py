"""One thing that is wrong with a data set or a checkpoint, or worth knowing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]
NAMED = 5  # numbers or names in a message, at most


@dataclass(frozen=True)
class Finding:
    """level: with an "error" training stops or goes wrong; after a "warning" look at the data; a
    "note" is harmless. where: the part of the data, such as "episode 3" or "view 'wrist'". message:
    one line that says what is wrong and what to do.
    """

    level: Level
    where: str
    message: str


def numbered(values: Iterable[int | str]) -> str:
    """The first few values and the number of the others: "3, 7, 9 and 12 more"."""
    all_of = [str(value) for value in values]
    more = f" and {len(all_of) - NAMED} more" if len(all_of) > NAMED else ""
    return ", ".join(all_of[:NAMED]) + more


def episodes_at_fault(faults: Mapping[int, str], where: str = "") -> list[Finding]:
    """An error for the episodes that cannot be used: which, and why the first one. faults: episode
    -> reason. where: the part of them, such as "view 'wrist', ".
    """
    if not faults:
        return []
    first = next(iter(faults.values())).removeprefix(f"episode {next(iter(faults))}: ")
    rest = f" ({len(faults) - 1} more like this)" if len(faults) > 1 else ""
    return [Finding("error", where + episodes_called(faults), first + rest)]


def episodes_called(numbers: Iterable[int]) -> str:
    """ "episode 3", or "episodes 3, 7, 9 and 12 more"."""
    all_of = list(numbers)
    return f"episode{'' if len(all_of) == 1 else 's'} {numbered(all_of)}"
