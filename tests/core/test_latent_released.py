"""The released weights: names, shapes, and outputs compared with an independent computation."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear

from alam_core.errors import UserError
from alam_core.latent_action.layers import patchify
from alam_core.latent_action.released import load_released

WIDTH, HEADS, PATCH, TOKENS, LATENT, CODES = 128, 2, 28, 3, 8, 5  # 64 numbers a head, as released
SIDE = 224


def released(encoder_layers: int = 2, decoder_layers: int = 1) -> dict[str, Tensor]:
    """A small state dict with the release's names and shapes, and random values."""
    generator = torch.Generator().manual_seed(0)
    numbers = 3 * PATCH**2
    shapes: dict[str, tuple[int, ...]] = {
        "action_latent": (1, 1, TOKENS, numbers),
        "vector_quantizer.embedding.weight": (CODES, LATENT),
    }

    def layer(name: str, out: int, inputs: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (out, inputs)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    layer("to_codebook", LATENT, WIDTH)
    layer("patch_up", WIDTH, numbers)
    layer("action_up", WIDTH, LATENT)
    layer("physical_latent_action_up", WIDTH, LATENT)
    layer("decoder.out", numbers, WIDTH)
    for part, inputs, depth in (
        ("encoder", numbers, encoder_layers),
        ("decoder", WIDTH, decoder_layers),
    ):
        norm(f"{part}.ffn.0", inputs)
        layer(f"{part}.ffn.1", WIDTH, inputs)
        norm(f"{part}.ffn.2", WIDTH)
        for i in range(depth):
            block = f"{part}.transformer_blocks.{i}"
            for attention in ("spatial_attn", "temporal_attn")[: 2 if part == "encoder" else 1]:
                for name in ("to_q", "to_k", "to_v"):
                    layer(f"{block}.{attention}.{name}", WIDTH, WIDTH, bias=False)
                layer(f"{block}.{attention}.to_out.0", WIDTH, WIDTH)
            layer(f"{block}.ffn.0", 4 * WIDTH, WIDTH)
            layer(f"{block}.ffn.3", WIDTH, 4 * WIDTH)
            for i_norm in range(3 if part == "encoder" else 2):
                norm(f"{block}.norm{i_norm + 1}", WIDTH)
    # VGG's convolutions, and LPIPS's five linear layers under each of their two names.
    for i in range(13):
        layer(f"loss_fn_lpips.net.slice.{i}", 4, 4)
    for i in range(5):
        layer(f"loss_fn_lpips.lin{i}.model.1", 1, 4, bias=False)
        layer(f"loss_fn_lpips.lins.{i}.model.1", 1, 4, bias=False)
    shapes["loss_fn_lpips.scaling_layer.shift"] = shapes["loss_fn_lpips.scaling_layer.scale"] = (
        1,
        3,
        1,
        1,
    )
    return {
        name: 0.3 * torch.randn(shape, generator=generator) / max(1, shape[-1]) ** 0.25
        for name, shape in shapes.items()
    }


def attend(tensors: dict[str, Tensor], name: str, x: Tensor, causal: bool) -> Tensor:
    """Attention along the second last axis of x (..., L, d), written out head by head."""
    q, k, v = (linear(x, tensors[f"{name}.to_{part}.weight"]) for part in "qkv")
    heads = []
    for rows in torch.arange(WIDTH).split(WIDTH // HEADS):
        score = q[..., rows] @ k[..., rows].transpose(-1, -2) / math.sqrt(len(rows))
        if causal:
            score = score + torch.full(score.shape[-2:], -torch.inf).triu(1)
        heads.append(score.softmax(-1) @ v[..., rows])
    return linear(
        torch.cat(heads, -1), tensors[f"{name}.to_out.0.weight"], tensors[f"{name}.to_out.0.bias"]
    )


def normed(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def dense(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def transformer(tensors: dict[str, Tensor], part: str, x: Tensor, depth: int) -> Tensor:
    """x (B, T, L, inputs) -> (B, T, L, d): embedding, positions along L, blocks with attention
    along L and, in the encoder, along T.
    """
    x = normed(
        tensors,
        f"{part}.ffn.2",
        dense(tensors, f"{part}.ffn.1", normed(tensors, f"{part}.ffn.0", x)),
    )
    position = torch.zeros(x.shape[2], WIDTH)
    for column in range(WIDTH):
        angle = torch.arange(x.shape[2]) / 10_000 ** ((column - column % 2) / WIDTH)
        position[:, column] = angle.cos() if column % 2 else angle.sin()
    x = x + position
    for i in range(depth):
        block = f"{part}.transformer_blocks.{i}"
        x = x + attend(
            tensors, f"{block}.spatial_attn", normed(tensors, f"{block}.norm1", x), causal=False
        )
        if part == "encoder":
            along_time = normed(tensors, f"{block}.norm2", x).transpose(1, 2)
            x = x + attend(tensors, f"{block}.temporal_attn", along_time, causal=True).transpose(
                1, 2
            )
        last = normed(tensors, f"{block}.norm{3 if part == 'encoder' else 2}", x)
        x = x + dense(tensors, f"{block}.ffn.3", gelu(dense(tensors, f"{block}.ffn.0", last)))
    return x


def save(tensors: dict[str, Tensor], folder: Path) -> Path:
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        folder / "model.safetensors",
    )
    return folder


def test_it_computes_what_the_released_network_computes(tmp_path: Path) -> None:
    tensors = released()
    model = load_released(save(tensors, tmp_path))
    # (2, B, 3, S, S): source and target frames.
    frames = torch.rand(2, 2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    patches = torch.stack([patchify(part, PATCH) for part in frames], dim=1)  # (B, T, N, P)
    queries = tensors["action_latent"].expand(2, 2, -1, -1)
    with torch.no_grad():
        encoded = transformer(tensors, "encoder", torch.cat([queries, patches], dim=2), depth=2)
        z = dense(tensors, "to_codebook", encoded[:, 1, :TOKENS])
        assert torch.allclose(model.encode(*frames), z, atol=1e-4)
        given = torch.cat(
            [dense(tensors, "action_up", z), dense(tensors, "patch_up", patches[:, 0])], dim=1
        )[:, None]
        decoded = torch.sigmoid(
            dense(
                tensors,
                "decoder.out",
                transformer(tensors, "decoder", given, depth=1)[:, 0, TOKENS:],
            )
        )
        assert torch.allclose(patchify(model.decode(frames[0], z), PATCH), decoded, atol=1e-4)


def test_patches_count_rows_columns_channels() -> None:
    image = torch.arange(3 * 4 * 4.0).reshape(1, 3, 4, 4)
    patches = patchify(image, 2)
    assert patches.shape == (1, 4, 12)
    assert torch.equal(patches[0, 1].reshape(2, 2, 3), image[0, :, 0:2, 2:4].permute(1, 2, 0))


def test_the_codebook_is_taken_over_and_used(tmp_path: Path) -> None:
    tensors = released()
    model = load_released(save(tensors, tmp_path))
    codebook = tensors["vector_quantizer.embedding.weight"]
    z_q, codes = model.quantize(torch.stack([codebook[[4, 0, 2]] + 1e-3]))
    assert codes is not None and codes.tolist() == [[4, 0, 2]]
    assert torch.allclose(z_q[0], codebook[[4, 0, 2]])


def test_the_full_size_has_458_tensors(tmp_path: Path) -> None:
    assert len(released(12, 12)) == 458
    load_released(save(released(12, 12), tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        "encoder.transformer_blocks.1.temporal_attn.to_v.weight",
        "decoder.out.bias",
        "to_codebook.weight",
    ],
)
def test_a_missing_tensor_is_named(tmp_path: Path, name: str) -> None:
    tensors = released()
    del tensors[name]
    with pytest.raises(UserError, match="missing|lacks"):
        load_released(save(tensors, tmp_path))


def test_an_unknown_tensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"unexpected encoder\.transformer_blocks\.0\.extra\.weight"
    ):
        load_released(
            save(
                {**released(), "encoder.transformer_blocks.0.extra.weight": torch.zeros(2)},
                tmp_path,
            )
        )


def test_pickles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"")
    with pytest.raises(UserError, match="safetensors"):
        load_released(path)
