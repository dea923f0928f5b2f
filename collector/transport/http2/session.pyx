"""One end of an HTTP/2 connection, without I/O: bytes in, events out, bytes out.

libnghttp2 does frames, header compression, flow control and the limits against floods. This module gathers what belongs
to one stream: a gRPC request or response of one message is reported once, when its stream has ended, however many
frames and reads it took, and its message was copied once. Everything else is reported with the read that brought it.
Bodies to send are not copied: ``output`` refers to them.

What a request means, time-outs and sockets are not handled here.

Source: RFC 9113; nghttp2's programmers' guide; gRPC's doc/PROTOCOL-HTTP2.md for messages.
"""

from os import urandom

from collector.transport.http2.events import FloodError, HTTP2Error, StreamClosedError

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset

from collector.transport.http2.events cimport (
    ConnectionEnded,
    GoAwayReceived,
    PingAcknowledged,
    PingReceived,
    SettingsReceived,
    StreamEvent,
)
from collector.transport.http2.header_fields cimport HeaderFields, timeout_seconds
from collector.transport.http2.header_block cimport HeaderBlock
from collector.transport.http2.nghttp2 cimport (
    CATEGORY_REQUEST,
    DATA_FLAG_EOF,
    DATA_FLAG_NO_COPY,
    DATA_FLAG_NO_END_STREAM,
    ERR_CALLBACK_FAILURE,
    ERR_DEFERRED,
    ERR_FLOODED,
    ERR_NOMEM,
    ERR_SESSION_CLOSING,
    ERR_STREAM_CLOSED,
    ERR_STREAM_CLOSING,
    ERR_STREAM_SHUT_WR,
    ERR_TEMPORAL_CALLBACK_FAILURE,
    ERR_TOO_MANY_CONTINUATIONS,
    ERR_WOULDBLOCK,
    FLAG_ACK,
    FLAG_END_STREAM,
    FRAME_DATA,
    FRAME_GOAWAY,
    FRAME_HEADERS,
    FRAME_PING,
    FRAME_PRIORITY,
    FRAME_SETTINGS,
    Frame,
    FrameHeader,
    Library,
    Provider,
    Setting,
    Source,
    library,
    nghttp2_callbacks,
    nghttp2_option,
    nghttp2_session,
)
from collector.transport.http2.output cimport Output
from collector.transport.http2.stream cimport PREFIX_BYTES, Stream

__all__ = ["Session"]

cdef enum:
    FRAME_HEADER_BYTES = 9
    INTERNAL_ERROR = 2
    MAX_SETTINGS = 16
    SKIPPED_RANGES = 8  # as many as fit into the arrays of session.pxd

cdef Library *_lib = NULL
cdef nghttp2_callbacks *_callbacks = NULL


