"""Unary calls of a gRPC server, from the stream of HTTP/2 to the method and back. Compiled: every request passes here.

What is equal from one request to the next (path, encoding, metadata, who calls) is read once and found again by the header block itself.
Everything rare is the server's: heads seen for the first time, streaming methods, compression, authentication, the words of errors.

Source: gRPC's doc/PROTOCOL-HTTP2.md; grpc-go internal/transport/http2_server.go for texts and codes.
"""

cimport cython
from libc.math cimport INFINITY
from libc.stdint cimport int32_t

from functools import partial

from grpc import StatusCode

from collector.transport.grpc.method import Aborted, Call, binary_text
from collector.transport.grpc.framing import MessageTooLarge, decode_binary, encode_message, no_message
from collector.transport.http2.events import EngineError
from collector.transport.http2.fields import headers_of

from collector.transport.http2.events cimport Received
from collector.transport.http2.fields cimport Fields
from collector.transport.http2.server_streams cimport ServerStreams, Stream

__all__ = ["ACCEPTED", "CONTENT_TYPE", "OK", "OK_HEAD", "Calls", "Head", "UnaryCall", "bad_timeout"]

ACCEPTED = (b"grpc-accept-encoding", b"gzip,zstd,snappy")
CONTENT_TYPE = (b"content-type", b"application/grpc")
OK_HEAD = Fields(((b":status", b"200"), CONTENT_TYPE, ACCEPTED))
OK = Fields((*OK_HEAD.pairs, (b"grpc-status", b"0")))  # without a message between them

cdef enum:
    HEADS = 256  # kept; each of at most MAX_HEAD_BYTES
    MAX_HEAD_BYTES = 4096

cdef Fields _ok_head = OK_HEAD
cdef Fields _ok_trailers = Fields(((b"grpc-status", b"0"),))
cdef bytes _empty_message = encode_message(b"")


cdef class Head:
    """What the headers of a request say, whoever sends them how often: its method, or its failure."""

    def __init__(self, bytes block not None):
        self.block = block
        self.encoding = ""
        self.status = b"200"
        self.calls = {}

    cpdef call(self, is_local):
        """The one call object of equal callers."""
        call = self.calls.get(is_local)
        if call is None:
            call = self.calls[is_local] = Call(is_local, partial(_metadata, self.block))
        return call


cdef class Calls:
    """The way into a server's methods."""

    def __init__(self, server):
        self.server = server
        self.heads = {}

    def accept(self, ServerStreams connection not None, Received event not None):
        """The stream of a request, or None where it was answered at once."""
        cdef Head head = self.heads.get(event.head)
        cdef UnaryCall call
        if head is None:
            head = self.server.read_head(event.head, is_grpc=event.is_grpc)
            if head.size_bytes <= MAX_HEAD_BYTES:
                if len(self.heads) >= HEADS:
                    self.heads.clear()
                self.heads[head.block] = head
        if head.method is None:
            return self.server.accept_other(connection, event, head)
        call = self._call(connection, event.stream_id, head)
        if event.timeout_s != INFINITY:
            if event.timeout_s < 0:
                call.reply(bad_timeout(event.timeout))
                return None
            connection.expire(call, event.timeout_s)
        if event.is_end or event.data:
            call.received(event)
        return None if call.is_done else call

    def refuse(self, ServerStreams connection not None, Received event not None, Head head not None):
        """Answer with the head's failure."""
        cdef UnaryCall call = self._call(connection, event.stream_id, head)
        call.is_awaited = not event.is_end
        call.reply(head.failure)

    cdef UnaryCall _call(self, ServerStreams connection, int32_t stream_id, Head head):
        cdef UnaryCall call = UnaryCall.__new__(UnaryCall)
        call.begin(connection, stream_id)
        call.calls, call.head = self, head
        return call


@cython.final
cdef class UnaryCall(Stream):
    """A call of a unary method."""

    cpdef received(self, Received event):
        """See the base."""
        if self.is_done:
            return
        if event.is_end:
            self.is_awaited = False
        if event.message is None:
            self.reply(self._no_message(event.data))
        elif event.is_compressed:
            self.calls.server.unpack(self.head.encoding, event.message, self.invoke, self.reply)
        else:
            self.invoke(event.message)

    def invoke(self, bytes message not None):
        """Ask the method. The edge: whatever happens in it, the call ends with a status that says so."""
        if self.calls.authenticates:
            self.calls.server.invoke_authenticated(self.head.method, self.head.call(self.connection.is_local), message, self.reply)
            return
        try:
            self.head.method(message, self.head.call(self.connection.is_local), self.reply)
        except Exception as error:  # nothing may end the process, and the sender must hear of it
            self.reply(error)

    def _no_message(self, bytes body):
        if not body:
            return Aborted(StatusCode.INTERNAL, "grpc: a unary call without a request message", reason="framing")
        error = no_message(body, self.calls.server.max_bytes)
        if isinstance(error, MessageTooLarge):
            return Aborted(StatusCode.RESOURCE_EXHAUSTED, f"grpc: {error}", reason="too_large")
        return Aborted(StatusCode.INTERNAL, f"grpc: {error}", reason="framing")

    def reply(self, outcome):
        """The answer of the method, or instead of it. Nothing is sent where the client is gone or was answered already."""
        cdef ServerStreams connection = self.connection
        cdef bytes message
        if self.is_done:
            return
        self.is_done = True
        try:
            if isinstance(outcome, bytes):
                message = encode_message(outcome) if outcome else _empty_message
                connection.session.begin_answer(self.id, _ok_head, message, _ok_trailers, True)
            else:
                connection.session.begin_answer(self.id, Fields(self.calls.server.failure(outcome, self.head.status)), b"", None, True)
        except EngineError:  # the stream ended under us
            connection.forget(self)
            return
        connection.forget(self)
        if self.is_awaited:
            connection.give_up(self.id)
        connection.flush_soon()

    cpdef lost(self):
        """See the base."""
        self.is_done = True

    def refused(self, error):
        """See the base."""
        self.reply(self.calls.server.over_budget(error))

    def stalled(self):
        """See the base."""
        self.reply(Aborted(StatusCode.UNAVAILABLE, "the message did not arrive in time", reason="timeout"))

    def expired(self):
        """See the base."""
        self.reply(Aborted(StatusCode.DEADLINE_EXCEEDED, "the call's deadline has passed", reason="deadline"))


def bad_timeout(bytes value not None):
    """The answer to a ``grpc-timeout`` that is none."""
    return Aborted(StatusCode.INTERNAL, f"malformed grpc-timeout: {value[:100].decode('utf-8', 'replace')!r}", reason="timeout_header")


def _metadata(bytes block):
    values = {}
    for raw_name, value in headers_of(block):
        name = raw_name.decode("latin-1")
        if name.startswith(":"):
            continue
        texts = map(binary_text, decode_binary(value)) if name.endswith("-bin") else (value.decode("utf-8", "replace"),)
        values[name] = (*values.get(name, ()), *texts)
    return values
