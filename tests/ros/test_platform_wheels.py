"""The repair of the ROS wheels' CMake files changes include folders only, and only once."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location(
    "repair_ros_wheels", ROOT / "scripts" / "repair_ros_wheels.py"
)
assert spec is not None and spec.loader is not None
repair_ros_wheels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(repair_ros_wheels)

HERE = ("/usr/include/python3.12", "/venv/numpy/_core/include")
EXPORT = """
set_target_properties(a::b PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES "{python};{numpy}"
  INTERFACE_LINK_LIBRARIES "${{_IMPORT_PREFIX}}/lib/libx.so;a::c"
)
target(x "${{_IMPORT_PREFIX}}/include/python_things" "{python}")
"""


@pytest.mark.parametrize(
    "python",
    ["/opt/python/cp311-cp311/include/python3.11", "/opt/python/cp312-cp312/include/python3.12"],
)
@pytest.mark.parametrize(
    "numpy", ["/opt/x/site-packages/numpy/_core/include", "/opt/x/site-packages/numpy/core/include"]
)
def test_include_folders_are_replaced_and_nothing_else(python: str, numpy: str) -> None:
    assert repair_ros_wheels.repair(
        EXPORT.format(python=python, numpy=numpy), *HERE
    ) == EXPORT.format(python=HERE[0], numpy=HERE[1])


def test_second_run_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "std_msgs" / "cmake"
    folder.mkdir(parents=True)
    (folder / "good.cmake").write_text("set(a b)\n")
    (folder / "bad.cmake").write_text(
        EXPORT.format(python="/opt/p/include/python3.11", numpy="/opt/p/numpy/_core/include")
    )
    (folder / "bad.cmake").chmod(0o640)
    assert repair_ros_wheels.repair_tree(tmp_path, *HERE) == [folder / "bad.cmake"]
    assert repair_ros_wheels.repair_tree(tmp_path, *HERE) == []
    assert sorted(file.name for file in folder.iterdir()) == ["bad.cmake", "good.cmake"]
    assert (folder / "bad.cmake").stat().st_mode & 0o777 == 0o640
