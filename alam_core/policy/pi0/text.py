"""pi0's tokenizer, which is PaliGemma's: read from a checkpoint's folder, or from an earlier
download of PaliGemma.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from alam_core.errors import UserError
from alam_core.hub import cached_file

PADDING = 0  # id of PaliGemma's <pad>; no text is encoded as it
FILE = "tokenizer.json"
REPOSITORY = "google/paligemma-3b-pt-224"
START, END = "<bos>", "\n"


class Pi0Tokenizer:
    """Instructions to token ids: <bos>, the text, and a newline, each encoded separately, as in the
    training of the published weights.

    max_words: length of the longest instruction, in tokens.
    """

    def __init__(self, tokenizer: Tokenizer, max_words: int = 48) -> None:
        """Raises UserError for a tokenizer without <bos>, which cannot be PaliGemma's."""
        start = tokenizer.token_to_id(START)
        if start is None:
            raise UserError(f"this {FILE} has no {START}: use the one of {REPOSITORY}")
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer = tokenizer
        self.max_words = max_words
        self.start, self.end = [start], self._encode(END)

    @classmethod
    def from_folder(cls, folder: str | Path, max_words: int = 48) -> "Pi0Tokenizer":
        """From ``tokenizer.json`` in a folder, or else from the hub's local cache.

        Raises UserError if it is in neither, or broken.
        """
        file = Path(folder) / FILE
        if not file.is_file():
            cached = cached_file(REPOSITORY, FILE)
            if cached is None:
                raise UserError(
                    f"pi0 needs PaliGemma's tokenizer, which is neither '{file}' nor among the "
                    "hub's downloads: accept its licence on the model hub, then "
                    f"`hf download {REPOSITORY} {FILE}`, or put the file there"
                )
            file = cached
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"'{file}' cannot be read ({error}): download it again") from None
        return cls(tokenizer, max_words)

    def files(self) -> dict[str, str | bytes]:
        """See ``Tokenizer``: the tokenizer's own file."""
        return {FILE: self.tokenizer.to_str()}

    def __call__(self, instructions: Sequence[str]) -> Tensor:
        """Ids (B, max_words), int64; each row is padded with 0 at its end.

        Raises UserError for an instruction that is empty or has more than ``max_words`` tokens.
        """
        ids = torch.full((len(instructions), self.max_words), PADDING, dtype=torch.long)
        for row, instruction in enumerate(instructions):
            text = instruction.replace("_", " ").replace("\n", " ").strip()
            if not text:
                raise UserError("the instruction is empty: say what the arm should do")
            tokens = self.start + self._encode(text) + self.end
            if len(tokens) > self.max_words:
                raise UserError(
                    f"the instruction has {len(tokens)} tokens, this policy reads "
                    f"{self.max_words}: '{instruction[:60]}...'"
                )
            ids[row, : len(tokens)] = torch.tensor(tokens)
        return ids

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids
