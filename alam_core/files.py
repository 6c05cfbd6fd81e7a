"""Paths that users write, atomic replacement of files and folders, and exclusive locks on folders.

A replacement is written to a hidden sibling, flushed to the disk and renamed. A reader, and the
next run after a crash, finds the old content or the new, never a mixture. Permissions follow the
umask.
"""

import contextlib
import ctypes
import fcntl
import glob
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alam_core.errors import UserError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2(2)
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")


def expand_path(text: str) -> str:
    """``text`` with ``~`` (or ``~name``) at its start and variables such as ``$HOME`` replaced.

    Text without any of these is returned as it is. Raises UserError for an unknown user and, in
    what can only be a path, for a variable that is not set or empty, or that is not written as
    $NAME or ${NAME}.
    """
    is_path = "/" in text or text.startswith("$")
    for match in _VARIABLE.finditer(text):
        if is_path and not (value := os.environ.get(match[1] or match[2])):
            state = "is not set" if value is None else "is empty"
            raise UserError(
                f"'{text}': the variable {match[0]} {state}; set it, or write the path in full"
            )
    if is_path and "${" in _VARIABLE.sub("", text):
        raise UserError(f"'{text}': only $NAME and ${{NAME}} are replaced; write the path in full")
    expanded = os.path.expanduser(os.path.expandvars(text))
    if is_path and expanded.startswith("~"):
        raise UserError(
            f"'{text}': there is no user '{expanded[1:].split('/')[0]}'; for a folder of that "
            f"name write './{text}'"
        )
    return expanded


def instead_of(path: Path, wanted: str) -> str:
    """What a file that cannot be read is instead of ``wanted``, and what to do, if its first bytes
    tell: "a web page, not weights: ..."; "" if they do not.
    """
    try:
        start = path.open("rb").read(64)
    except OSError:
        return ""
    if start.startswith(b"version https://git-lfs"):
        return f"only a pointer to {wanted}: fetch the file itself with 'git lfs pull'"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return f"a web page, not {wanted}: download the file itself again"
    return "" if start else "empty: copy it again"


@contextlib.contextmanager
def replacing_file(path: str | Path) -> Iterator[Path]:
    """Yield the path of an empty temporary file beside ``path``, with the same suffix; at the end
    of the block it replaces ``path``.

    Where the block raises, the temporary file is removed and ``path`` stays as it was. The folder
    of ``path`` must exist. Raises OSError, which names ``path``.
    """
    path = Path(path)
    temporary = _temporary(path)
    with _naming(path, temporary):
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        mode = os.fstat(descriptor).st_mode & 0o777  # what the umask leaves of 0o666
        os.close(descriptor)
        try:
            yield temporary
            temporary.chmod(mode)  # a library may have made it readable by its owner only
            move_into_place(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; at the end of the block it replaces
    ``path``, which may be a folder with content or not exist.

    Where the block raises, the temporary folder is removed and ``path`` stays as it was. The parent
    folder must exist. Raises UserError for the working directory or a folder around it, and
    OSError, which names ``path``.
    """
    path = Path(path)
    if Path.cwd().is_relative_to(os.path.abspath(path)):
        raise UserError(
            f"'{path}' is the working directory or a folder around it, which cannot be replaced: "
            "give a folder inside it, such as ./model"
        )
    temporary = _temporary(path)
    with _naming(path, temporary):
        temporary.mkdir()
        mode = temporary.stat().st_mode & 0o777  # what the umask leaves of 0o777
        try:
            yield temporary
            for child in _content(temporary):
                child.chmod(mode if child.is_dir() else mode & 0o666)
            move_into_place(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def move_into_place(temporary: Path, path: Path) -> None:
    """Flush a file or a folder to the disk, then rename it to ``path`` on the same file system.

    What was at ``path`` is replaced: a file or a link is overwritten, a folder is removed. Raises
    OSError.
    """
    is_folder = temporary.is_dir()
    for file in [*_content(temporary), temporary] if is_folder else [temporary]:
        _flush(file)
    if not (is_folder and os.path.lexists(path)):
        os.replace(temporary, path)
    elif not _exchange(temporary, path):  # no exchange on this file system: two renames
        old = _temporary(path)
        os.replace(path, old)
        try:
            os.replace(temporary, path)
        except BaseException:
            os.replace(old, path)
            raise
        os.replace(old, temporary)
    _flush(path.parent)
    if temporary.is_symlink() or temporary.is_file():  # what was at ``path``
        temporary.unlink()
    elif temporary.exists():
        shutil.rmtree(temporary)


def temporaries(path: str | Path) -> list[Path]:
    """Temporary files and folders of replacements of ``path``, in progress or left by a killed
    process.
    """
    path = Path(path)
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.*.tmp{glob.escape(path.suffix)}"))


def write_json(path: str | Path, values: Any) -> None:
    """Write ``values`` as indented JSON, atomically. Raises OSError."""
    with replacing_file(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def lock_folder(folder: str | Path, doing: str) -> int:
    """Lock an existing folder until the returned descriptor is closed or this process ends. The
    lock leaves no file in it.

    On a file system without locks, the folder is not locked and no error is raised. doing: what
    processes lock the folder for, such as "writing", for the error message. Raises UserError if
    another process has the lock, and OSError if the folder cannot be opened.
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
def locked_folder(folder: str | Path, doing: str) -> Iterator[None]:
    """``lock_folder`` for the duration of a block."""
    descriptor = lock_folder(folder, doing)
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _naming(path: Path, temporary: Path) -> Iterator[None]:
    """Give an OSError the name of the file that is being replaced, if it has none or that of the
    temporary one; the error of a full disk often has none.
    """
    try:
        yield
    except OSError as error:
        named = None if error.filename is None else os.fsdecode(error.filename)
        if error.errno is None or not (named is None or named.startswith(str(temporary))):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _temporary(path: Path) -> Path:
    """A new hidden name beside ``path``; the suffix is kept, because some libraries derive the
    format from it.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp{path.suffix}")


def _content(folder: Path) -> list[Path]:
    """All files and folders in a folder, but no links: what they lead to is not part of it."""
    return [path for path in folder.rglob("*") if not path.is_symlink()]


def _flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Swap the names of two folders in one step. Returns False where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    names = os.fsencode(one), os.fsencode(other)
    return bool(rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)
