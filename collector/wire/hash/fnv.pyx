"""FNV-1a, for agreeing with others who hash with it. It does not resist chosen values.

Source: draft-eastlake-fnv.
"""

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint32_t

cnp.import_array()

__all__ = ["fnv1a_32"]


def fnv1a_32(bytes wire not None, const int32_t[:] starts, const int32_t[:] lengths, uint32_t state):
    """``U32[n]``: FNV-1a of each slice of ``wire``, begun from ``state``; ``state`` itself where the start is negative.

    Raises:
        ValueError: A slice is outside ``wire``, or the arrays differ in length.
    """
    cdef Py_ssize_t row, at, end, size = PyBytes_GET_SIZE(wire)
    cdef cnp.npy_intp count = starts.shape[0]
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(wire)
    cdef uint32_t value
    if lengths.shape[0] != count:
        raise ValueError("starts and lengths differ in length")
    cdef cnp.ndarray hashes = cnp.PyArray_SimpleNew(1, &count, cnp.NPY_UINT32)
    cdef uint32_t* out = <uint32_t*>cnp.PyArray_DATA(hashes)
    for row in range(count):
        value = state
        if starts[row] >= 0:
            at = starts[row]
            end = at + lengths[row]
            if lengths[row] < 0 or end > size:
                raise ValueError("a slice is outside the buffer")
            while at < end:
                value = (value ^ data[at]) * <uint32_t>0x01000193
                at += 1
        out[row] = value
    return hashes
