"""Header fields to send, header blocks received, and the two gRPC fields that a session interprets itself."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from collector.transport.http2.nghttp2 cimport Nv

__all__ = ["HeaderFields", "decode_header_block"]

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char *, const char *, size_t)

cdef const char *GRPC = b"application/grpc"


cdef class HeaderFields:
    """Header fields in libnghttp2's layout, prepared once to be sent often."""

    def __cinit__(self, pairs):
        cdef size_t i
        cdef bytes name, value
        self.pairs = tuple((bytes(name), bytes(value)) for name, value in pairs)
        self.count = len(self.pairs)
        self.array = <Nv *>malloc((self.count or 1) * sizeof(Nv))
        if self.array == NULL:
            raise MemoryError
        memset(self.array, 0, self.count * sizeof(Nv))
        for i in range(self.count):
            name, value = self.pairs[i]
            self.array[i].name, self.array[i].name_size = <uint8_t *>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)
            self.array[i].value, self.array[i].value_size = <uint8_t *>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)

    def __dealloc__(self):
        free(self.array)


def decode_header_block(bytes block not None):
    """Return the fields of a header block that a session reported: a tuple of (name, value) pairs, in order.

    Raises:
        ValueError: ``block`` is not a header block.
    """
    cdef const char *at = PyBytes_AS_STRING(block)
    cdef const char *end = at + PyBytes_GET_SIZE(block)
    cdef list fields = []
    while at < end:
        name = _text(&at, end)
        fields.append((name, _text(&at, end)))
    return tuple(fields)


cdef bytes _text(const char **at, const char *end):
    """Return the length-prefixed bytes at ``at``, and move ``at`` behind them."""
    cdef uint32_t size
    if end - at[0] < 4:
        raise ValueError("not a header block")
    memcpy(&size, at[0], 4)
    if end - at[0] - 4 < <Py_ssize_t>size:
        raise ValueError("not a header block")
    text = PyBytes_FromStringAndSize(at[0] + 4, size)
    at[0] += 4 + size
    return text


cdef double timeout_seconds(const char *timeout, Py_ssize_t size) noexcept:
    """Return the seconds of a ``grpc-timeout`` (at most eight digits and a unit); -1 if it is malformed.

    Source: gRPC's doc/PROTOCOL-HTTP2.md.
    """
    cdef Py_ssize_t i
    cdef double number = 0
    if size < 2 or size > 9:
        return -1
    for i in range(size - 1):
        if not c"0" <= timeout[i] <= c"9":
            return -1
        number = number * 10 + (timeout[i] - c"0")
    unit = timeout[size - 1]
    if unit == c"n":
        return number * 1e-9
    if unit == c"u":
        return number * 1e-6
    if unit == c"m":
        return number * 1e-3
    if unit == c"S":
        return number
    if unit == c"M":
        return number * 60
    return number * 3600 if unit == c"H" else -1


cdef bint is_grpc(const char *content_type, size_t size) noexcept:
    """Whether a content type is gRPC's; ``application/grpc-web`` is not."""
    return size >= 16 and strncasecmp(content_type, GRPC, 16) == 0 and (size == 16 or content_type[16] in (c"+", c";"))
