"""Records the command that started this process, for results and model cards, and rewrites list
options for the parser.
"""

import json
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def command_line() -> str:
    """The command that repeats this process when it is run in the project's root.

    ``alam finetune --x 1`` where the ``alam`` command runs, else ``python training/finetune.py --x
    1``. Paths inside the project are given relative to its root, so that no result names a folder
    of one machine; arguments are quoted for the shell.
    """
    program, *arguments = sys.argv
    start = program.split() if program.startswith("alam ") else ["python", _relative(program)]
    return shlex.join([*start, *map(_relative, arguments)])


def join_values(args: list[str], flag: str) -> list[str]:
    """``args`` with the values after ``flag`` joined to one JSON list, as the parser expects:
    ["--x", "a", "b"] becomes ['--x=["a", "b"]']. A value that is a list already stays unchanged.
    """
    out: list[str] = []
    values: list[str] | None = None
    for arg in [*args, "--"]:
        if arg.startswith("--"):
            if values is not None:
                is_list = len(values) == 1 and values[0].startswith("[")
                out[-1] += "=" + (values[0] if is_list else json.dumps(values))
            values = [] if arg == flag else None
        elif values is not None:
            values.append(arg)
            continue
        out.append(arg)
    return out[:-1]


def _relative(part: str) -> str:
    path = Path(part)
    return str(path.relative_to(ROOT)) if path.is_absolute() and path.is_relative_to(ROOT) else part