@cython.final
cdef class Session:
    """One end of a connection. Unusable after an ``HTTP2Error``, unless that is a ``StreamClosedError``.

    ``settings``: id → value, to be announced. A gRPC message larger than ``max_message_bytes`` is reported as data,
    as soon as its length is known. A received header block beyond ``max_header_bytes`` or ``max_header_count`` ends the
    connection.
    """

    def __cinit__(
        self,
        *,
        bint is_client,
        dict settings not None,
        Py_ssize_t max_message_bytes,
        size_t max_header_bytes,
        size_t max_header_count,
        size_t max_sent_header_bytes,
        int32_t connection_window_bytes=0,
    ):
        global _lib
        cdef nghttp2_option *option = NULL
        cdef int result
        cdef Setting[MAX_SETTINGS] entries
        cdef size_t count = 0
        if len(settings) > MAX_SETTINGS:
            raise ValueError(f"{len(settings)} settings; at most {MAX_SETTINGS} are supported")
        _lib = library()
        self.is_client = is_client
        self.max_message_bytes = max_message_bytes
        self.block = HeaderBlock(is_client, max_header_bytes, max_header_count)
        self.streams, self.events, self.pending = {}, [], []
        self.closing_data = b""
        _make_callbacks()
        _check(_lib.option_new(&option))
        _lib.option_set_max_send_header_block_length(option, max_sent_header_bytes)
        _lib.option_set_max_outbound_ack(option, 128)
        _lib.option_set_max_settings(option, 32)
        if _lib.option_set_max_continuations != NULL:
            _lib.option_set_max_continuations(option, 8)
        if _lib.option_set_glitch_rate_limit != NULL:
            _lib.option_set_glitch_rate_limit(option, 1000, 100)  # burst, per second
        if is_client:
            _lib.option_set_max_reserved_remote_streams(option, 0)
            result = _lib.client_new(&self.session, _callbacks, <void *>self, option)
        else:
            if _lib.option_set_stream_reset_rate_limit != NULL:
                # Clients that cancel calls stay below this, a rapid-reset attack does not.
                _lib.option_set_stream_reset_rate_limit(option, 200, 50)
            result = _lib.server_new(&self.session, _callbacks, <void *>self, option)
        _lib.option_del(option)
        _check(result)
        for key, value in settings.items():
            entries[count].id, entries[count].value = key, value
            count += 1
        _check(_lib.submit_settings(self.session, 0, entries, count))
        if connection_window_bytes:
            _check(_lib.set_local_window_size(self.session, 0, 0, connection_window_bytes))

    def __dealloc__(self):
        if self.session != NULL:
            _lib.session_del(self.session)

    # Input.

    cpdef receive(self, data, double now_s, Py_ssize_t size=-1):
        """Process what was read at ``now_s``, or its first ``size`` bytes, and return the events. ``data`` is not kept.

        Raises:
            HTTP2Error: a connection error; ``output`` then contains no GOAWAY. ``take_events`` returns the events of
                what came before it.
        """
        cdef Py_buffer view
        cdef Py_ssize_t result
        self._check_open()
        self.now_s = now_s
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if size < 0 or size > view.len:
                size = view.len
            result = _lib.mem_recv(self.session, <const uint8_t *>view.buf, size)
        finally:
            PyBuffer_Release(&view)
        if self.pending:
            self._report_pending()
        if result != size:
            self._fail(<int>result)
        if self.is_closing:
            self._report_end()
        return self.take_events()

    def take_events(self):
        """Return the events since the last call. Writing causes events as well: it ends streams."""
        if not self.events:
            return ()
        events, self.events = self.events, []
        return events

    def switch_to_raw(self, int32_t stream_id):
        """Report the stream's data as it arrives from now on. Return what has arrived of a message so far."""
        cdef Stream stream = self.streams.get(stream_id)
        if stream is None:
            return b""
        self._make_raw(stream)
        self.held_bytes -= stream.size
        return stream.take_body()

    def last_received_s(self, int32_t stream_id):
        """Return the ``now_s`` at which the stream last received data; infinite once nothing more is expected."""
        cdef Stream stream = self.streams.get(stream_id)
        if stream is None or stream.is_ended or stream.is_discarded:
            return INFINITY
        return stream.last_received_s

    cdef int _discard(self, Stream stream) except -1:
        """Report nothing more of the stream."""
        stream.is_discarded = True
        self.held_bytes -= stream.size
        stream.take_body()
        return 0

    cdef int _make_raw(self, Stream stream) except -1:
        """Treat what was received as plain body bytes, the message's prefix included."""
        cdef bytes body
        if stream.is_raw:
            return 0
        stream.is_raw = True
        if stream.prefix_size:
            body = stream.take_body()
            stream.append(stream.prefix, stream.prefix_size, stream.prefix_size + PyBytes_GET_SIZE(body))
            stream.append(<const uint8_t *>PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), 0)
            self.held_bytes += stream.prefix_size
            stream.prefix_size = 0
        return 0

    cdef int _receive_body(self, Stream stream, const uint8_t *data, Py_ssize_t size) except -1:
        """Add a piece of a body."""
        cdef Py_ssize_t part
        if stream.is_discarded:
            return 0
        stream.last_received_s = self.now_s
        if not stream.is_raw:
            if stream.prefix_size < PREFIX_BYTES:
                part = min(PREFIX_BYTES - stream.prefix_size, size)
                memcpy(stream.prefix + stream.prefix_size, data, part)
                stream.prefix_size += part
                data += part
                size -= part
                if stream.prefix_size < PREFIX_BYTES:
                    return 0
                stream.announced_bytes = (
                    (<Py_ssize_t>stream.prefix[1] << 24) | (<Py_ssize_t>stream.prefix[2] << 16)
                    | (<Py_ssize_t>stream.prefix[3] << 8) | stream.prefix[4]
                )
                if stream.prefix[0] > 1 or stream.announced_bytes > self.max_message_bytes:
                    self._make_raw(stream)
            if stream.size + size > stream.announced_bytes:
                self._make_raw(stream)
        if size:
            stream.append(data, size, (<Py_ssize_t>1 << 62) if stream.is_raw else stream.announced_bytes)
            self.held_bytes += size
        if stream.is_raw:
            self._mark_pending(stream)
        return 0

    cdef int _mark_pending(self, Stream stream) except -1:
        if not stream.is_pending:
            stream.is_pending = True
            self.pending.append(stream)
        return 0

    cdef int _report_pending(self) except -1:
        """Append an event for each stream on which something is new."""
        cdef Stream stream
        for stream in self.pending:
            stream.is_pending = False
            if stream.is_closed or stream.is_discarded:
                continue
            if not stream.is_head_reported or stream.is_ended != stream.is_end_reported or (
                stream.is_raw and stream.size
            ):
                self._report(stream, 0)
        self.pending = []
        return 0

    cdef int _report(self, Stream stream, uint32_t error_code) except -1:
        """Append an event with what is new on the stream."""
        cdef StreamEvent event = StreamEvent.__new__(StreamEvent)
        event.stream_id = stream.id
        event.timeout = event.data = b""
        event.timeout_s = INFINITY
        event.failure = ""
        if not stream.is_head_reported:
            stream.is_head_reported = True
            event.head, event.is_grpc = stream.head, stream.is_grpc
            if stream.timeout is not None:
                event.timeout = stream.timeout
                event.timeout_s = timeout_seconds(PyBytes_AS_STRING(stream.timeout), PyBytes_GET_SIZE(stream.timeout))
        if stream.is_ended and not stream.is_end_reported:
            event.is_end = stream.is_end_reported = True
            event.trailers = stream.trailers
            if stream.is_raw or stream.prefix_size < PREFIX_BYTES or stream.size < stream.announced_bytes:
                self._make_raw(stream)
            else:
                event.is_compressed = stream.prefix[0] == 1
                self.held_bytes -= stream.size
                event.message = stream.take_body()
                stream.prefix_size = 0
        if stream.is_raw and stream.size:
            self.held_bytes -= stream.size
            event.data = stream.take_body()
        if stream.is_closed:
            event.is_closed = True
            event.error_code = error_code
            if stream.failure is not None:
                event.failure = stream.failure
        self.events.append(event)
        return 0

    # Output.

    def request(self, HeaderFields fields not None, *chunks):
        """Open a stream, send a whole request on it, its body in chunks, and return the stream's id.

        Raises:
            HTTP2Error: there are no more ids, or the peer accepts no more streams.
        """
        cdef Stream stream = Stream.__new__(Stream)
        cdef Provider provider
        cdef int32_t stream_id
        self._check_open()
        provider.source.ptr, provider.read = NULL, _read_body
        stream.chunks = []
        stream.is_out_ended = True
        for chunk in chunks:
            self._queue(stream, chunk)
        stream_id = _lib.submit_request(
            self.session, NULL, fields.array, fields.count, &provider if stream.queued else NULL, NULL
        )
        if stream_id < 0:
            self.queued_bytes -= stream.queued
            self._raise_rejected(stream_id)
        stream.id = stream_id
        self.streams[stream_id] = stream
        return stream_id

    def respond(
        self, int32_t stream_id, HeaderFields head not None, bytes body=b"", HeaderFields trailers=None, *,
        bint is_end=True
    ):
        """Send the whole response; without ``is_end``, its beginning. After the end, the request is not reported.

        Raises:
            StreamClosedError: the stream is closed.
        """
        self.start_response(stream_id, head, body, trailers, is_end)

    cdef int start_response(
        self, int32_t stream_id, HeaderFields head, bytes body, HeaderFields trailers, bint is_end
    ) except -1:
        cdef Stream stream = self._stream_to_send(stream_id)
        cdef Provider provider
        cdef int result
        provider.source.ptr, provider.read = NULL, _read_body
        stream.chunks = []
        if body:
            self._queue(stream, body)
        stream.out_trailers, stream.is_out_ended = trailers, is_end
        result = _lib.submit_response(
            self.session, stream_id, head.array, head.count,
            &provider if stream.queued or not is_end or trailers is not None else NULL,
        )
        if result < 0:
            self._raise_rejected(result)
        return self._discard(stream) if is_end else 0

    def send_informational(self, int32_t stream_id, HeaderFields head not None):
        """Send an interim response (1xx) before the final one.

        Raises:
            StreamClosedError: the stream is closed.
        """
        self._stream_to_send(stream_id)
        cdef int result = _lib.submit_headers(self.session, 0, stream_id, NULL, head.array, head.count, NULL)
        if result < 0:
            self._raise_rejected(result)

    def send(self, int32_t stream_id, bytes data not None, HeaderFields trailers=None, *, bint is_end=False):
        """Send more of a response that was started, or its end.

        Raises:
            StreamClosedError: the stream is closed, or the response has ended.
        """
        cdef Stream stream = self._stream_to_send(stream_id)
        if stream.is_out_ended or stream.chunks is None:
            raise StreamClosedError("the response has ended already")
        if data:
            self._queue(stream, data)
        stream.out_trailers, stream.is_out_ended = trailers, is_end
        if is_end:
            self._discard(stream)
        if stream.is_deferred:
            stream.is_deferred = False
            _check(_lib.resume_data(self.session, stream_id))

    def reset(self, int32_t stream_id, uint32_t error_code):
        """Send RST_STREAM; nothing more is reported of the stream."""
        cdef Stream stream = self.streams.get(stream_id)
        self._check_open()
        if stream is None:
            return
        self._discard(stream)
        _lib.submit_rst_stream(self.session, 0, stream_id, error_code)

    def ping(self, bytes opaque_data not None):
        """Send PING with 8 bytes of data."""
        self._check_open()
        if PyBytes_GET_SIZE(opaque_data) != 8:
            raise ValueError(f"opaque_data has {PyBytes_GET_SIZE(opaque_data)} bytes; expected 8")
        _check(_lib.submit_ping(self.session, 0, <const uint8_t *>PyBytes_AS_STRING(opaque_data)))

    def send_goaway(self, uint32_t error_code=0, bytes debug_data=b""):
        """Send GOAWAY; the streams received so far continue."""
        self._check_open()
        cdef int32_t last = _lib.get_last_proc_stream_id(self.session)
        cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(debug_data)
        _check(_lib.submit_goaway(self.session, 0, last, error_code, data, PyBytes_GET_SIZE(debug_data)))

    def send_shutdown_notice(self):
        """Send the first GOAWAY of a graceful shutdown, which refuses nothing yet (last stream id 2^31-1)."""
        self._check_open()
        _check(_lib.submit_shutdown_notice(self.session))

    def terminate(self, uint32_t error_code=0):
        """Send GOAWAY, and nothing after it."""
        self._check_open()
        _check(_lib.terminate_session(self.session, error_code))

    cpdef list output(self, Py_ssize_t max_bytes):
        """Return what is to be written now, in pieces: all that flow control allows, or about ``max_bytes``.

        Raises:
            HTTP2Error: a connection error.
        """
        cdef const uint8_t *data
        cdef Py_ssize_t size
        self._check_open()
        if not _lib.want_write(self.session):
            return []
        self.out = Output.__new__(Output)
        self.out.remaining = max_bytes
        try:
            while self.out.remaining > 0:
                size = _lib.mem_send(self.session, &data)
                if size <= 0:
                    if size < 0:
                        self._fail(<int>size)
                    break
                self.out.write(data, size)
            return self.out.finish()
        finally:
            self.out = None
            if self.is_closing:
                self._report_end()

    cpdef bint has_output(self):
        """Whether there is output now, or the session has ended."""
        if self.session == NULL or _lib.want_write(self.session) != 0:
            return True
        return self.is_closing and self.has_ended()

    cpdef bint has_ended(self):
        """Whether nothing is left to read or write."""
        return self.session == NULL or (_lib.want_read(self.session) == 0 and _lib.want_write(self.session) == 0)

    cdef Stream _stream_to_send(self, int32_t stream_id):
        """Return the stream, for sending on it."""
        cdef Stream stream
        self._check_open()
        stream = self.streams.get(stream_id)
        if stream is None:
            raise StreamClosedError("the stream is closed")
        return stream

    cdef int _queue(self, Stream stream, bytes data) except -1:
        stream.chunks.append(data)
        stream.queued += PyBytes_GET_SIZE(data)
        self.queued_bytes += PyBytes_GET_SIZE(data)
        return 0

    # The end of the connection.

    def close(self):
        """Free everything. As after an error, nothing can be sent or received afterwards."""
        if self.session != NULL:
            _lib.session_del(self.session)
            self.session = NULL
        self.streams.clear()
        self.pending = []
        self.held_bytes = self.queued_bytes = 0

    cdef int _check_open(self) except -1:
        if self.session == NULL:
            raise HTTP2Error("the connection has ended")
        return 0

    cdef int _raise_rejected(self, int result) except -1:
        """Raise the error for output that libnghttp2 rejected."""
        message = _lib.strerror(result).decode("ascii", "replace")
        if result in (ERR_STREAM_CLOSED, ERR_STREAM_CLOSING, ERR_STREAM_SHUT_WR):
            raise StreamClosedError(message)
        raise HTTP2Error(message)

    cdef int _fail(self, int result) except -1:
        """End the session and raise its error."""
        error, self.error = self.error, None
        self.close()
        if error is not None:
            raise error
        if result == ERR_NOMEM:
            raise MemoryError("libnghttp2 ran out of memory")
        message = "libnghttp2 did not process all of the input"
        if result < 0:
            message = _lib.strerror(result).decode("ascii", "replace")
        raise FloodError(message) if result in (ERR_FLOODED, ERR_TOO_MANY_CONTINUATIONS) else HTTP2Error(message)

    cdef int _report_end(self) except -1:
        """Report the end of the connection, once."""
        cdef ConnectionEnded event
        if not self.is_end_reported and self.has_ended():
            self.is_end_reported = True
            event = ConnectionEnded.__new__(ConnectionEnded)
            event.error_code, event.debug_data = self.closing_code, self.closing_data
            self.events.append(event)
        return 0

    cdef int _record_goaway(self, const Frame *frame) except -1:
        self.is_closing = True
        self.closing_code = frame.goaway.error_code
        self.closing_data = PyBytes_FromStringAndSize(<const char *>frame.goaway.debug_data, frame.goaway.debug_size)
        return 0

    # Called by libnghttp2 from within mem_recv and mem_send.

    cdef int on_begin_frame(self, const FrameHeader *header) except -1:
        """Refuse what libnghttp2 ignores although RFC 9113 calls it a connection error.

        A stream id that is lower than a previous one is only wrong if the client has passed over it: otherwise it
        belongs to a stream that has ended, on which frames may still be on their way. Clients use all ids in order, so
        few ranges have to be remembered.
        """
        cdef int32_t stream_id = header.stream_id
        cdef unsigned int i
        if header.type == FRAME_PRIORITY:
            if stream_id == 0:
                raise HTTP2Error("a PRIORITY frame has the stream id 0")  # RFC 9113 6.3
        elif header.type == FRAME_HEADERS and not self.is_client:
            if stream_id > self.last_stream_id:
                if stream_id > self.last_stream_id + 2:
                    i = self.skipped_count % SKIPPED_RANGES
                    self.skipped_first[i], self.skipped_last[i] = self.last_stream_id + 1, stream_id - 1
                    self.skipped_count += 1
                self.last_stream_id = stream_id
                return 0
            for i in range(min(self.skipped_count, <unsigned int>SKIPPED_RANGES)):
                if self.skipped_first[i] <= stream_id <= self.skipped_last[i]:
                    raise HTTP2Error(f"the stream id {stream_id} is lower than a previous one")  # RFC 9113 5.1.1
        return 0

    cdef int on_headers(self, const Frame *frame) except -1:
        cdef int32_t stream_id = frame.hd.stream_id
        cdef bint is_end = (frame.hd.flags & FLAG_END_STREAM) != 0
        cdef Stream stream
        cdef HeaderBlock block = self.block
        if not self.is_client and frame.headers.category == CATEGORY_REQUEST:
            stream = Stream.__new__(Stream)
            stream.id = stream_id
            stream.head, stream.timeout = block.finish(True), block.timeout
            stream.is_grpc, stream.is_raw = block.is_grpc, not block.is_grpc
            self.streams[stream_id] = stream
        else:
            stream = self.streams.get(stream_id)
            if stream is None or block.is_informational:
                return 0
            if block.has_status:
                stream.head = block.finish(True)
                stream.is_grpc, stream.is_raw = block.is_grpc, not block.is_grpc
            else:
                stream.trailers = block.finish(False)
        stream.last_received_s = self.now_s
        return self._end_input(stream) if is_end else self._mark_pending(stream)

    cdef int _end_input(self, Stream stream) except -1:
        """Note the end of the input. A server reports it at once: requests stay in the order of their completion.

        A client waits until the end of the read: its stream is usually closed next, and one event reports both.
        """
        stream.is_ended = True
        if self.is_client:
            return self._mark_pending(stream)
        return 0 if stream.is_discarded else self._report(stream, 0)

    cdef int on_frame(self, const Frame *frame) except -1:
        cdef uint8_t kind = frame.hd.type
        cdef Stream stream
        cdef SettingsReceived settings
        cdef PingReceived ping
        cdef PingAcknowledged pong
        cdef GoAwayReceived goaway
        cdef size_t i
        if kind == FRAME_DATA:
            if frame.hd.flags & FLAG_END_STREAM:
                stream = self.streams.get(frame.hd.stream_id)
                if stream is not None:
                    self._end_input(stream)
        elif kind == FRAME_HEADERS:
            self.on_headers(frame)
        elif kind == FRAME_SETTINGS:
            if not frame.hd.flags & FLAG_ACK:
                settings = SettingsReceived.__new__(SettingsReceived)
                settings.values = {
                    frame.settings.entries[i].id: frame.settings.entries[i].value for i in range(frame.settings.count)
                }
                self.events.append(settings)
        elif kind == FRAME_PING:
            if frame.hd.flags & FLAG_ACK:
                pong = PingAcknowledged.__new__(PingAcknowledged)
                pong.opaque_data = PyBytes_FromStringAndSize(<const char *>frame.ping.opaque_data, 8)
                self.events.append(pong)
            else:
                ping = PingReceived.__new__(PingReceived)
                ping.opaque_data = PyBytes_FromStringAndSize(<const char *>frame.ping.opaque_data, 8)
                self.events.append(ping)
        elif kind == FRAME_GOAWAY:
            self._record_goaway(frame)
            goaway = GoAwayReceived.__new__(GoAwayReceived)
            goaway.last_stream_id, goaway.error_code = frame.goaway.last_stream_id, frame.goaway.error_code
            goaway.debug_data = self.closing_data
            self.events.append(goaway)
        return 0

    cdef int on_close(self, int32_t stream_id, uint32_t error_code) except -1:
        cdef Stream stream = self.streams.pop(stream_id, None)
        if stream is None:
            return 0
        self.queued_bytes -= stream.queued
        stream.is_closed = True
        if stream.is_discarded:
            return 0
        self._report(stream, error_code)
        self.held_bytes -= stream.size
        return 0

    cdef int on_not_sent(self, const Frame *frame, int error) except -1:
        """Handle a header block that could not be sent. libnghttp2 closes the streams of requests, we the others."""
        cdef Stream stream
        if frame.hd.type != FRAME_HEADERS:
            return 0
        if error in (ERR_STREAM_CLOSED, ERR_STREAM_CLOSING, ERR_STREAM_SHUT_WR, ERR_SESSION_CLOSING):
            return 0
        stream = self.streams.get(frame.hd.stream_id)
        if stream is not None:
            stream.failure = _lib.strerror(error).decode("ascii", "replace")
            if frame.headers.category != CATEGORY_REQUEST:
                _lib.submit_rst_stream(self.session, 0, frame.hd.stream_id, INTERNAL_ERROR)
        return 0


