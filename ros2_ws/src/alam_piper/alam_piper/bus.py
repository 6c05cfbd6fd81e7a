"""How the CAN bus is reached: a real one, or one emulated over the network of this host."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import can

from alam_core.errors import UserError

BUSTYPES = ("socketcan", "udp_multicast", "slcan", "virtual")
BITRATE = 1_000_000


@dataclass(frozen=True)
class BusConfig:
    """bustype: one of BUSTYPES. channel: ``can0``, a multicast address, a serial device or ``socket://host:port``, or any name.

    udp_port: the port of ``udp_multicast``; two arms, or two graphs, on one host need two ports.
    """

    bustype: str = "udp_multicast"
    channel: str = "239.74.163.2"
    udp_port: int = 43113

    def __post_init__(self) -> None:
        if self.bustype not in BUSTYPES:
            raise UserError(f"CAN bus type '{self.bustype}' is unknown; there are: {', '.join(BUSTYPES)}")

    def __str__(self) -> str:
        return f"{self.bustype} {self.channel}" + (f":{self.udp_port}" if self.bustype == "udp_multicast" else "")

    def options(self) -> dict:
        """Extra python-can options. A hop limit of 0 keeps emulated frames on this host."""
        return {"port": self.udp_port, "hop_limit": 0} if self.bustype == "udp_multicast" else {}


def open_bus(config: BusConfig) -> can.BusABC:
    """Open the bus. Raises UserError that names the bus and the cause."""
    bitrate = {"bitrate": BITRATE} if config.bustype in ("socketcan", "slcan") else {}
    try:
        return can.Bus(interface=config.bustype, channel=config.channel, **bitrate, **config.options())
    except (can.CanError, OSError, ValueError, ImportError) as error:
        cause = error.__cause__ or error
        raise UserError(f"cannot open CAN bus {config}: {cause}; {_advice(config)}") from error


def _advice(config: BusConfig) -> str:
    if config.bustype == "socketcan":
        return f"is the adapter plugged in and up (ip link set {config.channel} up type can bitrate {BITRATE})?"
    if config.bustype == "udp_multicast":
        return "is the UDP port taken by another program, or does no network interface take multicast?"
    return "is the channel right?"


@contextmanager
def options_for_libraries(config: BusConfig) -> Iterator[None]:
    """Within it, every bus that a library opens by itself through python-can gets this configuration's options."""
    before = dict(can.rc)
    can.rc.update(config.options())
    try:
        yield
    finally:
        can.rc.clear()
        can.rc.update(before)
