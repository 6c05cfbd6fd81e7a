"""Model folders: ``config.json``, ``model.safetensors``, ``stats.json`` (normalisation, optional)
and ``README.md`` (the card).

Saving is atomic (a folder beside the target, renamed when whole). Loading is strict: every missing,
unexpected or misshapen key is named. Nothing is unpickled.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from alam_core.errors import UserError
from alam_core.files import replacing_folder

FILES = (
    "config.json",
    "model.safetensors",
    "stats.json",
    "tokenizer.json",
    "text_encoder.json",
    "text_encoder.safetensors",
    "README.md",
)
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass
class Checkpoint:
    """What a model folder holds, read but not yet put into a model."""

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

    config must contain ``"kind"``, the sort of model (``"transition"`` or ``"policy"``). files:
    name -> content of what else belongs to it.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in model.state_dict().items()
    }
    with replacing_folder(folder) as temporary:
        safetensors.torch.save_file(tensors, temporary / "model.safetensors")
        (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if stats is not None:
            (temporary / "stats.json").write_text(json.dumps(stats, indent=2) + "\n")
        for name, content in {**(files or {}), "README.md": card}.items():
            (temporary / name).write_bytes(
                content.encode() if isinstance(content, str) else content
            )
    return folder


def read_checkpoint(folder: str | Path, kind: str) -> Checkpoint:
    """Read a model of the given kind: a folder, or an id "owner/name" on the model hub, which is
    fetched once.

    Raises UserError naming the folder or file that is missing or broken.
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
        raise UserError(
            f"'{folder}': broken JSON ({error}); restore the file from where the checkpoint came"
        ) from None
    if not isinstance(config, dict) or not isinstance(stats, dict):
        raise UserError(
            f"'{folder}': config.json and stats.json must hold objects; restore them from where the checkpoint came"
        )
    if config.get("kind") != kind:
        raise UserError(
            f"'{folder}' holds a {config.get('kind', 'nameless')} model where a {kind} model is needed"
        )
    try:
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"'{folder}/model.safetensors' cannot be read ({error}); is the file whole?"
        ) from None
    return Checkpoint(config, tensors, folder, stats)


def _is_hub_id(folder: str | Path) -> bool:
    """Whether this can only be meant for the hub: "owner/name" where there is no folder "owner"
    that a typing error would be about.
    """
    return (
        isinstance(folder, str)
        and bool(_HUB_ID.fullmatch(folder))
        and not Path(folder.split("/")[0]).exists()
    )


def checkpoint_folder(name: str | Path, files: Sequence[str] = FILES) -> Path:
    """The folder that a name stands for: itself, or where ``files`` of an id "owner/name" of the
    model hub were fetched to.

    Raises UserError where the hub does not give it.
    """
    return _fetched(str(name), files) if _is_hub_id(name) else Path(name)


def _fetched(identifier: str, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(identifier, allow_patterns=list(files)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"no checkpoint '{identifier}': there is no such folder, and the model hub does not give it ({type(error).__name__})"
        ) from None


def load_tensors(model: nn.Module, tensors: dict[str, Tensor], source: str | Path) -> None:
    """Put tensors into a model in the model's own dtypes. Raises UserError naming every missing,
    unexpected or misshapen key.
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
    """16 hex digits that change with a model folder's weights or configuration; a key for what was
    computed with it.

    Raises UserError where the folder lacks one of the two files.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        path = Path(folder) / name
        if not path.is_file():
            raise UserError(f"'{folder}' is not a checkpoint: {name} is missing")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
