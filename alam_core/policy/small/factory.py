"""The small backbone's entry in ``BACKBONES``."""

from pathlib import Path

from alam_core.errors import UserError
from alam_core.policy.backbone import Backbone, BackboneFactory, Tokenizer
from alam_core.policy.config import BACKBONES, ModelConfig, PolicyConfig
from alam_core.policy.small.backbone import SmallBackbone
from alam_core.policy.small.text import WORDS, WordTokenizer
from alam_core.policy.small.vision import STRIDE


@BACKBONES.register("small")
class SmallFactory(BackboneFactory):
    """Builds ``SmallBackbone`` and its word or sentence tokenizer."""

    @staticmethod
    def check(model: ModelConfig) -> None:
        if model.image_size % STRIDE:
            raise UserError(
                f"model.image_size is {model.image_size}: the small backbone needs a multiple of "
                f"{STRIDE}"
            )

    @staticmethod
    def build(config: PolicyConfig) -> Backbone:
        model = config.model
        return SmallBackbone(
            model.small,
            config.views,
            model.image_size,
            config.state_dim,
            model.horizon,
            len(config.latent_views) + 1,
            model.stateless,
        )

    @staticmethod
    def tokenizer(model: ModelConfig, folder: str | Path, from_checkpoint: bool) -> Tokenizer:
        small = model.small
        if small.text == WORDS:
            return WordTokenizer(small.vocabulary, small.max_words)
        from alam_core.policy.small.sentence import SentenceEncoder  # imports transformers

        if from_checkpoint:
            encoder = SentenceEncoder.from_checkpoint(folder, small.max_words)
        else:
            encoder = SentenceEncoder.from_pretrained(small.text, small.max_words)
        if encoder.width != small.text_width:
            raise UserError(
                f"'{small.text}' makes vectors of {encoder.width} numbers: give "
                f"--model.small.text_width {encoder.width}"
            )
        return encoder
