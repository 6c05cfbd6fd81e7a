"""Finds installed ROS packages, their executables and their configuration in the ament index."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix

from alam_bringup.cameras import check_serials
from alam_bringup.can_bus import check_can
from alam_bringup.description import NodeSpec
from alam_core.errors import UserError, one_line


def has_package(name: str) -> bool:
    """Whether a ROS package is installed and its workspace is sourced."""
    try:
        get_package_prefix(name)
    except PackageNotFoundError:
        return False
    return True


def config_folder() -> Path:
    """The folder of the Fast DDS profiles and parameter files."""
    return Path(get_package_prefix("alam_bringup")) / "share" / "alam_bringup" / "config"


def executable(package: str, name: str) -> str:
    """The path of the executable ``name`` of a package. Raises UserError if it is not built."""
    if not has_package(package):
        raise UserError(
            f"package '{package}' is not built or not sourced: "
            "run 'make setup', then 'source setup.bash'"
        )
    path = Path(get_package_prefix(package)) / "lib" / package / name
    if not path.is_file():
        raise UserError(
            f"package '{package}' has no executable '{name}': if it is new, run 'make setup' again"
        )
    return str(path)


def available(nodes: Sequence[NodeSpec]) -> tuple[list[NodeSpec], list[str]]:
    """The nodes whose packages are installed, and one note for each missing package.

    Nodes are left out only if they are optional (``required`` is false). Raises UserError if a real
    arm is not heard, or if cameras could be mistaken for each other.
    """
    absent = {node.package for node in nodes if not node.required and not has_package(node.package)}
    notes = [
        f"note: package '{package}' is not installed (sudo apt-get install "
        f"ros-jazzy-{package.replace('_', '-')}): install it, or start the cameras yourself and "
        "give their topics (third_person_topic:=..., wrist_topic:=...)"
        for package in sorted(absent)
    ]
    present = [node for node in nodes if node.package not in absent]
    check_serials(present)
    check_can(present)
    return present, notes


def parameter_files(node: NodeSpec, config: Path) -> list[str]:
    """The parameter files of a node: ``config``/<node name>.yaml if it exists, else none.

    Raises UserError if the file has nothing for the node: ROS ignores such a file without a word.
    """
    file = config / f"{node.name}.yaml"
    if not file.is_file():
        return []
    try:
        sections = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{file} is not YAML: {one_line(error)}") from None
    path = f"{node.namespace}/{node.name}"
    names = {"/**", f"/**/{node.name}", path, path.lstrip("/")}
    if not (isinstance(sections, dict) and names & {str(name) for name in sections}):
        found = ", ".join(map(str, sections)) or "nothing"
        raise UserError(f"{file} sets no parameter of {path}: it has {found} instead of '/**'")
    return [str(file)]
