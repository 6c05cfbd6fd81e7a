"""Downloads from the model hub (through ``huggingface_hub``), and its cache on this machine.

Every download of weights goes through here, except timm's own pretrained image models.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from alam_core.errors import UserError, explain, one_line

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def is_hub_id(name: str | Path) -> bool:
    """Whether ``name`` can only be an id "owner/name" of the hub, not a local path.

    A string whose first part is an existing folder counts as a mistyped path. A ``Path`` is never
    an id.
    """
    return (
        isinstance(name, str)
        and bool(_HUB_ID.fullmatch(name))
        and not Path(name.split("/")[0]).exists()
    )


def data_set_hint(path: str | Path) -> str:
    """What to do if ``path`` is no folder but may be the id of a data set on the hub, to follow a
    message; "" otherwise. Data sets are large: they are not downloaded unasked.
    """
    name = str(path)
    if Path(name).exists() or not is_hub_id(name):
        return ""
    return (
        f"; if it is a data set of the hub, get it first: hf download {name} --repo-type dataset "
        "--local-dir FOLDER"
    )


def fetch(identifier: str, patterns: Sequence[str], what: str, hint: str = "") -> Path:
    """Download the files of a hub model that match ``patterns``, once; returns their folder.

    what: what is fetched, such as "checkpoint", for the error message. hint: what else the user can
    do, appended to the message. Raises UserError if the hub does not have the model or cannot be
    reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(identifier, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"no {what} '{identifier}': there is no such folder, and the model hub does not give "
            f"it ({_reason(identifier, error)}){hint}"
        ) from None


def _reason(identifier: str, error: Exception) -> str:
    """Why a download failed, and what the user can do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return f"accept its licence at huggingface.co/{identifier}, then 'hf auth login'"
    if isinstance(error, RepositoryNotFoundError):
        return "it has no public model of this name; for a private one 'hf auth login' comes first"
    if isinstance(error, LocalEntryNotFoundError):
        return "it cannot be reached: is this machine online?"
    return explain(error) or one_line(error)


def cached_file(repository: str, file: str) -> Path | None:
    """A file of a hub repository that was downloaded before, None if it was not. No network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None
