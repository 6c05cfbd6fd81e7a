"""Files that are either whole or not there, and folders that one process has to itself."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alam_core.errors import UserError


def write_json(path: str | Path, values: Any) -> None:
    """Write ``values`` as indented JSON; whoever reads ``path`` meanwhile finds the old content or
    the new. Raises OSError.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    os.replace(temporary, path)


def hold(folder: str | Path, doing: str) -> int:
    """Keep an existing folder to this process until the returned descriptor is closed or the
    process ends; nothing is left in it.

    Where the file system knows no locks, nothing is kept. Raises UserError, with the words of
    ``doing``, where another process has it, and OSError where it cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(
            f"another process is {doing} '{folder}': wait for it, or choose another folder"
        ) from None
    except OSError:
        pass
    return descriptor


@contextlib.contextmanager
def held(folder: str | Path, doing: str) -> Iterator[None]:
    """``hold`` for a block."""
    descriptor = hold(folder, doing)
    try:
        yield
    finally:
        os.close(descriptor)
