"""Two RealSense cameras are told apart by their serial numbers, never by the order in which they
happen to be found.
"""

import importlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from alam_bringup.description import NodeSpec
from alam_core.errors import UserError

PACKAGE = "realsense2_camera"
USB_DEVICES = Path("/sys/bus/usb/devices")
PATIENCE = 20.0  # s that rs-enumerate-devices may take


def check_serials(nodes: Sequence[NodeSpec]) -> None:
    """Check that each RealSense node among ``nodes`` is given the serial number of its own camera.

    Raises UserError, with the cameras that are plugged in, if a number is missing, given twice, or
    not among them.
    """
    given = {
        node.name: str(node.parameters["serial_no"]) for node in nodes if node.package == PACKAGE
    }
    if not given:
        return
    arguments = [f"{name}_serial" for name in given]
    found = list_cameras()
    if lacking := [f"{name}_serial" for name, serial in given.items() if not serial]:
        problem = f"no {' and no '.join(lacking)} given: the cameras cannot be told apart"
    elif len(set(given.values())) < len(given):
        problem = f"{' and '.join(arguments)} are the same camera"
    elif found and (absent := [serial for serial in given.values() if serial not in found]):
        problem = f"no camera with serial number {' or '.join(absent)}"
    else:
        return
    values = " ".join(f"{argument}:=SERIAL" for argument in arguments)
    raise UserError(
        f"{problem}; {_describe(found)}; give {values}, "
        "or realsense:=false to start the cameras yourself"
    )


def list_cameras() -> dict[str, str]:
    """Serial number -> model of each RealSense camera that is plugged in, according to pyrealsense2
    or else ``rs-enumerate-devices``; empty if there is none or neither is installed.
    """
    try:
        realsense = importlib.import_module("pyrealsense2")
    except ImportError:
        return _enumerate()
    info = realsense.camera_info
    return {
        device.get_info(info.serial_number): device.get_info(info.name)
        for device in realsense.context().query_devices()
    }


def _enumerate() -> dict[str, str]:
    if shutil.which("rs-enumerate-devices") is None:
        return {}
    try:
        output = subprocess.run(
            ["rs-enumerate-devices"], capture_output=True, text=True, timeout=PATIENCE
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    names = re.findall(r"^\s*Name\s*:\s*(.+?)\s*$", output, re.MULTILINE)
    serials = re.findall(r"^\s*Serial Number\s*:\s*(\w+)", output, re.MULTILINE)
    return dict(zip(serials, names, strict=False))


def _describe(found: dict[str, str]) -> str:
    if found:
        return "plugged in: " + ", ".join(f"{serial} ({name})" for serial, name in found.items())
    # The number that USB shows is another one than the camera's serial number.
    count = sum("RealSense" in file.read_text() for file in USB_DEVICES.glob("*/product"))
    return (
        f"{count or 'no'} RealSense camera{'' if count == 1 else 's'} plugged in; "
        "a camera's serial number is on its label, and rs-enumerate-devices prints it"
    )
