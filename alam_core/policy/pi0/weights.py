"""Loads published pi0 weights (openpi's PyTorch port, LeRobot's ``pi0_base``) into a backbone and
the heads of the action, strictly.

Names and shapes are those of the published files. Nothing is unpickled, and only one tensor at a
time is in memory in addition to the model.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from alam_core.checkpoints import check_tensors, unreadable_weights
from alam_core.errors import UserError
from alam_core.policy.backbone import Backbone

# openpi's module -> ours; "backbone", "input" and "output" are the arguments of ``load_pi0``. A
# tensor of any other module is an error.
PALIGEMMA, EXPERT = "paligemma_with_expert.paligemma", "paligemma_with_expert.gemma_expert"
NAMES = {
    f"{PALIGEMMA}.model.vision_tower.vision_model": "backbone.vision",
    f"{PALIGEMMA}.model.multi_modal_projector.linear": "backbone.projector",
    f"{PALIGEMMA}.model.language_model.embed_tokens": "backbone.words",
    f"{PALIGEMMA}.model.language_model.layers": "backbone.prefix.layers",
    f"{EXPERT}.model.layers": "backbone.expert.layers",
    f"{EXPERT}.model.norm": "backbone.norm",
    "state_proj": "backbone.state",
    "action_in_proj": "input.project",
    "action_time_mlp_in": "input.mlp_in",
    "action_time_mlp_out": "input.mlp_out",
    "action_out_proj": "output",
}
# Files that are downloaded from the model hub.
PUBLISHED = ("*.safetensors", "*.safetensors.index.json")
EMBEDDING, TIED = (
    f"{PALIGEMMA}.model.language_model.embed_tokens.weight",
    f"{PALIGEMMA}.lm_head.weight",
)
# The output layers of the language models, which a policy does not use.
UNUSED = (f"{PALIGEMMA}.model.language_model.norm.", f"{EXPERT}.lm_head.")
# Tensors of ours that published weights do not have; they keep their random values.
UNPUBLISHED = ("backbone.no_state",)
# The tensors of the prefix's last layer that are used.
KEYS = ("input_layernorm.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight")


def our_name(name: str, layers: int) -> str | None:
    """Our name of a tensor of openpi, None if it is not used. Unknown names are returned unchanged.

    layers: number of layers of the language model.
    """
    last = f"{PALIGEMMA}.model.language_model.layers.{layers - 1}."
    if name.startswith(UNUSED) or (name.startswith(last) and not name.endswith(KEYS)):
        return None
    if name == TIED:
        return our_name(EMBEDDING, layers)
    module = next((module for module in NAMES if name.startswith(module + ".")), None)
    return name if module is None else NAMES[module] + name.removeprefix(module)


def load_pi0(
    path: str | Path, backbone: Backbone, input_head: nn.Module, output_head: nn.Module
) -> None:
    """Load published weights into a backbone and the heads of the action, in the model's dtypes.

    path: a safetensors file, or a folder with ``model.safetensors`` or
    ``model.safetensors.index.json``. Names are openpi's, with or without LeRobot's prefix
    ``model.``. Raises UserError if tensors are missing, unexpected or of the wrong shape; the model
    is then unchanged.
    """
    modules = {"backbone": backbone, "input": input_head, "output": output_head}
    own = {
        f"{part}.{name}": tensor
        for part, module in modules.items()
        for name, tensor in module.state_dict().items()
        if f"{part}.{name}" not in UNPUBLISHED
    }
    files = _files(Path(path))
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        with _open(file) as opened:
            shapes |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118

    targets = {}  # their name -> ours
    for name in shapes:
        openpi = name.removeprefix("model.")
        target = our_name(openpi, backbone.depth)
        tied_twice = openpi == TIED and name.removesuffix(TIED) + EMBEDDING in shapes
        if target is not None and not tied_twice:
            targets[name] = target
    theirs = {target: name for name, target in targets.items()}
    check_tensors(
        {name: shapes[name] for name in targets},
        {theirs.get(name, _their_name(name)): tuple(tensor.shape) for name, tensor in own.items()},
        path,
        "the names and shapes must be those of openpi's PyTorch weights or LeRobot's pi0_base; "
        "convert an older checkpoint with LeRobot's or openpi's script first",
    )

    with torch.no_grad():
        for file in files:
            with _open(file) as opened:
                for name in opened.keys():  # noqa: SIM118
                    if name in targets:
                        own[targets[name]].copy_(opened.get_tensor(name))


def _their_name(name: str) -> str:
    theirs, ours = next(
        (theirs, ours) for theirs, ours in NAMES.items() if name.startswith(ours + ".")
    )
    return theirs + name.removeprefix(ours)


def _files(path: Path) -> list[Path]:
    """The safetensors files at ``path``. Raises UserError for other formats and a broken index."""
    if not path.is_dir():
        if path.suffix != ".safetensors":
            raise UserError(f"'{path}' is not a safetensors file, and other formats can run code")
        return [path]
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        return [path / "model.safetensors"]
    try:
        return [
            path / name
            for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"'{index}' is broken: it must map tensors to files under 'weight_map'; download it "
            "again"
        ) from None


def _open(file: Path) -> safe_open:
    if not file.is_file():
        raise UserError(
            f"'{file}' is missing: give pi0's safetensors file, or the folder with all its parts"
        )
    try:
        return safe_open(file, "pt")
    except (SafetensorError, OSError) as error:
        raise UserError(unreadable_weights(file, error)) from None
