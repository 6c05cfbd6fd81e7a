"""Instructions as PaliGemma reads them: its own tokenizer, from the checkpoint's folder or from
what was downloaded before.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from tokenizers import Tokenizer
from torch import Tensor

from alam_core.errors import UserError

PADDING = 0  # PaliGemma's own; no text is ever encoded as it
FILE = "tokenizer.json"
REPOSITORY = "google/paligemma-3b-pt-224"
START, END = "<bos>", "\n"


class Pi0Tokenizer:
    """Instructions to ids: <bos>, the text, and a newline that is encoded apart, as the published
    weights were trained.

    max_words: the longest instruction, in tokens.
    """

    def __init__(self, tokenizer: Tokenizer, max_words: int = 48) -> None:
        """Raises UserError for a tokenizer that has no <bos>, so cannot be PaliGemma's."""
        start = tokenizer.token_to_id(START)
        if start is None:
            raise UserError(f"this {FILE} knows no {START}: take the one of {REPOSITORY}")
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer = tokenizer
        self.max_words = max_words
        self.start, self.end = [start], self._encode(END)

    @classmethod
    def from_folder(cls, folder: str | Path, max_words: int = 48) -> "Pi0Tokenizer":
        """From ``tokenizer.json`` in a folder, else from the local cache of downloads. Raises
        UserError if it is in neither or broken.
        """
        file = Path(folder) / FILE
        if not file.is_file():
            cached = try_to_load_from_cache(REPOSITORY, FILE)
            if not isinstance(cached, str):
                raise UserError(
                    f"pi0 reads by PaliGemma's tokenizer, which is neither '{file}' nor among the hub's downloads: accept its licence on "
                    f"the model hub, then `hf download {REPOSITORY} {FILE}`, or put the file there"
                )
            file = Path(cached)
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"'{file}' cannot be read ({error}): download it again") from None
        return cls(tokenizer, max_words)

    def files(self) -> dict[str, str | bytes]:
        """Name -> content of what a checkpoint keeps to read instructions by."""
        return {FILE: self.tokenizer.to_str()}

    def __call__(self, instructions: Sequence[str]) -> Tensor:
        """Ids (B, max_words), int64. A word is padding exactly where its id is 0, at the end of a
        row.

        Raises UserError for an instruction that is empty or has more than ``max_words`` tokens.
        """
        ids = torch.full((len(instructions), self.max_words), PADDING, dtype=torch.long)
        for row, instruction in enumerate(instructions):
            text = instruction.replace("_", " ").replace("\n", " ").strip()
            if not text:
                raise UserError("the instruction is empty: say in words what the arm should do")
            tokens = self.start + self._encode(text) + self.end
            if len(tokens) > self.max_words:
                raise UserError(
                    f"the instruction has {len(tokens)} tokens, this policy reads {self.max_words}: '{instruction[:60]}...'"
                )
            ids[row, : len(tokens)] = torch.tensor(tokens)
        return ids

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids
