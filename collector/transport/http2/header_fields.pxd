# See header_fields.pyx.

cimport cython

from collector.transport.http2.nghttp2 cimport Nv


@cython.final
cdef class HeaderFields:
    cdef readonly tuple pairs
    cdef Nv *array
    cdef size_t count


cdef double timeout_seconds(const char *timeout, Py_ssize_t size) noexcept
cdef bint is_grpc(const char *content_type, size_t size) noexcept
