"""Unary calls of a gRPC server, from the HTTP/2 stream to the method and back. Compiled: every request passes here.

What repeats from request to request (path, encoding, metadata, caller) is parsed once and found again by the header
block. Everything rare is left to the server: new header blocks, streaming methods, compression, authentication, and the
texts of errors.

Source: gRPC's doc/PROTOCOL-HTTP2.md; grpc-go internal/transport/http2_server.go for texts and codes.
"""

from functools import partial

from grpc import StatusCode

from collector.transport.grpc.framing import MessageTooLarge, decode_binary, encode_message, invalid_message_error
from collector.transport.grpc.method import Aborted, Call, binary_text
from collector.transport.http2.events import HTTP2Error
from collector.transport.http2.header_fields import decode_header_block

cimport cython
from libc.math cimport INFINITY
from libc.stdint cimport int32_t

from collector.transport.http2.events cimport StreamEvent
from collector.transport.http2.header_fields cimport HeaderFields
from collector.transport.http2.server_streams cimport BaseServerConnection, ServerStream

__all__ = [
    "ACCEPT_ENCODING",
    "CONTENT_TYPE",
    "OK",
    "OK_HEAD",
    "CallDispatcher",
    "RequestHead",
    "UnaryCall",
    "invalid_timeout",
]

ACCEPT_ENCODING = (b"grpc-accept-encoding", b"gzip,zstd,snappy")
CONTENT_TYPE = (b"content-type", b"application/grpc")
OK_HEAD = HeaderFields(((b":status", b"200"), CONTENT_TYPE, ACCEPT_ENCODING))
OK = HeaderFields((*OK_HEAD.pairs, (b"grpc-status", b"0")))  # of a response without messages

cdef enum:
    MAX_CACHED_HEADS = 256
    MAX_CACHED_HEAD_BYTES = 4096

cdef HeaderFields _ok_head = OK_HEAD
cdef HeaderFields _ok_trailers = HeaderFields(((b"grpc-status", b"0"),))
cdef bytes _empty_message = encode_message(b"")


cdef class RequestHead:
    """What the header block of a request says: its method, or its failure. Requests with equal blocks share it."""

    def __init__(self, bytes block not None):
        self.block = block
        self.encoding = ""
        self.status = b"200"
        self.calls = {}

    cpdef call(self, is_local):
        """Return the call object that equal callers share."""
        call = self.calls.get(is_local)
        if call is None:
            call = self.calls[is_local] = Call(is_local, partial(_metadata, self.block))
        return call


cdef class CallDispatcher:
    """Makes calls of the requests on HTTP/2 streams."""

    def __init__(self, server):
        self.server = server
        self.heads = {}

    def accept(self, BaseServerConnection connection not None, StreamEvent event not None):
        """Return the stream of a request, or None if it was answered at once."""
        cdef RequestHead head = self.heads.get(event.head)
        cdef UnaryCall call
        if head is None:
            head = self.server.parse_head(event.head, is_grpc=event.is_grpc)
            if head.size_bytes <= MAX_CACHED_HEAD_BYTES:
                if len(self.heads) >= MAX_CACHED_HEADS:
                    self.heads.clear()
                self.heads[head.block] = head
        if head.method is None:
            return self.server.accept_non_unary(connection, event, head)
        call = self._call(connection, event.stream_id, head)
        if event.timeout_s != INFINITY:
            if event.timeout_s < 0:
                call.reply(invalid_timeout(event.timeout))
                return None
            connection.set_deadline(call, event.timeout_s)
        if event.is_end or event.data:
            call.received(event)
        return None if call.is_done else call

    def refuse(self, BaseServerConnection connection not None, StreamEvent event not None, RequestHead head not None):
        """Answer with the failure of the header block."""
        cdef UnaryCall call = self._call(connection, event.stream_id, head)
        call.is_awaited = not event.is_end
        call.reply(head.failure)

    cdef UnaryCall _call(self, BaseServerConnection connection, int32_t stream_id, RequestHead head):
        cdef UnaryCall call = UnaryCall.__new__(UnaryCall)
        call.attach(connection, stream_id)
        call.dispatcher, call.head = self, head
        return call


