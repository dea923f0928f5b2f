"""An HTTP server for receivers and extensions: no router, no middleware, no log line a request.

It does what the Collector's ``confighttp.ServerConfig`` configures. What a path means and how an error is told belongs
to its user, who gives it a :class:`Route` for each path.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from collector.api import Clock, Host
from collector.transport.endpoint import Endpoint
from collector.transport.http.http1 import Connections, HTTP1Connection
from collector.transport.http.http2 import accept_for
from collector.transport.http.service import Route, Service
from collector.transport.http2.server import Accept
from collector.transport.ports import listen_error
from collector.transport.tls import server_context
from config.blocks import HTTPServerConfig

__all__ = ["HTTPServer"]

_HANDSHAKE_S: Final = 10.0


def _uncounted(reason: str) -> None:
    """Nobody counts."""


class HTTPServer:
    """Serves ``routes`` (exact path → route) on ``config.endpoint``; ``default`` serves all other paths, without it they are 404.

    ``key`` is the path of its configuration, for messages. ``refused`` is told a constant word for each request that is
    refused before a route sees it: what is no HTTP.
    """

    def __init__(
        self,
        config: HTTPServerConfig,
        routes: Mapping[str, Route],
        *,
        key: str,
        clock: Clock,
        log: Any,
        default: Route | None = None,
        refused: Callable[[str], None] = _uncounted,
    ) -> None:
        """Raises ValueError where ``response_headers`` are no headers."""
        self._config = config
        self._key = key
        self._endpoint = Endpoint.parse(config.endpoint)
        self._service = Service(config, routes, default_route=default, key=key, clock=clock, log=log)
        self._connections = Connections(self._service, refused)
        self._listener: asyncio.Server | None = None
        self.port = 0
        """The port it listens on; 0 before ``start`` and for a Unix socket."""

    @property
    def address(self) -> str:
        """Where it listens, with the port it got."""
        return str(self._endpoint if self._endpoint.path else Endpoint(self._endpoint.host, self.port))

    def open(self, host: Host) -> None:
        """Get ready for connections that another server accepts and hands over to :meth:`protocol`.

        Raises:
            ValueError: the authenticator is wrong.
        """
        self._service.open(host)

    def protocol(self) -> HTTP1Connection:
        """A fresh protocol for one accepted connection: ``connection_made(transport)``, then ``feed`` of what was read already."""
        return HTTP1Connection(self._connections)

    @property
    def accept(self) -> Accept:
        """Makes requests of the streams of an HTTP/2 server."""
        return accept_for(self._service)

    async def start(self, host: Host) -> None:
        """Listen and serve.

        Raises:
            OSError: the endpoint cannot be listened on; the message names the key and who has the port.
            ValueError: a certificate or the authenticator is wrong.
        """
        self.open(host)
        context = server_context(self._config.tls) if self._config.tls is not None else None
        try:
            sock = self._endpoint.listen()
        except OSError as exc:
            raise listen_error(self._endpoint, f"{self._key}::endpoint", exc) from exc
        loop = asyncio.get_running_loop()
        handshake_s = _HANDSHAKE_S if context else None
        if self._endpoint.path:
            self._listener = await loop.create_unix_server(
                self.protocol, sock=sock, ssl=context, ssl_handshake_timeout=handshake_s
            )
        else:
            self.port = int(sock.getsockname()[1])
            self._listener = await loop.create_server(
                self.protocol, sock=sock, ssl=context, ssl_handshake_timeout=handshake_s
            )

    async def shutdown(self, grace_s: float) -> None:
        """Stop listening, let requests in progress finish for at most ``grace_s``, close every connection."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
            self._endpoint.remove_socket()
        await self._connections.drain(grace_s)
        await self._service.cancel_tasks()
