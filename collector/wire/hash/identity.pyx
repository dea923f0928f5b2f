"""Keyed 128-bit identities of slices, attributes and keys, as SipHash-1-3-128.

Keys that leave the process are hashed with a key of their own; everything else uses a secret of the process. Every
offset is checked against the buffer before it is read.
"""

import os

import numpy as np

from collector.wire.layout import ATTRIBUTE

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from collector.wire.gil cimport RELEASE_GIL_ROWS
from collector.wire.hash.places cimport load_tail
from collector.wire.hash.siphash cimport Sip, sip_end, sip_padded, sip_start, sip_word, sip_words
from collector.wire.layout cimport (
    KIND_ARRAY, KIND_BOOL, KIND_BYTES, KIND_DOUBLE, KIND_INT, KIND_MAP, KIND_STRING, AttributeRow,
)

cnp.import_array()

__all__ = ["combine", "continue_process_key", "hash_attributes", "hash_slices", "process_key", "sum_by_owner"]

cdef bytes _process_key = os.urandom(16)
cdef bint _is_used = False

cdef enum Result:
    DONE = 0
    NO_MEMORY = 1
    OUTSIDE = 2             # a slice that is not within the buffer
    UNSORTED = 3


def process_key():
    """The secret of this process, 16 bytes: for state that is kept over a restart together with keys made with it."""
    global _is_used
    _is_used = True
    return _process_key


def continue_process_key(bytes key not None):
    """Use the secret of an earlier process, whose keys a state contains; returns whether it is the secret now.

    It is possible until something was hashed with the secret, so before any data arrives.

    Raises:
        ValueError: The key is not 16 bytes.
    """
    global _is_used, _process_key
    if len(key) != 16:
        raise ValueError("a hash key must be 16 bytes")
    if not _is_used:
        _process_key, _is_used = key, True
    return _process_key == key


def hash_slices(bytes wire not None, const int32_t[:] starts, const int32_t[:] lengths, key=None):
    """``U64[n,2]``: the hash of each slice of ``wire``; (0, 0) where the start is negative.

    Args:
        wire: The buffer.
        starts: Where each slice begins.
        lengths: The length of each slice.
        key: 16 bytes; None = the secret of this process.

    Raises:
        ValueError: A slice is outside ``wire``, the arrays differ in length, or the key is not 16 bytes.
    """
    cdef cnp.npy_intp[2] shape = [starts.shape[0], 2]
    if lengths.shape[0] != starts.shape[0]:
        raise ValueError("starts and lengths differ in length")
    cdef cnp.ndarray hashes = cnp.PyArray_SimpleNew(2, shape, cnp.NPY_UINT64)
    cdef uint64_t* out = <uint64_t*>cnp.PyArray_DATA(hashes)
    cdef uint64_t[2] words
    cdef const uint8_t* base = <const uint8_t*>PyBytes_AS_STRING(wire)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(wire)
    cdef int result
    take_key(key, words)
    if starts.shape[0] >= RELEASE_GIL_ROWS:
        with nogil:
            result = hash_each_slice(base, size, starts, lengths, words, out)
    else:
        result = hash_each_slice(base, size, starts, lengths, words, out)
    raise_for(result)
    return hashes


def hash_attributes(bytes wire not None, cnp.ndarray rows not None, key=None):
    """``U64[m,2]``: the hash of each attribute's key, kind and value; arrays and maps are hashed by their bytes.

    What is hashed is ``<key length u32><value length u32>``, the key and the value, each followed by zeros up to a
    multiple of 8 bytes, and the kind as a byte.

    Args:
        wire: The buffer that the rows refer to.
        rows: Rows of layout.ATTRIBUTE.
        key: 16 bytes; None = the secret of this process.

    Raises:
        ValueError: A row points outside ``wire``, or the key is not 16 bytes.
    """
    cdef const AttributeRow* attributes = attribute_rows(rows)
    cdef cnp.npy_intp[2] shape = [rows.shape[0], 2]
    cdef cnp.ndarray hashes = cnp.PyArray_SimpleNew(2, shape, cnp.NPY_UINT64)
    cdef uint64_t* out = <uint64_t*>cnp.PyArray_DATA(hashes)
    cdef uint64_t[2] words
    cdef const uint8_t* base = <const uint8_t*>PyBytes_AS_STRING(wire)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(wire), count = shape[0]
    cdef int result
    take_key(key, words)
    if count >= RELEASE_GIL_ROWS:
        with nogil:
            result = hash_each_attribute(base, size, attributes, count, words, out)
    else:
        result = hash_each_attribute(base, size, attributes, count, words, out)
    raise_for(result)
    return hashes


