# The map from old to new offsets, filled by the rewrite.
cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t


cdef class OffsetMap:
    """Where the bytes of the old request are in the new one."""

    # An edge is twice the offset after a patch's deleted bytes, plus one for a mere insertion. This distinguishes a
    # deletion that ends at an offset from an insertion at it, and both kinds of lookup are one binary search.
    cdef int64_t* edges
    cdef int64_t* moved         # by how much bytes behind each edge move
    cdef Py_ssize_t count

    cdef int reserve(self, Py_ssize_t count) except -1


cdef uint8_t* row_data(cnp.ndarray rows) except? NULL
