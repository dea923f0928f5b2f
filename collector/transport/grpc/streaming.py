"""The calls of a gRPC server's streaming methods, which are few and small: health and reflection.

Source: gRPC's doc/PROTOCOL-HTTP2.md; grpc-go internal/transport/http2_server.go for texts and codes.
"""

from typing import Final, Protocol

import grpc

from collector.api import RetryableError
from collector.transport.grpc.framing import FramingError, MessageReader, MessageTooLarge, encode_message
from collector.transport.grpc.method import Aborted, StreamingMethod
from collector.transport.grpc.unary import ACCEPT_ENCODING, OK, OK_HEAD, RequestHead
from collector.transport.http2.events import HTTP2Error, StreamEvent
from collector.transport.http2.header_fields import HeaderFields
from collector.transport.http2.server_streams import BaseServerConnection, ServerStream

__all__ = ["CallServer", "StreamingCall"]

_MAX_UNREAD_BYTES: Final = 1024 * 1024  # of a streaming method's responses that the client does not read


class CallServer(Protocol):
    """What a streaming call needs of its server."""

    max_bytes: int

    def failure_headers(self, error: Exception) -> tuple[tuple[bytes, bytes], ...]:
        """Return the headers of the response to a call that failed, and count it."""
        ...

    def over_budget(self, error: RetryableError) -> Aborted:
        """Return the answer to a request for which there is no memory."""
        ...


class StreamingCall(ServerStream):
    """A call of a streaming method; a :class:`Writer`."""

    __slots__ = ("_has_head", "_is_half_closed", "_method", "_reader", "_server", "is_done")

    def __init__(self, server: CallServer, head: RequestHead, connection: BaseServerConnection, stream_id: int) -> None:
        super().__init__(connection, stream_id)
        self._server = server
        self._reader = MessageReader(server.max_bytes)
        self._has_head = self.is_done = self._is_half_closed = False
        self.is_awaited = False  # clients of reflection may pause between requests as long as they like
        assert head.streaming is not None
        self._method: StreamingMethod | None = head.streaming(head.call(connection.is_local), self)

    def received(self, event: StreamEvent) -> None:
        """See the base."""
        data = event.data
        if event.message is not None:
            data = encode_message(event.message, compressed=event.is_compressed)
        self.read(data, event.is_end)

    def read(self, data: bytes, is_end: bool) -> None:
        """Process a piece of the client's messages."""
        try:
            self._read(data, is_end)
        except MessageTooLarge as exc:
            self.finish(Aborted(grpc.StatusCode.RESOURCE_EXHAUSTED, f"grpc: {exc}", reason="too_large"))
        except FramingError as exc:
            self.finish(Aborted(grpc.StatusCode.INTERNAL, f"grpc: {exc}", reason="framing"))
        except Aborted as exc:
            self.finish(exc)

    def _read(self, data: bytes, is_end: bool) -> None:
        if self.is_done or self._method is None:
            return
        self._reader.feed(data)
        for is_compressed, message in self._reader.take_messages():
            if is_compressed:
                text = "grpc: this method does not accept compressed messages"
                raise Aborted(grpc.StatusCode.UNIMPLEMENTED, text, reason="encoding")
            self._method.received(message)
            if self.is_done:
                return
        self.set_held_bytes(self._reader.size_bytes)
        if is_end:
            self._is_half_closed = True
            if self._reader.size_bytes:
                raise FramingError("the request ends within a message")
            self._method.ended()

    def send(self, message: bytes) -> None:
        """See :class:`Writer`."""
        if self.is_done:
            return
        session = self.connection.session
        if session.queued_bytes > _MAX_UNREAD_BYTES:
            text = "the client is not reading the responses"
            self.finish(Aborted(grpc.StatusCode.RESOURCE_EXHAUSTED, text, reason="not_reading"))
            return
        try:
            if self._has_head:
                session.send(self.id, encode_message(message))
            else:
                self._has_head = True
                session.respond(self.id, OK_HEAD, encode_message(message), is_end=False)
        except HTTP2Error:
            return
        self.connection.flush_soon()

    def finish(self, failure: Aborted | None = None) -> None:
        """See :class:`Writer`."""
        if self.is_done:
            return
        self._close()
        session = self.connection.session
        fields = HeaderFields(self._server.failure_headers(failure)) if failure is not None else OK
        try:
            if self._has_head:
                status = [field for field in fields.pairs if field[0].startswith(b"grpc-") and field != ACCEPT_ENCODING]
                session.send(self.id, b"", HeaderFields(tuple(status)), is_end=True)
            else:
                session.respond(self.id, fields)
        except HTTP2Error:
            self.connection.remove_stream(self)
            return
        self.connection.remove_stream(self)
        if not self._is_half_closed:
            self.connection.reset_when_flushed(self.id)
        self.connection.flush_soon()

    def _close(self) -> None:
        self.is_done = True
        method, self._method = self._method, None
        if method is not None:
            method.closed()

    def lost(self) -> None:
        """See the base."""
        if not self.is_done:
            self._close()

    def refused(self, error: RetryableError) -> None:
        """See the base."""
        self.finish(self._server.over_budget(error))

    def stalled(self) -> None:
        """See the base. Never called, since ``is_awaited`` is False."""

    def expired(self) -> None:
        """See the base."""
        self.finish(Aborted(grpc.StatusCode.DEADLINE_EXCEEDED, "the call's deadline has passed", reason="deadline"))
