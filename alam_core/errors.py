"""Errors that a person can act on: one line that says what is wrong, where, and what to do."""

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterable
from difflib import SequenceMatcher

LISTED = 5  # names in one message
# Errors of the machine, not of this project, and what to do about them.
_MACHINE_FAULTS = {
    errno.ENOSPC: "free some space, or choose a folder on another disk",
    errno.EDQUOT: "remove some files of yours, or choose a folder on another disk",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or choose a folder on another disk",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "change its permissions, or choose another one",
    errno.EPERM: "change its permissions, or choose another one",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EEXIST: "this name is taken; choose another one",
    errno.ENOTDIR: "a part of this path is a file; choose another one",
    errno.EISDIR: "this is a folder; give the name of a file",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.EIO: "the disk does not answer as it should; check it, or choose another one",
    errno.ESTALE: "the network drive has changed; mount it again",
    errno.ENODEV: "is the device still there?",
}


class UserError(Exception):
    """A mistake in what the program was given (a file, a flag, a checkpoint, the machine's set-up),
    not a bug. Its message is one line.
    """


def explain(error: BaseException) -> str | None:
    """The line for the user, if ``error`` is one that a person can act on: a UserError, too little
    memory, a process that read data and has ended, or an OSError that the machine causes, such as a
    full disk. None for a bug.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError):
        return (
            f"this machine has too little memory ({one_line(error)}): make the batch, the images "
            "or the number of workers smaller, or end other programs"
        )
    if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):
        return worker_ended(error)  # PyTorch raises it in the main thread, whatever that does
    if not isinstance(error, OSError) or error.errno not in _MACHINE_FAULTS:
        return None
    named = isinstance(error.filename, (str, bytes, os.PathLike))  # not a descriptor
    where = f" '{os.fsdecode(error.filename)}'" if named else ""
    return f"cannot read or write{where}: {reason(error)}"


def reason(error: OSError) -> str:
    """What the system says of an error, and what to do about it where that is known."""
    said = os.strerror(error.errno) if error.errno else one_line(error)
    advice = _MACHINE_FAULTS.get(error.errno or 0)
    return f"{said}; {advice}" if advice else said


def worker_ended(error: BaseException) -> str:
    """The line for a process that read data and has ended without saying why."""
    return (
        f"a process that reads videos has ended ({one_line(error)}): if the system stopped it "
        "because memory ran out, use fewer --workers or a smaller --batch"
    )


def one_line(error: BaseException) -> str:
    """The message of an error of any library as one line; the error's type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def listing(names: Iterable[str], like: str = "") -> str:
    """Names that the data decide, for a message: the first LISTED and the number of the others.

    like: a name that was asked for; the names most like it then come first.
    """
    known = list(dict.fromkeys(map(str, names)))
    if like and len(known) > LISTED:
        ends = {name: name.rsplit("/", 1)[-1] for name in known}
        known.sort(key=lambda name: -SequenceMatcher(None, like, ends[name]).ratio())
    more = len(known) - LISTED
    return (", ".join(known[:LISTED]) or "none") + (f" and {more} more" if more > 0 else "")


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and exit with its code. A UserError, and an OSError that the machine
    causes, is printed as one line and exits with code 2; Ctrl-C exits with 130. Such an error of
    another thread is printed as one line too.
    """
    threading.excepthook = _thread_failed
    try:
        code = main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        code = 2
    sys.exit(code or 0)


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    line = explain(failure.exc_value) if failure.exc_value else None
    if line is None:
        threading.__excepthook__(failure)
    else:
        print(f"error: {line}", file=sys.stderr)
