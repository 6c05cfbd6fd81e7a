"""The floor plan of docs/architecture.md, read from the imports of every file: rooms import lower
rooms only, modules form no circle, files stay short and a class name means one thing.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {  # root of the import names -> folder
    "alam_core": ROOT / "alam_core",
    "alam_training": ROOT / "training/alam_training",
    **{
        path.parent.parent.name: path.parent
        for path in (ROOT / "ros2_ws/src").glob("alam_*/alam_*/__init__.py")
    },
}
# Packages by floor: each may import packages of the floors below its own.
FLOORS = [
    {"alam_core"},
    {"alam_training", "alam_common"},
    {"alam_perception", "alam_policy", "alam_piper"},
    {"alam_sim", "alam_tools"},
    {"alam_bringup"},
    {"alam_demo"},
    {"alam_cli"},
]
# Within the library: room -> rooms that it may import, besides the modules at its top level.
ROOMS = {
    "robots": set(),
    "data": {"robots"},
    "latent_action": {"data"},
    "policy": {"data"},
    "methods": {"data", "latent_action", "policy"},
    "sim": {"data", "robots"},
    "runtime": {"data", "latent_action", "policy", "methods", "robots", "sim"},
}
# The same for training; "" stands for the modules at its top level.
TRAINING_ROOMS = {
    "": set(),
    "loop": {""},
    "stage1": {"", "loop"},
    "stage2": {"", "loop"},
    "episodes": {""},
    "converters": {""},
    "checks": {"", "converters"},
    "benchmarks": {"", "episodes", "loop"},
    "report": {"", "stage1"},
    "commands": {"", "checks", "converters", "episodes", "loop", "report", "stage1", "stage2"},
}
ONE_CLASS_TWO_FILES: dict[str, str] = {}  # class name -> why it is defined twice


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module, tests excluded."""
    found = {}
    for name, folder in SOURCES.items():
        for file in folder.rglob("*.py"):
            parts = file.relative_to(folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join([name, *parts])] = file
    return found


MODULES = modules()


def imports(name: str, file: Path) -> set[str]:
    """Modules of this project, and other top-level packages, that a module imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} has a relative import"
            base = node.module or ""
            # A name imported from a package may be one of its modules.
            names = [
                f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base
                for alias in node.names
            ]
        else:
            continue
        found |= {name if name in MODULES else name.split(".")[0] for name in names}
    return found - {name}


IMPORTS = {name: imports(name, file) for name, file in MODULES.items()}
INSIDE = {name: found & MODULES.keys() for name, found in IMPORTS.items()}


def package(module: str) -> str:
    return module.split(".")[0]


def room(module: str) -> str:
    """The folder of a module in its package; "" for the modules at the top level."""
    folder = MODULES[module].relative_to(SOURCES[package(module)]).parts
    return folder[0] if len(folder) > 1 else ""


def test_the_plan_names_every_package_and_room() -> None:
    unplanned = set(SOURCES) - set().union(*FLOORS)
    unplanned |= {room(module) for module in library()} - ROOMS.keys() - {""}
    assert not unplanned, f"add {sorted(unplanned)} to the plan, and to docs/architecture.md"


def library() -> list[str]:
    return [module for module in MODULES if package(module) == "alam_core"]


@pytest.mark.parametrize("name", ["", *ROOMS])
def test_arrows_between_rooms_of_the_library_run_one_way(name: str) -> None:
    """The modules at the top level, room "", import no room."""
    allowed = ROOMS.get(name, set()) | {"", name}
    wrong = [
        f"{module} imports {target}"
        for module in library()
        if room(module) == name
        for target in INSIDE[module]
        if package(target) != "alam_core" or room(target) not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_arrows_between_rooms_of_training_run_one_way() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in INSIDE.items()
        if package(module) == "alam_training"
        for target in targets
        if package(target) == "alam_training"
        and room(target) not in TRAINING_ROOMS[room(module)] | {room(module)}
    ]
    assert not wrong, "\n".join(wrong)


def test_packages_import_lower_floors_only() -> None:
    floors = {name: number for number, names in enumerate(FLOORS) for name in names}
    wrong = [
        f"{module} imports {target}"
        for module, targets in INSIDE.items()
        for target in targets
        if package(module) != package(target) and floors[package(target)] >= floors[package(module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_library_imports_neither_ros_nor_training() -> None:
    ros = {"rclpy", "ament_index_python", "launch", "launch_ros", "alam_msgs", "sensor_msgs"}
    ros |= {name for name in SOURCES if name != "alam_core"}
    wrong = [
        f"{module} imports {target}"
        for module, targets in IMPORTS.items()
        if module.startswith("alam_core")
        for target in targets
        if target.split(".")[0] in ros
    ]
    assert not wrong, "\n".join(wrong)


def test_no_command_imports_a_command() -> None:
    commands = "alam_training.commands."
    wrong = [
        f"{module} imports {target}"
        for module in INSIDE
        if module.startswith("alam_training.")
        for target in INSIDE[module]
        if target.startswith(commands)
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_form_no_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        for target in sorted(INSIDE[module]):
            # A package's __init__ collects the names of its own modules.
            if not (target.startswith(f"{module}.") or module.startswith(f"{target}.")):
                visit(target, [*path, module])
        done.add(module)

    for module in sorted(INSIDE):
        visit(module, [])


def test_files_are_at_most_400_lines_long() -> None:
    files = [path for part in ("scripts", "docs") for path in (ROOT / part).rglob("*.py")]
    long = {
        str(file.relative_to(ROOT)): lines
        for file in [*MODULES.values(), *(ROOT / "training").glob("*.py"), *files]
        if (lines := len(file.read_text().splitlines())) > 400
    }
    assert not long, long


def test_a_class_name_is_defined_once() -> None:
    places = defaultdict(list)
    for module, file in MODULES.items():
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module)
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert twice.keys() == ONE_CLASS_TWO_FILES.keys(), {
        name: found for name, found in twice.items() if name not in ONE_CLASS_TWO_FILES
    }
