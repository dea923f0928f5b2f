# See header_block.pyx.

cimport cython
from libc.stdint cimport uint8_t


@cython.final
cdef class HeaderBlock:
    cdef bint is_client
    cdef char *data
    cdef size_t size, capacity, list_bytes, list_count, max_list_bytes, max_list_count
    # What the block says: its content type is gRPC's; in a response, it has a status, and that is an interim one (1xx).
    cdef bint is_grpc, has_status, is_informational
    # ``grpc-timeout`` of a request. Not in the block, so that equal callers send equal blocks.
    cdef bytes timeout
    cdef bytes last_head, last_trailers

    cdef int reset(self) except -1
    cdef int add(self, const uint8_t *name, size_t name_size, const uint8_t *value, size_t value_size) except -1
    cdef bytes finish(self, bint is_head)
    cdef bytes _bytes(self, bytes last)
