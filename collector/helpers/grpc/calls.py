"""Calls of a gRPC server: what becomes of a stream of HTTP/2, from its headers to its answer.

Source: gRPC's doc/PROTOCOL-HTTP2.md; grpc-go internal/transport/http2_server.go for texts and codes.
"""

from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import grpc

from collector.api import RetryableError
from collector.helpers.grpc.method import Aborted, Call, Method, OpenStreaming, StreamingMethod, binary_text
from collector.helpers.grpc.wire import (
    HEADER_BYTES,
    FramingError,
    MessageReader,
    MessageTooLarge,
    decode_binary,
    encode_message,
    no_message,
)
from collector.helpers.http2.events import EngineError, Received
from collector.helpers.http2.fields import Fields, headers_of
from collector.helpers.http2.server import ServerConnection, Stream

if TYPE_CHECKING:
    from collector.helpers.grpc.server import GRPCServer

__all__ = ["ACCEPTED", "CONTENT_TYPE", "Head", "Headers", "StreamingCall", "UnaryCall"]

_MAX_UNREAD_BYTES: Final = 1024 * 1024  # of a streaming method's answers that the client does not take
ACCEPTED: Final = (b"grpc-accept-encoding", b"gzip,zstd,snappy")
CONTENT_TYPE: Final = (b"content-type", b"application/grpc")
_OK_HEAD: Final = Fields(((b":status", b"200"), CONTENT_TYPE, ACCEPTED))
_OK_TRAILERS: Final = Fields(((b"grpc-status", b"0"),))
_OK: Final = Fields(_OK_HEAD.pairs + _OK_TRAILERS.pairs)  # without a message between them
_EMPTY_MESSAGE: Final = bytes(HEADER_BYTES)

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]


class Head:
    """What the headers of a request say, whoever sends them how often."""

    __slots__ = ("block", "calls", "encoding", "failure", "method", "status", "streaming")

    def __init__(self, block: bytes) -> None:
        self.block = block
        self.method: Method | None = None
        self.streaming: OpenStreaming | None = None
        self.encoding = ""
        self.failure: Aborted | None = None
        self.status = b"200"
        """The HTTP status of ``failure``."""
        self.calls: dict[bool | None, Call] = {}

    def call(self, is_local: bool | None) -> Call:
        """The one call object of equal callers."""
        call = self.calls.get(is_local)
        if call is None:
            call = self.calls[is_local] = Call(is_local, partial(_metadata, self.block))
        return call


class UnaryCall(Stream):
    """A call of a unary method."""

    __slots__ = ("_head", "_server", "is_done")

    def __init__(self, server: "GRPCServer", head: Head, connection: ServerConnection, stream_id: int) -> None:
        super().__init__(connection, stream_id)
        self._server = server
        self._head = head
        self.is_done = False

    def received(self, event: Received) -> None:
        """See the base."""
        if self.is_done:
            return
        if event.is_end:
            self.is_awaited = False
        message = event.message
        if message is None:
            self.reply(self._no_message(event.data))
        elif event.is_compressed:
            invoke = partial(self._server.invoke, self._head, self.connection.is_local)
            self._server.unpack(self._head.encoding, message, lambda unpacked: invoke(unpacked, self.reply), self.reply)
        else:
            self._server.invoke(self._head, self.connection.is_local, message, self.reply)

    def _no_message(self, body: bytes) -> Aborted:
        if not body:
            return Aborted(grpc.StatusCode.INTERNAL, "grpc: a unary call without a request message", reason="framing")
        error = no_message(body, self._server.max_bytes)
        if isinstance(error, MessageTooLarge):
            return Aborted(grpc.StatusCode.RESOURCE_EXHAUSTED, f"grpc: {error}", reason="too_large")
        return Aborted(grpc.StatusCode.INTERNAL, f"grpc: {error}", reason="framing")

    def reply(self, outcome: bytes | Exception) -> None:
        """The answer of the method, or instead of it. Nothing is sent where the client is gone or was answered already."""
        if self.is_done:
            return
        self.is_done = True
        connection, stream_id = self.connection, self.id
        try:
            if isinstance(outcome, bytes):
                connection.session.respond(stream_id, _OK_HEAD, encode_message(outcome) if outcome else _EMPTY_MESSAGE, _OK_TRAILERS)
            else:
                connection.session.respond(stream_id, Fields(self._server.failure(outcome, self._head.status)))
        except EngineError:  # the stream ended under us
            connection.forget(self)
            return
        connection.forget(self)
        if self.is_awaited:
            connection.give_up(stream_id)
        connection.flush_soon()

    def lost(self) -> None:
        """See the base."""
        self.is_done = True

    def refused(self, error: RetryableError) -> None:
        """See the base."""
        self.reply(self._server.over_budget(error))

    def stalled(self) -> None:
        """See the base."""
        self.reply(Aborted(grpc.StatusCode.UNAVAILABLE, "the message did not arrive in time", reason="timeout"))

    def expired(self) -> None:
        """See the base."""
        self.reply(Aborted(grpc.StatusCode.DEADLINE_EXCEEDED, "the call's deadline has passed", reason="deadline"))


class StreamingCall(Stream):
    """A call of a streaming method; a :class:`Writer`."""

    __slots__ = ("_has_head", "_is_half_closed", "_method", "_reader", "_server", "is_done")

    def __init__(self, server: "GRPCServer", head: Head, connection: ServerConnection, stream_id: int) -> None:
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
                raise Aborted(grpc.StatusCode.UNIMPLEMENTED, "grpc: this method takes no compressed messages", reason="encoding")
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
            self.finish(Aborted(grpc.StatusCode.RESOURCE_EXHAUSTED, "the client does not read its answers", reason="not_reading"))
            return
        try:
            if self._has_head:
                session.send(self.id, encode_message(message))
            else:
                self._has_head = True
                session.respond(self.id, _OK_HEAD, encode_message(message), is_end=False)
        except EngineError:
            return
        self.connection.flush_soon()

    def finish(self, failure: Aborted | None = None) -> None:
        """See :class:`Writer`."""
        if self.is_done:
            return
        self._close()
        session = self.connection.session
        fields = Fields(self._server.failure(failure)) if failure is not None else _OK
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


def _metadata(block: bytes) -> dict[str, tuple[str, ...]]:
    values: dict[str, tuple[str, ...]] = {}
    for raw_name, value in headers_of(block):
        name = raw_name.decode("latin-1")
        if name.startswith(":"):
            continue
        texts = map(binary_text, decode_binary(value)) if name.endswith("-bin") else (value.decode("utf-8", "replace"),)
        values[name] = (*values.get(name, ()), *texts)
    return values
