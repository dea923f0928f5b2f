"""A listening socket for asyncio protocols, with errors that name the configuration key. Used by our HTTP servers."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final

from collector.api import Host, ListeningSocket
from collector.transport.endpoint import Endpoint, ServerSocket
from collector.transport.ports import listen_error

__all__ = ["Listener", "bound_address"]

_TLS_HANDSHAKE_TIMEOUT_S: Final = 10.0


class Listener:
    """Accepts connections on ``endpoint``.

    ``key``: path of the server's configuration block, for messages; ``setting``: the endpoint's key in it.
    """

    def __init__(self, endpoint: Endpoint, *, key: str, setting: str = "endpoint") -> None:
        self.endpoint = endpoint
        self.port = 0
        """The port it listens on; 0 before ``start`` and for a Unix socket."""
        self._key = f"{key}::{setting}"
        self._server: asyncio.Server | None = None
        self._listening: ListeningSocket | None = None
        self._connect: Callable[..., Coroutine[Any, Any, Any]] | None = None
        self._connecting: set[asyncio.Task[Any]] = set()

    @property
    def address(self) -> str:
        """Where it listens, with the port that was bound."""
        return bound_address(self.endpoint, self.port)

    @property
    def is_continued(self) -> bool:
        """Whether a reload has made another component listen on the same port or path."""
        return self._listening is not None and self._listening.is_continued

    async def start(self, make_protocol: Callable[[], Any], tls: ssl.SSLContext | None, host: Host) -> None:
        """Listen, and serve each accepted connection with a protocol from ``make_protocol``.

        During a reload, ``host`` passes on the socket of a component that listened at the same address.

        Raises:
            OSError: cannot listen on the endpoint; the message names the key and the process that has the port.
        """
        try:
            self._listening = host.listen(str(self.endpoint), self.endpoint.listen)
        except OSError as exc:
            raise listen_error(self.endpoint, self._key, exc) from exc
        sock, loop = self._listening.socket, asyncio.get_running_loop()
        handshake_s = _TLS_HANDSHAKE_TIMEOUT_S if tls is not None else None
        self._connect = partial(loop.connect_accepted_socket, make_protocol, ssl=tls, ssl_handshake_timeout=handshake_s)
        if self.endpoint.path:
            self._server = await loop.create_unix_server(
                make_protocol, sock=sock, ssl=tls, ssl_handshake_timeout=handshake_s
            )
        else:
            self.port = int(sock.getsockname()[1])
            self._server = await loop.create_server(
                make_protocol, sock=sock, ssl=tls, ssl_handshake_timeout=handshake_s
            )

    async def finish(self) -> None:
        """Before :meth:`close`, if a reload has started a successor: serve the connections that were made until now.

        Neither those that the kernel has accepted nor those that the event loop has accepted may be lost.
        """
        if self._listening is None or self._connect is None:
            return
        sock = self._listening.socket
        assert isinstance(sock, ServerSocket)
        sock.is_paused = True  # asyncio resets what it has accepted if its server closes before the protocol is made
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with suppress(OSError):  # BlockingIOError: there are no more
            while True:
                connection, _ = sock.accept_waiting()
                connection.setblocking(False)
                task = asyncio.ensure_future(self._connect(connection))
                self._connecting.add(task)
                task.add_done_callback(self._on_connected)
        self.close()
        if self._connecting:
            await asyncio.wait(self._connecting)

    def close(self) -> None:
        """Stop accepting connections. Safe before ``start`` and when called twice."""
        server, self._server = self._server, None
        if server is not None:
            is_continued = self.is_continued
            server.close()
            if not is_continued:
                self.endpoint.remove_socket()

    def _on_connected(self, task: asyncio.Task[Any]) -> None:
        self._connecting.discard(task)
        if not task.cancelled():
            task.exception()  # a failed TLS handshake; the client has gone


def bound_address(endpoint: Endpoint, port: int) -> str:
    """Return ``endpoint`` as text, with the port that was bound."""
    return str(endpoint if endpoint.path else Endpoint(endpoint.host, port))
