"""Helpers for the command line of training's scripts."""

import json
import os
import shlex
import sys


def command_line() -> str:
    """The command, typed in the project's root, that starts this process again."""
    return shlex.join(
        ["python", *(os.path.relpath(part) if os.path.isabs(part) else part for part in sys.argv)]
    )


def join_values(args: list[str], flag: str) -> list[str]:
    """``args`` with "FLAG a b c" written as the one list argument that the parser knows; what is a
    list already stays as it is.
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
