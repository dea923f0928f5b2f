# See output.pyx.

cimport cython
from libc.stdint cimport uint8_t

from collector.transport.http2.stream cimport Stream


@cython.final
cdef class Output:
    # How many bytes more are asked for; may be passed by a frame.
    cdef Py_ssize_t left
    cdef list pieces
    cdef char *buffer
    cdef size_t size, capacity

    cdef int write(self, const uint8_t *data, size_t size) except -1
    cdef int write_body(self, Stream stream, Py_ssize_t size) except -1
    cdef list taken(self)
    cdef int _close_piece(self) except -1
