"""Where a server listens, as its ``endpoint`` says; and whether a peer is on this machine.

Endpoints have the forms of Go's ``net.Listen`` (``host:port``, ``:port``, ``[::1]:port``) and gRPC's ``unix:`` names.
``LocalAddresses`` tells which GPU a span may have used; it is not a security boundary.
"""

import errno
import ipaddress
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import psutil

from config.blocks import InvalidSettings

__all__ = ["Endpoint", "LocalAddresses", "ServerSocket", "check_endpoint", "interface_addresses"]

_REFRESH_S: Final = 30.0  # a new address, from a container or a VPN, is known after this long
_MAX_PORT: Final = 65535
_BACKLOG: Final = 1024
_UNIX_PATH_MAX_BYTES: Final = 107  # Linux's sun_path, without its NUL


class ServerSocket(socket.socket):
    """A listening socket from which an event loop can be kept from accepting connections."""

    is_paused = False

    def accept(self) -> tuple[socket.socket, Any]:
        """See :class:`socket.socket`.

        Raises:
            BlockingIOError: it is paused, or nobody waits.
        """
        if self.is_paused:
            raise BlockingIOError
        return super().accept()

    def accept_waiting(self) -> tuple[socket.socket, Any]:
        """Accept a connection even if it is paused."""
        return super().accept()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP host and port, or (if ``path`` is set) a Unix socket. An empty host means all addresses."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str, *, unix: bool = False) -> Self:
        """Parse an endpoint. With ``unix``, ``text`` may be a bare path (``transport: unix``).

        Raises:
            ValueError: it is not valid; the message says what is expected.
        """
        text = text.strip()
        if unix or text.startswith("unix:"):
            path = text.removeprefix("unix://") if text.startswith("unix://") else text.removeprefix("unix:")
            if not path or len(path.encode()) > _UNIX_PATH_MAX_BYTES or "\0" in path:
                raise ValueError(
                    f"{text!r} is not a valid Unix socket: "
                    f"expected a path of at most {_UNIX_PATH_MAX_BYTES} bytes, for example unix:///run/tailrace.sock"
                )
            return cls(path=path)
        if "://" in text:
            raise ValueError(
                f"{text!r} is a URL, not a valid endpoint: "
                f"expected host:port, for example {text.partition('://')[2] or 'localhost:4317'}"
            )
        host, separator, port_text = text.rpartition(":")
        if not separator or (":" in host and not (host.startswith("[") and host.endswith("]"))):
            raise ValueError(f"{text!r} is not a valid endpoint: expected host:port, :port, [::1]:port or unix:///path")
        if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > _MAX_PORT:
            raise ValueError(f"{text!r} is not a valid endpoint: expected a port from 0 (any free port) to {_MAX_PORT}")
        host = host.removeprefix("[").removesuffix("]")
        if any(character.isspace() or character in "/@?#" for character in host):
            raise ValueError(f"{text!r} is not a valid endpoint: the host name contains spaces or one of / @ ? #")
        return cls(host=host, port=int(port_text))

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def resolve(self) -> Self:
        """Return the address to listen on. For a name, it is its first IPv4 address if there is one, as in Go.

        Raises:
            OSError: the name cannot be resolved.
        """
        if self.path or not self.host:
            return self
        results = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family = socket.AF_INET if any(entry[0] == socket.AF_INET for entry in results) else socket.AF_INET6
        address = next(str(entry[4][0]) for entry in results if entry[0] == family)
        return type(self)(host=address, port=self.port)

    def listen(self, share_port: bool = False) -> ServerSocket:
        """Return a listening socket, without ``SO_REUSEPORT``: a second process must fail, not take half the traffic.

        ``share_port`` sets it, because this process listens on the port at another address for a little longer.

        Raises:
            OSError: the port is busy, the address is not on this machine, or the path exists or is not writable.
        """
        if self.path:
            self.remove_stale_socket()
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.bind(self.path)
                sock.listen(_BACKLOG)
            except OSError:
                sock.close()
                raise
        elif not self.host and socket.has_dualstack_ipv6():
            sock = socket.create_server(
                ("", self.port),
                family=socket.AF_INET6,
                dualstack_ipv6=True,
                backlog=_BACKLOG,
                reuse_port=share_port,
            )
        else:
            address = self.resolve()
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            sock = socket.create_server(
                (address.host, address.port), family=family, backlog=_BACKLOG, reuse_port=share_port
            )
        sock.setblocking(False)
        return ServerSocket(fileno=sock.detach())

    def bind_udp(self, share_port: bool = False) -> socket.socket:
        """Return a UDP socket that is bound to the address. ``share_port``: see :meth:`listen`.

        Raises:
            OSError: the port is busy, or the address is not on this machine.
        """
        address = self.resolve()
        is_dual = not address.host and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if is_dual or ":" in address.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if is_dual:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            if share_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.setblocking(False)
            sock.bind((address.host, address.port))
        except OSError:
            sock.close()
            raise
        return sock

    def remove_socket(self) -> None:
        """Remove a Unix socket after its listener was closed; does nothing for TCP."""
        if self.path:
            Path(self.path).unlink(missing_ok=True)

    def remove_stale_socket(self) -> None:
        """Remove a Unix socket that a killed process left behind.

        Raises:
            OSError: a process listens on it, or the path is not a socket.
        """
        path = Path(self.path)
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise OSError(errno.EEXIST, "the path exists and is not a socket", self.path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            try:
                probe.connect(self.path)
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
                return
            except OSError:
                pass
        raise OSError(errno.EADDRINUSE, "another process listens on the socket", self.path)


def interface_addresses() -> frozenset[str]:
    """Return the IP addresses of this machine's interfaces, without scope ids."""
    return frozenset(
        address.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in {socket.AF_INET, socket.AF_INET6}
    )


def check_endpoint(text: str, *, unix: bool = False) -> None:
    """Check the ``endpoint`` of a configuration block; ``unix`` as for :meth:`Endpoint.parse`.

    Raises:
        InvalidSettings: it is not valid; the message says what is expected.
    """
    try:
        Endpoint.parse(text, unix=unix)
    except ValueError as error:
        raise InvalidSettings((("endpoint",), str(error))) from None


class LocalAddresses:
    """Tells whether a peer's address is one of this machine's, which are read again every 30 s."""

    def __init__(
        self,
        read: Callable[[], frozenset[str]] = interface_addresses,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._monotonic_s = monotonic_s
        self._addresses: frozenset[str] = frozenset()
        self._expires_s = float("-inf")

    def is_local(self, address: str) -> bool | None:
        """Whether the IP address ``address`` is loopback or one of this machine's; None if it is not an IP address."""
        address = address.partition("%")[0]
        if address.startswith("127.") or address == "::1":
            return True
        now = self._monotonic_s()
        if now >= self._expires_s:
            self._addresses = self._read()
            self._expires_s = now + _REFRESH_S
        if address in self._addresses:
            return True
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return None
        mapped = parsed.ipv4_mapped if parsed.version == 6 else None  # how dual-stack sockets report IPv4 peers
        canonical = mapped or parsed
        return canonical.is_loopback or str(canonical) in self._addresses

    def is_local_grpc(self, peer: str) -> bool | None:
        """Whether a peer is local, by its gRPC name: ``ipv4:127.0.0.1:4711``, ``ipv6:%5B::1%5D:4711``, ``unix:``."""
        scheme, _, address = peer.partition(":")
        if scheme in {"unix", "unix-abstract"}:
            return True
        if scheme not in {"ipv4", "ipv6"}:
            return None
        host = address.rpartition(":")[0]
        return self.is_local(host.replace("%5B", "").replace("%5D", "").replace("%25", "%").strip("[]"))
