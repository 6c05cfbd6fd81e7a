"""Gemma's layers with an attention of our own, which can also attend to the keys and values of
another stack.

Letters: B batch, T tokens, C context tokens, d width, h query heads, k key and value heads, c
size of a head.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.models.gemma.configuration_gemma import GemmaConfig
from transformers.models.gemma.modeling_gemma import GemmaDecoderLayer, rotate_half

from alam_core.attention import attention
from alam_core.policy.pi0.config import Pi0Config

KeyValue = tuple[Tensor, Tensor]

ROTARY_BASE = 10_000.0


def rotary(positions: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary position embedding for integer positions (B, T): (B, 1, T, c)
    each, float32.

    Gemma's own module keeps the frequencies in a buffer, which casting the model to bfloat16 would
    round.
    """
    frequency = ROTARY_BASE ** (torch.arange(0, width, 2, device=positions.device) / -width)
    angle = (positions[:, None, :, None] * frequency).repeat(1, 1, 1, 2)
    return angle.cos(), angle.sin()


class Gemma(nn.Module):
    """A stack of Gemma layers, without embedding and final norm.

    keys_only: the caller uses only the keys and values, so the last layer keeps only the weights
    for these.
    """

    layers: Sequence[GemmaDecoderLayer]

    def __init__(
        self, config: Pi0Config, width: int, mlp_width: int, keys_only: bool = False
    ) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.groups = config.heads // config.kv_heads
        gemma = GemmaConfig(
            hidden_size=width,
            intermediate_size=mlp_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim,
        )
        self.layers = nn.ModuleList(GemmaDecoderLayer(gemma, i) for i in range(config.layers))  # type: ignore[assignment]
        self.gradient_checkpointing = config.gradient_checkpointing
        if keys_only:
            last = self.layers[-1]
            del (
                last.self_attn.q_proj,
                last.self_attn.o_proj,
                last.post_attention_layernorm,
                last.mlp,
            )

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor,
        context: list[KeyValue] | None = None,
        layers: Sequence[int] = (),
    ) -> tuple[Tensor, list[KeyValue], list[Tensor]]:
        """x (B, T, d) -> the last layer's output (B, T, d), each layer's keys and values of x, (B,
        k, T, c) each, and the outputs of ``layers``, from 0, (B, T, d) each.

        positions: (B, T). mask: (B, 1, T or 1, C + T) bool, True where the row may attend to the
        column. context: keys and values (B, k, C, c) for each layer, which precede those of x. With
        ``keys_only`` the output is that of the last layer but one.
        """
        # Where the heads run under autocast, the residual stream stays in the weights' dtype.
        x = x.to(self.layers[0].input_layernorm.weight.dtype)
        rotation = rotary(positions, self.head_dim)
        # Broadcast to (B, 1, groups * T, C + T).
        rows = mask if mask.shape[2] == 1 else mask.repeat(1, 1, self.groups, 1)
        keys, hidden = [], {}
        for number, layer in enumerate(self.layers):
            before = None if context is None else context[number]
            # Gradient checkpointing: activations are recomputed in the backward pass.
            recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
            arguments = (layer, x, rotation, rows, before)
            x, own = (
                checkpoint(self._layer, *arguments, use_reentrant=False)
                if recompute
                else self._layer(*arguments)
            )
            keys.append(own)
            if number in layers:
                hidden[number] = x
        return x, keys, [hidden[layer] for layer in layers]

    def _layer(
        self,
        layer: GemmaDecoderLayer,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        rows: Tensor,
        context: KeyValue | None,
    ) -> tuple[Tensor, KeyValue]:
        """One layer's output (B, T, d) and its keys and values of x, (B, k, T, c) each.

        rows: the mask, repeated for all query heads that share a key head.
        """
        project = layer.self_attn
        h = layer.input_layernorm(x)
        own = key, value = (
            self._rotated(project.k_proj(h), rotation),
            self._split(project.v_proj(h)),
        )
        if not hasattr(project, "q_proj"):
            return x, own
        query = self._rotated(project.q_proj(h), rotation)
        if context is not None:
            key, value = torch.cat([context[0], key], dim=2), torch.cat([context[1], value], dim=2)
        # Query heads that share a key head become rows of one head: keys are not copied.
        h = attention(query.unflatten(1, (-1, self.groups)).flatten(2, 3), key, value, rows)
        h = h.unflatten(2, (self.groups, -1)).flatten(1, 2)  # (B, h, T, c)
        x = x + project.o_proj(h.transpose(1, 2).flatten(2))
        return x + layer.mlp(layer.post_attention_layernorm(x)), own

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, h or k, T, c)

    def _rotated(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        cos, sin = rotation
        x = self._split(x)
        # Computed in float32, as in the training of the published weights.
        return (x * cos + rotate_half(x) * sin).to(x.dtype)
