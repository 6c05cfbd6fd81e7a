"""Instructions as lower-case words, hashed into a fixed vocabulary, and the encoder of these words.
The hash is the same on every machine and in every run.

Letters: B batch, W words, d width.
"""

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from alam_core.data.instructions import words
from alam_core.errors import UserError

WORDS = "words"  # value of ``SmallConfig.text`` that selects this tokenizer
PADDING = 0  # id of the padding at the end of a row


class WordTokenizer:
    """Words to ids from 1 to ``vocabulary`` - 1, by crc32; id 0 is padding.

    vocabulary: number of ids. max_words: length W of the longest instruction.
    """

    def __init__(self, vocabulary: int = 2048, max_words: int = 24) -> None:
        self.vocabulary = vocabulary
        self.max_words = max_words

    def files(self) -> dict[str, str | bytes]:
        """See ``Tokenizer``: no file is needed."""
        return {}

    def collisions(self, instructions: Sequence[str]) -> list[tuple[str, ...]]:
        """Words of ``instructions`` that share an id, so that the policy cannot tell them apart."""
        sharing: dict[int, list[str]] = {}
        for word in sorted({word for text in instructions for word in words(text)}):
            sharing.setdefault(self._id(word), []).append(word)
        return [tuple(alike) for alike in sharing.values() if len(alike) > 1]

    def _id(self, word: str) -> int:
        return zlib.crc32(word.encode()) % (self.vocabulary - 1) + 1

    def __call__(self, instructions: Sequence[str]) -> Tensor:
        """Ids (B, W), int64. Raises UserError for an instruction that has no words, or too many."""
        ids = torch.full((len(instructions), self.max_words), PADDING, dtype=torch.long)
        for row, instruction in enumerate(instructions):
            found = words(instruction)
            if not found:
                raise UserError("the instruction is empty: say what the arm should do")
            if len(found) > self.max_words:
                limit = f"this policy reads {self.max_words} (model.small.max_words)"
                raise UserError(
                    f"the instruction has {len(found)} words, {limit}: '{instruction[:60]}...'"
                )
            ids[row, : len(found)] = torch.tensor([self._id(word) for word in found])
        return ids


class TextEncoder(nn.Module):
    """Word ids (B, W) -> (B, d): embeddings, one Transformer layer, the mean over the words."""

    def __init__(self, vocabulary: int, max_words: int, width: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=PADDING)
        self.position = nn.Parameter(0.02 * torch.randn(max_words, width))
        self.layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, words: Tensor) -> Tensor:
        present = words != PADDING
        x = self.embedding(words) + self.position[: words.shape[1]]
        x = self.norm(self.layer(x, src_key_padding_mask=~present))
        weight = present.to(x.dtype)[..., None]
        return (x * weight).sum(1) / weight.sum(1)
