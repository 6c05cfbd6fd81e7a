"""The CAN bus of a real arm: which interfaces the kernel has, and whether an arm is heard on one.

Needs only Python and the program ``ip``, because ``ros2 launch`` runs under the system's Python.
"""

import json
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alam_bringup.description import NodeSpec
from alam_core.errors import UserError, listing

BITRATE = 1_000_000  # bit/s of the arm
SYS_NET = Path("/sys/class/net")
ARM_FRAMES = frozenset((0x2A1, 0x2A5, 0x2A6, 0x2A7))  # status and joints, 200 times a second
LISTEN = 0.5  # s to listen for the arm
FRAME = struct.Struct("=IB3x8s")  # identifier, length, data: how the kernel passes a CAN frame
IDENTIFIER = 0x1FFFFFFF  # the bits of the first number that are not flags


@dataclass(frozen=True)
class CanLink:
    """A CAN interface of the kernel.

    name: such as can0. kind: ``can`` for an adapter, ``vcan`` or ``slcan`` otherwise. bitrate:
    bit/s, 0 if it is not set or not known. state: of the controller, such as ERROR-ACTIVE or
    BUS-OFF. place: where the adapter is plugged in, such as 1-2:1.0; "" if it is not on USB.
    serial: number of the adapter, "" if it has none.
    """

    name: str
    kind: str
    up: bool
    bitrate: int
    state: str = ""
    place: str = ""
    serial: str = ""

    def __str__(self) -> str:
        where = f"USB {self.place}" if self.place else "not on USB"
        return f"{self.name} ({where}{f', serial {self.serial}' if self.serial else ''})"


@dataclass(frozen=True)
class CanProblem:
    """Why the arm cannot be reached, and what to do: each part of one line."""

    what: str
    fix: str


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the program ``ip``. Raises UserError if it is not installed."""
    try:
        return subprocess.run(["ip", *words], capture_output=True, text=True, timeout=10)
    except FileNotFoundError:
        raise UserError(
            "the program 'ip' is not installed: sudo apt-get install iproute2"
        ) from None


def list_links() -> list[CanLink]:
    """The CAN interfaces of this host, in the order of their names. Raises UserError if the program
    ``ip`` cannot be used.
    """
    done = ip("-json", "-details", "link", "show")
    try:
        entries = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise UserError(f"'ip -json link show' failed: {done.stderr.strip()}") from None
    links = [_link(entry) for entry in entries if entry.get("link_type") == "can"]
    return sorted(links, key=lambda link: link.name)


def _link(entry: dict) -> CanLink:
    info = entry.get("linkinfo", {})
    data = info.get("info_data", {})
    device = SYS_NET / entry["ifname"] / "device"
    place, serial = "", ""
    if device.exists():
        interface = device.resolve()
        # A USB interface, such as 1-2:1.0, is below its device, which has the serial number.
        place = interface.name if ":" in interface.name else ""
        file = interface.parent / "serial"
        serial = file.read_text().strip() if place and file.is_file() else ""
    return CanLink(
        name=entry["ifname"],
        kind=str(info.get("info_kind", "")),
        up="UP" in entry.get("flags", ()),
        bitrate=int(data.get("bittiming", {}).get("bitrate", 0)),
        state=str(data.get("state", "")),
        place=place,
        serial=serial,
    )


def receive(listener: socket.socket, seconds: float, enough: frozenset[int]) -> set[int]:
    """Identifiers of the frames that a raw CAN socket receives within ``seconds`` s, or until all
    of ``enough`` were received.
    """
    heard: set[int] = set()
    deadline = time.monotonic() + seconds
    while not heard >= enough and (left := deadline - time.monotonic()) > 0:
        listener.settimeout(left)
        try:
            frame = listener.recv(FRAME.size)
        except TimeoutError:
            break
        if len(frame) == FRAME.size:
            heard.add(FRAME.unpack(frame)[0] & IDENTIFIER)
    return heard


def listen(name: str, seconds: float = LISTEN) -> set[int]:
    """Identifiers of the frames that are heard on an interface, see ``receive``. Sends nothing.
    Raises UserError if the interface cannot be opened.
    """
    try:
        with socket.socket(socket.PF_CAN, socket.SOCK_RAW, socket.CAN_RAW) as listener:
            listener.bind((name,))
            return receive(listener, seconds, ARM_FRAMES)
    except OSError as error:
        raise UserError(f"cannot listen on {name}: {error.strerror or error}") from error


def find_problem(name: str) -> CanProblem | None:
    """Why an arm cannot be reached on the interface ``name``; None if it is heard.

    Raises UserError if the interfaces cannot be listed or listened on.
    """
    links = {link.name: link for link in list_links()}
    link = links.get(name)
    if link is None:
        found = ", ".join(map(str, links.values()))
        return CanProblem(
            f"there is no CAN interface '{name}'",
            f"found: {found}; give can_port:=NAME"
            if found
            else "plug in the USB-CAN adapter, then run 'alam can up'",
        )
    if not link.up:
        return CanProblem(f"{link} is down", f"run 'alam can up {name}'")
    if link.bitrate not in (0, BITRATE):
        return CanProblem(
            f"{link} runs at {link.bitrate} bit/s, and the arm at {BITRATE}",
            f"run 'sudo ip link set {name} down', then 'alam can up {name}'",
        )
    if link.state == "BUS-OFF":
        return CanProblem(
            f"{link} has stopped after too many errors (BUS-OFF)",
            "check the CAN cable (H, L and their order), then run "
            f"'sudo ip link set {name} down' and 'alam can up {name}'",
        )
    heard = listen(name)
    if not heard:
        return CanProblem(
            f"nothing is heard on {link}",
            "switch on the arm's power and check the CAN cable between arm and adapter",
        )
    if missing := ARM_FRAMES - heard:
        return CanProblem(
            f"no arm is heard on {link}: {listing([f'{n:#x}' for n in sorted(missing)])} missing, "
            f"but {listing([f'{n:#x}' for n in sorted(heard)])} heard",
            "is this the arm's bus, and is the arm set up as a follower?",
        )
    return None


def check_can(nodes: Sequence[NodeSpec]) -> None:
    """Check that an arm is heard on the CAN interface of each node that uses a real one.

    Raises UserError, with what to do, if not.
    """
    for node in nodes:
        if node.parameters.get("can_interface") != "socketcan":
            continue
        if problem := find_problem(str(node.parameters["can_channel"])):
            raise UserError(f"{problem.what}; {problem.fix}")
