"""The emulated bus hears nothing but the loopback interface, and tells its senders apart."""

import socket
import time

import can
import pytest
from can.interfaces.udp_multicast.utils import pack_message
from can_rig import HOME

from alam_core.errors import UserError
from alam_piper.bus import BusConfig, open_bus, options_for_libraries
from alam_piper.emulator import FIRMWARE, ArmEmulator, KinematicPlant, open_emulator_bus
from alam_piper.hardware import SdkBackend
from alam_piper.loopback import LoopbackBus
from alam_piper.startup import FIRMWARE_QUERY

GROUP = "239.74.163.2"
FRAME = can.Message(arbitration_id=0x155, data=range(8), is_extended_id=False)


@pytest.fixture
def port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def outer_address() -> str:
    """An address of this machine that is not on the loopback interface; skips without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has only the loopback interface")
        return probe.getsockname()[0]


def hear_nothing_before_now(port: int, *buses: can.BusABC) -> None:
    """Check that a frame that is sent now is the next one that the buses receive."""
    with open_bus(BusConfig(port=port)) as sender:
        sender.send(can.Message(arbitration_id=0x123, data=bytes(8), is_extended_id=False))
        for bus in buses:
            message = bus.recv(5.0)
            assert message is not None and message.arbitration_id == 0x123


def test_frames_to_the_outer_address_or_by_another_interface_are_not_heard(port: int) -> None:
    outer = outer_address()
    config = BusConfig(port=port)
    with options_for_libraries(config):  # as the SDK opens its buses
        library = can.interface.Bus(
            channel=GROUP, interface="udp_multicast", bitrate=1_000_000, local_loopback=False
        )
    buses = [open_bus(config), open_emulator_bus(config, listen=0.0), library]
    assert all(isinstance(bus, LoopbackBus) for bus in buses)
    datagram = pack_message(FRAME)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(datagram, (outer, port))
        sender.sendto(datagram, ("127.0.0.1", port))  # not to the group
        sender.sendto(datagram, (GROUP, port))  # by the interface of the default route
        option = socket.inet_aton(outer)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, option)
        sender.sendto(datagram, (GROUP, port))
    hear_nothing_before_now(port, *buses)
    for bus in buses:
        bus.shutdown()


def test_the_bus_of_python_can_itself_is_not_heard(port: int) -> None:
    """python-can's own bus sends by the interface of the default route."""
    outer_address()
    with (
        can.Bus(interface="udp_multicast", channel=GROUP, port=port, hop_limit=0) as plain,
        open_bus(BusConfig(port=port)) as bus,
    ):
        assert not isinstance(plain, LoopbackBus)
        plain.send(FRAME)
        hear_nothing_before_now(port, bus)


def test_junk_in_the_group_is_no_error(port: int) -> None:
    with open_bus(BusConfig(port=port)) as bus:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            option = socket.inet_aton("127.0.0.1")
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, option)
            for junk in (b"", b"\xff" * 100, b"\x81\xa3dlc\x99"):
                sender.sendto(junk, (GROUP, port))
        hear_nothing_before_now(port, bus)


def test_the_arm_does_not_answer_its_own_answers(port: int) -> None:
    """On this bus it hears them, and the firmware's reply has the identifier of the query."""
    config = BusConfig(port=port)
    with open_emulator_bus(config, listen=0.0) as bus, open_bus(config) as mine:
        emulator = ArmEmulator(bus, KinematicPlant(HOME))
        emulator.feedback_frozen = True
        mine.send(can.Message(arbitration_id=0x4AF, data=FIRMWARE_QUERY, is_extended_id=False))
        text, until = b"", time.monotonic() + 10.0
        while len(text) < len(FIRMWARE_QUERY + FIRMWARE):
            assert time.monotonic() < until
            emulator.step(0.005)
            if message := mine.recv(0.0):
                text += bytes(message.data)
        for _ in range(20):
            emulator.step(0.005)
        assert text.removeprefix(FIRMWARE_QUERY) == FIRMWARE and mine.recv(0.05) is None


def test_what_is_no_multicast_address_is_named() -> None:
    for channel in ("127.0.0.1", "nowhere", "ff15::1"):
        with pytest.raises(UserError, match="cannot open CAN bus udp_multicast.*IPv4 multicast"):
            open_bus(BusConfig(channel=channel))
    with pytest.raises(UserError, match="port 70000 of the CAN bus is not from 0 to 65535"):
        BusConfig(port=70000)


def test_feedback_of_a_second_arm_is_not_used_and_is_named(port: int) -> None:
    config = BusConfig(port=port)
    bus, other = open_emulator_bus(config, listen=0.0), open_bus(config)
    arm = ArmEmulator(bus, KinematicPlant(HOME))
    impostor = ArmEmulator(other, KinematicPlant(HOME + 0.5))
    backend = SdkBackend(config)
    backend.connect()

    def until(condition, *arms: ArmEmulator) -> None:
        deadline = time.monotonic() + 20.0
        while not condition():
            assert time.monotonic() < deadline, backend.missing()
            for each in arms:
                each.step(0.005)
            time.sleep(0.002)

    try:
        until(lambda: backend.read() is not None, arm)
        assert backend.foreign_writer() == ""
        until(lambda: "a second arm sends feedback" in backend.foreign_writer(), arm, impostor)
        for _ in range(20):
            arm.step(0.005)
            impostor.step(0.005)
            assert abs(backend.read().positions[1] - HOME[1]) < 1e-3
        until(lambda: backend.foreign_writer() == "", arm)  # it is forgotten
        # Once the first arm is silent, another one takes its place: an emulator that was restarted.
        until(lambda: abs(backend.read().positions[1] - HOME[1] - 0.5) < 1e-3, impostor)
    finally:
        backend.close()
        bus.shutdown()
        other.shutdown()
