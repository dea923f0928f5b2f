# See stream.pyx.

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, uint8_t

from collector.transport.http2.header_fields cimport HeaderFields

cdef enum:
    PREFIX_BYTES = 5  # before a gRPC message: compressed flag, length


@cython.final
@cython.no_gc  # nothing it holds can refer back to it
cdef class Stream:
    cdef int32_t id
    # Input.
    cdef bytes head, timeout, trailers
    cdef double last_received_s
    cdef bint is_head_reported
    cdef bint is_pending       # to be checked for something to report at the end of this read
    cdef bint is_grpc
    cdef bint is_raw           # reported as it arrives, not as one message
    cdef bint is_ended, is_end_reported
    cdef bint is_closed
    cdef bint is_discarded     # the rest of the input is dropped
    cdef uint8_t[PREFIX_BYTES] prefix
    cdef Py_ssize_t prefix_size
    cdef Py_ssize_t announced_bytes  # of the message, according to its prefix
    cdef PyObject *body
    cdef Py_ssize_t size, capacity
    # Output.
    cdef list chunks
    cdef Py_ssize_t chunk_index, offset, queued
    cdef bint is_out_ended, is_deferred
    cdef HeaderFields out_trailers
    cdef str failure

    cdef int append(self, const uint8_t *data, Py_ssize_t size, Py_ssize_t at_most) except -1
    cdef bytes take_body(self)
