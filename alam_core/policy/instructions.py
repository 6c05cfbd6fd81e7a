"""Tells whether a policy was trained on an instruction.

A policy acts on any sentence, also on one that asks for what it never learned. So a checkpoint
keeps the instructions of its training data.
"""

import heapq
from collections.abc import Sequence
from difflib import get_close_matches

from alam_core.data.instructions import plain
from alam_core.errors import LISTED, listing

SHORTLIST = 200  # instructions that are compared letter by letter: those that share most words


class KnownInstructions:
    """The instructions that a policy was trained on; none if its checkpoint keeps none."""

    def __init__(self, trained: Sequence[str]) -> None:
        self._trained = dict.fromkeys(trained)
        self._wordings = {plain(text): text for text in reversed(trained)}

    def wording(self, instruction: str) -> str | None:
        """The instruction as it was written in training; None if it was not there."""
        if instruction in self._trained:
            return instruction
        return self._wordings.get(plain(instruction))

    def unknown(self, instruction: str) -> str:
        """One line if the policy was not trained on the instruction: the most similar of those that
        it was trained on. "" if it was, or if nothing is known.
        """
        if not self._trained or self.wording(instruction) is not None:
            return ""
        wanted = set(plain(instruction).split())
        likely = heapq.nlargest(
            SHORTLIST, self._trained, key=lambda text: len(wanted.intersection(plain(text).split()))
        )
        nearest = get_close_matches(instruction, likely, LISTED, cutoff=0.0)
        known = listing(f"'{text}'" for text in (*nearest, *self._trained))
        return f"this policy was not trained on '{instruction}', only on {known}"
