"""Jobs for worker processes; this module imports little, so that the processes start fast."""

import os
import threading
from pathlib import Path

from alam_core.errors import UserError


def make_number(value: int) -> int:
    if value < 0:
        raise UserError(f"no number below 0, such as {value}")
    return value


def add(state: int, value: int) -> int:
    if value < 0:
        raise UserError(f"cannot add {value}")
    return state + value


def divide(state: int, value: int) -> float:
    return state / value


def die_once(state: int, folder: Path, value: int) -> int:
    try:
        (folder / str(value)).touch(exist_ok=False)
    except FileExistsError:
        return state + value
    os._exit(1)


def die(state: int) -> None:
    os._exit(1)


def stay(state: int, folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    threading.Event().wait()
