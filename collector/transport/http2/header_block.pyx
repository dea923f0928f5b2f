"""A header block being received: its fields as one key, bounded in size, and those a session interprets itself.

Source: RFC 9113 §6.5.2 for how the size of a header list is measured.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

from collector.transport.http2.events import FloodError

from collector.transport.http2.header_fields cimport is_grpc

cdef enum:
    FIELD_OVERHEAD_BYTES = 32
    FIRST_BYTES = 256
    MAX_KEPT_BYTES = 1024

cdef const char *CONTENT_TYPE = b"content-type"
cdef const char *STATUS = b":status"
cdef const char *TIMEOUT = b"grpc-timeout"


cdef class HeaderBlock:
    """Collects one header block at a time. Decode it with ``header_fields.decode_header_block``."""

    def __cinit__(self, bint is_client, size_t max_list_bytes, size_t max_list_count):
        self.is_client, self.max_list_bytes, self.max_list_count = is_client, max_list_bytes, max_list_count

    def __dealloc__(self):
        free(self.data)

    cdef int reset(self) except -1:
        """Start a new block."""
        self.size = self.list_bytes = self.list_count = 0
        self.is_grpc = self.is_informational = self.has_status = False
        self.timeout = None
        return 0

    cdef int add(self, const uint8_t *name, size_t name_size, const uint8_t *value, size_t value_size) except -1:
        """Add one field.

        Raises:
            FloodError: there are too many fields, or they are too large.
        """
        cdef uint32_t size
        cdef size_t needed, capacity
        cdef char *data
        cdef char *at
        self.list_bytes += name_size + value_size + FIELD_OVERHEAD_BYTES
        self.list_count += 1
        if self.list_bytes > self.max_list_bytes:
            raise FloodError(f"a header list is larger than {self.max_list_bytes} bytes")
        if self.list_count > self.max_list_count:
            raise FloodError(f"a header list has more than {self.max_list_count} fields")
        if name_size == 12 and memcmp(name, CONTENT_TYPE, 12) == 0:
            self.is_grpc = is_grpc(<const char *>value, value_size)
        elif name_size == 12 and not self.is_client and self.timeout is None and memcmp(name, TIMEOUT, 12) == 0:
            self.timeout = PyBytes_FromStringAndSize(<const char *>value, value_size)
            return 0
        elif self.is_client and name_size == 7 and memcmp(name, STATUS, 7) == 0:
            self.has_status = True
            self.is_informational = value_size > 0 and value[0] == c"1"
        needed = self.size + 8 + name_size + value_size
        if needed > self.capacity:
            capacity = max(2 * self.capacity, needed, <size_t>FIRST_BYTES)
            data = <char *>realloc(self.data, capacity)
            if data == NULL:
                raise MemoryError
            self.data, self.capacity = data, capacity
        at = self.data + self.size
        size = name_size
        memcpy(at, &size, 4)
        memcpy(at + 4, name, name_size)
        at += 4 + name_size
        size = value_size
        memcpy(at, &size, 4)
        memcpy(at + 4, value, value_size)
        self.size = needed
        return 0

    cdef bytes finish(self, bint is_head):
        """Return the block, a head or trailers. Equal consecutive blocks are one object, whose hash is cached."""
        cdef bytes block
        if is_head:
            block = self.last_head = self._bytes(self.last_head)
        else:
            block = self.last_trailers = self._bytes(self.last_trailers)
        if self.capacity > MAX_KEPT_BYTES:
            free(self.data)
            self.data, self.capacity = NULL, 0
            self.last_head = self.last_trailers = None
        return block

    cdef bytes _bytes(self, bytes last):
        if last is not None and <size_t>PyBytes_GET_SIZE(last) == self.size:
            if memcmp(PyBytes_AS_STRING(last), self.data, self.size) == 0:
                return last
        return PyBytes_FromStringAndSize(self.data, self.size)