cdef int _check(int result) except -1:
    if result == ERR_NOMEM:
        raise MemoryError("libnghttp2 ran out of memory")
    if result < 0:
        raise HTTP2Error(_lib.strerror(result).decode("ascii", "replace"))
    return 0


cdef int _make_callbacks() except -1:
    """Set up the callbacks, once for all sessions, which copy them."""
    global _callbacks
    cdef nghttp2_callbacks *callbacks = NULL
    if _callbacks != NULL:
        return 0
    _check(_lib.callbacks_new(&callbacks))
    _lib.callbacks_set_on_begin_frame_callback(callbacks, _on_begin_frame)
    _lib.callbacks_set_on_begin_headers_callback(callbacks, _on_begin)
    _lib.callbacks_set_on_header_callback(callbacks, _on_header)
    _lib.callbacks_set_on_invalid_header_callback(callbacks, _on_invalid_header)
    _lib.callbacks_set_on_data_chunk_recv_callback(callbacks, _on_data)
    _lib.callbacks_set_on_frame_recv_callback(callbacks, _on_frame)
    _lib.callbacks_set_on_stream_close_callback(callbacks, _on_close)
    _lib.callbacks_set_on_frame_send_callback(callbacks, _on_sent)
    _lib.callbacks_set_on_frame_not_send_callback(callbacks, _on_not_sent)
    _lib.callbacks_set_send_data_callback(callbacks, _send_body)
    _lib.callbacks_set_data_source_read_length_callback(callbacks, _body_size)
    if _lib.callbacks_set_rand_callback != NULL:
        _lib.callbacks_set_rand_callback(callbacks, _random)
    _callbacks = callbacks
    return 0


