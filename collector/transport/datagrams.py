"""A UDP server: packets to a callback, with bounded work per turn of the event loop, and losses that are known.

The kernel drops packets when its buffer is full. Linux counts them for each socket (``SO_MEMINFO``).
"""

import asyncio
import errno
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from collector.api import Host, ListeningSocket
from collector.transport.endpoint import Endpoint
from collector.transport.listener import bound_address
from collector.transport.ports import listen_error

__all__ = ["DatagramServer"]

_PACKETS_PER_TURN: Final = 256  # then the rest of the process gets its turn
# Linux, asm-generic/socket.h and linux/sock_diag.h; Python has no names for them.
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("=9I")
_MEMINFO_DROPS: Final = 8
_ERRORS_OF_OTHER_PACKETS: Final = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})
"""ICMP errors, which recvfrom may raise for packets that were sent from this port."""


class DatagramServer:
    """Receives packets on a UDP ``endpoint``.

    ``on_packet(packet, peer)`` gets each packet and the sender's address as :mod:`socket` has it. ``on_lost(count,
    reason)`` is told of packets that were lost: ``too_large`` (more than ``max_packet_bytes``) or ``buffer_overflow``
    (dropped by the kernel; Linux only). ``buffer_bytes``: size of the kernel's buffer, 0 for its default. ``key``: path
    of the server's configuration block, for messages; ``setting``: the endpoint's key in it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        on_packet: Callable[[bytes, Any], None],
        on_lost: Callable[[int, str], None],
        *,
        key: str,
        setting: str = "endpoint",
        max_packet_bytes: int = 65_507,
        buffer_bytes: int = 0,
    ) -> None:
        self.endpoint = endpoint
        self.port = 0
        """The port it is bound to; 0 before ``start``."""
        self._on_packet, self._on_lost = on_packet, on_lost
        self._key = f"{key}::{setting}"
        self._max_packet_bytes, self._buffer_bytes = max_packet_bytes, buffer_bytes
        self._listening: ListeningSocket | None = None
        self._overflow_count = 0
        self._is_paused = False

    @property
    def address(self) -> str:
        """Where it receives, with the port that was bound."""
        return bound_address(self.endpoint, self.port)

    def start(self, host: Host) -> None:
        """Receive. During a reload, ``host`` passes on the socket of a component that was bound to the same address.

        Raises:
            OSError: cannot bind the endpoint; the message names the key and the process that has the port.
        """
        try:
            self._listening = host.listen(f"udp://{self.endpoint}", self.endpoint.bind_udp)
        except OSError as exc:
            raise listen_error(self.endpoint, self._key, exc, udp=True) from exc
        sock = self._listening.socket
        self.port = int(sock.getsockname()[1])
        if self._buffer_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
        self._overflow_count = _overflows(sock)  # not 0 if the socket was passed on
        asyncio.get_running_loop().add_reader(sock.fileno(), self._receive)

    @property
    def buffer_bytes(self) -> int:
        """The size of the kernel's buffer: it may grant less than was asked for (``net.core.rmem_max``)."""
        if self._listening is None:
            return 0
        size_bytes = self._listening.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return size_bytes // 2 if sys.platform == "linux" else size_bytes  # Linux doubles it for its own book-keeping

    def pause(self) -> None:
        """Leave packets in the kernel's buffer until :meth:`resume`."""
        if self._listening is not None and not self._is_paused:
            self._is_paused = True
            asyncio.get_running_loop().remove_reader(self._listening.socket.fileno())

    def resume(self) -> None:
        """Receive again."""
        if self._listening is not None and self._is_paused:
            self._is_paused = False
            asyncio.get_running_loop().add_reader(self._listening.socket.fileno(), self._receive)

    def close(self) -> None:
        """Process what has arrived and stop receiving. Safe before ``start`` and when called twice."""
        listening, self._listening = self._listening, None
        if listening is None:
            return
        sock = listening.socket
        if not self._is_paused:
            asyncio.get_running_loop().remove_reader(sock.fileno())
        if not listening.is_continued:
            self._is_paused = False
            self._receive_from(sock)
        sock.close()

    def _receive(self) -> None:
        if self._listening is not None:
            self._receive_from(self._listening.socket)

    def _receive_from(self, sock: socket.socket) -> None:
        """Process what has arrived, up to the number of packets of one turn."""
        for _ in range(_PACKETS_PER_TURN):
            if self._is_paused:
                break
            try:
                packet, peer = sock.recvfrom(self._max_packet_bytes + 1)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as exc:
                if exc.errno in _ERRORS_OF_OTHER_PACKETS:
                    continue
                raise
            if len(packet) > self._max_packet_bytes:
                self._on_lost(1, "too_large")
            else:
                self._on_packet(packet, peer)
        count = _overflows(sock)
        if count != self._overflow_count:
            self._on_lost((count - self._overflow_count) & 0xFFFFFFFF, "buffer_overflow")
            self._overflow_count = count


def _overflows(sock: socket.socket) -> int:
    """How many packets the kernel has dropped since the socket was made, modulo 2^32; 0 where it does not say."""
    if sys.platform == "linux":
        with suppress(OSError, struct.error):
            return int(_MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[_MEMINFO_DROPS])
    return 0
