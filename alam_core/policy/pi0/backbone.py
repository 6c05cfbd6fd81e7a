"""The pi0 backbone: PaliGemma encodes the observation, the action expert denoises the sequence.

Source: Black et al., "pi0: A Vision-Language-Action Flow Model for General Robot Control"; sizes
and conventions are those of the published code. There are three blocks of tokens, each of which
attends to itself and to those before it: images and words, the state, the sequence. The first two
are the context.

Letters as in ``alam_core.policy.backbone``; V views, P = V * (S / patch)^2 + W prefix tokens.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm, GemmaTextScaledWordEmbedding
from transformers.models.siglip.configuration_siglip import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipVisionModel

from alam_core.checkpoints import checkpoint_folder
from alam_core.errors import UserError
from alam_core.policy.backbone import Backbone, Context, layer_indices
from alam_core.policy.pi0.config import Pi0Config
from alam_core.policy.pi0.gemma import Gemma
from alam_core.policy.pi0.heads import InputHead, OutputHead
from alam_core.policy.pi0.text import PADDING

BLACK = -1.0  # value of a black pixel


class Pi0Backbone(Backbone):
    """PaliGemma as the prefix, a smaller Gemma as the expert, with joint attention in each layer.

    Parameters may be frozen by ``requires_grad_``.
    """

    half_precision = True

    def __init__(
        self,
        config: Pi0Config,
        views: Sequence[str],
        image_size: int,
        state_dim: int,
        stateless: bool = False,
    ) -> None:
        """image_size: px, a multiple of ``config.patch_size``; the published weights have 224.
        stateless: see ``ModelConfig``.

        Raises UserError for a state wider than ``config.state_width``.
        """
        super().__init__()
        if state_dim > config.state_width:
            raise UserError(
                f"the state has {state_dim} numbers, this pi0 reads {config.state_width} "
                "(model.pi0.state_width)"
            )
        self.config = config
        self.views = tuple(views)
        self.width = config.expert_width
        self.depth = config.layers
        vision = SiglipVisionConfig(
            hidden_size=config.vision_width,
            intermediate_size=config.vision_mlp_width,
            num_hidden_layers=config.vision_layers,
            num_attention_heads=config.vision_heads,
            image_size=image_size,
            patch_size=config.patch_size,
            vision_use_head=False,
        )
        self.vision = SiglipVisionModel(vision)
        if config.gradient_checkpointing:
            self.vision.activation_checkpointing_enable()
        self.projector = nn.Linear(config.vision_width, config.text_width)
        # Word embeddings are scaled by sqrt(d), image tokens are not.
        self.words = GemmaTextScaledWordEmbedding(
            config.vocabulary, config.text_width, PADDING, embed_scale=config.text_width**0.5
        )
        nn.init.normal_(self.words.weight, std=config.text_width**-0.5)
        self.prefix = Gemma(config, config.text_width, config.text_mlp_width, keys_only=True)
        self.state = nn.Linear(config.state_width, config.expert_width)
        if stateless:
            self.no_state = nn.Parameter(0.02 * torch.randn(config.expert_width))
        self.expert = Gemma(config, config.expert_width, config.expert_mlp_width)
        self.norm = GemmaRMSNorm(config.expert_width)

    def load_published(
        self, path: str | Path, input_head: nn.Module, output_head: nn.Module
    ) -> None:
        """See ``alam_core.policy.pi0.weights.load_pi0``."""
        from alam_core.policy.pi0.weights import PUBLISHED, load_pi0

        load_pi0(checkpoint_folder(path, PUBLISHED), self, input_head, output_head)

    def encode(
        self,
        images: Mapping[str, Tensor],
        state: Tensor,
        words: Tensor,
        known: Tensor | None = None,
    ) -> Context:
        """See ``Backbone``; C = P + 1. Two kinds of tokens are masked: those of an entirely black
        image, which stands for a missing camera, and words of id 0, which are padding.
        """
        views = torch.stack([images[view] for view in self.views], dim=1)  # (B, V, 3, S, S)
        pixels = views.flatten(0, 1).to(self.projector.weight.dtype)
        patches = self.projector(self.vision(pixels).last_hidden_state).unflatten(
            0, views.shape[:2]
        )
        present = (views > BLACK).flatten(2).any(2)  # (B, V)
        mask = torch.cat(
            [present.repeat_interleave(patches.shape[2], dim=1), words != PADDING], dim=1
        )  # (B, P)
        tokens = torch.cat([patches.flatten(1, 2), self.words(words)], dim=1)
        _, prefix, _ = self.prefix(tokens, mask.cumsum(1) - 1, mask[:, None, None])

        mask = F.pad(mask, (0, 1), value=True)  # (B, C)
        state = F.pad(state, (0, self.state.in_features - state.shape[1])).to(
            self.state.weight.dtype
        )
        embedded = self.state(state)
        if known is not None:
            embedded = torch.where(known[:, None], embedded, self.no_state.to(embedded.dtype))
        _, own, _ = self.expert(
            embedded[:, None], mask.sum(1, keepdim=True) - 1, mask[:, None, None], prefix
        )
        return Context(
            [
                (torch.cat([k, ks], dim=2), torch.cat([v, vs], dim=2))
                for (k, v), (ks, vs) in zip(prefix, own, strict=True)
            ],
            mask,
        )

    def denoise_with_hidden(
        self,
        tokens: Tensor,
        tau: Tensor,
        context: Context,
        mask: Tensor,
        layers: Sequence[int],
    ) -> tuple[Tensor, list[Tensor]]:
        """See ``Backbone``; ``tau`` is not used, because the input heads put it into the tokens."""
        valid = context.mask  # (B, C)
        assert valid is not None, "a context of pi0 always has a mask"
        count, length = len(valid), tokens.shape[1]
        draws = len(tokens) // count
        # The sequences of one observation form one row of tokens and do not attend to each other:
        # the keys of the context are not repeated.
        own = torch.block_diag(*[mask] * draws).expand(count, -1, -1)
        before = valid[:, None].expand(-1, own.shape[1], -1)
        visible = torch.cat([before, own], dim=2)[:, None]  # (B, 1, draws * L, C + draws * L)
        steps = torch.arange(length, device=tokens.device).repeat(draws)
        positions = valid.sum(1, keepdim=True) + steps
        x, _, hidden = self.expert(
            tokens.reshape(count, draws * length, -1),
            positions,
            visible,
            context.keys,
            layer_indices(layers, self.depth),
        )
        return self.norm(x).view_as(tokens), [state.view_as(tokens) for state in hidden]

    def input_head(self, width: int) -> nn.Module:
        return InputHead(max(width, self.config.action_width), self.width)

    def output_head(self, width: int) -> nn.Module:
        return OutputHead(self.width, max(width, self.config.action_width), width)
