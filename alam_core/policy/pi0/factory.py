"""pi0's entry in ``BACKBONES``. Importing this does not import transformers."""

from pathlib import Path

from alam_core.errors import UserError
from alam_core.policy.backbone import Backbone, BackboneFactory, Tokenizer
from alam_core.policy.config import BACKBONES, ModelConfig, PolicyConfig


@BACKBONES.register("pi0")
class Pi0Factory(BackboneFactory):
    """Builds ``Pi0Backbone`` and PaliGemma's tokenizer."""

    @staticmethod
    def check(model: ModelConfig) -> None:
        if model.image_size % model.pi0.patch_size:
            raise UserError(
                f"model.image_size is {model.image_size}: pi0 needs a multiple of "
                f"model.pi0.patch_size, {model.pi0.patch_size}"
            )

    @staticmethod
    def build(config: PolicyConfig) -> Backbone:
        from alam_core.policy.pi0.backbone import Pi0Backbone  # imports transformers

        model = config.model
        return Pi0Backbone(
            model.pi0, config.views, model.image_size, config.state_dim, model.stateless
        )

    @staticmethod
    def tokenizer(model: ModelConfig, folder: str | Path, from_checkpoint: bool) -> Tokenizer:
        from alam_core.policy.pi0.text import Pi0Tokenizer

        return Pi0Tokenizer.from_folder(folder, model.pi0.max_words)
