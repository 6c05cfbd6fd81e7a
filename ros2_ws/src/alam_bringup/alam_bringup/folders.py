"""Folders that a graph's arguments name, and what a policy's folder tells about it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from alam_core.errors import UserError
from alam_core.files import expand_path


def root() -> Path:
    """The project's root folder, which paths like checkpoints/... are relative to: ALAM_ROOT, which
    setup.bash sets, or else found from the place of this file.
    """
    return Path(os.environ.get("ALAM_ROOT") or Path(__file__).resolve().parents[4])


def folder(name: str, text: str) -> str:
    """The absolute path of the existing folder ``text``, the value of the argument ``name``; ``~``
    and variables in it are replaced. Raises UserError if there is no such folder.
    """
    try:
        given = Path(expand_path(text))
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    candidates = list(dict.fromkeys([Path.cwd() / given, root() / given]))
    for candidate in candidates:
        if candidate.is_dir():
            return str(candidate)
    raise UserError(
        f"{name}: no folder '{text}' (looked for {', '.join(map(str, candidates))}); "
        f"give one with {name}:=FOLDER"
    )


@dataclass(frozen=True)
class PolicyFolder:
    """What nodes beside the policy need to know about it. image_size: px, side of the square images
    that it was trained on. views: what it sees. state_names: of its state's numbers.
    """

    image_size: int
    views: tuple[str, ...]
    state_names: tuple[str, ...]


def read_policy(checkpoint: str) -> PolicyFolder:
    """Read a policy's folder without loading it. Raises UserError if it is not that of a policy."""
    file = Path(checkpoint) / "config.json"
    try:
        config = json.loads(file.read_text())["policy"]
        names = config.get("state_names") or [f"state_{i}" for i in range(config["state_dim"])]
        size = int(config["model"]["image_size"])
        return PolicyFolder(size, tuple(config["views"]), tuple(names))
    except OSError:
        raise UserError(
            f"checkpoint: '{checkpoint}' is not the folder of a policy: it has no config.json"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"checkpoint: {file} is not the configuration of a policy: it has no image size "
            "(is it a transition encoder?)"
        ) from None
