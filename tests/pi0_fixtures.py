"""A tiny pi0 in the published format: its tensors by name, and its outputs, computed in plain torch
from the published description alone.

Nothing here uses ``alam_core.policy.pi0``. Letters: B batch, V views, W words, H steps, T tokens, c
numbers per head.
"""

import math

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers

IMAGE, PATCH, VISION, VISION_LAYERS, VISION_HEADS, VISION_MLP = 8, 4, 12, 2, 3, 20
TEXT, TEXT_MLP, EXPERT, EXPERT_MLP, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 16, 24, 10, 14, 3, 4, 1, 6
VOCABULARY, WORDS, STATE, ACTION = 32, 5, 7, 9
SIZE = {
    **{
        "patch_size": PATCH,
        "vision_width": VISION,
        "vision_layers": VISION_LAYERS,
        "vision_heads": VISION_HEADS,
    },
    **{
        "vision_mlp_width": VISION_MLP,
        "text_width": TEXT,
        "text_mlp_width": TEXT_MLP,
        "expert_width": EXPERT,
    },
    **{
        "expert_mlp_width": EXPERT_MLP,
        "layers": LAYERS,
        "heads": HEADS,
        "kv_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
    },
    **{"vocabulary": VOCABULARY, "max_words": WORDS, "state_width": STATE, "action_width": ACTION},
}

