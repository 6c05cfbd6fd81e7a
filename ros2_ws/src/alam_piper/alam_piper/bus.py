"""Opens the CAN bus: a real one, or one that is emulated by UDP multicast on this host."""

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import can

from alam_core.errors import UserError, listing

INTERFACES = ("socketcan", "udp_multicast", "slcan", "virtual")
BITRATE = 1_000_000
PACKAGES = {"slcan": "pyserial", "udp_multicast": "msgpack"}  # that python-can needs for them


@dataclass(frozen=True)
class BusConfig:
    """Which CAN bus to open. Raises UserError for an unknown interface.

    interface: one of INTERFACES. channel: ``can0`` for socketcan, a multicast address for
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

    def __str__(self) -> str:
        return f"{self.interface} {self.channel}" + (
            f":{self.port}" if self.interface == "udp_multicast" else ""
        )

    def options(self) -> dict[str, Any]:
        """Extra python-can options. A hop limit of 0 keeps emulated frames on this host."""
        return {"port": self.port, "hop_limit": 0} if self.interface == "udp_multicast" else {}


def open_bus(config: BusConfig) -> can.BusABC:
    """Open the bus. Raises UserError, naming the bus and the cause, if that fails."""
    options: dict[str, Any] = config.options()
    if config.interface in ("socketcan", "slcan"):
        options["bitrate"] = BITRATE
    try:
        return can.Bus(interface=config.interface, channel=config.channel, **options)
    except (can.CanError, OSError, ValueError, ImportError) as error:
        cause = error.__cause__ or error
        raise UserError(
            f"cannot open CAN bus {config}: {cause}; {_advice(config, cause)}"
        ) from error


def _advice(config: BusConfig, cause: BaseException) -> str:
    if isinstance(cause, (can.CanInterfaceNotImplementedError, ImportError)):
        package = PACKAGES.get(config.interface, "python-can")
        return f"install what it needs: pip install {package}"
    if config.interface == "slcan" and "Permission" in str(cause):
        return "may this user open serial devices (sudo usermod -aG dialout $USER, log in again)?"
    if config.interface == "slcan":
        devices = sorted(glob.glob("/dev/ttyACM*") + glob.glob("/dev/ttyUSB*"))
        return f"is the channel right? The serial devices are: {listing(devices)}"
    if config.interface == "socketcan":
        up = f"ip link set {config.channel} up type can bitrate {BITRATE}"
        return f"is the adapter plugged in and up ({up})?"
    if config.interface == "udp_multicast":
        return "is the UDP port in use by another program, or is multicast not available?"
    return "is the channel right?"


@contextmanager
def options_for_libraries(config: BusConfig) -> Iterator[None]:
    """A context in which every bus that a library opens through python-can gets the options of
    ``config``.
    """
    before = dict(can.rc)
    can.rc.update(config.options())
    try:
        yield
    finally:
        can.rc.clear()
        can.rc.update(before)
