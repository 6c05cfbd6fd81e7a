"""The CAN bus of a real arm, with a program ``ip`` of this test in place of the real one: what
``alam can up`` does and refuses, what is found wrong before any node starts.
"""

import json
import os
import socket
from pathlib import Path

import pytest

from alam_bringup import can_bus, installed
from alam_bringup.description import NodeSpec
from alam_bringup.graph import PIPER
from alam_cli.can_up import can_up
from alam_cli.doctor import check_arm
from alam_core.errors import UserError

UP = "link set can0 up type can bitrate 1000000"
FAKE_IP = """#!/bin/sh
cd {folder}
case "$1" in
  -json) cat links.json ;;
  *) echo "$@" >> asked
     if [ -f refusal ]; then cat refusal >&2; exit 2; fi
     cp after.json links.json ;;
esac
"""


def entry(
    name: str = "can0", up: bool = True, bitrate: int = 1_000_000, state: str = "ERROR-ACTIVE"
) -> dict:
    """One interface as ``ip -json -details link show`` prints it."""
    data = {"state": state, "restart_ms": 0} | (
        {"bittiming": {"bitrate": bitrate, "sample_point": "0.750"}} if bitrate else {}
    )
    flags = ["NOARP", "UP", "LOWER_UP", "ECHO"] if up else ["NOARP", "ECHO"]
    info = {"info_kind": "can", "info_data": data}
    return {"ifname": name, "flags": flags, "link_type": "can", "linkinfo": info}


