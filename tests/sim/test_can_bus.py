"""Opening a CAN bus that is not there: what is missing, and how to get it."""

import can.interfaces.slcan
import can.interfaces.udp_multicast.utils as multicast
import pytest

from alam_core.errors import UserError
from alam_piper.bus import BusConfig, open_bus


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(can.interfaces.slcan, "serial", None)
    with pytest.raises(UserError, match="pip install pyserial$"):
        open_bus(BusConfig("slcan", "/dev/ttyACM0"))
    monkeypatch.setattr(multicast, "msgpack", None)
    with pytest.raises(UserError, match="pip install msgpack$"):
        open_bus(BusConfig("udp_multicast"))


def test_serial_devices_are_listed_and_permission_is_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ports = {"/dev/ttyACM*": ["/dev/ttyACM1"], "/dev/ttyUSB*": ["/dev/ttyUSB0"]}
    monkeypatch.setattr("glob.glob", ports.__getitem__)
    with pytest.raises(UserError, match="serial devices are: /dev/ttyACM1, /dev/ttyUSB0$"):
        open_bus(BusConfig("slcan", "/dev/ttyACM0"))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/dev/ttyACM1")

    monkeypatch.setattr(can, "Bus", refuse)
    with pytest.raises(UserError, match="dialout"):
        open_bus(BusConfig("slcan", "/dev/ttyACM1"))
