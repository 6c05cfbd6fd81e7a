"""A CAN bus by UDP multicast that stays on this host: it sends and receives on the loopback
interface only.

python-can's own ``udp_multicast`` bus receives on every interface, and frames sent to the machine's
outer address too. This one receives only what was sent to the multicast group on the loopback
interface. The frames on the wire are the same. Every program on this host may still send into the
group; each bus sends from a port of its own, so that a receiver can tell the senders apart.
"""

import select
import socket
import time
from typing import Any

import can
from can.interfaces.udp_multicast.utils import is_msgpack_installed, pack_message, unpack_message

LOOPBACK = "127.0.0.1"
MULTICAST_ALL = 49  # IP_MULTICAST_ALL of Linux, which Python's socket module does not name
LARGEST = 4096  # bytes of a datagram


class LoopbackBus(can.BusABC):
    """A multicast group on the loopback interface as a CAN bus.

    ``channel`` of a received message is its sender, as ``127.0.0.1:PORT``. Other options of
    python-can's bus are accepted and have no effect.
    """

    def __init__(self, channel: str, port: int = 43113, **options: Any) -> None:
        """channel: an IPv4 multicast address. Raises can.CanInitializationError if the sockets
        cannot be opened.
        """
        is_msgpack_installed()
        super().__init__(channel, can_filters=options.get("can_filters"))
        self._group = (channel, port)
        self._receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            group, interface = socket.inet_aton(channel), socket.inet_aton(LOOPBACK)
            self._receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._receiver.bind(self._group)  # the group's address: no frame to another one
            self._receiver.setsockopt(
                socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + interface
            )
            self._receiver.setsockopt(socket.IPPROTO_IP, MULTICAST_ALL, 0)
            self._sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            self._sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
            self._sender.bind((LOOPBACK, 0))
        except OSError as error:
            self.shutdown()
            raise can.CanInitializationError("cannot open the sockets") from error
        self.channel_info = f"{channel}:{port} on {LOOPBACK}"

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        try:
            if not select.select([self._receiver], [], [], timeout)[0]:
                return None, False
            data, (host, port) = self._receiver.recvfrom(LARGEST)
        except (OSError, ValueError) as error:  # ValueError: the socket was closed
            raise can.CanOperationError(f"cannot receive: {error}") from error
        try:
            replace = {"timestamp": time.time(), "channel": f"{host}:{port}"}
            return unpack_message(data, replace=replace, check=True), False
        except Exception:  # the datagram is no frame, whoever sent it
            return None, False

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        """Send one frame to the group. Raises can.CanOperationError if that fails."""
        try:
            self._sender.sendto(pack_message(msg), self._group)
        except OSError as error:
            raise can.CanOperationError(f"cannot send: {error}") from error

    def fileno(self) -> int:
        return self._receiver.fileno()

    def shutdown(self) -> None:
        super().shutdown()
        self._receiver.close()
        self._sender.close()
