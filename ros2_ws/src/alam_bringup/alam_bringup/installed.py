"""Finds installed ROS packages, their executables and their configuration in the ament index."""

from collections.abc import Sequence
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix

from alam_bringup.graph import NodeSpec
from alam_core.errors import UserError


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

    Nodes are left out only if they are optional (``required`` is false).
    """
    absent = {node.package for node in nodes if not node.required and not has_package(node.package)}
    notes = [
        f"note: package '{package}' is not installed (sudo apt-get install "
        f"ros-jazzy-{package.replace('_', '-')}): install it, or start the cameras yourself and "
        "give their topics (third_person_topic:=..., wrist_topic:=...)"
        for package in sorted(absent)
    ]
    return [node for node in nodes if node.package not in absent], notes


def parameter_files(node: NodeSpec, config: Path) -> list[str]:
    """The parameter files of a node: ``config``/<node name>.yaml if it exists, else none."""
    file = config / f"{node.name}.yaml"
    return [str(file)] if file.is_file() else []
