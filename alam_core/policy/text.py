"""Instructions as numbers: lower-cased words hashed into a fixed vocabulary, the same on every machine and in every run."""

import re
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from alam_core.errors import UserError

PADDING = 0
_WORD = re.compile(r"[^\W_]+")


class WordTokenizer:
    """Words to ids 1..vocabulary-1 by crc32; id 0 is padding.

    vocabulary: number of ids. max_words: the longest instruction.
    """

    def __init__(self, vocabulary: int = 2048, max_words: int = 24) -> None:
        self.vocabulary = vocabulary
        self.max_words = max_words

    def __call__(self, instructions: Sequence[str]) -> Tensor:
        """Ids (B, max_words), int64. Raises UserError for an instruction without words or with more than ``max_words``."""
        ids = torch.full((len(instructions), self.max_words), PADDING, dtype=torch.long)
        for row, instruction in enumerate(instructions):
            words = _WORD.findall(instruction.lower())
            if not words:
                raise UserError("the instruction is empty: say in words what the arm should do")
            if len(words) > self.max_words:
                raise UserError(f"the instruction has {len(words)} words, this policy reads {self.max_words}: '{instruction[:60]}...'")
            ids[row, : len(words)] = torch.tensor([zlib.crc32(word.encode()) % (self.vocabulary - 1) + 1 for word in words])
        return ids
