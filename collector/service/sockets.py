"""The listening sockets of the process: a reload passes them from the components that leave to those that come."""

import errno
import socket
from collections.abc import Callable
from typing import Protocol

__all__ = ["ListeningSockets"]


class _Owner(Protocol):
    is_leaving: bool


class _Listening:
    """A :class:`collector.api.ListeningSocket`."""

    __slots__ = ("_all", "address", "owner", "socket")

    def __init__(self, sockets: "ListeningSockets", address: str, owner: _Owner, sock: socket.socket) -> None:
        self._all, self.address, self.owner, self.socket = sockets, address, owner, sock

    @property
    def is_open(self) -> bool:
        """Whether the component has not closed it yet."""
        return self.socket.fileno() >= 0

    @property
    def is_continued(self) -> bool:
        """See :class:`collector.api.ListeningSocket`."""
        return self._all.is_continued(self)


class ListeningSockets:
    """Who listens where. An owner that ``is_leaving`` gives its address to whoever asks for it."""

    def __init__(self) -> None:
        self._all: list[_Listening] = []

    def listen(self, owner: _Owner, address: str, bind: Callable[[bool], socket.socket]) -> _Listening:
        """See :meth:`collector.api.Host.listen`."""
        self._all = [known for known in self._all if known.is_open]
        leaving = [known for known in self._all if known.owner.is_leaving]
        # With port 0 any port is asked for, not that of a component that happens to have asked for the same.
        is_any = address.endswith(":0")
        same = next((known for known in reversed(leaving) if known.address == address and not is_any), None)
        if same is not None:
            sock = same.socket.dup()
            sock.setblocking(False)
        else:
            sock = _bind(bind, [known.socket for known in leaving if _port(known.address) == _port(address) != ""])
        listening = _Listening(self, address, owner, sock)
        self._all.append(listening)
        return listening

    def is_continued(self, ended: _Listening) -> bool:
        """Whether another component listens on the same port or path: the successor, or, if it failed, the old one."""
        port = _port(ended.address)
        return any(
            (_port(other.address) == port != "" or other.address == ended.address)
            and other.owner is not ended.owner
            and other.is_open
            for other in self._all
        )


def _bind(bind: Callable[[bool], socket.socket], on_same_port: list[socket.socket]) -> socket.socket:
    """What ``bind`` returns, also if sockets ``on_same_port`` are in its way: ``localhost:1`` is, for ``0.0.0.0:1``."""
    try:
        return bind(False)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not on_same_port or not hasattr(socket, "SO_REUSEPORT"):
            raise
    for other in on_same_port:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock = bind(True)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
    return sock


def _port(address: str) -> str:
    """The port of ``host:port``, with ``udp:`` before it if it is a UDP port; empty for a Unix socket."""
    if address.startswith("unix:"):
        return ""
    return ("udp:" if address.startswith("udp://") else "") + address.rpartition(":")[2]
