"""HTTP/2 requests to the routes of an HTTP server: everything but gRPC on a port that serves both.

Source: RFC 9113 §8.
"""

from typing import Final

from collector.api import RetryableError
from collector.transport.http.request import HTTPRoutes, Request
from collector.transport.http.response import Refused, Response
from collector.transport.http2.events import HTTP2Error, StreamEvent
from collector.transport.http2.header_fields import HeaderFields, decode_header_block
from collector.transport.http2.server import Accept
from collector.transport.http2.server_streams import BaseServerConnection, ServerStream

__all__ = ["accept_for"]

_MAX_LENGTH_DIGITS: Final = 18
_CONTINUE: Final = HeaderFields(((b":status", b"100"),))


def accept_for(routes: HTTPRoutes) -> Accept:
    """Return a function that makes requests to ``routes`` of HTTP/2 streams."""

    def accept(connection: BaseServerConnection, event: StreamEvent) -> ServerStream | None:
        stream = _RequestStream(connection, event.stream_id)
        stream.start(routes, event)
        return None if stream.request.is_answered else stream

    return accept


class _RequestStream(ServerStream):
    """The stream of one request: a :class:`collector.transport.http.request.RequestTransport`."""

    __slots__ = ("_is_paused", "_is_whole", "_paused_data", "_routes", "is_unix", "peer", "request")

    request: Request

    def __init__(self, connection: BaseServerConnection, stream_id: int) -> None:
        super().__init__(connection, stream_id)
        address = connection.transport.get_extra_info("peername") if connection.transport is not None else None
        self.peer: str | None = str(address[0]) if isinstance(address, tuple) else None
        self.is_unix = not isinstance(address, tuple)
        self._is_paused = self._is_whole = False
        self._paused_data = bytearray()  # what arrives while the caller is being authenticated

    def start(self, routes: HTTPRoutes, event: StreamEvent) -> None:
        """Start the request, given its head."""
        self._routes = routes
        headers: dict[bytes, bytes] = {}
        repeated: list[tuple[bytes, bytes]] = []
        assert event.head is not None
        for name, value in decode_header_block(event.head):
            if name in headers:
                repeated.append((name, value))
            else:
                headers[name] = value
        method, target = headers.pop(b":method", b""), headers.pop(b":path", b"")
        for name in (b":scheme", b":authority"):
            headers.pop(name, None)
        announced = headers.get(b"content-length", b"")  # libnghttp2 enforces it
        length = int(announced) if announced.isdigit() and len(announced) <= _MAX_LENGTH_DIGITS else None
        path, _, query = target.partition(b"?")
        self.request = Request(
            routes,
            self,
            _text(method),
            _text(path),
            headers,
            0 if event.is_end and not event.data else length,
            repeated,
        )
        self.request.query = _text(query)
        self._is_whole = event.is_end
        self.request.start()
        if not self.request.is_answered and (event.data or event.is_end):
            self.received(event)

    # See ServerStream.

    def received(self, event: StreamEvent) -> None:
        """See the base."""
        self._receive(event.data, is_end=event.is_end)

    def _receive(self, data: bytes, *, is_end: bool) -> None:
        self._is_whole = self._is_whole or is_end
        self.is_awaited = not self._is_whole
        if self._is_paused:
            self._paused_data += data
            self.set_held_bytes(len(self._paused_data))
            if len(self._paused_data) > self._routes.max_bytes:
                self.request.reply(self._routes.too_large())
            return
        request = self.request
        if data:
            request.feed(data)
        if self._is_whole and not request.is_answered:
            request.complete()

    def lost(self) -> None:
        """See the base."""
        self.request.abandon()

    def refused(self, error: RetryableError) -> None:
        """See the base."""
        self.request.reply(error)

    def stalled(self) -> None:
        """See the base."""
        self.request.reply(Refused(408, "the body did not arrive in time", reason="timeout"))

    def expired(self) -> None:
        """See the base. Never called: no deadline is set."""

    # See RequestTransport.

    def respond(self, request: Request, response: Response) -> None:
        """See :class:`RequestTransport`."""
        connection, routes = self.connection, self._routes
        if not connection.is_open:
            connection.remove_stream(self)
            return
        fields = [*response.headers, *routes.response_headers, ("Date", routes.date()), *request.cors]
        headers = [(b":status", str(response.status).encode())]
        headers += [
            (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in fields
        ]
        body = b"" if request.method == "HEAD" else response.body
        try:
            connection.session.respond(self.id, HeaderFields(tuple(headers)), body)
        except HTTP2Error:  # the stream has been closed meanwhile
            connection.remove_stream(self)
            return
        connection.remove_stream(self)
        if not self._is_whole:
            connection.reset_when_flushed(self.id)
        connection.flush_soon()

    def pause_body(self) -> None:
        """See :class:`RequestTransport`."""
        self._is_paused = True

    def resume_body(self) -> None:
        """See :class:`RequestTransport`."""
        self._is_paused = False
        data, self._paused_data = bytes(self._paused_data), bytearray()
        self.set_held_bytes(0)
        if not self.request.is_answered:
            self._receive(data, is_end=self._is_whole)

    def send_continue(self, request: Request) -> None:
        """See :class:`RequestTransport`."""
        del request
        try:
            self.connection.session.send_informational(self.id, _CONTINUE)
        except HTTP2Error:
            return
        self.connection.flush_soon()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
