"""Checkpoints: folders of ``config.json``, ``model.safetensors``, ``stats.json`` (normalisation,
policies only) and ``README.md`` (the model card).

Saving is atomic: a new folder is written beside the target and renamed when it is complete. Loading
is strict: an error names every key that is missing, unexpected or of the wrong shape. Nothing is
unpickled.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from alam_core.errors import UserError, listing, one_line
from alam_core.files import instead_of, replacing_folder
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
    card: content of README.md. files: name -> content of further files of the model. Raises OSError
    if it cannot be written; an older model then stays.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in model.state_dict().items()
    }
    with replacing_folder(folder) as new:
        save_tensors(tensors, new / "model.safetensors")
        (new / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if stats is not None:
            (new / "stats.json").write_text(json.dumps(stats, indent=2) + "\n")
        for name, content in {**(files or {}), "README.md": card}.items():
            (new / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def save_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file. Raises OSError, unlike safetensors, which has an error of its own
    for a full disk.
    """
    try:
        safetensors.torch.save_file(tensors, path, metadata)
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from None


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
    _check_complete(folder)
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
        what = f"a {config['kind']} model" if "kind" in config else "another project's model"
        raise UserError(
            f"'{folder}' holds {what} where a {' or '.join(kinds)} model is needed "
            f"(its config.json has: {listing(config, like='kind')})"
        )
    try:
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
    except (SafetensorError, OSError) as error:
        raise UserError(unreadable_weights(folder / "model.safetensors", error)) from None
    return Checkpoint(config, tensors, folder, stats)


def checkpoint_folder(name: str | Path, files: Sequence[str] = FILES) -> Path:
    """The local folder of a checkpoint: ``name`` itself, or, for a hub id "owner/name", the folder
    to which ``files`` were downloaded.

    Raises UserError if ``name`` is an id and the hub does not have the model.
    """
    return fetch(str(name), files, "checkpoint") if is_hub_id(name) else Path(name)


def load_tensors(model: nn.Module, tensors: dict[str, Tensor], source: str | Path) -> None:
    """Load tensors into a model, converted to the model's dtypes.

    source: where they came from, for the error message. Raises UserError if keys are missing,
    unexpected or of the wrong shape; the model is then unchanged.
    """
    own = model.state_dict()
    check_tensors(
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        {name: tuple(tensor.shape) for name, tensor in own.items()},
        source,
        "was it made by another version of this project? Train it again, or use that version",
    )
    model.load_state_dict(tensors, strict=True)


def check_tensors(
    found: Mapping[str, tuple[int, ...]],
    needed: Mapping[str, tuple[int, ...]],
    source: str | Path,
    advice: str,
) -> None:
    """Raise UserError unless a file has all tensors that a model needs, no others, and in the right
    shapes; name -> shape. The message names the first few of each kind.

    source: the file, advice: what to do, both for the message.
    """
    kinds = {
        "missing ": [name for name in needed if name not in found],
        "unexpected ": [name for name in found if name not in needed],
        "": [
            f"{name} is {found[name]} instead of {needed[name]}"
            for name in needed
            if name in found and found[name] != needed[name]
        ],
    }
    problems = "; ".join(kind + listing(names) for kind, names in kinds.items() if names)
    if problems:
        raise UserError(f"'{source}' does not fit the model ({problems}): {advice}")


def unreadable_weights(path: Path, error: Exception) -> str:
    """The message for a safetensors file that cannot be read: what it is instead, if that can be
    seen, and what to do.
    """
    if instead := instead_of(path, "weights"):
        return f"'{path}' is {instead}"
    return (
        f"'{path}' cannot be read ({one_line(error)}): it is incomplete or damaged; copy it again"
    )


def _check_complete(folder: Path) -> None:
    """Raise UserError unless a folder has the two files that every checkpoint has."""
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise UserError(
                f"'{folder}' is not a checkpoint: {name} is missing "
                f"(there is: {listing(there, like=name)}); give the folder that holds it, such as "
                ".../model of a pretraining or .../policy of a finetuning run"
            )


def checkpoint_hash(folder: str | Path) -> str:
    """16 hex digits that change with a model folder's weights or configuration: a cache key for
    what was computed with the model.

    Raises UserError if the folder lacks config.json or model.safetensors.
    """
    _check_complete(Path(folder))
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        with (Path(folder) / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
