"""The container files, which cannot be built here: their syntax, and that every file, folder and
command that they name exists.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from docs_commands import ROOT, commands

from alam_cli.main import ROS_COMMANDS, TRAINING_COMMANDS

DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
INSTRUCTIONS = {"ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "ENTRYPOINT", "CMD"}
COMMANDS = ROS_COMMANDS.keys() | {name for group in TRAINING_COMMANDS.values() for name in group}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions: their word and what follows it, on one line."""
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", text)
    return [
        (line.split(maxsplit=1)[0], line.split(maxsplit=1)[1])
        for line in joined.splitlines()
        if line.strip()
    ]


def test_the_dockerfile_is_well_formed() -> None:
    found = instructions()
    assert {word for word, _ in found} <= INSTRUCTIONS
    assert [word for word, _ in found][:2] == ["ARG", "FROM"]
    assert dict(found)["FROM"] == "${BASE}"
    for word, rest in found:
        if word == "RUN":
            done = subprocess.run(["bash", "-n", "-c", rest], capture_output=True, text=True)
            assert not done.stderr, done.stderr
    (entry,) = json.loads(dict(found)["ENTRYPOINT"])
    program = ROOT / entry.removeprefix("/alam/")
    assert program.is_file() and program.stat().st_mode & 0o111
    command = json.loads(dict(found)["CMD"])
    assert command[0] == "alam" and command[1] in COMMANDS


def test_the_image_leaves_out_what_is_built_in_it() -> None:
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().split()
    assert {".git", ".venv", "ros2_ws/build", "ros2_ws/install", "data", "runs"} <= set(ignored)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_names_what_exists(name: str) -> None:
    service = SERVICES[name]
    build = service["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    declared = {rest.split("=")[0] for word, rest in instructions() if word == "ARG"}
    assert build["args"].keys() <= declared
    assert service["shm_size"] == "1g"
    for volume in service["volumes"]:
        source, target = volume.split(":")
        assert source == target == "/dev" or target == f"/alam/{Path(source).name}"
    program, command, *options = service["command"]
    assert program == "alam" and command in COMMANDS
    for file in (option for option in options if option.endswith(".yaml")):
        assert (ROOT / file).is_file()


def test_only_the_arm_may_use_the_hosts_hardware() -> None:
    """And starting its service moves nothing."""
    assert SERVICES.keys() == {"demo", "arm", "train"}
    for name, service in SERVICES.items():
        assert ("network_mode" in service, "cap_add" in service) == (name == "arm",) * 2
        assert not service.get("privileged")
    arm = SERVICES["arm"]
    assert arm["network_mode"] == "host" and "NET_ADMIN" in arm["cap_add"]
    assert arm["command"] == ["alam", "doctor"]


def test_the_documented_commands_fit_the_files() -> None:
    found = commands("docker")
    assert len(found) > 4
    for command in found:
        words = list(command.words)
        if words[:2] != ["docker", "compose"]:
            continue
        assert words[2] == "-f" and (ROOT / words[3]).is_file()
        rest = [word for word in words[5:] if not word.startswith("--")]
        named = [word for word in rest if word in SERVICES]
        assert words[4] == "build" or named, command
        if "alam" in rest:
            assert rest[rest.index("alam") + 1] in COMMANDS, command
