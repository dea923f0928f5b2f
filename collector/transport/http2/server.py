"""The server's end of HTTP/2: it listens, and holds what its connections share.

What a request means is its user's: ``accept`` makes a :class:`Stream` of it. Frames and flow control are libnghttp2's
(``session``).
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeAlias

from collector.api import Admission
from collector.transport.endpoint import Endpoint, LocalAddresses
from collector.transport.http2.events import Received
from collector.transport.http2.first_bytes import FirstBytes, HTTP1Protocol
from collector.transport.http2.server_connection import MAX_HEADER_BYTES, ServerConnection
from collector.transport.http2.server_streams import ServerStreams, Stream
from collector.transport.ports import listen_error
from collector.transport.tls import server_context
from config.blocks import KeepaliveServerConfig, TLSServerConfig

__all__ = ["MAX_HEADER_BYTES", "Accept", "HTTP2Server", "ServerConnection"]

# with max_concurrent_streams: 0; more than any client uses, so that a connection's memory is bounded
_MAX_STREAMS: Final = 10_000
_HANDSHAKE_S: Final = 10.0  # of TLS

Accept: TypeAlias = Callable[[ServerStreams, Received], Stream | None]
"""Makes a stream of a request, with what came of its body; None: it was answered at once."""


class HTTP2Server:
    """Listens, and holds what its connections share. ``closed`` is told why a connection was closed by us."""

    def __init__(
        self,
        endpoint: Endpoint,
        accept: Accept,
        *,
        key: str,
        admission: Admission,
        addresses: LocalAddresses,
        closed: Callable[[str], None],
        keepalive: KeepaliveServerConfig | None = None,
        max_message_bytes: int,
        max_concurrent_streams: int = 0,
        write_buffer_bytes: int = 0,
    ) -> None:
        self.accept = accept
        self.admission = admission
        self.closed = closed
        self.keepalive = keepalive or KeepaliveServerConfig()
        self.max_message_bytes = max_message_bytes
        self.max_streams = max_concurrent_streams or _MAX_STREAMS
        self.write_buffer_bytes = write_buffer_bytes
        self.connections: set[ServerConnection] = set()
        self.is_closed = False
        self.port = 0
        """The port it listens on; 0 before ``start`` and for a Unix socket."""
        self._endpoint = endpoint
        self._addresses = addresses
        self._key = key
        self._listener: asyncio.Server | None = None
        self._undecided: set[FirstBytes] = set()
        self._all_lost = asyncio.Event()

    async def start(self, tls: TLSServerConfig | None, http1: Callable[[], HTTP1Protocol] | None = None) -> None:
        """Listen and serve; with ``http1`` also connections that speak HTTP/1.1, each over to a protocol that it makes.

        Raises:
            OSError: the endpoint cannot be listened on; the message names the key and who has the port.
            ValueError: a certificate is wrong.
        """
        protocols = ("h2",) if http1 is None else ("h2", "http/1.1")
        context = server_context(tls, protocols=protocols) if tls is not None else None
        try:
            sock = self._endpoint.listen()
        except OSError as exc:
            raise listen_error(self._endpoint, f"{self._key}::endpoint", exc) from exc
        loop = asyncio.get_running_loop()
        handshake_s = _HANDSHAKE_S if context else None
        connection = (
            self.connection
            if http1 is None
            else lambda: FirstBytes(self.connection, http1, self._undecided, self.closed)
        )
        if self._endpoint.path:
            self._listener = await loop.create_unix_server(
                connection, sock=sock, ssl=context, ssl_handshake_timeout=handshake_s
            )
        else:
            self.port = int(sock.getsockname()[1])
            self._listener = await loop.create_server(
                connection, sock=sock, ssl=context, ssl_handshake_timeout=handshake_s
            )

    def connection(self) -> ServerConnection:
        """A new connection's protocol."""
        return ServerConnection(self)

    async def shutdown(self, grace_s: float) -> None:
        """Take no more connections and requests, let those in progress finish for at most ``grace_s``, close every connection."""
        self.is_closed = True
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
            self._endpoint.remove_socket()
        for undecided in list(self._undecided):
            undecided.abort()
        for connection in list(self.connections):
            connection.drain("shutdown")
        if self.connections:
            try:
                async with asyncio.timeout(grace_s):
                    await self._all_lost.wait()
            except TimeoutError:
                for connection in list(self.connections):
                    connection.abort()

    def lost(self, connection: ServerConnection) -> None:
        """The connection is gone."""
        self.connections.discard(connection)
        if self.is_closed and not self.connections:
            self._all_lost.set()

    def is_local(self, peername: object) -> bool | None:
        """Whether a peer is on this machine; None: that cannot be told."""
        if self._endpoint.path:
            return True
        return self._addresses.is_local(str(peername[0])) if isinstance(peername, tuple) else None
