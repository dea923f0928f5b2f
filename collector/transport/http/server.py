"""An HTTP server for receivers and extensions: no router, no middleware, no log line per request.

It does what the Collector's ``confighttp.ServerConfig`` configures. Its user decides what a path means and how errors
are reported, with a :class:`Route` for each path.
"""

from collections.abc import Callable, Mapping
from typing import Any

from collector.api import Clock, Host
from collector.transport.endpoint import Endpoint
from collector.transport.http.http1 import HTTP1Connection
from collector.transport.http.http1_connections import HTTP1Connections
from collector.transport.http.http2 import accept_for
from collector.transport.http.request import HTTPRoutes, Route
from collector.transport.http2.server import Accept
from collector.transport.listener import Listener
from collector.transport.tls import server_context
from config.blocks import HTTPServerConfig

__all__ = ["HTTPServer"]


def _ignore(reason: str) -> None:
    """Do not count refusals."""


class HTTPServer:
    """Serves ``routes`` (exact path → route) on ``config.endpoint``; other paths by ``default``, else 404.

    ``key``: path of its configuration block, for messages. ``on_refused`` is called with a constant word for each
    request that is refused before a route sees it, because it is not valid HTTP.
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
        on_refused: Callable[[str], None] = _ignore,
    ) -> None:
        """Raises ValueError if the endpoint or a configured response header is not valid."""
        self._config = config
        self._routes = HTTPRoutes(config, routes, default_route=default, key=key, clock=clock, log=log)
        self._connections = HTTP1Connections(self._routes, on_refused)
        self._listener = Listener(Endpoint.parse(config.endpoint, unix=config.transport == "unix"), key=key)

    @property
    def port(self) -> int:
        """The port it listens on; 0 before ``start`` and for a Unix socket."""
        return self._listener.port

    @property
    def address(self) -> str:
        """Where it listens, with the port that was bound."""
        return self._listener.address

    def open(self, host: Host) -> None:
        """Prepare for connections that another server accepts and hands over to :meth:`protocol`.

        Raises:
            ValueError: the authenticator cannot be used.
        """
        self._routes.open(host)

    def protocol(self) -> HTTP1Connection:
        """Return a protocol for an accepted connection: call ``connection_made``, then ``feed`` with what was read."""
        return HTTP1Connection(self._connections)

    @property
    def accept(self) -> Accept:
        """Makes requests of the streams of an HTTP/2 server."""
        return accept_for(self._routes)

    async def start(self, host: Host) -> None:
        """Listen and serve.

        Raises:
            OSError: cannot listen on the endpoint; the message names the key and the process that has the port.
            ValueError: a certificate or the authenticator cannot be used.
        """
        self.open(host)
        context = server_context(self._config.tls) if self._config.tls is not None else None
        await self._listener.start(self.protocol, context, host)

    async def shutdown(self, grace_s: float, *, is_continued: bool = False) -> None:
        """Stop listening, give requests in progress ``grace_s`` to finish, close every connection.

        If a reload has made another server listen at the address (``is_continued``, for a server whose connections
        another one accepts), idle clients may send one more request within that time.
        """
        is_continued |= self._listener.is_continued
        if is_continued:
            await self._listener.finish()
        self._listener.close()
        await self._connections.drain(grace_s, awaits_idle=is_continued)
        await self._routes.cancel_tasks()
