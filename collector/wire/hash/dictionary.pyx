"""Dictionaries: dense codes of equal slices and of equal pairs of words, in order of first appearance.

They are exact: values are compared by their bytes, and the hash only decides where to look. Every offset is checked
against the buffer before it is read.
"""

import os

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from collector.wire.gil cimport RELEASE_GIL_ROWS
from collector.wire.hash.places cimport pair_hash, slice_hash

cnp.import_array()

__all__ = ["dictionary", "find_slice", "pair_codes"]

cdef enum Result:
    DONE = 0
    NO_MEMORY = 1
    OUTSIDE = 2             # a slice that is not within the buffer

cdef enum:
    FIRST_ROOM = 64         # distinct values; there are at least twice as many places

cdef bytes _secret = os.urandom(32)
cdef uint64_t[4] SECRET
memcpy(SECRET, PyBytes_AS_STRING(_secret), 32)

ctypedef struct Place:      # of the open-addressing table; code = -1: free
    uint32_t tag            # the upper half of the hash
    int32_t code

ctypedef struct Codes:      # the distinct values so far
    Place* places
    uint32_t mask
    uint64_t* hashes        # by code
    int32_t* first          # by code: the first row with the value
    int32_t count
    int32_t room


def dictionary(bytes wire not None, const int32_t[:] starts, const int32_t[:] lengths):
    """The distinct values of ``n`` slices of ``wire``: ``(codes I32[n], first I32[d])``.

    The code is -1 where the start is negative; ``first`` is the first row with each value. Columns of record arrays are
    taken without a copy.

    Raises:
        ValueError: A slice is outside ``wire``, or the two arrays differ in length.
    """
    cdef cnp.npy_intp rows = starts.shape[0]
    if lengths.shape[0] != rows:
        raise ValueError("starts and lengths differ in length")
    cdef cnp.ndarray codes = cnp.PyArray_SimpleNew(1, &rows, cnp.NPY_INT32)
    cdef int32_t* out = <int32_t*>cnp.PyArray_DATA(codes)
    cdef const uint8_t* base = <const uint8_t*>PyBytes_AS_STRING(wire)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(wire)
    cdef Codes c
    cdef int result
    try:
        result = open_codes(&c)
        if result == DONE:
            if rows >= RELEASE_GIL_ROWS:
                with nogil:
                    result = code_slices(&c, base, size, starts, lengths, out)
            else:
                result = code_slices(&c, base, size, starts, lengths, out)
        raise_for(result)
        return codes, first_rows(&c)
    finally:
        close_codes(&c)


def pair_codes(const uint64_t[:] a, const uint64_t[:] b):
    """The distinct pairs ``(a[i], b[i])``: ``(codes I32[n], first I32[d])``.

    Raises:
        ValueError: The arrays differ in length.
    """
    cdef cnp.npy_intp rows = a.shape[0]
    if b.shape[0] != rows:
        raise ValueError("the columns differ in length")
    cdef cnp.ndarray codes = cnp.PyArray_SimpleNew(1, &rows, cnp.NPY_INT32)
    cdef int32_t* out = <int32_t*>cnp.PyArray_DATA(codes)
    cdef Codes c
    cdef int result
    try:
        result = open_codes(&c)
        if result == DONE:
            if rows >= RELEASE_GIL_ROWS:
                with nogil:
                    result = code_pairs(&c, a, b, out)
            else:
                result = code_pairs(&c, a, b, out)
        raise_for(result)
        return codes, first_rows(&c)
    finally:
        close_codes(&c)


def find_slice(bytes wire not None, const int32_t[::1] starts, const int32_t[::1] lengths, bytes wanted not None):
    """The index of the first slice of ``wire`` that equals ``wanted``, or -1. A negative start equals nothing.

    Raises:
        ValueError: A slice of that length is outside ``wire``, or the arrays differ in length.
    """
    cdef Py_ssize_t i, count = starts.shape[0], size = PyBytes_GET_SIZE(wire), length = PyBytes_GET_SIZE(wanted)
    cdef const char* base = PyBytes_AS_STRING(wire)
    cdef const char* text = PyBytes_AS_STRING(wanted)
    if lengths.shape[0] != count:
        raise ValueError("starts and lengths differ in length")
    for i in range(count):
        if starts[i] < 0 or lengths[i] != length:
            continue
        if <Py_ssize_t>starts[i] + length > size:
            raise_for(OUTSIDE)
        if memcmp(base + starts[i], text, length) == 0:
            return i
    return -1


