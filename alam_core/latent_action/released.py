"""Converts the weights that the authors released (``alam_pretrain``, 458 tensors) to a
``TransitionModel`` with the ``paper`` preset.

Their encoder is ours with embed_norm and without the difference input; their decoder predicts the
frame through a sigmoid. Names, shapes and the order of a patch's numbers (rows, columns, channels)
are taken from the released code. Their images enter in [0, 1], ours are centred: a layer norm right
after removes the difference, and in the decoder's embedding the bias absorbs it.
"""

import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alam_core.checkpoints import load_tensors
from alam_core.errors import UserError
from alam_core.latent_action.config import LossConfig, TransitionConfig
from alam_core.latent_action.model import TransitionModel

# The authors' name -> ours. A tensor that is neither listed nor ignored is an error.
NAMES = {
    "action_latent": "encoder.queries",
    "encoder.ffn": "encoder.embed.project",
    "encoder.transformer_blocks": "encoder.blocks",
    "to_codebook": "encoder.head",
    "vector_quantizer.embedding.weight": "quantizer.vq._codebook.embed",
    "patch_up": "decoder.f_beta",
    "action_up": "decoder.f_alpha",
    "decoder.ffn": "decoder.embed.project",
    "decoder.transformer_blocks": "decoder.blocks",
    "decoder.out": "decoder.pixels",
}
ENCODER_BLOCK = {"norm1": "spatial_norm", "norm2": "temporal_norm", "norm3": "mlp_norm"}
DECODER_BLOCK = {"norm1": "spatial_norm", "norm2": "mlp_norm"}
BLOCK = {"spatial_attn": "spatial", "temporal_attn": "temporal", "ffn.0": "mlp.0", "ffn.3": "mlp.2"}
ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "out"}
# The perceptual network, and a layer that the authors' forward pass does not use.
IGNORED = ("loss_fn_lpips.", "physical_latent_action_up.")


def load_released(path: str | Path) -> TransitionModel:
    """The released model, in eval mode on the CPU.

    path: a safetensors file, or a folder with ``model.safetensors``. Sizes are those of the
    tensors; attention heads have 64 numbers and images 224 px, as in the released code. Raises
    UserError, which names every tensor that is missing, unexpected or of the wrong shape.
    """
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if file.suffix != ".safetensors":
        raise UserError(
            f"'{file}' is not a safetensors file, and other formats can run code: save its tensors "
            "with safetensors first"
        )
    if not file.is_file():
        raise UserError(
            f"'{file}' is missing: give the release's safetensors file, or the folder that holds it"
        )
    try:
        with safe_open(file, "pt") as opened:
            theirs = {
                name: opened.get_tensor(name).float()
                for name in opened.keys()  # noqa: SIM118
                if not name.startswith(IGNORED)
            }
    except (SafetensorError, OSError) as error:
        raise UserError(f"'{file}' cannot be read ({error}): download it again") from None
    model = TransitionModel(_config(theirs, file))
    tensors = {our_name(name): tensor for name, tensor in theirs.items()}
    tensors["encoder.queries"] = tensors["encoder.queries"].flatten(0, -2)
    tensors["decoder.f_beta.bias"] = tensors["decoder.f_beta.bias"] + 0.5 * tensors[
        "decoder.f_beta.weight"
    ].sum(dim=1)
    codebook = tensors["quantizer.vq._codebook.embed"][None]
    own = {
        name: value
        for name, value in model.state_dict().items()
        if name.startswith("quantizer.") or name == "steps"
    }
    own |= {
        "steps": torch.ones_like(own["steps"]),  # above warmup_steps: the codebook is in use
        "quantizer.vq._codebook.embed": codebook,
        "quantizer.vq._codebook.embed_avg": codebook.clone(),
        "quantizer.vq._codebook.cluster_size": torch.ones(codebook.shape[:2]),
        "quantizer.vq._codebook.initted": torch.ones_like(own["quantizer.vq._codebook.initted"]),
    }
    load_tensors(model, {**tensors, **own}, file)
    return model.eval()


def our_name(name: str) -> str:
    """Our name of a released tensor. Unknown names are returned unchanged, so that strict loading
    reports them.
    """
    match = re.fullmatch(r"(encoder|decoder)\.transformer_blocks\.(\d+)\.(.+)\.(weight|bias)", name)
    if not match:
        stem = next(
            (prefix for prefix in NAMES if name == prefix or name.startswith(prefix + ".")), None
        )
        return name if stem is None else NAMES[stem] + name.removeprefix(stem)
    part, index, layer, kind = match.groups()
    parts = BLOCK | (ENCODER_BLOCK if part == "encoder" else DECODER_BLOCK)
    for prefix, ours in parts.items():
        if layer == prefix:
            return f"{part}.blocks.{index}.{ours}.{kind}"
        if layer.startswith(prefix + ".") and layer.removeprefix(prefix + ".") in ATTENTION:
            return (
                f"{part}.blocks.{index}.{ours}.{ATTENTION[layer.removeprefix(prefix + '.')]}.{kind}"
            )
    return name


def _config(tensors: dict[str, Tensor], file: Path) -> TransitionConfig:
    """The configuration that the shapes of the tensors imply."""
    needed = (
        "action_latent",
        "patch_up.weight",
        "to_codebook.weight",
        "vector_quantizer.embedding.weight",
    )
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise UserError(f"'{file}' lacks {', '.join(missing)}: is it the release's alam_pretrain?")

    def depth(part: str) -> int:
        return 1 + max(
            (
                int(name.split(".")[2])
                for name in tensors
                if name.startswith(f"{part}.transformer_blocks.")
            ),
            default=-1,
        )

    latent_dim, width = tensors["to_codebook.weight"].shape
    return TransitionConfig(
        encoder="relational",
        image_size=224,
        patch_size=round((tensors["patch_up.weight"].shape[1] / 3) ** 0.5),
        width=width,
        heads=max(1, width // 64),
        encoder_layers=depth("encoder"),
        decoder_layers=depth("decoder"),
        latent_tokens=tensors["action_latent"].shape[-2],
        latent_dim=latent_dim,
        codebook_size=len(tensors["vector_quantizer.embedding.weight"]),
        warmup_steps=0,
        ramp_steps=0,
        embed_norm=True,
        output="sigmoid",
        input_gain=1.0,
        difference_gain=0.0,
        losses=LossConfig(
            perc=1.0, perc_net="vgg", add=1.0, rev=1.0, algebra="paper", reconstruction="paper"
        ),
    )
