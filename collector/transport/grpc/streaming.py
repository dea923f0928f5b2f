"""Calls of a gRPC server's streaming methods, which are few and small: health, reflection.

Source: gRPC's doc/PROTOCOL-HTTP2.md; grpc-go internal/transport/http2_server.go for texts and codes.
"""

from typing import TYPE_CHECKING, Final

import grpc

from collector.api import RetryableError
from collector.transport.grpc.framing import FramingError, MessageReader, MessageTooLarge, encode_message
from collector.transport.grpc.method import Aborted, StreamingMethod
from collector.transport.grpc.unary import ACCEPTED, OK, OK_HEAD, Head
from collector.transport.http2.events import EngineError, Received
from collector.transport.http2.fields import Fields
from collector.transport.http2.server_streams import ServerStreams, Stream

if TYPE_CHECKING:
    from collector.transport.grpc.server import GRPCServer

__all__ = ["StreamingCall"]

_MAX_UNREAD_BYTES: Final = 1024 * 1024  # of a streaming method's answers that the client does not take


class StreamingCall(Stream):
    """A call of a streaming method; a :class:`Writer`."""

    __slots__ = ("_has_head", "_is_half_closed", "_method", "_reader", "_server", "is_done")

    def __init__(self, server: "GRPCServer", head: Head, connection: ServerStreams, stream_id: int) -> None:
        super().__init__(connection, stream_id)
        self._server = server
        self._reader = MessageReader(server.max_bytes)
        self._has_head = self.is_done = self._is_half_closed = False
        self.is_awaited = False  # clients of reflection think for as long as they like
        assert head.streaming is not None
        self._method: StreamingMethod | None = head.streaming(head.call(connection.is_local), self)

    def received(self, event: Received) -> None:
        """See the base."""
        data = event.data
        if event.message is not None:
            data = encode_message(event.message, compressed=event.is_compressed)
        self.read(data, event.is_end)

    def read(self, data: bytes, is_end: bool) -> None:
        """What came of the client's messages."""
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
        for is_compressed, message in self._reader.take():
            if is_compressed:
                raise Aborted(
                    grpc.StatusCode.UNIMPLEMENTED, "grpc: this method takes no compressed messages", reason="encoding"
                )
            self._method.received(message)
            if self.is_done:
                return
        self.book(self._reader.size_bytes)
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
            self.finish(
                Aborted(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, "the client does not read its answers", reason="not_reading"
                )
            )
            return
        try:
            if self._has_head:
                session.send(self.id, encode_message(message))
            else:
                self._has_head = True
                session.respond(self.id, OK_HEAD, encode_message(message), is_end=False)
        except EngineError:
            return
        self.connection.flush_soon()

    def finish(self, failure: Aborted | None = None) -> None:
        """See :class:`Writer`."""
        if self.is_done:
            return
        self._close()
        session = self.connection.session
        fields = Fields(self._server.failure(failure)) if failure is not None else OK
        try:
            if self._has_head:
                status = [field for field in fields.pairs if field[0].startswith(b"grpc-") and field != ACCEPTED]
                session.send(self.id, b"", Fields(tuple(status)), is_end=True)
            else:
                session.respond(self.id, fields)
        except EngineError:
            self.connection.forget(self)
            return
        self.connection.forget(self)
        if not self._is_half_closed:
            self.connection.give_up(self.id)
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
        """See the base: never, as nothing is owed."""

    def expired(self) -> None:
        """See the base."""
        self.finish(Aborted(grpc.StatusCode.DEADLINE_EXCEEDED, "the call's deadline has passed", reason="deadline"))
