"""Turn the authors' released transition weights (``alam_pretrain``) into a model folder of this
project.

python training/import_weights.py --input alam_pretrain/model.safetensors --output
checkpoints/alam_pretrain
"""

from dataclasses import dataclass
from pathlib import Path

from alam_core.config import parse_args
from alam_core.errors import UserError
from alam_core.latent_action.released import load_released


@dataclass
class ImportConfig:
    """What to read and where to write.

    Args:
        input: safetensors file of the release, or the folder that holds it.
        output: model folder to write; must not exist yet.
    """

    input: str
    output: str


def main() -> None:
    config = parse_args(ImportConfig, __doc__.splitlines()[0])
    if Path(config.output).exists():
        raise UserError(f"'{config.output}' exists already: choose another --output")
    model = load_released(config.input)
    size = model.config
    card = f"""# Transition model

The authors' released weights ({Path(config.input).name}), {sum(part.numel() for part in model.parameters()) / 1e6:.0f} M parameters:
{size.encoder_layers} + {size.decoder_layers} layers of width {size.width}, transitions of {size.latent_tokens} x {size.latent_dim} numbers,
images of {size.image_size} px. Its codebook, the decoder and the encoder are whole; the perceptual network is left out.
"""
    print(f"model: {model.save_pretrained(config.output, card)}")