def sum_by_owner(
    const uint64_t[:, ::1] hashes, const int32_t[:] owners, Py_ssize_t row_count, cnp.ndarray rows not None
):
    """``U64[n,2]``: the sum mod 2^128 of each owner's attribute hashes, the low word first; (0, 0) without attributes.

    Of a key that an owner has more than once only the last occurrence counts. ``owners`` must not decrease (document
    order).

    Raises:
        ValueError: The arrays differ in length, an owner is not a row, or owners decrease.
    """
    cdef const AttributeRow* attributes = attribute_rows(rows)
    cdef int result
    if hashes.shape[1] != 2 or hashes.shape[0] != owners.shape[0] or hashes.shape[0] != rows.shape[0]:
        raise ValueError("hashes (m, 2), owners (m,) and attribute rows (m,) differ in length")
    if row_count < 0 or row_count > 0x7FFFFFFF:
        raise ValueError(f"expected a row_count from 0 to 2^31 - 1, got {row_count}")
    sums = np.zeros((row_count, 2), np.uint64)
    cdef uint64_t* out = <uint64_t*>cnp.PyArray_DATA(<cnp.ndarray>sums)
    if hashes.shape[0] >= RELEASE_GIL_ROWS:
        with nogil:
            result = sum_each_owner(hashes, owners, attributes, row_count, out)
    else:
        result = sum_each_owner(hashes, owners, attributes, row_count, out)
    raise_for(result)
    return sums


def combine(*parts, key=None):
    """``U64[n,2]``: the hash of the parts of each row, in their order; a part is ``U64[n]`` or ``U64[n,2]``.

    Args:
        parts: Columns of the same length.
        key: 16 bytes; None = the secret of this process.

    Raises:
        ValueError: There is no part, the lengths differ, or the key is not 16 bytes.
    """
    cdef uint64_t[2] words
    take_key(key, words)
    columns = np.column_stack([np.asarray(part, np.uint64) for part in parts])
    cdef const uint64_t[:, ::1] rows = np.ascontiguousarray(columns)
    cdef cnp.npy_intp[2] shape = [rows.shape[0], 2]
    cdef cnp.ndarray hashes = cnp.PyArray_SimpleNew(2, shape, cnp.NPY_UINT64)
    cdef uint64_t* out = <uint64_t*>cnp.PyArray_DATA(hashes)
    if rows.shape[0] >= RELEASE_GIL_ROWS:
        with nogil:
            hash_each_row(rows, words, out)
    else:
        hash_each_row(rows, words, out)
    return hashes


