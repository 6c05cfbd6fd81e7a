"""When two instructions are the same, and the words of an instruction.

Upper and lower case, spaces and punctuation make no difference, except for marks before a digit,
such as in -5 or 1.5, which change the number.
"""

import re

_MARKS = re.compile(r"[\W_]+(?!\d)")
_WORD = re.compile(r"[^\W_]+")


def plain(instruction: str) -> str:
    """The instruction without what makes no difference; "" if it has no words."""
    return " ".join(_MARKS.sub(" ", instruction.lower()).split())


def words(instruction: str) -> list[str]:
    """The words in lower case, without any punctuation: those that word ids are made of."""
    return _WORD.findall(plain(instruction))
