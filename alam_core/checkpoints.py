"""Checkpoints: folders of ``config.json``, ``model.safetensors``, ``stats.json`` (normalisation,
policies only) and ``README.md`` (the model card).

Saving is atomic: a new folder is written beside the target and renamed when it is complete. Loading
is strict: an error names every key that is missing, unexpected or of the wrong shape. Nothing is
unpickled.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from alam_core.errors import UserError
from alam_core.files import replacing_folder
from alam_core.hub import fetch, is_hub_id

FILES = (
    "config.json",
    "model.safetensors",
    "stats.json",
    "tokenizer.json",
    "text_encoder.json",
    "text_encoder.safetensors",
    "README.md",
)


@dataclass
class Checkpoint:
    """The content of a model folder, read but not yet loaded into a model."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    folder: Path
    stats: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    folder: str | Path,
    model: nn.Module,
    config: dict[str, Any],
    stats: dict[str, Any] | None = None,
    card: str = "",
    files: Mapping[str, str | bytes] | None = None,
) -> Path:
    """Write a model folder atomically, replacing an older one.

    config: must contain ``"kind"``, the type of model, such as ``"transition"`` or ``"policy"``.
    card: content of README.md. files: name -> content of further files of the model.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in model.state_dict().items()
    }
    with replacing_folder(folder) as new:
        safetensors.torch.save_file(tensors, new / "model.safetensors")
        (new / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if stats is not None:
            (new / "stats.json").write_text(json.dumps(stats, indent=2) + "\n")
        for name, content in {**(files or {}), "README.md": card}.items():
            (new / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def read_checkpoint(folder: str | Path, *kinds: str) -> Checkpoint:
    """Read a model of one of the given kinds.

    folder: a model folder, or an id "owner/name" on the model hub, which is downloaded once. Raises
    UserError if the folder or a file is missing or broken, which the message names, and for a model
    of another kind.
    """
    folder = checkpoint_folder(folder)
    if not folder.is_dir():
        raise UserError(
            f"no checkpoint at '{folder}': give a folder with config.json and model.safetensors"
        )
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise UserError(f"'{folder}' is not a checkpoint: {name} is missing")
    try:
        config = json.loads((folder / "config.json").read_text())
        stats_file = folder / "stats.json"
        stats = json.loads(stats_file.read_text()) if stats_file.is_file() else {}
    except ValueError as error:
        raise UserError(f"'{folder}': broken JSON ({error}); copy the checkpoint again") from None
    if not isinstance(config, dict) or not isinstance(stats, dict):
        raise UserError(
            f"'{folder}': config.json and stats.json must hold objects; restore them from where "
            "the checkpoint came"
        )
    if config.get("kind") not in kinds:
        raise UserError(
            f"'{folder}' holds a {config.get('kind', 'nameless')} model where a "
            f"{' or '.join(kinds)} model is needed"
        )
    try:
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"'{folder}/model.safetensors' cannot be read ({error}); is the file complete?"
        ) from None
    return Checkpoint(config, tensors, folder, stats)


def checkpoint_folder(name: str | Path, files: Sequence[str] = FILES) -> Path:
    """The local folder of a checkpoint: ``name`` itself, or, for a hub id "owner/name", the folder
    to which ``files`` were downloaded.

    Raises UserError if ``name`` is an id and the hub does not have the model.
    """
    return fetch(str(name), files, "checkpoint") if is_hub_id(name) else Path(name)


def load_tensors(model: nn.Module, tensors: dict[str, Tensor], source: str | Path) -> None:
    """Load tensors into a model, converted to the model's dtypes.

    source: where they came from, for the error message. Raises UserError, which names every key
    that is missing, unexpected or of the wrong shape; the model is then unchanged.
    """
    own = model.state_dict()
    problems = [f"missing {name}" for name in own if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in own]
    problems += [
        f"{name} is {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if problems:
        raise UserError(f"'{source}' does not fit the model: {'; '.join(problems)}")
    model.load_state_dict(tensors, strict=True)


def checkpoint_hash(folder: str | Path) -> str:
    """16 hex digits that change with a model folder's weights or configuration: a cache key for
    what was computed with the model.

    Raises UserError if the folder lacks config.json or model.safetensors.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        path = Path(folder) / name
        if not path.is_file():
            raise UserError(f"'{folder}' is not a checkpoint: {name} is missing")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
