"""The command that started this process, as results and model cards record it."""

import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def command_line() -> str:
    """What to type in the project's root to run this process again.

    ``alam finetune --x 1`` where the ``alam`` command runs, else ``python training/finetune.py --x
    1``. Paths inside the project are given relative to its root, so that no result names a folder
    of one machine; arguments are quoted for the shell.
    """
    program, *arguments = sys.argv
    start = program.split() if program.startswith("alam ") else ["python", _relative(program)]
    return shlex.join([*start, *map(_relative, arguments)])


def _relative(part: str) -> str:
    path = Path(part)
    return str(path.relative_to(ROOT)) if path.is_absolute() and path.is_relative_to(ROOT) else part
