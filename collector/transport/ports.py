"""Errors of listening sockets: which process has a busy port, and which key configures another."""

import errno
import socket

import psutil

from collector.transport.endpoint import Endpoint

__all__ = ["describe_port_conflict", "is_port_conflict", "listen_error"]


def is_port_conflict(error: OSError) -> bool:
    """Whether binding failed because the address is in use."""
    return error.errno == errno.EADDRINUSE


def describe_port_conflict(host: str, port: int, key: str, *, udp: bool = False) -> str:
    """Return a sentence naming the process that has ``host:port`` and the ``key`` that configures another port."""
    owner = _owner(port, udp=udp)
    hint = "ss -lunp" if udp else "ss -ltnp"
    by = f" by {owner}" if owner else f" (this user cannot see by which process; run `{hint}` as root)"
    return f"{key}: {_join(host, port)} is already in use{by}; stop that process or set {key} to another port"


def listen_error(endpoint: Endpoint, key: str, error: OSError, *, udp: bool = False) -> OSError:
    """Return the error to raise when listening on ``endpoint`` failed with ``error``. ``key``: path of the endpoint."""
    if is_port_conflict(error) and not endpoint.path:
        return OSError(error.errno, describe_port_conflict(endpoint.host, endpoint.port, key, udp=udp))
    return OSError(error.errno or 0, f"{key}: cannot listen on {endpoint}: {error.strerror or error}")


def _owner(port: int, *, udp: bool) -> str:
    """Return ``name (pid 123)`` of the process that listens on ``port``; empty if it is unknown."""
    try:
        connections = psutil.net_connections(kind="udp" if udp else "tcp")
    except (psutil.Error, OSError):
        return ""
    for connection in connections:
        if (
            (udp or connection.status == psutil.CONN_LISTEN)
            and connection.pid
            and connection.laddr
            and connection.laddr.port == port
        ):
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except (psutil.Error, OSError):
                return f"pid {connection.pid}"
    return ""


def _join(host: str, port: int) -> str:
    try:
        is_ipv6 = bool(socket.inet_pton(socket.AF_INET6, host))
    except OSError:
        is_ipv6 = False
    return f"[{host}]:{port}" if is_ipv6 else f"{host}:{port}"