cdef int _failed(Session session, object error) noexcept:
    """Keep an exception until libnghttp2 returns: none may be raised through it."""
    session.error = error
    return ERR_CALLBACK_FAILURE


cdef int _on_begin_frame(nghttp2_session *_, const FrameHeader *header, void *user) noexcept:
    try:
        return (<Session>user).on_begin_frame(header)
    except BaseException as error:
        return _failed(<Session>user, error)


cdef int _on_begin(nghttp2_session *_, const Frame *frame, void *user) noexcept:
    try:
        (<Session>user).block.reset()
        return 0
    except BaseException as error:
        return _failed(<Session>user, error)


cdef int _on_header(
    nghttp2_session *_, const Frame *frame, const uint8_t *name, size_t name_size,
    const uint8_t *value, size_t value_size, uint8_t flags, void *user
) noexcept:
    try:
        return (<Session>user).block.add(name, name_size, value, value_size)
    except BaseException as error:
        return _failed(<Session>user, error)


cdef int _on_invalid_header(
    nghttp2_session *_, const Frame *frame, const uint8_t *name, size_t name_size,
    const uint8_t *value, size_t value_size, uint8_t flags, void *user
) noexcept:
    """Reset the stream of a header field that is not allowed, rather than leave the field out silently."""
    return ERR_TEMPORAL_CALLBACK_FAILURE


