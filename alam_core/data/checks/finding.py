"""One thing that is wrong with a data set or a checkpoint, or worth knowing."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from alam_core.errors import listing

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """level: with an "error" training stops or goes wrong; after a "warning" look at the data; a
    "note" is harmless. where: the part of the data, such as "episode 3" or "view 'wrist'". message:
    one line that says what is wrong and what to do.
    """

    level: Level
    where: str
    message: str


def episodes_at_fault(faults: Mapping[int, str], where: str = "") -> list[Finding]:
    """An error for each kind of fault: the episodes that have it, and the reason of the first one.
    faults: episode -> reason. where: the part of them, such as "view 'wrist', ".
    """
    kinds: dict[str, list[int]] = {}
    for e, why in faults.items():
        kinds.setdefault(re.sub(r"'[^']*'|\d+", "", why), []).append(e)
    return [
        Finding(
            "error",
            where + episodes_called(episodes),
            faults[episodes[0]].removeprefix(f"episode {episodes[0]}: ")
            + (f" ({len(episodes) - 1} more like this)" if len(episodes) > 1 else ""),
        )
        for episodes in kinds.values()
    ]


def episodes_called(numbers: Iterable[int]) -> str:
    """ "episode 3", or "episodes 3, 7, 9 and 12 more"."""
    all_of = list(numbers)
    return f"episode{'' if len(all_of) == 1 else 's'} {listing(map(str, all_of))}"
