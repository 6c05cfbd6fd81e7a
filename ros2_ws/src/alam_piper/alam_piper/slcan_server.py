"""A CAN bus served as slcan over TCP on this host, for programs that open
``socket://127.0.0.1:PORT``. It needs no multicast and no privileges.

Each connection is a node of the bus: a frame that one client sends reaches the server and all other
clients. A frame is a line such as ``t1558`` followed by 16 hexadecimal digits and a carriage
return.
"""

import contextlib
import select
import socket
import time
from dataclasses import dataclass, field
from typing import Any

import can

LINE_END = b"\r"
LONGEST = 64  # bytes of a line; longer ones are no slcan
BACKLOG = 4096  # bytes a client may be behind; it then misses frames, as with an adapter


@dataclass
class _Client:
    """One connection. ``open``: whether it takes part in the bus. ``listens``: it only listens."""

    connection: socket.socket
    open: bool = False
    listens: bool = False
    received: bytearray = field(default_factory=bytearray)
    waiting: bytearray = field(default_factory=bytearray)  # bytes that are still to be sent


class SlcanServer(can.BusABC):
    """The server's end of the bus. Use it in one thread."""

    def __init__(self, host: str, port: int, **options: Any) -> None:
        """Raises OSError if the port is taken."""
        super().__init__(f"{host}:{port}", can_filters=options.get("can_filters"))
        self._clients: dict[int, _Client] = {}
        self._frames: list[can.Message] = []
        self._listener = socket.create_server((host, port))
        self._listener.setblocking(False)
        self.channel_info = f"slcan on {host}:{port}"

    @property
    def clients(self) -> int:
        """Number of connections."""
        return len(self._clients)

    @property
    def port(self) -> int:
        """The TCP port that is served."""
        return int(self._listener.getsockname()[1])

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        if not self._frames:
            self._serve(timeout)
        return (self._frames.pop(0) if self._frames else None), False

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        """Send a frame to all clients; one that reads too slowly, or never, misses it."""
        self._pass_on(_line(msg), None)

    def fileno(self) -> int:
        return -1  # several sockets: can.Notifier must poll

    def shutdown(self) -> None:
        super().shutdown()
        for client in list(self._clients.values()):
            self._drop(client)
        self._listener.close()

    def _serve(self, timeout: float | None) -> None:
        """Accept connections and read what arrived, waiting for at most ``timeout`` s."""
        connections = [client.connection for client in self._clients.values()]
        try:
            ready, _, _ = select.select([self._listener, *connections], [], [], timeout)
        except (OSError, ValueError) as error:
            raise can.CanOperationError(f"cannot receive: {error}") from error
        for source in ready:
            if source is self._listener:
                with contextlib.suppress(OSError):
                    connection, _ = self._listener.accept()
                    connection.setblocking(False)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._clients[connection.fileno()] = _Client(connection)
            elif client := self._clients.get(source.fileno()):
                self._read(client)

    def _read(self, client: _Client) -> None:
        try:
            data = client.connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.received += data
        *lines, rest = client.received.split(LINE_END)
        client.received = bytearray(rest)
        if not data or len(rest) > LONGEST:
            self._drop(client)
            return
        for line in lines:
            self._take(client, bytes(line))

    def _take(self, client: _Client, line: bytes) -> None:
        """One line of a client: a frame, or a command of the adapter, which is acknowledged."""
        if line[:1] in (b"O", b"L"):
            client.open, client.listens = True, line[:1] == b"L"
        elif line[:1] == b"C":
            client.open = False
        elif frame := _frame(line):
            if client.open and not client.listens:
                self._frames.append(frame)
                self._pass_on(line + LINE_END, client)
            return
        self._write(client, LINE_END)

    def _pass_on(self, line: bytes, sender: _Client | None) -> None:
        for client in list(self._clients.values()):
            if client.open and client is not sender:
                self._write(client, line)

    def _write(self, client: _Client, data: bytes) -> None:
        if len(client.waiting) < BACKLOG:
            client.waiting += data
        try:
            sent = client.connection.send(client.waiting)
            del client.waiting[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        self._clients.pop(client.connection.fileno(), None)
        client.connection.close()


def _line(message: can.Message) -> bytes:
    data = bytes(message.data)
    return f"t{message.arbitration_id:03X}{len(data)}{data.hex().upper()}\r".encode()


def _frame(line: bytes) -> can.Message | None:
    """The frame in a line, None if it is not a standard data frame."""
    try:
        if line[:1] != b"t" or len(line) != 5 + 2 * int(line[4:5]):
            return None
        return can.Message(
            arbitration_id=int(line[1:4], 16),
            data=bytes.fromhex(line[5:].decode()),
            is_extended_id=False,
            timestamp=time.time(),
            check=True,
        )
    except ValueError:
        return None
