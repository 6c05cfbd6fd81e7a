"""The commands that the documentation prints, as a shell splits them, and what the tests do with
each kind.

bash itself reads the code blocks, so variables, loops, quotes and comments mean what they mean to a
user. It finds no program: each command is recorded instead of run.
"""

import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alam_cli.main import TRAINING_COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "docs/**/*.md")
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SHELL = ("", "sh", "bash")  # languages of a code block; the others are not commands
RECORD = """
command_not_found_handle() { printf '%s\\x1f' "$@"; printf '\\x1e'; }
source() { command_not_found_handle source "$@"; }
"""

TRAINING = [name for group in TRAINING_COMMANDS.values() for name in group]
# kind -> pattern of its commands. Which test tries a kind is said in the test files.
KINDS = {
    # tests/training/test_docs_commands.py: its options are parsed; README's four also run
    "training": rf"python training/\w+\.py|accelerate launch |alam ({'|'.join(TRAINING)})\b",
    # tests/training/test_docs_commands.py: the files and targets exist, CI runs them
    "development": r"make |source |pytest ",
    # tests/ros/test_docs_ros.py: arguments, and names in a running graph; the goal runs
    "robot": r"alam (up|run|arm|jog|echo|can|demo|doctor|--help)\b"
    r"|ros2 (launch|topic|service|action|bag) ",
    # tests/training/test_docs_commands.py: the options exist
    "cluster": r"ray ",
    # tests/ros/test_docker.py: files, services and commands exist
    "docker": r"docker ",
}
NOT_TRIED = {
    r"sudo (ip link|tee|udevadm|apt-get) |sed ": "changes the host",
    r"ros2 run piper |colcon |git clone ": "needs the manufacturer's workspace",
    r"pre-commit install": "changes the git hooks of the clone",
}


@dataclass(frozen=True)
class Command:
    """One command with its arguments, and the first page that prints it."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"

    @property
    def kind(self) -> str:
        """One of ``KINDS``, "not tried", or "" if it fits no rule."""
        text = " ".join(self.words)
        kinds = [kind for kind, pattern in KINDS.items() if re.match(pattern, text)]
        kinds += ["not tried" for pattern in NOT_TRIED if re.match(pattern, text)]
        return kinds[0] if len(kinds) == 1 else ""


def record(script: str) -> list[tuple[str, ...]]:
    """The commands that bash would run, each as its words. Raises ValueError for what is no shell.

    The shell is restricted: it cannot write files.
    """
    done = subprocess.run(
        ["/bin/bash", "--norc", "--restricted", "-c", RECORD + script],
        env={"PATH": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    if done.stderr:
        raise ValueError(
            f"this is no shell; if it is text, write ```text:\n{script}\n{done.stderr}"
        )
    return [
        tuple(words.removesuffix("\x1f").split("\x1f"))
        for words in done.stdout.split("\x1e")
        if words
    ]


@cache
def commands(kind: str | None = None) -> list[Command]:
    """All different commands of all pages, or those of one kind."""
    found: dict[tuple[str, ...], Command] = {}
    for path in (path for pattern in PAGES for path in sorted(ROOT.glob(pattern))):
        page = str(path.relative_to(ROOT))
        for language, block in BLOCK.findall(path.read_text()):
            for words in record(block) if language in SHELL else ():
                found.setdefault(words, Command(page, words))
    return [command for command in found.values() if kind in (None, command.kind)]
