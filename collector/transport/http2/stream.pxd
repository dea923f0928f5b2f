# See stream.pyx.

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, uint8_t

from collector.transport.http2.fields cimport Fields

cdef enum:
    PREFIX_BYTES = 5                # of a gRPC message: flag, length


@cython.final
@cython.no_gc  # nothing it holds can lead back to it
cdef class Stream:
    cdef int32_t id
    # What comes in.
    cdef bytes head, timeout, trailers
    cdef double seen_s
    cdef bint is_told          # its head was
    cdef bint is_listed        # among those to be looked at when this read is through
    cdef bint is_grpc
    cdef bint is_raw           # told as it comes, not as one message
    cdef bint is_ended, is_end_told
    cdef bint is_closed
    cdef bint is_discarded     # nobody wants what still comes
    cdef uint8_t[PREFIX_BYTES] prefix
    cdef Py_ssize_t prefix_size
    cdef Py_ssize_t announced  # bytes of the message
    cdef PyObject *body
    cdef Py_ssize_t size, capacity
    # What goes out.
    cdef list chunks
    cdef Py_ssize_t at, offset, queued
    cdef bint is_out_ended, is_deferred
    cdef Fields out_trailers
    cdef str failure

    cdef int append(self, const uint8_t *data, Py_ssize_t size, Py_ssize_t at_most) except -1
    cdef bytes take(self)
