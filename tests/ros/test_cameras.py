"""Two RealSense cameras are never told apart by luck."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from alam_bringup import cameras, installed
from alam_bringup.description import NodeSpec
from alam_core.errors import UserError

PRINTED = """Device info:
    Name                          :     Intel RealSense D435I
    Serial Number                 :     839112062356
    Asic Serial Number            :     841113021535
Device info:
    Name                          :     Intel RealSense D405
    Serial Number                 :     123622270732
    Asic Serial Number            :     130423050031
"""


def camera_nodes(third_person: str = "", wrist: str = "") -> list[NodeSpec]:
    serials = {"third_person": third_person, "wrist": wrist}
    return [
        NodeSpec("realsense2_camera", "realsense2_camera_node", name, {"serial_no": serial})
        for name, serial in serials.items()
    ]


@pytest.fixture
def two_cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """rs-enumerate-devices prints two cameras; pyrealsense2 is not installed."""
    tool = tmp_path / "rs-enumerate-devices"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{PRINTED}END\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)


@pytest.mark.parametrize(
    ("serials", "said"),
    [
        ({}, "no third_person_serial and no wrist_serial given"),
        ({"wrist": "123622270732"}, "no third_person_serial given"),
        ({"third_person": "123622270732", "wrist": "123622270732"}, "are the same camera"),
        # As realsense2_camera wants a number on its own command line.
        (
            {"third_person": "_839112062356", "wrist": "123622270732"},
            "no camera with serial number _839112062356",
        ),
        # The number that the kernel and lsusb show.
        (
            {"third_person": "841113021535", "wrist": "123622270732"},
            "no camera with serial number 841113021535",
        ),
    ],
)
def test_cameras_that_could_be_mistaken_are_refused(
    serials: dict[str, str], said: str, two_cameras: None
) -> None:
    with pytest.raises(UserError) as caught:
        cameras.check_serials(camera_nodes(**serials))
    message = str(caught.value)
    assert said in message and "\n" not in message
    assert "839112062356 (Intel RealSense D435I), 123622270732 (Intel RealSense D405)" in message
    assert "third_person_serial:=SERIAL wrist_serial:=SERIAL" in message


def test_two_cameras_with_their_own_serials_start(two_cameras: None) -> None:
    cameras.check_serials(camera_nodes("839112062356", "123622270732"))
    cameras.check_serials([])  # realsense:=false, or a simulation


def test_the_cameras_are_listed_by_the_library_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = SimpleNamespace(get_info=lambda field: {"s": "0123", "n": "D405"}[field])
    library = SimpleNamespace(
        camera_info=SimpleNamespace(serial_number="s", name="n"),
        context=lambda: SimpleNamespace(query_devices=lambda: [device]),
    )
    monkeypatch.setitem(sys.modules, "pyrealsense2", library)
    assert cameras.list_cameras() == {"0123": "D405"}


def test_without_realsense_tools_the_cameras_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(cameras, "USB_DEVICES", tmp_path)
    with pytest.raises(UserError, match="no RealSense cameras plugged in; .* on its label"):
        cameras.check_serials(camera_nodes())
    for port in ("2-7", "2-8"):
        (tmp_path / port).mkdir()
        (tmp_path / port / "product").write_text("Intel(R) RealSense(TM) Depth Camera 435i\n")
    with pytest.raises(UserError, match="2 RealSense cameras plugged in"):
        cameras.check_serials(camera_nodes())


def test_both_front_ends_refuse_them_before_any_node_starts(
    two_cameras: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "has_package", lambda name: True)
    with pytest.raises(UserError, match="cannot be told apart"):
        installed.available(camera_nodes())
