"""Tells whether a policy was trained on an instruction.

A policy acts on any sentence, also on one that asks for what it never learned. So a checkpoint
keeps the instructions of its training data. Upper and lower case, spaces and a full stop at the end
make no difference.
"""

from collections.abc import Iterable, Sequence

from alam_core.errors import listing

MOST = 500
"""A checkpoint of data with more instructions keeps none: such a policy is meant to generalise, and
a list of some of them would make the others look unknown."""


def plain(instruction: str) -> str:
    """The instruction without what makes no difference."""
    return " ".join(instruction.casefold().split()).rstrip(" .")


def kept(instructions: Iterable[str]) -> list[str]:
    """The instructions that a checkpoint keeps: each once, or none if there are more than MOST."""
    found = list(dict.fromkeys(instructions))
    return found if len(found) <= MOST else []


def trained_wording(instruction: str, trained: Sequence[str]) -> str | None:
    """The instruction as it is written in ``trained``; None if it is not there."""
    if instruction in trained:
        return instruction
    wanted = plain(instruction)
    return next((known for known in trained if plain(known) == wanted), None)


def unknown(instruction: str, trained: Sequence[str]) -> str:
    """One line if the instruction is not among ``trained``: what the policy was trained on. "" if
    it is, or if ``trained`` is empty: then nothing is known.
    """
    if not trained or trained_wording(instruction, trained) is not None:
        return ""
    known = listing([f"'{text}'" for text in trained], like=f"'{instruction}'")
    return f"this policy was not trained on '{instruction}', only on {known}"
