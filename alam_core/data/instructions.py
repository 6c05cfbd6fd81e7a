"""When two instructions are the same, and the words of an instruction.

Upper and lower case, spaces and punctuation make no difference, except for marks before a digit,
such as in -5 or 1.5, which change the number.
"""

import re
import unicodedata

_MARKS = re.compile(r"[\W_]+(?!\d)")
_WORD = re.compile(r"[^\W_]+")


def plain(instruction: str) -> str:
    """The instruction without what makes no difference; "" if it has no words."""
    # An accent may be a character of its own or a part of its letter.
    text = unicodedata.normalize("NFC", instruction.lower())
    return " ".join(_MARKS.sub(" ", text).split())


def words(instruction: str) -> list[str]:
    """The words in lower case, without any punctuation: those that word ids are made of."""
    return _WORD.findall(instruction.lower())
