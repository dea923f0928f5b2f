"""An HTTP/2 server: it listens, and holds what its connections share.

``accept`` decides what a request means: it makes a :class:`ServerStream` of it. Frames and flow control are the work
of libnghttp2 (``session``).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeAlias

from collector.api import Admission, Host
from collector.transport.endpoint import Endpoint, LocalAddresses
from collector.transport.http2.events import StreamEvent
from collector.transport.http2.protocol_detection import HTTP1Protocol, ProtocolDetector
from collector.transport.http2.server_connection import ServerConnection
from collector.transport.http2.server_streams import BaseServerConnection, ServerStream
from collector.transport.listener import Listener
from collector.transport.tls import server_context
from config.blocks import KeepaliveServerConfig, TLSServerConfig

__all__ = ["Accept", "HTTP2Server"]

# For max_concurrent_streams: 0. More than any client uses, so that a connection's memory is bounded.
_MAX_STREAMS: Final = 10_000

Accept: TypeAlias = Callable[[BaseServerConnection, StreamEvent], ServerStream | None]
"""Makes a stream of a request, given what has arrived of its body; None: the request was answered at once."""


class HTTP2Server:
    """Listens on ``endpoint``. ``on_closed`` is called with the reason for every connection that we close."""

    def __init__(
        self,
        endpoint: Endpoint,
        accept: Accept,
        *,
        key: str,
        admission: Admission,
        addresses: LocalAddresses,
        on_closed: Callable[[str], None],
        keepalive: KeepaliveServerConfig | None = None,
        max_message_bytes: int,
        max_concurrent_streams: int = 0,
        write_buffer_bytes: int = 0,
    ) -> None:
        self.accept = accept
        self.admission = admission
        self.on_closed = on_closed
        self.keepalive = keepalive or KeepaliveServerConfig()
        self.max_message_bytes = max_message_bytes
        self.max_streams = max_concurrent_streams or _MAX_STREAMS
        self.write_buffer_bytes = write_buffer_bytes
        self.is_closed = False
        self._endpoint = endpoint
        self._addresses = addresses
        self._listener = Listener(endpoint, key=key)
        self.connections: set[ServerConnection] = set()
        self._undecided: set[ProtocolDetector] = set()
        self._all_lost = asyncio.Event()

    @property
    def port(self) -> int:
        """The port it listens on; 0 before ``start`` and for a Unix socket."""
        return self._listener.port

    @property
    def is_continued(self) -> bool:
        """Whether a reload has made another server listen on the same port or path."""
        return self._listener.is_continued

    async def start(
        self, tls: TLSServerConfig | None, host: Host, http1: Callable[[], HTTP1Protocol] | None = None
    ) -> None:
        """Listen and serve. With ``http1``, clients may speak HTTP/1.1 as well, and a protocol it makes serves them.

        Raises:
            OSError: cannot listen on the endpoint; the message names the key and the process that has the port.
            ValueError: a certificate cannot be used.
        """
        alpn = ("h2",) if http1 is None else ("h2", "http/1.1")
        context = server_context(tls, protocols=alpn) if tls is not None else None
        if http1 is None:
            await self._listener.start(self.connection, context, host)
        else:
            await self._listener.start(
                lambda: ProtocolDetector(self.connection, http1, self._undecided, self.on_closed), context, host
            )

    def connection(self) -> ServerConnection:
        """Return the protocol of a new connection."""
        return ServerConnection(self)

    async def shutdown(self, grace_s: float) -> None:
        """Refuse new connections and requests, give those in progress ``grace_s`` to finish, close all connections.

        If a reload has made another server listen at the address, connections that were accepted a moment ago are
        served like the others.
        """
        self.is_closed = True
        if self.is_continued:
            await self._listener.finish()
        else:
            self._listener.close()
            self._abort_undecided()
        for connection in list(self.connections):
            if self.is_continued:
                connection.drain_when_old()
            else:
                connection.drain("shutdown")
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self.connections or self._undecided:
                    self._all_lost.clear()
                    await self._all_lost.wait()
        self._abort_undecided()
        for connection in list(self.connections):
            connection.abort()

    def _abort_undecided(self) -> None:
        while self._undecided:
            self._undecided.pop().abort()

    # What connections use: see server_connection.ConnectionServer.

    def add_connection(self, connection: ServerConnection) -> None:
        """See :class:`ConnectionServer`."""
        self.connections.add(connection)

    def remove_connection(self, connection: ServerConnection) -> None:
        """See :class:`ConnectionServer`."""
        self.connections.discard(connection)
        if self.is_closed and not self.connections and not self._undecided:
            self._all_lost.set()

    def is_local(self, peer_name: object) -> bool | None:
        """See :class:`ConnectionServer`."""
        if self._endpoint.path:
            return True
        return self._addresses.is_local(str(peer_name[0])) if isinstance(peer_name, tuple) else None
