"""The client's side of HTTP/1.1, parsed by llhttp (httptools): connections to origins, kept and used again.

A pool sends one request at a time on a connection and gives the bounded answer. It follows no redirect and knows
nothing of what is sent. Through a proxy ``http`` goes in absolute form and ``https`` through a tunnel (CONNECT).

Source: RFC 9112; RFC 9110 §9.3.6 (CONNECT), §15.2 (interim answers); RFC 8305 (addresses of both families side by
    side).
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
import httptools

__all__ = ["BadAnswerError", "DisconnectedError", "Origin", "Pool", "RawAnswer", "basic_credentials"]

_MAX_BODY_BYTES: Final = 64 * 1024  # as the Collector's otlphttpexporter (maxHTTPResponseReadBytes)
_MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_ANSWER_BYTES: Final = 1024 * 1024  # with interim answers and the framing of chunks
_JOIN_BELOW_BYTES: Final = 64 * 1024  # one write of head and body; above it a copy costs more than a second write
_ADDRESS_DELAY_S: Final = 0.25  # RFC 8305 §5
_CLOSE_S: Final = 1.0  # for TLS to say goodbye


class DisconnectedError(ConnectionError):
    """The server closed before its answer was whole. ``is_stale``: a kept connection, and not a byte of the answer came: try again."""

    def __init__(self, message: str, *, is_stale: bool) -> None:
        super().__init__(message)
        self.is_stale = is_stale


class BadAnswerError(ConnectionError):
    """What came is no HTTP/1 answer, or too large a head."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go: ``scheme`` http or https, through the proxy of this URL if there is one."""

    scheme: str
    host: str
    port: int
    proxy: str = ""


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """As it came. Header names are in lower case, of several values the first; ``body`` is cut at 64 KiB (then ``is_truncated``)."""

    status: int
    reason: str
    headers: dict[bytes, bytes]
    body: bytes
    is_truncated: bool


