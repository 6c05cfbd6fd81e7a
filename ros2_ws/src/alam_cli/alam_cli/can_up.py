"""``alam can up``: brings the CAN interface of a real arm up, at the arm's bit rate."""

import os

from alam_bringup.can_bus import BITRATE, CanLink, ip, list_links
from alam_core.errors import UserError


def choose(links: list[CanLink], name: str) -> CanLink:
    """The adapter called ``name``, or the only one if ``name`` is "". Raises UserError if there is
    none or no way to choose.
    """
    adapters = [link for link in links if link.kind == "can"]
    found = ", ".join(map(str, adapters))
    if not adapters:
        raise UserError(
            "no CAN adapter is plugged in: 'ip' shows no CAN interface; if yours is, load its "
            "driver: sudo modprobe gs_usb"
        )
    if name:
        for link in adapters:
            if link.name == name:
                return link
        raise UserError(f"there is no CAN adapter '{name}'; plugged in: {found}")
    if len(adapters) > 1:
        raise UserError(
            f"{len(adapters)} CAN adapters are plugged in: {found}; "
            f"say which one the arm is on: alam can up {adapters[0].name}"
        )
    return adapters[0]


def can_up(name: str = "") -> int:
    """Bring an interface up and print its state; does nothing if it is. Returns 0.

    name: of the interface; "" if there is only one. Raises UserError if that is impossible; an
    interface that is up at another bit rate is left alone, because a program may use it.
    """
    link = choose(list_links(), name)
    again = f"run 'sudo ip link set {link.name} down', then this again"
    if link.up and link.state == "BUS-OFF":
        raise UserError(f"{link} has stopped after too many errors (BUS-OFF): {again}")
    if link.up and link.bitrate != BITRATE:
        raise UserError(
            f"{link} is up at {link.bitrate} bit/s, and the arm needs {BITRATE}: stop the program "
            f"that uses it, {again}"
        )
    if link.up:
        print(f"{link} is up at {BITRATE} bit/s already")
        return 0
    command = ["link", "set", link.name, "up", "type", "can", "bitrate", str(BITRATE)]
    done = ip(*command)
    if done.returncode and (os.geteuid() or "not permitted" in done.stderr):
        raise UserError(f"no permission to bring {link} up; run: sudo ip {' '.join(command)}")
    if done.returncode:
        raise UserError(f"cannot bring {link} up: {' '.join(done.stderr.split())}")
    link = choose(list_links(), link.name)
    if not link.up or link.bitrate != BITRATE:
        raise UserError(f"{link} is still not up at {BITRATE} bit/s: see 'sudo dmesg'")
    print(f"{link} is up at {BITRATE} bit/s")
    return 0
