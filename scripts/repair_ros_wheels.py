"""Repair the CMake files of the ROS wheels: set their include folders to those of this Python and
numpy.

The wheels export the include folders of the machine that built them, which do not exist here, so
CMake rejects them. Run this script with the virtual environment's Python after installing
requirements/ros.txt. It prints how many files it changed; a second run changes none.
"""

import os
import re
import sys
import sysconfig
import tempfile
from pathlib import Path

# Include folders in a CMake list: paths without quotes, semicolons and white space.
PYTHON_HEADERS = re.compile(r'/[^\s;"]*?/include/python3\.\d+(?=[;"\s])')
NUMPY_HEADERS = re.compile(r'/[^\s;"]*?/numpy/(?:_core|core)/include(?=[;"\s])')


def repair(text: str, python_headers: str, numpy_headers: str) -> str:
    """Replace the include folders of Python and numpy in the text of a CMake file."""
    text = PYTHON_HEADERS.sub(lambda _: python_headers, text)
    return NUMPY_HEADERS.sub(lambda _: numpy_headers, text)


def repair_tree(share: Path, python_headers: str, numpy_headers: str) -> list[Path]:
    """Repair every ``<share>/*/cmake/*.cmake``, each atomically. Returns the files that changed."""
    changed = []
    for file in sorted(share.glob("*/cmake/*.cmake")):
        old = file.read_text()
        new = repair(old, python_headers, numpy_headers)
        if new == old:
            continue
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, prefix=f".{file.name}.", delete=False
        ) as temporary:
            temporary.write(new)
        os.chmod(temporary.name, file.stat().st_mode)
        os.replace(temporary.name, file)
        changed.append(file)
    return changed


def main() -> int:
    import numpy

    python_headers = sysconfig.get_paths()["include"]
    if not (Path(python_headers) / "Python.h").is_file():
        print(
            f"error: no Python.h in {python_headers}: install the headers of "
            f"Python {sys.version_info.major}.{sys.version_info.minor}"
        )
        return 2
    changed = repair_tree(Path(sys.prefix) / "share", python_headers, numpy.get_include())
    print(f"repaired {len(changed)} CMake files of the ROS wheels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