class _Connection(asyncio.Protocol):
    """One connection, with at most one request on it."""

    def __init__(self, closed: "Callable[[_Connection], None]") -> None:
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self.transport: Any = None
        self.context: ssl.SSLContext | None = None
        self.idle_since_s = 0.0
        self.is_closed = asyncio.Event()
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[RawAnswer] | None = None
        self._use_count = 0
        self._is_usable = True
        self._is_tunnel = False
        self._begin()

    def _begin(self) -> None:
        self._received_bytes = self._body_bytes = 0
        self._status = 0
        self._reason = b""
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self._has_head = False

    async def exchange(self, head: bytes, body: bytes = b"", *, is_tunnel: bool = False) -> RawAnswer:
        """Send a request. ``is_tunnel``: a CONNECT, whose answer has no body.

        Raises:
            OSError: no answer, or none that is HTTP.
        """
        self._begin()
        self._is_tunnel = is_tunnel
        self._use_count += 1
        if self.is_closed.is_set():
            raise DisconnectedError("the server closed the connection", is_stale=self._use_count > 1)
        self._answer = self._loop.create_future()
        if len(body) < _JOIN_BELOW_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        try:
            return await self._answer
        except BaseException:
            self.abort()
            raise
        finally:
            self._answer = None

    def tunnelled(self, transport: asyncio.Transport) -> None:
        """The proxy's answer is through: from here on it is the server that speaks, over ``transport``."""
        self.transport = transport
        self._parser = httptools.HttpResponseParser(self)
        self._is_usable = True
        self._use_count = 0

    @property
    def is_usable(self) -> bool:
        """Whether another request may be sent on it."""
        return self._is_usable and not self.transport.is_closing()

    def close(self) -> None:
        """Close it in order."""
        self.transport.close()

    def abort(self) -> None:
        """Close it at once."""
        self._is_usable = False
        self.transport.abort()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Some of the answer."""
        if self._answer is None or self._answer.done():  # nobody asked
            self.abort()
            return
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._fail(BadAnswerError(f"the answer is no HTTP ({exc.__context__ or exc})"))
        else:
            if self._received_bytes > (_MAX_ANSWER_BYTES if self._has_head else _MAX_HEAD_BYTES):
                self._fail(BadAnswerError("the answer's head or framing is too large"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, which is that of some answers, too."""
        headers = self._headers
        ends_here = (
            b"content-length" not in headers and b"chunked" not in headers.get(b"transfer-encoding", b"").lower()
        )
        self._is_usable = False
        if exc is None and self._has_head and ends_here:
            self._finish()
        else:
            is_stale = self._use_count > 1 and not self._received_bytes
            self._fail(DisconnectedError(str(exc) if exc else "the server closed the connection", is_stale=is_stale))
        self.is_closed.set()
        self._closed(self)

    # llhttp's side.

    def on_message_begin(self) -> None:
        """An answer begins."""
        if self._answer is None or self._answer.done():  # behind the one that was asked for
            self._is_usable = False

    def on_status(self, part: bytes) -> None:
        """Some of the reason phrase."""
        self._reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which is not looked at."""
        if not self._has_head:
            self._headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._status = self._parser.get_status_code()
        if self._status >= 200:
            self._has_head = True
            if self._is_tunnel:
                self._finish()

    def on_body(self, part: bytes) -> None:
        """Some of the body, without its framing."""
        if self._answer is None or self._answer.done():
            return
        self._parts.append(part)
        self._body_bytes += len(part)
        if self._body_bytes > _MAX_BODY_BYTES:
            self._is_usable = False  # the rest is not worth reading
            self._finish(is_truncated=True)

    def on_message_complete(self) -> None:
        """The answer is whole; an interim one (1xx) says nothing and the real one follows."""
        if not self._has_head:
            self._reason, self._headers = b"", {}
        elif self._answer is not None and not self._answer.done():
            # What is not sent yet would be read as the next request.
            self._is_usable = (
                self._is_usable and self._parser.should_keep_alive() and not self.transport.get_write_buffer_size()
            )
            self._finish()

    def _finish(self, *, is_truncated: bool = False) -> None:
        if self._answer is not None and not self._answer.done():
            body = b"".join(self._parts)[:_MAX_BODY_BYTES]
            self._answer.set_result(
                RawAnswer(self._status, self._reason.decode("latin-1"), self._headers, body, is_truncated)
            )

    def _fail(self, error: Exception) -> None:
        self._is_usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


@dataclass(slots=True)
class _Connections:
    """To one origin. At most ``max_connections`` are open or being opened."""

    idle: list[_Connection] = field(default_factory=list)
    open: set[_Connection] = field(default_factory=set)
    opening_count: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    def let_next(self) -> None:
        """There may be room for one that waits."""
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class Pool:
    """Connections to any origin. ``context`` gives the TLS context to use now; ``server_name`` is verified in place of the host's."""

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        *,
        server_name: str,
        max_per_origin: int,
        idle_s: float,
        keeps_alive: bool,
    ) -> None:
        """``max_per_origin`` 0: no limit. ``idle_s`` 0: idle connections are kept."""
        self._context = context
        self._server_name = server_name
        self._max_per_origin = max_per_origin
        self._idle_s = idle_s
        self._keeps_alive = keeps_alive
        self._origins: dict[Origin, _Connections] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def exchange(self, origin: Origin, head: bytes, body: bytes) -> RawAnswer:
        """Send a request and get its answer. Cancelled, it closes the connection.

        Raises:
            OSError: no connection, no answer, or none that is HTTP.
            ValueError: the proxy's URL is none.
        """
        connections = self._origins.setdefault(origin, _Connections())
        connection = await self._take(origin, connections)
        try:
            return await connection.exchange(head, body)
        finally:
            if self._keeps_alive and connection.is_usable and not self._is_closed:
                connection.idle_since_s = asyncio.get_running_loop().time()
                connections.idle.append(connection)
                self._plan_sweep()
                connections.let_next()
            else:
                connection.close()

    async def close(self) -> None:
        """Close all connections; requests that are under way fail."""
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        found = [connection for connections in self._origins.values() for connection in connections.open]
        for connections in self._origins.values():
            connections.idle.clear()
            connections.let_next()
        for connection in found:
            connection.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                for connection in found:
                    await connection.is_closed.wait()
        for connection in found:
            connection.abort()

    async def _take(self, origin: Origin, connections: _Connections) -> _Connection:
        """An idle connection, a new one, or, at the limit, the next that is given back."""
        context = self._context() if origin.scheme == "https" or origin.proxy else None
        while True:
            if self._is_closed:
                connections.let_next()
                raise ConnectionAbortedError("the client was closed")
            while connections.idle:
                connection = connections.idle.pop()  # the last used: the others may grow old
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
                    connections.let_next()
                raise
        connections.opening_count += 1
        try:
            return await self._connect(origin, connections, context)
        except BaseException:
            connections.let_next()
            raise
        finally:
            connections.opening_count -= 1

    async def _connect(self, origin: Origin, connections: _Connections, context: ssl.SSLContext | None) -> _Connection:
        loop = asyncio.get_running_loop()
        host, port, is_tls = origin.host, origin.port, origin.scheme == "https"
        proxy = urlsplit(origin.proxy) if origin.proxy else None
        if proxy is not None:
            if proxy.scheme not in {"http", "https"} or not proxy.hostname:
                raise ValueError("the proxy's URL must be http://host:port or https://host:port")
            host, is_tls = proxy.hostname, proxy.scheme == "https"
            port = proxy.port or (443 if is_tls else 80)

        def closed(connection: _Connection) -> None:
            connections.open.discard(connection)
            if connection in connections.idle:
                connections.idle.remove(connection)
            connections.let_next()

        found = await loop.getaddrinfo(host, port, type=1)  # SOCK_STREAM
        sock = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=_ADDRESS_DELAY_S, loop=loop)
        name = (self._server_name if proxy is None else "") or host
        tls: dict[str, Any] = {"ssl": context, "server_hostname": name} if is_tls else {}
        _, connection = await loop.create_connection(lambda: _Connection(closed), sock=sock, **tls)
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

    async def _tunnel(self, origin: Origin, connection: _Connection, context: ssl.SSLContext | None) -> None:
        authority = f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"
        credentials = basic_credentials(origin.proxy)
        head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
        head += f"Proxy-Authorization: {credentials}\r\n\r\n" if credentials else "\r\n"
        answer = await connection.exchange(head.encode(), is_tunnel=True)
        if not 200 <= answer.status < 300:
            raise BadAnswerError(f"the proxy refused the tunnel: {answer.status} {answer.reason}")
        loop = asyncio.get_running_loop()
        assert context is not None  # https
        transport = await loop.start_tls(
            connection.transport, connection, context, server_hostname=self._server_name or origin.host
        )
        if transport is None:
            raise DisconnectedError("the server closed the connection during the TLS handshake", is_stale=False)
        connection.tunnelled(transport)

    def _plan_sweep(self) -> None:
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
                self._plan_sweep()


def basic_credentials(url: str) -> str:
    """What the user and password in ``url`` are in an Authorization header; empty without."""
    parts = urlsplit(url)
    if parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()
