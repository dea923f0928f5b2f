"""The connections of an HTTP/1.1 client to any number of origins, kept for reuse.

A pool sends one request at a time on a connection. It follows no redirects and does not interpret requests. Through a
proxy, ``http`` uses the absolute form and ``https`` a tunnel (CONNECT).

Source: RFC 9112; RFC 9110 §9.3.6 (CONNECT); RFC 8305 (connecting to addresses of both families concurrently).
"""

import asyncio
import base64
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import aiohappyeyeballs

from collector.transport.http.client_connection import (
    BadResponseError,
    DisconnectedError,
    HTTP1ClientConnection,
    RawResponse,
)

__all__ = ["Origin", "Pool", "basic_credentials"]

_ADDRESS_DELAY_S: Final = 0.25  # RFC 8305 §5
_CLOSE_TIMEOUT_S: Final = 1.0  # for TLS to shut down


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go. ``scheme``: http or https; ``proxy``: URL of the proxy to use, or empty."""

    scheme: str
    host: str
    port: int
    proxy: str = ""


@dataclass(slots=True)
class _OriginConnections:
    """The connections to one origin, and the requests waiting for one."""

    idle: list[HTTP1ClientConnection] = field(default_factory=list)
    open: set[HTTP1ClientConnection] = field(default_factory=set)
    opening_count: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    def wake_next(self) -> None:
        """Wake the first request that waits: there may be room for it."""
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class Pool:
    """``context`` returns the TLS context to use now; ``server_name`` is verified instead of the host's, if set."""

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        *,
        server_name: str,
        max_per_origin: int,
        idle_s: float,
        keeps_alive: bool,
    ) -> None:
        """``max_per_origin`` 0: no limit. ``idle_s`` 0: idle connections are kept open."""
        self._context = context
        self._server_name = server_name
        self._max_per_origin = max_per_origin
        self._idle_s = idle_s
        self._keeps_alive = keeps_alive
        self._origins: dict[Origin, _OriginConnections] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def exchange(
        self, origin: Origin, head: bytes, body: bytes, accepted: list[RawResponse] | None = None
    ) -> RawResponse:
        """Send a request and return its response. If cancelled, the connection is closed.

        ``accepted``: see :meth:`ClientConnection.exchange`.

        Raises:
            OSError: there is no connection, no response, or none that is valid HTTP.
            ValueError: the proxy's URL is not valid.
        """
        connections = self._origins.setdefault(origin, _OriginConnections())
        connection = await self._acquire(origin, connections)
        try:
            return await connection.exchange(head, body, accepted=accepted)
        finally:
            if self._keeps_alive and connection.is_usable and not self._is_closed:
                connection.idle_since_s = asyncio.get_running_loop().time()
                connections.idle.append(connection)
                self._schedule_sweep()
                connections.wake_next()
            else:
                connection.close()

    async def close(self) -> None:
        """Close all connections; requests in progress fail."""
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        found = [connection for connections in self._origins.values() for connection in connections.open]
        for connections in self._origins.values():
            connections.idle.clear()
            connections.wake_next()
        for connection in found:
            connection.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                for connection in found:
                    await connection.is_closed.wait()
        for connection in found:
            connection.abort()

    async def _acquire(self, origin: Origin, connections: _OriginConnections) -> HTTP1ClientConnection:
        """Return an idle connection, a new one, or, at the limit, the next one that becomes idle."""
        context = self._context() if origin.scheme == "https" or origin.proxy else None
        while True:
            if self._is_closed:
                connections.wake_next()
                raise ConnectionAbortedError("the client is closed")
            while connections.idle:
                connection = connections.idle.pop()  # the most recently used, so that unneeded ones can expire
                if connection.is_usable and connection.context is context:
                    return connection
                connection.close()
            if not self._max_per_origin or len(connections.open) + connections.opening_count < self._max_per_origin:
                break
            waiter = asyncio.get_running_loop().create_future()
            connections.waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    connections.wake_next()
                raise
        connections.opening_count += 1
        try:
            return await self._connect(origin, connections, context)
        except BaseException:
            connections.wake_next()
            raise
        finally:
            connections.opening_count -= 1

    async def _connect(
        self, origin: Origin, connections: _OriginConnections, context: ssl.SSLContext | None
    ) -> HTTP1ClientConnection:
        loop = asyncio.get_running_loop()
        host, port, is_tls = origin.host, origin.port, origin.scheme == "https"
        proxy = urlsplit(origin.proxy) if origin.proxy else None
        if proxy is not None:
            if proxy.scheme not in {"http", "https"} or not proxy.hostname:
                raise ValueError("the proxy's URL is not valid: expected http://host:port or https://host:port")
            host, is_tls = proxy.hostname, proxy.scheme == "https"
            port = proxy.port or (443 if is_tls else 80)

        def on_closed(connection: HTTP1ClientConnection) -> None:
            connections.open.discard(connection)
            if connection in connections.idle:
                connections.idle.remove(connection)
            connections.wake_next()

        found = await loop.getaddrinfo(host, port, type=1)  # SOCK_STREAM
        sock = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=_ADDRESS_DELAY_S, loop=loop)
        name = (self._server_name if proxy is None else "") or host
        tls: dict[str, Any] = {"ssl": context, "server_hostname": name} if is_tls else {}
        _, connection = await loop.create_connection(lambda: HTTP1ClientConnection(on_closed), sock=sock, **tls)
        connections.open.add(connection)
        connection.context = context
        if proxy is not None and origin.scheme == "https":
            try:
                await self._tunnel(origin, connection, context)
            except BaseException:
                connection.abort()
                connections.open.discard(connection)
                raise
        return connection

    async def _tunnel(self, origin: Origin, connection: HTTP1ClientConnection, context: ssl.SSLContext | None) -> None:
        authority = f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"
        credentials = basic_credentials(origin.proxy)
        head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
        head += f"Proxy-Authorization: {credentials}\r\n\r\n" if credentials else "\r\n"
        response = await connection.exchange(head.encode(), is_tunnel=True)
        if not 200 <= response.status < 300:
            raise BadResponseError(f"the proxy refused the tunnel: {response.status} {response.reason}")
        loop = asyncio.get_running_loop()
        assert context is not None  # https
        transport = await loop.start_tls(
            connection.transport, connection, context, server_hostname=self._server_name or origin.host
        )
        if transport is None:
            raise DisconnectedError("the server closed the connection during the TLS handshake", is_stale=False)
        connection.use_tunnel(transport)

    def _schedule_sweep(self) -> None:
        if self._sweep is None and self._idle_s:
            self._sweep = asyncio.get_running_loop().call_later(self._idle_s, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        now_s = asyncio.get_running_loop().time()
        for connections in self._origins.values():
            for connection in [idle for idle in connections.idle if idle.idle_since_s + self._idle_s <= now_s]:
                connections.idle.remove(connection)
                connection.close()
            if connections.idle:
                self._schedule_sweep()


def basic_credentials(url: str) -> str:
    """Return the Authorization header for the user and password in ``url``; empty if it has none."""
    parts = urlsplit(url)
    if parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()
