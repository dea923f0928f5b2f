# See output.pyx.

cimport cython
from libc.stdint cimport uint8_t

from collector.transport.http2.stream cimport Stream


@cython.final
cdef class Output:
    # Bytes that may still be added; the last frame may exceed it.
    cdef Py_ssize_t remaining
    cdef list pieces
    cdef char *buffer
    cdef size_t size, capacity

    cdef int write(self, const uint8_t *data, size_t size) except -1
    cdef int write_body(self, Stream stream, Py_ssize_t size) except -1
    cdef list finish(self)
    cdef int _close_piece(self) except -1
