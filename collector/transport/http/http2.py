"""Requests of HTTP/2 to the routes of an HTTP server: what is no gRPC on a port that serves both.

Source: RFC 9113 §8.
"""

from typing import Final

from collector.api import RetryableError
from collector.transport.http.answer import Answer, Refused
from collector.transport.http.service import Request, Service
from collector.transport.http2.events import EngineError, Received
from collector.transport.http2.fields import Fields, headers_of
from collector.transport.http2.server import Accept
from collector.transport.http2.server_streams import ServerStreams, Stream

__all__ = ["accept_for"]

_MAX_LENGTH_DIGITS: Final = 18
_CONTINUE: Final = Fields(((b":status", b"100"),))


def accept_for(service: Service) -> Accept:
    """Makes requests to ``service`` of HTTP/2 streams."""

    def accept(connection: ServerStreams, event: Received) -> Stream | None:
        exchange = _Exchange(connection, event.stream_id)
        exchange.begin(service, event)
        return None if exchange.request.is_answered else exchange

    return accept


class _Exchange(Stream):
    """A request and its way back: the carrier of one :class:`collector.transport.http.service.Request`."""

    __slots__ = ("_is_held", "_is_whole", "_service", "_waiting", "is_unix", "peer", "request")

    request: Request

    def __init__(self, connection: ServerStreams, stream_id: int) -> None:
        super().__init__(connection, stream_id)
        address = connection.transport.get_extra_info("peername") if connection.transport is not None else None
        self.peer: str | None = str(address[0]) if isinstance(address, tuple) else None
        self.is_unix = not isinstance(address, tuple)
        self._is_held = self._is_whole = False
        self._waiting = bytearray()  # what came while the caller is authenticated

    def begin(self, service: Service, event: Received) -> None:
        """The head is there."""
        self._service = service
        headers: dict[bytes, bytes] = {}
        repeated: list[tuple[bytes, bytes]] = []
        assert event.head is not None
        for name, value in headers_of(event.head):
            if name in headers:
                repeated.append((name, value))
            else:
                headers[name] = value
        method, target = headers.pop(b":method", b""), headers.pop(b":path", b"")
        for name in (b":scheme", b":authority"):
            headers.pop(name, None)
        stated = headers.get(b"content-length", b"")  # libnghttp2 holds the body to it
        length = int(stated) if stated.isdigit() and len(stated) <= _MAX_LENGTH_DIGITS else None
        path = target.partition(b"?")[0]
        self.request = Request(
            service,
            self,
            _text(method),
            _text(path),
            headers,
            0 if event.is_end and not event.data else length,
            repeated,
        )
        self._is_whole = event.is_end
        self.request.begin()
        if not self.request.is_answered and (event.data or event.is_end):
            self.received(event)

    # The stream's side.

    def received(self, event: Received) -> None:
        """See the base."""
        self._take(event.data, is_end=event.is_end)

    def _take(self, data: bytes, *, is_end: bool) -> None:
        self._is_whole = self._is_whole or is_end
        self.is_awaited = not self._is_whole
        if self._is_held:
            self._waiting += data
            self.book(len(self._waiting))
            if len(self._waiting) > self._service.max_bytes:
                self.request.reply(self._service.too_large())
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
        """See the base: never, no deadline is set."""

    # The carrier's side.

    def respond(self, request: Request, answer: Answer) -> None:
        """See :class:`collector.transport.http.service.Carrier`."""
        connection, service = self.connection, self._service
        if not connection.is_open:
            connection.forget(self)
            return
        fields = [*answer.headers, *service.response_headers, ("Date", service.date()), *request.cors]
        headers = [(b":status", str(answer.status).encode())]
        headers += [
            (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in fields
        ]
        body = b"" if request.method == "HEAD" else answer.body
        try:
            connection.session.respond(self.id, Fields(tuple(headers)), body)
        except EngineError:  # the stream ended under us
            connection.forget(self)
            return
        connection.forget(self)
        if not self._is_whole:
            connection.give_up(self.id)
        connection.flush_soon()

    def hold(self) -> None:
        """See :class:`collector.transport.http.service.Carrier`."""
        self._is_held = True

    def release(self) -> None:
        """See :class:`collector.transport.http.service.Carrier`."""
        self._is_held = False
        waiting, self._waiting = bytes(self._waiting), bytearray()
        self.book(0)
        if not self.request.is_answered:
            self._take(waiting, is_end=self._is_whole)

    def go_on(self, request: Request) -> None:
        """See :class:`collector.transport.http.service.Carrier`."""
        del request
        try:
            self.connection.session.inform(self.id, _CONTINUE)
        except EngineError:
            return
        self.connection.flush_soon()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
