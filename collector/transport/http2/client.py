"""Opens the connections of HTTP/2 clients: TCP, Unix sockets, TLS with ALPN ``h2``, and CONNECT through a proxy.

Without TLS, HTTP/2 starts at once ("prior knowledge"). ``HTTPS_PROXY`` and ``NO_PROXY`` are read from the environment,
for plaintext as well, as in gRPC; never for loopback addresses and Unix sockets.

Source: RFC 9113 §3; RFC 9110 §9.3.6 (CONNECT); gRPC's doc/http_connect proxying (gRFC A1).
"""

import asyncio
import base64
import ipaddress
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

__all__ = ["Address", "Proxy", "find_proxy", "is_reached_directly", "open_connection"]

_ProtocolT = TypeVar("_ProtocolT", bound=asyncio.BaseProtocol)

_MAX_RESPONSE_BYTES: Final = 8 * 1024
_DEFAULT_PROXY_PORT: Final = 80


@dataclass(frozen=True, slots=True)
class Address:
    """An address to connect to: host and port, or the path of a Unix socket (abstract if it begins with NUL)."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return "unix:" + self.path.replace("\0", "@")
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. It resolves names itself."""

    host: str
    port: int
    authorization: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"


def find_proxy(host: str) -> Proxy | None:
    """Return the proxy that the environment names for connections to ``host``; None: connect directly.

    Raises:
        ValueError: HTTPS_PROXY cannot be used; the message shows no credentials.
    """
    environment = getproxies_environment()
    url = environment.get("https", "")
    if not url or is_reached_directly(host, environment):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = parts.port or _DEFAULT_PROXY_PORT
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or not port:
        raise ValueError(
            "HTTPS_PROXY is not a valid HTTP proxy: expected http://host:port; other kinds of proxies are not supported"
        )
    authorization = ""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(user.encode()).decode()
    return Proxy(parts.hostname, port, authorization)


def is_reached_directly(host: str, environment: dict[str, str]) -> bool:
    """Whether ``host`` is this machine, or NO_PROXY (``environment``: see ``getproxies_environment``) contains it."""
    return _is_local(host) or _is_bypassed(host, environment)


async def open_connection(
    address: Address,
    make: Callable[[], _ProtocolT],
    *,
    tls: ssl.SSLContext | None = None,
    server_name: str = "",
    proxy: Proxy | None = None,
) -> _ProtocolT:
    """Connect, and return the protocol. With ``tls``, the certificate must be for ``server_name``, and ALPN must be h2.

    Raises:
        OSError: cannot connect, the certificate is not valid, the server does not offer HTTP/2, or the proxy refuses.
    """
    loop = asyncio.get_running_loop()
    name = server_name if tls is not None else None
    if address.path:
        transport, protocol = await loop.create_unix_connection(make, address.path, ssl=tls, server_hostname=name)
    elif proxy is None:
        transport, protocol = await loop.create_connection(
            make, address.host, address.port, ssl=tls, server_hostname=name
        )
    else:
        sock = await _tunnel(proxy, address)
        try:
            transport, protocol = await loop.create_connection(make, sock=sock, ssl=tls, server_hostname=name)
        except BaseException:
            sock.close()
            raise
    if tls is not None:
        chosen = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        if chosen != "h2":
            transport.abort()
            raise ConnectionError(
                f"the server does not offer HTTP/2 on this port: expected ALPN h2, got {chosen or 'no protocol'}"
            )
    return protocol


async def _tunnel(proxy: Proxy, address: Address) -> socket.socket:
    """Return a socket that the proxy has connected to ``address``."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    family, kind, number, _, to = found[0]
    sock = socket.socket(family, kind, number)
    sock.setblocking(False)
    try:
        await loop.sock_connect(sock, to)
        await _request_tunnel(sock, proxy, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _request_tunnel(sock: socket.socket, proxy: Proxy, address: Address) -> None:
    """Send CONNECT and wait for a successful response."""
    loop = asyncio.get_running_loop()
    request = f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n"
    if proxy.authorization:
        request += f"Proxy-Authorization: {proxy.authorization}\r\n"
    await loop.sock_sendall(sock, f"{request}\r\n".encode())
    response = b""
    while not response.endswith(b"\r\n\r\n"):
        # Byte by byte: what follows the response is the server's, and must stay in the socket.
        block = await loop.sock_recv(sock, 1)
        if not block or len(response) > _MAX_RESPONSE_BYTES:
            raise ConnectionError(f"proxy {proxy.host}:{proxy.port}: no valid HTTP response to CONNECT")
        response += block
    status = response.split(b"\r\n", 1)[0].split(b" ", 2)[1:2]
    if not status or not (status[0].startswith(b"2") and len(status[0]) == 3):
        shown = status[0][:3].decode("ascii", "replace") if status else "no status"
        raise ConnectionError(f"proxy {proxy.host}:{proxy.port} refuses to connect to {address}: {shown}")


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_bypassed(host: str, environment: dict[str, str]) -> bool:
    """Whether NO_PROXY has ``host``: names, domains, addresses and, unlike in the standard library, networks (CIDR)."""
    if proxy_bypass_environment(host, environment):
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    for part in environment.get("no", "").split(","):
        try:
            if "/" in part and ip in ipaddress.ip_network(part.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False
