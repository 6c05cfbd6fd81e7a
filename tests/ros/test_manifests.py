"""Each package.xml names the packages that the package imports, starts or needs to build, and no
others.
"""

import ast
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "ros2_ws" / "src"
PACKAGES = sorted(file.parent.name for file in SOURCES.glob("*/package.xml"))
# Python libraries, pinned in requirements/; they are not ROS packages.
LIBRARIES = {
    *("PIL", "alam_core", "alam_training", "av", "can", "huggingface_hub", "jsonargparse"),
    *("mujoco", "numpy", "piper_sdk", "rich", "setuptools", "torch", "yaml"),
}
OPTIONAL = {"realsense2_camera"}  # its nodes are started only if it is installed
DEPENDS = ("depend", "exec_depend")


def manifest(package: str) -> ElementTree.Element:
    return ElementTree.parse(SOURCES / package / "package.xml").getroot()


def imported(package: str) -> set[str]:
    """Top-level modules that the package's Python files import."""
    modules = set()
    for file in (SOURCES / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    return modules - set(sys.stdlib_module_names) - LIBRARIES - {package}


def started(package: str) -> set[str]:
    """Packages whose nodes the package starts: those named in a ``NodeSpec``."""
    text = "".join(file.read_text() for file in (SOURCES / package).rglob("*.py"))
    return set(re.findall(r'NodeSpec\(\s*"(\w+)"', text))


def interfaces(package: str) -> set[str]:
    """Packages that the message definitions or CMakeLists.txt need."""
    file = SOURCES / package / "CMakeLists.txt"
    found = re.findall(r"find_package\((\w+) REQUIRED\)", file.read_text())
    actions = {"action_msgs"} if list((SOURCES / package).rglob("*.action")) else set()
    return set(found) - {"ament_cmake", "rosidl_default_generators"} | actions


@pytest.mark.parametrize("package", PACKAGES)
def test_a_manifest_names_the_packages_in_use_and_no_others(package: str) -> None:
    depends = {e.text for tag in DEPENDS for e in manifest(package).iter(tag)}
    if (SOURCES / package / "CMakeLists.txt").exists():
        assert depends - {"rosidl_default_runtime"} == interfaces(package)
        return
    used = imported(package) | started(package)
    assert used - depends - OPTIONAL == set(), f"{package}/package.xml does not name them"
    assert depends - used == set(), f"{package}/package.xml names them, but they are not used"