cdef int hash_each_slice(
    const uint8_t* base,
    Py_ssize_t size,
    const int32_t[:] starts,
    const int32_t[:] lengths,
    const uint64_t* key,
    uint64_t* out,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef int32_t start, length
    cdef const uint8_t* tail
    cdef Sip sip
    for i in range(starts.shape[0]):
        start = starts[i]
        length = lengths[i]
        if start < 0:
            out[2 * i] = 0
            out[2 * i + 1] = 0
            continue
        if length < 0 or <Py_ssize_t>start + length > size:
            return OUTSIDE
        sip_start(&sip, key)
        tail = sip_words(&sip, base + start, length)
        sip_end(&sip, (<uint64_t>length << 56) | load_tail(tail, length & 7), out + 2 * i)
    return DONE


cdef int hash_each_attribute(
    const uint8_t* base,
    Py_ssize_t size,
    const AttributeRow* rows,
    Py_ssize_t count,
    const uint64_t* key,
    uint64_t* out,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef Sip sip
    cdef const AttributeRow* row
    cdef uint64_t value_length, words, word
    for i in range(count):
        row = rows + i
        if row.key_len < 0 or (row.key_len and (row.key < 0 or <Py_ssize_t>row.key + row.key_len > size)):
            return OUTSIDE
        if row.kind == KIND_STRING or row.kind == KIND_BYTES or row.kind == KIND_ARRAY or row.kind == KIND_MAP:
            if row.value_len < 0 or (row.value_len and (row.value < 0 or <Py_ssize_t>row.value + row.value_len > size)):
                return OUTSIDE
            value_length = <uint64_t>row.value_len
        elif row.kind == KIND_INT or row.kind == KIND_BOOL or row.kind == KIND_DOUBLE:
            value_length = 8
        else:
            value_length = 0
        sip_start(&sip, key)
        sip_word(&sip, <uint64_t>row.key_len | (value_length << 32))
        sip_padded(&sip, base + row.key, row.key_len)
        words = 1 + (<uint64_t>row.key_len + 7) // 8 + (value_length + 7) // 8
        if row.kind == KIND_INT or row.kind == KIND_BOOL:
            sip_word(&sip, <uint64_t>row.int_value)
        elif row.kind == KIND_DOUBLE:
            memcpy(&word, &row.double_value, 8)
            sip_word(&sip, word)
        elif value_length:
            sip_padded(&sip, base + row.value, <Py_ssize_t>value_length)
        sip_end(&sip, (words * 8 + 1) << 56 | <uint8_t>row.kind, out + 2 * i)
    return DONE


cdef int sum_each_owner(
    const uint64_t[:, ::1] hashes,
    const int32_t[:] owners,
    const AttributeRow* rows,
    Py_ssize_t row_count,
    uint64_t* out,
) noexcept nogil:
    cdef Py_ssize_t i, count = hashes.shape[0]
    cdef int32_t owner, next_owner = <int32_t>row_count, greatest = -1
    cdef int32_t* seen_on               # by key code: the owner it was last seen on
    cdef uint64_t low
    for i in range(count - 1, -1, -1):
        if owners[i] > next_owner or owners[i] < 0 or owners[i] >= row_count or rows[i].key_code < 0:
            return UNSORTED
        next_owner = owners[i]
        if rows[i].key_code > greatest:
            greatest = rows[i].key_code
    # From the end, so that the first occurrence of a key on an owner is the one that counts.
    seen_on = <int32_t*>malloc((<Py_ssize_t>greatest + 2) * sizeof(int32_t))
    if seen_on == NULL:
        return NO_MEMORY
    memset(seen_on, 0xFF, (<Py_ssize_t>greatest + 2) * sizeof(int32_t))
    for i in range(count - 1, -1, -1):
        owner = owners[i]
        if seen_on[rows[i].key_code] == owner:
            continue
        seen_on[rows[i].key_code] = owner
        low = out[2 * owner] + hashes[i, 0]
        out[2 * owner + 1] += hashes[i, 1] + (low < hashes[i, 0])
        out[2 * owner] = low
    free(seen_on)
    return DONE


cdef void hash_each_row(const uint64_t[:, ::1] rows, const uint64_t* key, uint64_t* out) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef Sip sip
    for i in range(rows.shape[0]):
        sip_start(&sip, key)
        for j in range(rows.shape[1]):
            sip_word(&sip, rows[i, j])
        sip_end(&sip, <uint64_t>(rows.shape[1] * 8) << 56, out + 2 * i)


cdef int take_key(object key, uint64_t* words) except -1:
    global _is_used
    if key is None:
        key = _process_key
        _is_used = True
    if not isinstance(key, bytes) or len(key) != 16:
        raise ValueError("a hash key must be 16 bytes")
    memcpy(words, PyBytes_AS_STRING(key), 16)
    return 0


cdef const AttributeRow* attribute_rows(cnp.ndarray rows) except? NULL:
    if rows.dtype != ATTRIBUTE or rows.ndim != 1 or not rows.flags.c_contiguous:
        raise ValueError("attribute rows must be one contiguous array of layout.ATTRIBUTE")
    return <const AttributeRow*>cnp.PyArray_DATA(rows)


cdef int raise_for(int result) except -1:
    if result == NO_MEMORY:
        raise MemoryError
    if result == OUTSIDE:
        raise ValueError("a slice is outside the buffer")
    if result == UNSORTED:
        raise ValueError("owners must not decrease and must be rows of the table; key codes must not be negative")
    return 0