class Host:
    """A host with CAN adapters. ``asked``: what ``ip`` was told to change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "ip"
        program.write_text(FAKE_IP.format(folder=folder))
        program.chmod(0o755)
        self.links()

    def links(self, *entries: dict) -> None:
        """The interfaces as they are now; each is up at the arm's bit rate once one is set up."""
        others = [{"ifname": "lo", "flags": ["UP"], "link_type": "loopback"}, {}]
        (self.folder / "links.json").write_text(json.dumps([*others, *entries]))
        after = [entry(str(e["ifname"])) for e in entries]
        (self.folder / "after.json").write_text(json.dumps(after))

    def plug(self, name: str, place: str, serial: str) -> None:
        """What the kernel says in /sys about the adapter of an interface."""
        device = self.folder / "devices" / place.split(":")[0] / place
        device.mkdir(parents=True)
        (device.parent / "serial").write_text(f"{serial}\n")
        (self.folder / "net" / name).mkdir(parents=True)
        (self.folder / "net" / name / "device").symlink_to(device)

    @property
    def asked(self) -> list[str]:
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.is_file() else []


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(can_bus, "SYS_NET", tmp_path / "net")
    return Host(tmp_path)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The identifiers that are heard on each bus: those of an arm, unless a test changes them."""
    identifiers = {0x2A1, 0x2A5, 0x2A6, 0x2A7, 0x251}
    monkeypatch.setattr(can_bus, "listen", lambda name: identifiers)
    return identifiers


def test_the_only_adapter_is_brought_up_once(host: Host, capsys: pytest.CaptureFixture) -> None:
    host.plug("can0", "1-2:1.0", "0041002F4730")
    host.links(entry(up=False, bitrate=0, state="STOPPED"))
    assert can_up() == 0
    assert can_up() == 0  # a second time it changes nothing
    assert host.asked == [UP]
    first, second = capsys.readouterr().out.splitlines()
    assert first == "can0 (USB 1-2:1.0, serial 0041002F4730) is up at 1000000 bit/s"
    assert second.endswith("already")


def test_of_several_adapters_one_must_be_named(host: Host) -> None:
    host.plug("can0", "1-2:1.0", "one")
    host.plug("can1", "1-3:1.0", "two")
    host.links(entry("can1", up=False), entry("can0", up=False))
    said = "2 CAN adapters .* can0 .USB 1-2:1.0, serial one., can1 .USB 1-3:1.0.*alam can up can0"
    with pytest.raises(UserError, match=said):
        can_up()
    with pytest.raises(UserError, match="no CAN adapter 'can2'; plugged in: can0 .*, can1 "):
        can_up("can2")
    assert not host.asked
    assert can_up("can1") == 0
    assert host.asked == [UP.replace("can0", "can1")]


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ([], "no CAN adapter is plugged in"),
        ([entry(bitrate=500_000)], "up at 500000 bit/s, and the arm needs 1000000: stop the"),
        ([entry(state="BUS-OFF")], "BUS-OFF.*sudo ip link set can0 down"),
    ],
)
def test_what_can_up_refuses_is_left_alone(links: list[dict], said: str, host: Host) -> None:
    host.links(*links)
    with pytest.raises(UserError, match=said) as caught:
        can_up()
    assert "\n" not in str(caught.value) and not host.asked


def test_without_permission_the_command_with_sudo_is_printed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.links(entry(up=False))
    (host.folder / "refusal").write_text("RTNETLINK answers: Operation not permitted\n")
    with pytest.raises(UserError, match=f"no permission to bring can0 .*; run: sudo ip {UP}$"):
        can_up()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (host.folder / "refusal").write_text("RTNETLINK answers: Invalid argument\n")
    with pytest.raises(UserError, match="cannot bring can0 .* up: RTNETLINK answers: Invalid"):
        can_up()


def test_without_the_program_ip_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="sudo apt-get install iproute2"):
        can_up()


@pytest.mark.parametrize(
    ("links", "frames", "said"),
    [
        ([], None, "no CAN interface 'can0'; plug in the USB-CAN adapter, then run 'alam can up'"),
        ([entry("can_piper")], None, "found: can_piper .*; give can_port:=NAME"),
        ([entry(up=False)], None, "can0 .* is down; run 'alam can up can0'"),
        ([entry(bitrate=250_000)], None, "250000 bit/s, and the arm at 1000000; run 'sudo ip"),
        ([entry(state="BUS-OFF")], None, "BUS-OFF"),
        ([entry()], set(), "nothing is heard on can0 .*; switch on the arm's power"),
        ([entry()], {0x123, 0x2A1}, "no arm is heard .*: 0x2a5, 0x2a6, 0x2a7 missing, but 0x123"),
    ],
)
def test_an_arm_out_of_reach_is_named_before_any_node_starts(
    links: list[dict], frames: set[int] | None, said: str, host: Host, heard: set[int]
) -> None:
    """Both front ends call ``available``."""
    host.links(*links)
    if frames is not None:
        heard.clear()
        heard |= frames
    texts = {"sim": "false", "realsense": "false"}
    nodes = PIPER.build(PIPER.values(texts))
    with pytest.raises(UserError, match=said) as caught:
        installed.available(nodes)
    assert "\n" not in str(caught.value)


def test_an_arm_in_reach_and_a_simulated_one_start(host: Host, heard: set[int]) -> None:
    host.links(entry())
    nodes = PIPER.build(PIPER.values({"sim": "false", "realsense": "false"}))
    assert installed.available(nodes) == (nodes, [])
    host.links()
    can_bus.check_can(PIPER.build(PIPER.values({})))
    can_bus.check_can([NodeSpec("alam_policy", "policy", "policy")])


def test_doctor_says_the_same(host: Host, heard: set[int]) -> None:
    assert [d.detail for d in check_arm() if d.what == "CAN interface"] == ["none"]
    host.links(entry("can0"), entry("can1", up=False))
    up, down = (d for d in check_arm() if d.what == "CAN interface")
    assert up.ok and up.detail == "can0 (not on USB) is up at 1000000 bit/s, and an arm is heard"
    assert not down.ok and "is down" in down.detail and down.fix == "run 'alam can up can1'"
    assert not up.needed and not down.needed


def test_frames_are_read_from_a_socket_until_the_arm_is_heard() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        for identifier in (0x2A1, 0x2A5 | 0x80000000, 0x2A5, 0x2A6, 0x2A7, 0x111):
            theirs.send(can_bus.FRAME.pack(identifier, 8, bytes(8)))
        heard = can_bus.receive(ours, 10.0, can_bus.ARM_FRAMES)
        assert heard == can_bus.ARM_FRAMES  # not waited for 0x111, nor for 10 s
        assert can_bus.receive(ours, 0.05, can_bus.ARM_FRAMES) == {0x111}