cdef int code_slices(
    Codes* c, const uint8_t* base, Py_ssize_t size, const int32_t[:] starts, const int32_t[:] lengths, int32_t* codes
) noexcept nogil:
    cdef Py_ssize_t row, previous_start = -1, previous_length = -1
    cdef int32_t start, length, code = -1
    cdef uint64_t hash_
    cdef uint32_t place
    cdef Place entry
    cdef int result
    for row in range(starts.shape[0]):
        start = starts[row]
        length = lengths[row]
        if start < 0:
            codes[row] = -1
            continue
        if length < 0 or <Py_ssize_t>start + length > size:
            return OUTSIDE
        # The same value as in the previous row is the most common case of all.
        if length == previous_length and memcmp(base + start, base + previous_start, length) == 0:
            codes[row] = code
            continue
        hash_ = slice_hash(SECRET, base + start, length)
        place = <uint32_t>hash_ & c.mask
        while True:
            entry = c.places[place]
            if entry.code < 0:
                code = c.count
                result = add_code(c, place, hash_, <int32_t>row)
                if result:
                    return result
                break
            if (
                entry.tag == <uint32_t>(hash_ >> 32)
                and lengths[c.first[entry.code]] == length
                and memcmp(base + start, base + starts[c.first[entry.code]], length) == 0
            ):
                code = entry.code
                break
            place = (place + 1) & c.mask
        codes[row] = code
        previous_start = start
        previous_length = length
    return DONE


cdef int code_pairs(Codes* c, const uint64_t[:] a, const uint64_t[:] b, int32_t* codes) noexcept nogil:
    cdef Py_ssize_t row
    cdef uint64_t left, right = 0, hash_
    cdef uint32_t place, tag
    cdef int32_t code
    cdef Place entry
    cdef int result
    for row in range(a.shape[0]):
        left = a[row]
        right = b[row]
        if row and left == a[row - 1] and right == b[row - 1]:
            codes[row] = codes[row - 1]
            continue
        hash_ = pair_hash(SECRET, left, right)
        tag = <uint32_t>(hash_ >> 32)
        place = <uint32_t>hash_ & c.mask
        while True:
            entry = c.places[place]
            if entry.code < 0:
                code = c.count
                result = add_code(c, place, hash_, <int32_t>row)
                if result:
                    return result
                break
            if entry.tag == tag and a[c.first[entry.code]] == left and b[c.first[entry.code]] == right:
                code = entry.code
                break
            place = (place + 1) & c.mask
        codes[row] = code
    return DONE


cdef int open_codes(Codes* c) noexcept nogil:
    memset(c, 0, sizeof(Codes))
    c.mask = 2 * FIRST_ROOM - 1
    c.room = FIRST_ROOM
    c.places = <Place*>malloc(2 * FIRST_ROOM * sizeof(Place))
    c.hashes = <uint64_t*>malloc(FIRST_ROOM * sizeof(uint64_t))
    c.first = <int32_t*>malloc(FIRST_ROOM * sizeof(int32_t))
    if c.places == NULL or c.hashes == NULL or c.first == NULL:
        return NO_MEMORY
    memset(c.places, 0xFF, 2 * FIRST_ROOM * sizeof(Place))
    return DONE


cdef void close_codes(Codes* c) noexcept nogil:
    free(c.places)
    free(c.hashes)
    free(c.first)


cdef inline int add_code(Codes* c, uint32_t place, uint64_t hash_, int32_t row) noexcept nogil:
    """Gives the free ``place``, at which the caller's search ended, the next code."""
    c.places[place].tag = <uint32_t>(hash_ >> 32)
    c.places[place].code = c.count
    c.hashes[c.count] = hash_
    c.first[c.count] = row
    c.count += 1
    return grow_codes(c) if c.count == c.room else DONE


cdef int grow_codes(Codes* c) noexcept nogil:
    cdef uint32_t size = (c.mask + 1) * 4
    cdef uint64_t* hashes
    cdef int32_t* first
    cdef Place* places = <Place*>malloc(size * sizeof(Place))
    cdef uint32_t place
    cdef int32_t code
    if places == NULL:
        return NO_MEMORY
    free(c.places)
    c.places = places
    c.mask = size - 1
    hashes = <uint64_t*>realloc(c.hashes, (size // 2) * sizeof(uint64_t))
    if hashes == NULL:
        return NO_MEMORY
    c.hashes = hashes
    first = <int32_t*>realloc(c.first, (size // 2) * sizeof(int32_t))
    if first == NULL:
        return NO_MEMORY
    c.first = first
    c.room = <int32_t>(size // 2)
    memset(places, 0xFF, size * sizeof(Place))
    for code in range(c.count):
        place = <uint32_t>c.hashes[code] & c.mask
        while places[place].code >= 0:
            place = (place + 1) & c.mask
        places[place].tag = <uint32_t>(c.hashes[code] >> 32)
        places[place].code = code
    return DONE


cdef object first_rows(Codes* c):
    cdef cnp.npy_intp size = c.count
    cdef cnp.ndarray out = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_INT32)
    memcpy(cnp.PyArray_DATA(out), c.first, size * sizeof(int32_t))
    return out


cdef int raise_for(int result) except -1:
    if result == NO_MEMORY:
        raise MemoryError
    if result == OUTSIDE:
        raise ValueError("a slice is outside the buffer")
    return 0
