"""Convert the authors' released transition weights (``alam_pretrain``) to a model folder of this
project.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from alam_core.cards import model_card
from alam_core.config import parse_args
from alam_core.errors import UserError
from alam_core.latent_action.released import load_released

INTRODUCTION = """Convert the authors' released transition weights to a model folder.

  python training/import_weights.py \\
      --input alam_pretrain/model.safetensors --output checkpoints/alam_pretrain
  python training/import_weights.py --help
      every option"""


@dataclass
class ImportConfig:
    """What to read and where to write it.

    Args:
        input: safetensors file of the release, or its folder.
        output: model folder to write; it must not exist yet.
    """

    input: str
    output: str


def main() -> int:
    if len(sys.argv) == 1:
        print(INTRODUCTION)
        return 0
    config = parse_args(ImportConfig, INTRODUCTION.splitlines()[0])
    if Path(config.output).exists():
        raise UserError(f"'{config.output}' exists already: choose another --output")
    model = load_released(config.input)
    size = model.config
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    body = f"""The authors' released weights ({Path(config.input).name}), \
{millions:.0f} M parameters:
{size.encoder_layers} + {size.decoder_layers} layers of width {size.width}, transitions of \
{size.latent_tokens} x {size.latent_dim} numbers,
images of {size.image_size} px. The encoder, the codebook and the decoder are complete; the \
perceptual network of the loss is not included.
"""
    tags = ["alam", "latent-action-model", "video"]
    card = model_card("Transition model", body, tags=tags, dataset=None, metrics={})
    print(f"model: {model.save_pretrained(config.output, card)}")
    return 0
