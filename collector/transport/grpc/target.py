"""What the endpoint of a gRPC client names, and the addresses behind it.

The syntax is gRPC's: ``host:port``, ``dns:///host:port``, ``passthrough:///host:port``, ``unix:path``,
``unix:///path``, ``unix-abstract:name``, ``ipv4:a:port,b:port``, ``ipv6:[a]:port,…``; as in the Collector, with an
optional ``http://`` or ``https://`` before it.

Source: gRPC's doc/naming.md; open-telemetry/opentelemetry-collector configgrpc ``sanitizedEndpoint``,
    ``isSchemeHTTPS``.
"""

import asyncio
import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final

from collector.transport.http2.client import Address

__all__ = ["Target", "parse_target", "resolve", "split_scheme"]

_DEFAULT_PORT: Final = 443  # gRPC's, with and without TLS
_SCHEME: Final = re.compile(r"(dns|passthrough|unix|unix-abstract|ipv4|ipv6):(.*)", re.DOTALL)
_PORT: Final = re.compile(r"[0-9]{1,5}")
_MAX_ADDRESSES: Final = 256


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed endpoint."""

    text: str
    """The endpoint without ``http(s)://``, for messages."""
    authority: str
    """The default ``:authority``."""
    addresses: tuple[Address, ...] = ()
    """Addresses that need no lookup; if empty, look up ``host``."""
    host: str = ""
    port: int = 0


def split_scheme(endpoint: str) -> tuple[str, bool]:
    """Return the endpoint without ``http://`` or ``https://``, and whether its scheme requires TLS."""
    for scheme, tls in (("http://", False), ("https://", True)):
        if endpoint.startswith(scheme):
            return endpoint.removeprefix(scheme).rstrip("/"), tls
    return endpoint, False


def parse_target(text: str) -> Target:
    """Parse an endpoint (without ``http(s)://``).

    Raises:
        ValueError: it is not valid; the message says what is expected.
    """
    match = _SCHEME.fullmatch(text)
    scheme, address = (match[1], match[2]) if match else ("", text)
    match scheme:
        case "unix":
            path = address.removeprefix("//") if address.startswith("///") else address
            if not path.strip("/") or path.startswith("//"):
                raise ValueError(f"{text!r} is not a valid Unix socket: expected unix:path or unix:///absolute/path")
            return Target(text, "localhost", (Address(path=path),))
        case "unix-abstract":
            return Target(text, "localhost", (Address(path="\0" + address),))
        case "ipv4" | "ipv6":
            addresses = [_host_and_port(part, text) for part in address.removeprefix("///").split(",")]
            if not all(_is_ip(host, 4 if scheme == "ipv4" else 6) for host, _ in addresses):
                raise ValueError(
                    f"{text!r} is not valid: {scheme} expects IP addresses, for example {_example(scheme)}"
                )
            return Target(
                text, address.removeprefix("///").split(",")[0], tuple(Address(host, port) for host, port in addresses)
            )
        case "dns" | "passthrough":
            if address.startswith("//") and not address.startswith("///"):
                raise ValueError(
                    f"{text!r} is not valid: choosing a DNS server is not supported; write {scheme}:///host:port"
                )
            address = address.removeprefix("///")
    host, port = _host_and_port(address, text)
    if _is_ip(host):
        return Target(text, address, (Address(host, port),))
    return Target(text, address, host=host, port=port)


async def resolve(target: Target) -> tuple[Address, ...]:
    """Return the addresses of the target, in the order in which the system would try them.

    Raises:
        OSError: the lookup failed.
    """
    if target.addresses:
        return target.addresses
    found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(Address(str(to[0]), target.port) for _, _, _, _, to in found))[:_MAX_ADDRESSES]


def _host_and_port(text: str, endpoint: str) -> tuple[str, int]:
    if text.startswith("["):
        host, closed, port = text[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            raise ValueError(f"{endpoint!r} is not valid: expected host:port, for example [::1]:4317")
        port = port[1:]
        if not _is_ip(host, 6):
            raise ValueError(f"{endpoint!r} is not valid: expected an IPv6 address in brackets, for example [::1]:4317")
    elif text.count(":") > 1:
        host, port = text, ""  # a bare IPv6 address
    else:
        host, _, port = text.partition(":")
    if not host.isascii():
        raise ValueError(f"{endpoint!r} is not valid: write the host name in its xn-- form")
    if not host or any(ch.isspace() or ch in "[]/@?#" for ch in host) or (":" in host and not _is_ip(host, 6)):
        raise ValueError(f"{endpoint!r} is not valid: expected host:port, for example localhost:4317")
    if port and not (_PORT.fullmatch(port) and 0 < int(port) < 65536):
        raise ValueError(f"{endpoint!r} is not valid: expected a port from 1 to 65535")
    return host, int(port) if port else _DEFAULT_PORT


def _is_ip(host: str, version: int | None = None) -> bool:
    try:
        return ipaddress.ip_address(host).version == version if version else bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _example(scheme: str) -> str:
    return "ipv4:10.0.0.1:4317,10.0.0.2:4317" if scheme == "ipv4" else "ipv6:[::1]:4317"