cdef int _on_data(
    nghttp2_session *_, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t size, void *user
) noexcept:
    cdef Stream stream
    try:
        stream = (<Session>user).streams.get(stream_id)
        return 0 if stream is None else (<Session>user)._receive_body(stream, data, size)
    except BaseException as error:
        return _failed(<Session>user, error)


cdef int _on_frame(nghttp2_session *_, const Frame *frame, void *user) noexcept:
    try:
        return (<Session>user).on_frame(frame)
    except BaseException as error:
        return _failed(<Session>user, error)


cdef int _on_close(nghttp2_session *_, int32_t stream_id, uint32_t error_code, void *user) noexcept:
    try:
        return (<Session>user).on_close(stream_id, error_code)
    except BaseException as error:
        return _failed(<Session>user, error)


cdef int _on_sent(nghttp2_session *_, const Frame *frame, void *user) noexcept:
    if frame.hd.type != FRAME_GOAWAY:
        return 0
    try:
        return (<Session>user)._record_goaway(frame)
    except BaseException as error:
        return _failed(<Session>user, error)


cdef int _on_not_sent(nghttp2_session *_, const Frame *frame, int code, void *user) noexcept:
    try:
        return (<Session>user).on_not_sent(frame, code)
    except BaseException as error:
        return _failed(<Session>user, error)


