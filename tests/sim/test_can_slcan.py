"""A bus served as slcan over TCP: it carries frames between all of its clients, and a client that
sends nonsense or reads nothing harms nobody.
"""

import socket
import time

import can
import numpy as np
import pytest
from can_rig import HOME

from alam_core.errors import UserError
from alam_piper.bus import BusConfig, open_bus, serve_bus
from alam_piper.config import ControllerConfig
from alam_piper.controller import ArmController
from alam_piper.emulator import ArmEmulator, KinematicPlant
from alam_piper.feedback_watch import take_reading
from alam_piper.frames import POSITION_FRAMES
from alam_piper.hardware import SdkBackend
from alam_piper.slcan_server import BACKLOG, SlcanServer
from alam_piper.states import State


@pytest.fixture
def server():
    server = SlcanServer("127.0.0.1", 0)
    yield server
    server.shutdown()


def config(server: SlcanServer) -> BusConfig:
    return BusConfig("slcan", f"socket://127.0.0.1:{server.port}")


def frame(number: int) -> can.Message:
    return can.Message(arbitration_id=number, data=b"\x01\x02\x03", is_extended_id=False)


def receive(bus: can.BusABC, server: SlcanServer) -> can.Message:
    """The next frame of a client's or the server's bus, while the server runs."""
    until = time.monotonic() + 10.0
    while time.monotonic() < until:
        if bus is not server:
            server.recv(0.0)
        if message := bus.recv(0.01):
            return message
    raise AssertionError("no frame")


def raw(server: SlcanServer, text: bytes) -> socket.socket:
    """A client that has sent ``text``."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=10.0)
    client.sendall(text)
    return client


def test_frames_reach_the_server_and_all_other_clients(server: SlcanServer) -> None:
    with open_bus(config(server)) as one, open_bus(config(server)) as other:
        while server.clients < 2 or not all(c.open for c in server._clients.values()):
            server.recv(0.01)
        one.send(frame(0x155))
        assert receive(server, server).arbitration_id == 0x155
        message = receive(other, server)
        assert message.arbitration_id == 0x155 and bytes(message.data) == b"\x01\x02\x03"
        server.send(frame(0x2A5))
        assert receive(one, server).arbitration_id == 0x2A5  # and not its own frame
        assert receive(other, server).arbitration_id == 0x2A5


def test_nonsense_is_ignored_and_commands_are_acknowledged(server: SlcanServer) -> None:
    lines = (b"S8", b"O", b"t1559zz", b"tzzz0", b"t15521", b"\xff\xfe", b"t9998" + b"0" * 16)
    with raw(server, b"\r".join(lines) + b"\rt15510A\r") as client:
        message = receive(server, server)
        assert (message.arbitration_id, bytes(message.data)) == (0x155, b"\x0a")
        assert client.recv(2) == b"\r\r"
        client.sendall(b"C\rt15510B\rL\rt15510C\rO\rt15510D\r")  # closed, then listening only
        assert bytes(receive(server, server).data) == b"\x0d"
        client.sendall(b"x" * 1000)  # no line at all
        while server.clients:
            server.recv(0.01)


def test_a_client_that_reads_nothing_misses_frames_and_stays(server: SlcanServer) -> None:
    with raw(server, b"O\r"), open_bus(config(server)) as bus:
        while server.clients < 2 or not all(c.open for c in server._clients.values()):
            server.recv(0.01)
        for _ in range(400_000):  # more than the buffers of the sockets hold
            server.send(frame(0x2A5))
            if all(len(client.waiting) >= BACKLOG for client in server._clients.values()):
                break
        else:
            raise AssertionError("nothing was discarded")
        longest = max(len(client.waiting) for client in server._clients.values())
        server.send(frame(0x2A5))
        assert longest == max(len(client.waiting) for client in server._clients.values())
        assert server.clients == 2
        bus.send(frame(0x123))
        assert receive(server, server).arbitration_id == 0x123


def test_a_port_that_is_taken_or_not_on_this_host_is_named(server: SlcanServer) -> None:
    with pytest.raises(UserError, match="is an arm already answering there"):
        serve_bus(config(server))
    for channel in ("socket://0.0.0.0:7777", "socket://127.0.0.1:99999", "socket://localhost"):
        with pytest.raises(UserError, match="must be socket://127.0.0.1:PORT"):
            serve_bus(BusConfig("slcan", channel))
    with pytest.raises(UserError, match="is an arm, or an emulated one, served there"):
        open_bus(BusConfig("slcan", "socket://127.0.0.1:1"))


def test_the_controller_drives_an_arm_by_slcan(server: SlcanServer) -> None:
    emulator = ArmEmulator(server, KinematicPlant(HOME, 0.05), feedback_every=2)
    backend, controller = SdkBackend(config(server)), ArmController(ControllerConfig())
    backend.connect()
    now, until = 100.0, time.monotonic() + 60.0

    def step() -> None:
        nonlocal now
        now += 0.005
        emulator.step(0.005)
        assert time.monotonic() < until, controller.reason
        patience = 0.05 if controller.feedback else 0.01
        reading = take_reading(backend, controller.feedback, patience, POSITION_FRAMES)
        output = controller.tick(now, reading)
        if output.enable:
            backend.enable()
        if output.set_point is not None:
            backend.write(output.set_point)

    try:
        while controller.state is not State.HOLDING:
            step()
            if controller.state is State.DISABLED:
                controller.enable()
        for _ in range(20):
            step()
        assert controller.state is State.HOLDING and emulator.joint_commands > 10
        assert np.abs(emulator.plant.joints - HOME).max() < 1e-4
        assert backend.foreign_writer() == ""  # our own commands come back to us
    finally:
        backend.close()