PALIGEMMA = "paligemma_with_expert.paligemma"
VISION_TOWER = f"{PALIGEMMA}.model.vision_tower.vision_model"
LANGUAGE = f"{PALIGEMMA}.model.language_model"
GEMMA_EXPERT = "paligemma_with_expert.gemma_expert.model"


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of a published checkpoint, at this size."""
    listed: dict[str, tuple[int, ...]] = {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        listed.update({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)})

    def norm(name: str, width: int) -> None:
        listed.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    linear("state_proj", STATE, EXPERT)
    linear("action_in_proj", ACTION, EXPERT)
    linear("action_out_proj", EXPERT, ACTION)
    linear("action_time_mlp_in", 2 * EXPERT, EXPERT)
    linear("action_time_mlp_out", EXPERT, EXPERT)
    listed[f"{VISION_TOWER}.embeddings.patch_embedding.weight"] = (VISION, 3, PATCH, PATCH)
    listed[f"{VISION_TOWER}.embeddings.patch_embedding.bias"] = (VISION,)
    listed[f"{VISION_TOWER}.embeddings.position_embedding.weight"] = ((IMAGE // PATCH) ** 2, VISION)
    for i in range(VISION_LAYERS):
        layer = f"{VISION_TOWER}.encoder.layers.{i}"
        norm(f"{layer}.layer_norm1", VISION)
        norm(f"{layer}.layer_norm2", VISION)
        linear(f"{layer}.mlp.fc1", VISION, VISION_MLP)
        linear(f"{layer}.mlp.fc2", VISION_MLP, VISION)
        for name in ("q", "k", "v", "out"):
            linear(f"{layer}.self_attn.{name}_proj", VISION, VISION)
    norm(f"{VISION_TOWER}.post_layernorm", VISION)
    linear(f"{PALIGEMMA}.model.multi_modal_projector.linear", VISION, TEXT)
    for stack, width, mlp in ((LANGUAGE, TEXT, TEXT_MLP), (GEMMA_EXPERT, EXPERT, EXPERT_MLP)):
        for i in range(LAYERS):
            layer = f"{stack}.layers.{i}"
            listed[f"{layer}.self_attn.q_proj.weight"] = (HEADS * HEAD_DIM, width)
            listed[f"{layer}.self_attn.k_proj.weight"] = (KV_HEADS * HEAD_DIM, width)
            listed[f"{layer}.self_attn.v_proj.weight"] = (KV_HEADS * HEAD_DIM, width)
            listed[f"{layer}.self_attn.o_proj.weight"] = (width, HEADS * HEAD_DIM)
            listed[f"{layer}.mlp.gate_proj.weight"] = (mlp, width)
            listed[f"{layer}.mlp.up_proj.weight"] = (mlp, width)
            listed[f"{layer}.mlp.down_proj.weight"] = (width, mlp)
            listed[f"{layer}.input_layernorm.weight"] = (width,)
            listed[f"{layer}.post_attention_layernorm.weight"] = (width,)
        listed[f"{stack}.norm.weight"] = (width,)
    listed[f"{LANGUAGE}.embed_tokens.weight"] = (VOCABULARY, TEXT)
    listed[f"{PALIGEMMA}.lm_head.weight"] = (VOCABULARY, TEXT)
    listed["paligemma_with_expert.gemma_expert.lm_head.weight"] = (VOCABULARY, EXPERT)
    return listed


def random_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: 0.4 * torch.randn(shape, generator=generator) for name, shape in shapes().items()
    }
    weights[f"{PALIGEMMA}.lm_head.weight"] = weights[f"{LANGUAGE}.embed_tokens.weight"].clone()
    return weights


def velocity(weights, images, there, words, state, actions, tau, mask):
    """One forward pass over [images, words, state, actions], nothing cached.

    images: (V, B, 3, S, S). there: (B, V) bool. words: (B, W), 0 is padding. state: (B, STATE).
    actions: (B, H, ACTION). tau: (B,). mask: (H, H) bool among the actions. Returns (B, H, ACTION).
    """

    def linear(name, x):
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def rms(name, x):
        return (
            x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * (1 + weights[f"{name}.weight"])
        )

    batch, steps, _ = actions.shape
    patches = [
        linear(f"{PALIGEMMA}.model.multi_modal_projector.linear", _siglip(weights, image))
        for image in images
    ]
    embedded = weights[f"{LANGUAGE}.embed_tokens.weight"][words] * math.sqrt(TEXT)
    prefix = torch.cat([*patches, embedded], dim=1)
    period = 4e-3 * (4.0 / 4e-3) ** torch.linspace(0, 1, EXPERT // 2, dtype=torch.float64)
    phase = 2 * math.pi * tau.double()[:, None] / period
    time = torch.cat([phase.sin(), phase.cos()], -1).float()[:, None].expand(-1, steps, -1)
    mixed = linear("action_time_mlp_in", torch.cat([linear("action_in_proj", actions), time], -1))
    suffix = torch.cat(
        [linear("state_proj", state)[:, None], linear("action_time_mlp_out", F.silu(mixed))], dim=1
    )

    present = torch.cat(
        [
            there.repeat_interleave(patches[0].shape[1], dim=1),
            words != 0,
            torch.ones(batch, 1 + steps).bool(),
        ],
        dim=1,
    )
    positions = present.cumsum(1) - 1
    count = prefix.shape[1]
    block = torch.tensor([0] * count + [1] + [2] * steps)
    allowed = block[None, :] <= block[:, None]
    allowed[count + 1 :, count + 1 :] = mask
    allowed = (allowed & present[:, None])[:, None]  # (B, 1, T, T)

    def rope(x):  # (B, h, T, c)
        frequency = 10_000.0 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        angle = positions[:, None, :, None] * frequency
        left, right = x.chunk(2, dim=-1)
        return torch.cat(
            [left * angle.cos() - right * angle.sin(), right * angle.cos() + left * angle.sin()],
            dim=-1,
        )

    for i in range(LAYERS):
        names = f"{LANGUAGE}.layers.{i}", f"{GEMMA_EXPERT}.layers.{i}"
        normed = [
            rms(f"{name}.input_layernorm", x)
            for name, x in zip(names, (prefix, suffix), strict=True)
        ]

        def project(which, heads, names=names, normed=normed):
            parts = [
                linear(f"{name}.self_attn.{which}_proj", x)
                for name, x in zip(names, normed, strict=True)
            ]
            return torch.cat(parts, dim=1).view(batch, -1, heads, HEAD_DIM).transpose(1, 2)

        query, key, value = (
            rope(project("q", HEADS)),
            rope(project("k", KV_HEADS)),
            project("v", KV_HEADS),
        )
        key, value = (x.repeat_interleave(HEADS // KV_HEADS, dim=1) for x in (key, value))
        scores = (query @ key.mT / math.sqrt(HEAD_DIM)).masked_fill(~allowed, -1e30)
        attended = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        outputs = []
        for name, x, h in zip(
            names, (prefix, suffix), attended.split([count, 1 + steps], dim=1), strict=True
        ):
            x = x + linear(f"{name}.self_attn.o_proj", h)
            h = rms(f"{name}.post_attention_layernorm", x)
            gate = F.gelu(linear(f"{name}.mlp.gate_proj", h), approximate="tanh")
            outputs.append(
                x + linear(f"{name}.mlp.down_proj", gate * linear(f"{name}.mlp.up_proj", h))
            )
        prefix, suffix = outputs
    return linear("action_out_proj", rms(f"{GEMMA_EXPERT}.norm", suffix)[:, 1:])


def _siglip(weights, image):
    """(B, 3, S, S) -> (B, patches, VISION)."""

    def linear(name, x):
        return F.linear(
            x, weights[f"{VISION_TOWER}.{name}.weight"], weights[f"{VISION_TOWER}.{name}.bias"]
        )

    def norm(name, x):
        return F.layer_norm(
            x,
            (VISION,),
            weights[f"{VISION_TOWER}.{name}.weight"],
            weights[f"{VISION_TOWER}.{name}.bias"],
            1e-6,
        )

    embedding = f"{VISION_TOWER}.embeddings"
    x = F.conv2d(
        image,
        weights[f"{embedding}.patch_embedding.weight"],
        weights[f"{embedding}.patch_embedding.bias"],
        stride=PATCH,
    )
    x = x.flatten(2).mT + weights[f"{embedding}.position_embedding.weight"]
    for i in range(VISION_LAYERS):
        layer = f"encoder.layers.{i}"
        h = norm(f"{layer}.layer_norm1", x)
        heads = [
            linear(f"{layer}.self_attn.{n}_proj", h)
            .unflatten(-1, (VISION_HEADS, -1))
            .transpose(1, 2)
            for n in ("q", "k", "v")
        ]
        scores = heads[0] @ heads[1].mT / math.sqrt(VISION // VISION_HEADS)
        x = x + linear(
            f"{layer}.self_attn.out_proj",
            (scores.softmax(-1) @ heads[2]).transpose(1, 2).flatten(2),
        )
        h = linear(f"{layer}.mlp.fc1", norm(f"{layer}.layer_norm2", x))
        x = x + linear(f"{layer}.mlp.fc2", F.gelu(h, approximate="tanh"))
    return norm("post_layernorm", x)


def make_tokenizer(
    words=("<pad>", "<eos>", "<bos>", "<unk>", "\n", "push", "the", "red", "block"),
) -> Tokenizer:
    """A tokenizer of whole words, with PaliGemma's first ids."""
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    return tokenizer
