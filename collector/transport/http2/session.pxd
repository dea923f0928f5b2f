# See session.pyx.

cimport cython
from libc.stdint cimport int32_t, uint8_t, uint32_t

from collector.transport.http2.header_fields cimport HeaderFields
from collector.transport.http2.header_block cimport HeaderBlock
from collector.transport.http2.nghttp2 cimport Frame, FrameHeader, nghttp2_session
from collector.transport.http2.output cimport Output
from collector.transport.http2.stream cimport Stream


@cython.final
cdef class Session:
    cdef nghttp2_session *session
    cdef bint is_client
    # Of bodies received and not reported yet.
    cdef readonly Py_ssize_t held_bytes
    # Of bodies waiting to be sent.
    cdef readonly Py_ssize_t queued_bytes
    cdef double now_s
    cdef dict streams
    cdef list events, pending
    cdef Py_ssize_t max_message_bytes
    # The header block being received: one per connection, since no other frame may interrupt it.
    cdef HeaderBlock block
    cdef Output out  # while ``output`` runs
    # The largest stream id that the client has used, and the last ranges of ids that it passed over.
    cdef readonly int32_t last_stream_id
    cdef int32_t[8] skipped_first, skipped_last
    cdef unsigned int skipped_count
    # The end of the connection.
    cdef object error
    cdef bint is_closing, is_end_reported
    cdef uint32_t closing_code
    cdef bytes closing_data

    cpdef receive(self, data, double now_s, Py_ssize_t size=?)
    cpdef list output(self, Py_ssize_t max_bytes)
    # See ``respond``.
    cdef int start_response(
        self, int32_t stream_id, HeaderFields head, bytes body, HeaderFields trailers, bint is_end
    ) except -1
    cpdef bint has_output(self)
    cpdef bint has_ended(self)

    cdef int _discard(self, Stream stream) except -1
    cdef int _make_raw(self, Stream stream) except -1
    cdef int _receive_body(self, Stream stream, const uint8_t *data, Py_ssize_t size) except -1
    cdef int _mark_pending(self, Stream stream) except -1
    cdef int _report_pending(self) except -1
    cdef int _report(self, Stream stream, uint32_t error_code) except -1
    cdef Stream _stream_to_send(self, int32_t stream_id)
    cdef int _queue(self, Stream stream, bytes data) except -1
    cdef int _check_open(self) except -1
    cdef int _raise_rejected(self, int result) except -1
    cdef int _fail(self, int result) except -1
    cdef int _report_end(self) except -1
    cdef int _record_goaway(self, const Frame *frame) except -1
    cdef int on_begin_frame(self, const FrameHeader *header) except -1
    cdef int on_headers(self, const Frame *frame) except -1
    cdef int _end_input(self, Stream stream) except -1
    cdef int on_frame(self, const Frame *frame) except -1
    cdef int on_close(self, int32_t stream_id, uint32_t error_code) except -1
    cdef int on_not_sent(self, const Frame *frame, int error) except -1
