"""Opening a client's connection: TCP, Unix sockets, TLS with ALPN ``h2``, and a proxy's CONNECT. HTTP/2 itself is the protocol's.

Without TLS HTTP/2 is spoken at once ("prior knowledge"). ``HTTPS_PROXY`` and ``NO_PROXY`` are read from the
environment, for plaintext too, as gRPC does; never for loopback addresses and Unix sockets.

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
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined] # typeshed lacks the second

__all__ = ["Address", "Proxy", "connect", "find_proxy"]

P = TypeVar("P", bound=asyncio.BaseProtocol)

_MAX_ANSWER_BYTES: Final = 8 * 1024
_DEFAULT_PROXY_PORT: Final = 80


@dataclass(frozen=True, slots=True)
class Address:
    """One place to connect to: host and port, or a Unix socket's path (abstract where it begins with NUL)."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return "unix:" + self.path.replace("\0", "@")
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. It looks names up itself."""

    host: str
    port: int
    authorization: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"


def find_proxy(host: str) -> Proxy | None:
    """The proxy the environment names for connections to ``host``; None: connect directly.

    Raises:
        ValueError: HTTPS_PROXY is none that can be used; the message shows no credentials.
    """
    environment = getproxies_environment()
    url = environment.get("https", "")
    if not url or _is_local(host) or _is_bypassed(host, environment):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = parts.port or _DEFAULT_PROXY_PORT
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or not port:
        raise ValueError("HTTPS_PROXY: write http://host:port; other kinds of proxies cannot be used")
    authorization = ""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(user.encode()).decode()
    return Proxy(parts.hostname, port, authorization)


async def connect(
    address: Address,
    make: Callable[[], P],
    *,
    tls: ssl.SSLContext | None = None,
    server_name: str = "",
    proxy: Proxy | None = None,
) -> P:
    """A protocol whose connection is made; with ``tls`` the server showed a certificate for ``server_name`` and chose ``h2``.

    Raises:
        OSError: nobody there, the certificate is wrong, the server does not speak HTTP/2, the proxy refuses.
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
                f"the server does not offer HTTP/2 (ALPN h2) on this port, it chose {chosen or 'nothing'}"
            )
    return protocol


async def _tunnel(proxy: Proxy, address: Address) -> socket.socket:
    """A socket that the proxy has connected to ``address``."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    family, kind, number, _, to = found[0]
    sock = socket.socket(family, kind, number)
    sock.setblocking(False)
    try:
        await loop.sock_connect(sock, to)
        await _ask(sock, proxy, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _ask(sock: socket.socket, proxy: Proxy, address: Address) -> None:
    """CONNECT, and its answer."""
    loop = asyncio.get_running_loop()
    request = f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n"
    if proxy.authorization:
        request += f"Proxy-Authorization: {proxy.authorization}\r\n"
    await loop.sock_sendall(sock, f"{request}\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        # Byte by byte: what follows the answer is the server's, and must be left in the socket.
        block = await loop.sock_recv(sock, 1)
        if not block or len(answer) > _MAX_ANSWER_BYTES:
            raise ConnectionError(f"proxy {proxy.host}:{proxy.port}: no HTTP answer to CONNECT")
        answer += block
    status = answer.split(b"\r\n", 1)[0].split(b" ", 2)[1:2]
    if not status or not (status[0].startswith(b"2") and len(status[0]) == 3):
        said = status[0][:3].decode("ascii", "replace") if status else "no status"
        raise ConnectionError(f"proxy {proxy.host}:{proxy.port} refuses to connect to {address}: {said}")


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_bypassed(host: str, environment: dict[str, str]) -> bool:
    """NO_PROXY: names, domains, addresses, and networks (CIDR), which the standard library does not know."""
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