@cython.final
cdef class UnaryCall(ServerStream):
    """A call of a unary method."""

    cpdef received(self, StreamEvent event):
        """See the base."""
        if self.is_done:
            return
        if event.is_end:
            self.is_awaited = False
        if event.message is None:
            self.refuse_unread(self._invalid_message(event.data))
        elif event.is_compressed:
            self.dispatcher.server.decompress(self.head.encoding, event.message, self.invoke, self.refuse_unread)
        else:
            self.invoke(event.message)

    def invoke(self, bytes message not None):
        """Invoke the method. Whatever happens in it, the call ends with a status."""
        cdef RequestHead head = self.head
        if self.dispatcher.authenticates:
            call = head.call(self.connection.is_local)
            self.dispatcher.server.invoke_authenticated(head.method, call, message, self.reply)
            return
        try:
            head.method(message, head.call(self.connection.is_local), self.reply)
        except Exception as error:  # no bug may end the process, and the client must get an answer
            self.reply(error)

    def refuse_unread(self, error not None):
        """End the call with an error, because its message cannot be read."""
        if not self.is_done:
            self.dispatcher.server.note_unread(self.head.method, error)
        self.reply(error)

    def reply(self, outcome):
        """Send the method's answer, or an error instead. Does nothing if the client is gone or was answered already."""
        cdef BaseServerConnection connection = self.connection
        cdef bytes message
        if self.is_done:
            return
        self.is_done = True
        try:
            if isinstance(outcome, bytes):
                message = encode_message(outcome) if outcome else _empty_message
                connection.session.start_response(self.id, _ok_head, message, _ok_trailers, True)
            else:
                headers = self.dispatcher.server.failure_headers(outcome, self.head.status)
                connection.session.start_response(self.id, HeaderFields(headers), b"", None, True)
        except HTTP2Error:  # the stream has been closed meanwhile
            connection.remove_stream(self)
            return
        connection.remove_stream(self)
        if self.is_awaited:
            connection.reset_when_flushed(self.id)
        connection.flush_soon()

    cpdef lost(self):
        """See the base."""
        self.is_done = True

    def refused(self, error):
        """See the base."""
        self.refuse_unread(self.dispatcher.server.over_budget(error))

    def stalled(self):
        """See the base."""
        self.reply(Aborted(StatusCode.UNAVAILABLE, "the message did not arrive in time", reason="timeout"))

    def expired(self):
        """See the base."""
        self.reply(Aborted(StatusCode.DEADLINE_EXCEEDED, "the call's deadline has passed", reason="deadline"))

    def _invalid_message(self, bytes body):
        if not body:
            return Aborted(StatusCode.INTERNAL, "grpc: a unary call without a request message", reason="framing")
        error = invalid_message_error(body, self.dispatcher.server.max_bytes)
        if isinstance(error, MessageTooLarge):
            return Aborted(StatusCode.RESOURCE_EXHAUSTED, f"grpc: {error}", reason="too_large")
        return Aborted(StatusCode.INTERNAL, f"grpc: {error}", reason="framing")


def invalid_timeout(bytes value not None):
    """Return the answer to a malformed ``grpc-timeout``."""
    shown = value[:100].decode("utf-8", "replace")
    return Aborted(StatusCode.INTERNAL, f"malformed grpc-timeout: {shown!r}", reason="timeout_header")


def _metadata(bytes block):
    values = {}
    for raw_name, value in decode_header_block(block):
        name = raw_name.decode("latin-1")
        if name.startswith(":"):
            continue
        texts = map(binary_text, decode_binary(value)) if name.endswith("-bin") else (value.decode("utf-8", "replace"),)
        values[name] = (*values.get(name, ()), *texts)
    return values
