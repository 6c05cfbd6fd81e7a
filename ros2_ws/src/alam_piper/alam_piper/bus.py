"""Opens the CAN bus: a real one, or one that is emulated on this host, by UDP multicast on the
loopback interface or by slcan over TCP.
"""

import glob
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import can
from can.interfaces import BACKENDS

from alam_core.errors import UserError, listing
from alam_piper.slcan_server import SlcanServer

INTERFACES = ("socketcan", "udp_multicast", "slcan", "virtual")
BITRATE = 1_000_000
TCP = "socket://"  # how the channel of slcan over TCP starts
# python-can's bus of this name listens to the network; ours takes its place.
LOOPBACK_BACKEND = {"udp_multicast": ("alam_piper.loopback", "LoopbackBus")}
PACKAGES = {"slcan": "pyserial", "udp_multicast": "msgpack"}  # that python-can needs for them


@dataclass(frozen=True)
class BusConfig:
    """Which CAN bus to open. Raises UserError for an unknown interface or port.

    interface: one of INTERFACES. channel: ``can0`` for socketcan, an IPv4 multicast address for
    udp_multicast, a serial device or ``socket://host:port`` for slcan, any name for virtual. port:
    UDP port of udp_multicast; two arms, or two graphs, on one host need two ports.
    """

    interface: str = "udp_multicast"
    channel: str = "239.74.163.2"
    port: int = 43113

    def __post_init__(self) -> None:
        if self.interface not in INTERFACES:
            raise UserError(
                f"CAN interface '{self.interface}' is unknown; "
                f"the interfaces are: {', '.join(INTERFACES)}"
            )
        if not 0 <= self.port <= 65535:
            raise UserError(f"port {self.port} of the CAN bus is not from 0 to 65535")

    def __str__(self) -> str:
        return f"{self.interface} {self.channel}" + (
            f":{self.port}" if self.interface == "udp_multicast" else ""
        )

    def options(self) -> dict[str, Any]:
        """Extra python-can options. A TCP connection is ready at once; a serial adapter is not."""
        if self.interface == "udp_multicast":
            return {"port": self.port}
        over_tcp = self.interface == "slcan" and self.channel.startswith(TCP)
        return {"sleep_after_open": 0} if over_tcp else {}


def open_bus(config: BusConfig) -> can.BusABC:
    """Open the bus. Raises UserError, naming the bus and the cause, if that fails."""
    options: dict[str, Any] = (
        {"bitrate": BITRATE} if config.interface in ("socketcan", "slcan") else {}
    )
    try:
        with options_for_libraries(config):
            return can.Bus(interface=config.interface, channel=config.channel, **options)
    except (can.CanError, OSError, ValueError, ImportError) as error:
        cause = error.__cause__ or error
        raise UserError(
            f"cannot open CAN bus {config}: {cause}; {_advice(config, cause)}"
        ) from error


def claim_bus(config: BusConfig) -> socket.socket:
    """Claim the bus for the one controller on this computer that may command its arm; closing the
    socket, or the end of the process, gives it back. Raises UserError if another one has it.

    The SDK's frames do not reach other programs on the same computer, so two controllers would
    not notice each other on the bus. The name is the kernel's and, like a CAN interface, belongs
    to a network namespace.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0alam_piper {config}")
    except OSError as error:
        claim.close()
        raise UserError(
            f"CAN bus {config} is in use by another arm controller on this computer: stop that "
            "one, or give each arm a bus of its own"
        ) from error
    return claim


def serve_bus(config: BusConfig) -> can.BusABC:
    """Open the bus for an emulated arm: like ``open_bus``, but slcan over TCP is served. Raises
    UserError if that fails.
    """
    if config.interface != "slcan" or not config.channel.startswith(TCP):
        return open_bus(config)
    host, _, port = config.channel.removeprefix(TCP).partition(":")
    if host not in ("127.0.0.1", "localhost") or not port.isdecimal() or int(port) > 65535:
        raise UserError(
            f"an emulated arm cannot be served on '{config.channel}': "
            f"the channel must be {TCP}127.0.0.1:PORT"
        )
    try:
        return SlcanServer("127.0.0.1", int(port))
    except OSError as error:
        raise UserError(
            f"cannot serve CAN bus {config}: {error.strerror or error}; "
            "is an arm already answering there? Stop it or choose another port"
        ) from error


def _advice(config: BusConfig, cause: BaseException) -> str:
    if isinstance(cause, (can.CanInterfaceNotImplementedError, ImportError)):
        package = PACKAGES.get(config.interface, "python-can")
        return f"install what it needs: pip install {package}"
    if config.interface == "slcan" and "Permission" in str(cause):
        return "may this user open serial devices (sudo usermod -aG dialout $USER, log in again)?"
    if config.interface == "slcan" and config.channel.startswith(TCP):
        return "is an arm, or an emulated one, served there?"
    if config.interface == "slcan":
        devices = sorted(glob.glob("/dev/ttyACM*") + glob.glob("/dev/ttyUSB*"))
        return f"is the channel right? The serial devices are: {listing(devices)}"
    if config.interface == "socketcan":
        up = f"ip link set {config.channel} up type can bitrate {BITRATE}"
        return f"is the adapter plugged in and up ({up})?"
    if config.interface == "udp_multicast":
        return (
            "is the channel an IPv4 multicast address, and is the UDP port in use by another "
            f"program? Without multicast use slcan on {TCP}127.0.0.1:PORT"
        )
    return "is the channel right?"


@contextmanager
def options_for_libraries(config: BusConfig) -> Iterator[None]:
    """A context in which every bus that a library opens through python-can gets the options of
    ``config``, and in which ``udp_multicast`` stays on this host.
    """
    options, backends = dict(can.rc), dict(BACKENDS)
    can.rc.update(config.options())
    BACKENDS.update(LOOPBACK_BACKEND)
    try:
        yield
    finally:
        can.rc.clear()
        can.rc.update(options)
        BACKENDS.update(backends)
