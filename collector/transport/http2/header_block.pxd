# See header_block.pyx.

cimport cython
from libc.stdint cimport uint8_t


@cython.final
cdef class HeaderBlock:
    cdef bint is_client
    cdef char *data
    cdef size_t size, capacity, list_bytes, list_count, max_list_bytes, max_list_count
    # What it says: a gRPC content-type; of an answer a status, one that another follows.
    cdef bint is_grpc, has_status, is_informational
    # Of a request; not in the block, so that equal callers' are equal.
    cdef bytes timeout
    cdef bytes last_head, last_trailers

    cdef int begin(self) except -1
    cdef int add(self, const uint8_t *name, size_t name_size, const uint8_t *value, size_t value_size) except -1
    cdef bytes taken(self, bint is_head)
    cdef bytes _bytes(self, bytes last)