cdef Py_ssize_t _body_size(
    nghttp2_session *_, uint8_t kind, int32_t stream_id, int32_t connection_window, int32_t stream_window,
    uint32_t max_frame_size, void *user
) noexcept:
    """Allow DATA frames as large as the peer accepts: by default they have 16 KiB, whatever it announced."""
    return max_frame_size


cdef Py_ssize_t _read_body(
    nghttp2_session *session, int32_t stream_id, uint8_t *buffer, size_t size, uint32_t *flags, Source *source,
    void *user
) noexcept:
    """Return how much of the body goes into the next frame; :func:`_send_body` writes it."""
    cdef Stream stream
    cdef HeaderFields trailers
    cdef Py_ssize_t taken
    try:
        stream = (<Session>user).streams[stream_id]
        taken = min(<Py_ssize_t>size, stream.queued)
        if stream.is_out_ended and taken == stream.queued:
            flags[0] |= DATA_FLAG_EOF
            trailers = stream.out_trailers
            if trailers is not None:
                flags[0] |= DATA_FLAG_NO_END_STREAM
                _check(_lib.submit_trailer(session, stream_id, trailers.array, trailers.count))
        elif not taken:
            stream.is_deferred = True
            return ERR_DEFERRED
        flags[0] |= DATA_FLAG_NO_COPY
        return taken
    except BaseException as error:
        return _failed(<Session>user, error)


cdef int _send_body(
    nghttp2_session *_, Frame *frame, const uint8_t *header, size_t size, Source *source, void *user
) noexcept:
    """Write a whole DATA frame. It has no padding, since no padding callback is set."""
    cdef Session session = <Session>user
    try:
        if session.out.remaining <= 0:
            return ERR_WOULDBLOCK  # enough for now: called again for the next output
        session.queued_bytes -= size
        session.out.write(header, FRAME_HEADER_BYTES)
        session.out.write_body(session.streams[frame.hd.stream_id], size)
        return 0
    except BaseException as error:
        return _failed(session, error)


cdef void _random(uint8_t *buffer, size_t size) noexcept:
    """Provide the seed of libnghttp2's map of streams."""
    cdef bytes value
    memset(buffer, 0, size)
    try:
        value = urandom(size)
        memcpy(buffer, PyBytes_AS_STRING(value), size)
    except BaseException:
        pass  # cannot be reported; zeros are as good as libnghttp2 without this callback
