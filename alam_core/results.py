"""Result files: one ``results/<name>.json`` per measurement, written only by its own script.

Layout: ``{"name", "command", "commit", "date", "machine", "seeds", "values"}``. docs/results.md
shows the values.
"""

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from alam_core.command_line import ROOT, command_line
from alam_core.errors import UserError, explain, one_line
from alam_core.files import write_json


def machine() -> dict[str, Any]:
    """The machine of a measurement: processor, cores, memory in GiB, Python, torch, GPU."""
    import torch

    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in _lines("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory_kib = next(
        (int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0
    )
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_kib / 2**20, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def write_result(
    name: str,
    values: dict[str, Any],
    seeds: list[int],
    folder: str | Path = "results",
    command: str | None = None,
    group: str = "",
) -> Path:
    """Write ``folder/name.json`` atomically, merged with an existing file.

    Values of other keys in the existing file are kept, and with them the commands that measured
    them, joined by " && ". seeds: the random seeds of the measurement. command: the command that
    repeats the measurement; None takes this process's command line. group: the key to store the
    values under, nested with "/" between the keys. Raises UserError, with the values, if the
    existing file is broken or the new one cannot be written.
    """
    path = Path(folder) / f"{name}.json"
    command = command or command_line()
    try:
        old: dict[str, Any] = (
            json.loads(path.read_text()) if path.is_file() else {"command": "", "values": {}}
        )
        merged, kept = _merged(old["values"], group.split("/") if group else [], values)
        commands = [c for c in old["command"].split(" && ") if c and kept]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"'{path}' is no result file ({one_line(error)}): remove it and measure again; "
            f"measured now: {json.dumps(values)}"
        ) from None
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    content = {
        "name": name,
        "command": " && ".join([*(c for c in commands if c != command), command]),
        "commit": commit or None,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "seeds": seeds,
        "values": merged,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
    except OSError as error:
        raise UserError(
            f"{explain(error) or one_line(error)}; measured now: {json.dumps(values)}"
        ) from None
    return path


def _merged(
    before: dict[str, Any], groups: list[str], values: dict[str, Any]
) -> tuple[dict[str, Any], bool]:
    """``before`` with ``values`` in the nested ``groups``, and whether anything else is in it."""
    if not groups:
        return {**before, **values}, bool(before.keys() - values.keys())
    inner, kept = _merged(before.get(groups[0], {}), groups[1:], values)
    return {**before, groups[0]: inner}, kept or bool(before.keys() - {groups[0]})


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
