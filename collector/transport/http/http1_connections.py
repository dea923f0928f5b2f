"""The open HTTP/1.1 connections of a server, and what they share."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from collector.transport.http.request import HTTPRoutes

__all__ = ["HTTP1Connections"]

_BODY_READ_BYTES: Final = 256 * 1024
_HEAD_READ_BYTES: Final = 64 * 1024


class _Connection(Protocol):
    """One of them: see :class:`collector.transport.http.http1.HTTP1Connection`."""

    def drain(self) -> None: ...

    def close_after_next(self) -> None: ...

    def abort(self) -> None: ...


class HTTP1Connections:
    """``on_refused`` is called with the reason for each request that is refused before a route sees it."""

    def __init__(self, routes: HTTPRoutes, on_refused: Callable[[str], None]) -> None:
        self.routes = routes
        self.on_refused = on_refused
        self.body_buffer = memoryview(bytearray(_BODY_READ_BYTES))
        # Between bodies less is read at once, so that a client with many small requests does not hold up the others.
        self.head_buffer = self.body_buffer[:_HEAD_READ_BYTES]
        self._is_draining = self._awaits_idle = False
        self._open: set[_Connection] = set()
        self._none_open = asyncio.Event()

    def add(self, connection: _Connection) -> None:
        """Register a new connection. While draining (its TLS handshake was in progress) it is drained at once."""
        self._open.add(connection)
        if self._awaits_idle:
            connection.close_after_next()
        elif self._is_draining:
            connection.drain()

    def remove(self, connection: _Connection) -> None:
        """Forget a closed connection."""
        self._open.discard(connection)
        if not self._open:
            self._none_open.set()

    async def drain(self, grace_s: float, *, awaits_idle: bool = False) -> None:
        """Close idle connections at once, the others when they have answered, and all after ``grace_s``.

        With ``awaits_idle`` an idle connection stays open until it has been used once more, because its client may be
        sending a request that it would not repeat.
        """
        self._is_draining = True
        if awaits_idle:
            self._awaits_idle = True
            for connection in list(self._open):
                connection.close_after_next()
            await self._wait_until_closed(grace_s)
        for connection in list(self._open):
            connection.drain()
        if not await self._wait_until_closed(grace_s):
            for connection in list(self._open):
                connection.abort()
            await self._wait_until_closed(grace_s)

    async def _wait_until_closed(self, timeout_s: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._open:
                    self._none_open.clear()
                    await self._none_open.wait()
        return not self._open
