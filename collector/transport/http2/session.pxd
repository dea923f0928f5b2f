# See session.pyx.

cimport cython
from libc.stdint cimport int32_t, uint8_t, uint32_t

from collector.transport.http2.fields cimport Fields
from collector.transport.http2.header_block cimport HeaderBlock
from collector.transport.http2.nghttp2 cimport Frame, nghttp2_session
from collector.transport.http2.output cimport Output
from collector.transport.http2.stream cimport Stream


@cython.final
cdef class Session:
    cdef nghttp2_session *session
    cdef bint is_client
    # Of bodies that are not told yet.
    cdef readonly Py_ssize_t held_bytes
    # Of bodies that wait to be sent.
    cdef readonly Py_ssize_t queued_bytes
    cdef double now_s
    cdef dict streams
    cdef list events, listed
    cdef Py_ssize_t max_message_bytes
    # The header block that is coming in: of the connection, since nothing may come between its frames.
    cdef HeaderBlock block
    cdef Output out  # while ``output`` runs
    # Ends.
    cdef object error
    cdef bint is_closing, is_over_told
    cdef uint32_t closing_code
    cdef bytes closing_data

    cpdef receive(self, data, double now_s, Py_ssize_t size=?)
    cpdef list output(self, Py_ssize_t max_bytes)
    # As ``respond``.
    cdef int begin_answer(self, int32_t stream_id, Fields head, bytes body, Fields trailers, bint is_end) except -1
    # As ``wants_flush`` and ``is_over``.
    cdef bint has_output(self)
    cdef bint has_ended(self)

    cdef int _discard(self, Stream stream) except -1
    cdef int _make_raw(self, Stream stream) except -1
    cdef int _take_in(self, Stream stream, const uint8_t *data, Py_ssize_t size) except -1
    cdef int _list(self, Stream stream) except -1
    cdef int _tell(self, Stream stream, uint32_t error_code) except -1
    cdef Stream _open(self, int32_t stream_id)
    cdef int _queue(self, Stream stream, bytes data) except -1
    cdef int _usable(self) except -1
    cdef int _refuse(self, int result) except -1
    cdef int _fail(self, int result) except -1
    cdef int _close(self) except -1
    cdef int _goaway(self, const Frame *frame) except -1
    cdef int on_headers(self, const Frame *frame) except -1
    cdef int _ended(self, Stream stream) except -1
    cdef int on_frame(self, const Frame *frame) except -1
    cdef int on_close(self, int32_t stream_id, uint32_t error_code) except -1
    cdef int on_not_sent(self, const Frame *frame, int error) except -1
