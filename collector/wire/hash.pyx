"""Exact dictionaries of byte slices and keyed 128-bit hashes: who is equal to whom, and under which name a table knows it.

Two hashes, each where it was measured to be the right one. *Identities* (series keys, attribute sets, texts) are SipHash-1-3-128, a
keyed function nobody without the key can steer: two identities are taken for equal by their hash alone. *Slots* of the open-addressing
tables here come from 64x64 -> 128 bit multiplications with a secret of the process; equality there is decided by the bytes themselves, so
a collision costs time only.

Not here: what is hashed in which order for which identity (``collector.model.series``), per-slot columns (``collector.model.keytable``).

Every offset is checked against the buffer before it is read. The GIL is released from ``RELEASE_ROWS`` rows on (about 256 KB of slices):
below that handing it over costs more than the work.

Source: SipHash, Aumasson and Bernstein 2012, with c = 1, d = 3 and the 128-bit output of its reference.
"""

import os

import numpy as np

from collector.wire.layout import ATTRIBUTE

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from collector.wire.layout cimport AttributeRow

cnp.import_array()

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t tailrace_fold_multiply(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    """
    uint64_t fold_multiply "tailrace_fold_multiply"(uint64_t a, uint64_t b) noexcept nogil

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *at) noexcept nogil   # a hint; any address may be given

cdef Py_ssize_t RELEASE_ROWS = 8192
cdef Py_ssize_t AHEAD = 8      # rows: a large table's places and keys are on their way to the cache when their turn comes

cdef enum:
    KIND_STRING = 1
    KIND_BOOL = 2
    KIND_INT = 3
    KIND_DOUBLE = 4
    KIND_ARRAY = 5
    KIND_MAP = 6
    KIND_BYTES = 7

# Results of the kernels.
cdef enum:
    DONE = 0
    NO_MEMORY = 1
    OUTSIDE = 2
    UNSORTED = 3

# The secrets of this process. Tables and series keys that leave the process take a key of their own.
PROCESS_KEY = os.urandom(16)
cdef uint64_t[4] SECRET
cdef bytes _secret = os.urandom(32)
memcpy(SECRET, PyBytes_AS_STRING(_secret), 32)

ctypedef struct Sip:
    uint64_t v0, v1, v2, v3

ctypedef struct SlotEntry:      # one place of an open-addressing dictionary; code = -1: free
    uint32_t tag
    int32_t code

ctypedef struct Codes:          # a growing dictionary: hash to code, code to its first row
    SlotEntry *places
    uint32_t mask
    uint64_t *hashes
    int32_t *first
    int32_t count
    int32_t room


# --- the hashes -------------------------------------------------------------------------------------------------------

cdef inline uint64_t _load(const uint8_t *at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, 8)
    return word


cdef inline uint64_t _load_tail(const uint8_t *at, Py_ssize_t length) noexcept nogil:
    """The ``length`` (0 to 7) bytes at ``at`` as a little-endian word, zero above."""
    cdef uint64_t word = 0
    cdef uint32_t low, high
    if length >= 4:
        memcpy(&low, at, 4)
        memcpy(&high, at + length - 4, 4)
        word = low | (<uint64_t>high << (8 * (length - 4)))
    elif length > 0:
        word = at[0] | (<uint64_t>at[length >> 1] << (8 * (length >> 1))) | (<uint64_t>at[length - 1] << (8 * (length - 1)))
    return word


cdef inline uint64_t _turn(uint64_t word, int bits) noexcept nogil:
    return (word << bits) | (word >> (64 - bits))


cdef inline void _sip_round(Sip *s) noexcept nogil:
    s.v0 += s.v1
    s.v2 += s.v3
    s.v1 = _turn(s.v1, 13) ^ s.v0
    s.v3 = _turn(s.v3, 16) ^ s.v2
    s.v0 = _turn(s.v0, 32)
    s.v2 += s.v1
    s.v0 += s.v3
    s.v1 = _turn(s.v1, 17) ^ s.v2
    s.v3 = _turn(s.v3, 21) ^ s.v0
    s.v2 = _turn(s.v2, 32)


cdef inline void _sip_start(Sip *s, const uint64_t *key) noexcept nogil:
    s.v0 = key[0] ^ <uint64_t>0x736F6D6570736575
    s.v1 = key[1] ^ <uint64_t>0x646F72616E646F6D ^ 0xEE
    s.v2 = key[0] ^ <uint64_t>0x6C7967656E657261
    s.v3 = key[1] ^ <uint64_t>0x7465646279746573


cdef inline void _sip_word(Sip *s, uint64_t word) noexcept nogil:
    s.v3 ^= word
    _sip_round(s)
    s.v0 ^= word


cdef inline const uint8_t *_sip_words(Sip *s, const uint8_t *at, Py_ssize_t length) noexcept nogil:
    """Takes in the whole words of a slice; the rest of ``length & 7`` bytes starts at the answer."""
    cdef const uint8_t *end = at + (length & ~<Py_ssize_t>7)
    while at < end:
        _sip_word(s, _load(at))
        at += 8
    return at


cdef inline void _sip_padded(Sip *s, const uint8_t *at, Py_ssize_t length) noexcept nogil:
    """Takes in a slice followed by zeros up to a whole word."""
    at = _sip_words(s, at, length)
    if length & 7:
        _sip_word(s, _load_tail(at, length & 7))


cdef inline void _sip_end(Sip *s, uint64_t last, uint64_t *out) noexcept nogil:
    _sip_word(s, last)
    s.v2 ^= 0xEE
    _sip_round(s)
    _sip_round(s)
    _sip_round(s)
    out[0] = s.v0 ^ s.v1 ^ s.v2 ^ s.v3
    s.v1 ^= 0xDD
    _sip_round(s)
    _sip_round(s)
    _sip_round(s)
    out[1] = s.v0 ^ s.v1 ^ s.v2 ^ s.v3


cdef inline uint64_t _table_hash(const uint8_t *at, Py_ssize_t length) noexcept nogil:
    """The place of a slice in this process's tables: 16 bytes a multiplication."""
    cdef uint64_t state = SECRET[0] ^ (<uint64_t>length * <uint64_t>0x9E3779B97F4A7C15)
    cdef uint64_t low, high
    while length > 16:
        state = fold_multiply(_load(at) ^ SECRET[1], _load(at + 8) ^ state)
        at += 16
        length -= 16
    if length >= 8:
        low = _load(at)
        high = _load(at + length - 8)
    else:
        low = _load_tail(at, length)
        high = 0
    state = fold_multiply(low ^ SECRET[1], high ^ state)
    return fold_multiply(state ^ SECRET[2], SECRET[3] | 1)


cdef inline uint64_t _pair_hash(uint64_t a, uint64_t b) noexcept nogil:
    return fold_multiply(fold_multiply(a ^ SECRET[0], b ^ SECRET[1]) ^ a, SECRET[3] | 1)


# --- arguments --------------------------------------------------------------------------------------------------------

cdef int _take_key(object key, uint64_t *words) except -1:
    if key is None:
        key = PROCESS_KEY
    if not isinstance(key, bytes) or len(key) != 16:
        raise ValueError("a hash key is 16 bytes")
    memcpy(words, PyBytes_AS_STRING(key), 16)
    return 0


cdef int _raise_for(int result) except -1:
    if result == NO_MEMORY:
        raise MemoryError
    if result == OUTSIDE:
        raise ValueError("a slice lies outside the buffer")
    if result == UNSORTED:
        raise ValueError("owners must not decrease and must be rows of the table; key codes must not be negative")
    return 0


cdef const AttributeRow *_take_rows(cnp.ndarray rows) except? NULL:
    if rows.dtype != ATTRIBUTE or rows.ndim != 1 or not rows.flags.c_contiguous:
        raise ValueError("attribute rows must be one contiguous array of layout.ATTRIBUTE")
    return <const AttributeRow *>cnp.PyArray_DATA(rows)


# --- dictionaries -----------------------------------------------------------------------------------------------------

cdef int _codes_open(Codes *c) noexcept nogil:
    memset(c, 0, sizeof(Codes))
    c.mask = 127
    c.room = 64
    c.places = <SlotEntry *>malloc(128 * sizeof(SlotEntry))
    c.hashes = <uint64_t *>malloc(64 * sizeof(uint64_t))
    c.first = <int32_t *>malloc(64 * sizeof(int32_t))
    if c.places == NULL or c.hashes == NULL or c.first == NULL:
        return NO_MEMORY
    memset(c.places, 0xFF, 128 * sizeof(SlotEntry))
    return DONE


cdef void _codes_close(Codes *c) noexcept nogil:
    free(c.places)
    free(c.hashes)
    free(c.first)


cdef int _codes_grow(Codes *c) noexcept nogil:
    cdef uint32_t size = (c.mask + 1) * 4
    cdef uint64_t *hashes
    cdef int32_t *first
    cdef SlotEntry *places = <SlotEntry *>malloc(size * sizeof(SlotEntry))
    cdef uint32_t place
    cdef int32_t code
    if places == NULL:
        return NO_MEMORY
    free(c.places)
    c.places = places
    c.mask = size - 1
    hashes = <uint64_t *>realloc(c.hashes, (size // 2) * sizeof(uint64_t))
    if hashes == NULL:
        return NO_MEMORY
    c.hashes = hashes
    first = <int32_t *>realloc(c.first, (size // 2) * sizeof(int32_t))
    if first == NULL:
        return NO_MEMORY
    c.first = first
    c.room = <int32_t>(size // 2)
    memset(places, 0xFF, size * sizeof(SlotEntry))
    for code in range(c.count):
        place = <uint32_t>c.hashes[code] & c.mask
        while places[place].code >= 0:
            place = (place + 1) & c.mask
        places[place].tag = <uint32_t>(c.hashes[code] >> 32)
        places[place].code = code
    return DONE


cdef inline int _codes_add(Codes *c, uint32_t place, uint64_t hash_, int32_t row) noexcept nogil:
    """Gives the free ``place`` the next code; the caller has looked and not found."""
    c.places[place].tag = <uint32_t>(hash_ >> 32)
    c.places[place].code = c.count
    c.hashes[c.count] = hash_
    c.first[c.count] = row
    c.count += 1
    return _codes_grow(c) if c.count == c.room else DONE


cdef object _codes_first(Codes *c):
    cdef cnp.npy_intp size = c.count
    cdef cnp.ndarray out = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_INT32)
    memcpy(cnp.PyArray_DATA(out), c.first, size * sizeof(int32_t))
    return out


cdef int _dictionary(
    Codes *c, const uint8_t *base, Py_ssize_t size, const int32_t[:] starts, const int32_t[:] lengths, int32_t *codes
) noexcept nogil:
    cdef Py_ssize_t row, previous_start = -1, previous_length = -1
    cdef int32_t start, length, code = -1
    cdef uint64_t hash_
    cdef uint32_t place
    cdef SlotEntry entry
    cdef int result
    for row in range(starts.shape[0]):
        start = starts[row]
        length = lengths[row]
        if start < 0:
            codes[row] = -1
            continue
        if length < 0 or <Py_ssize_t>start + length > size:
            return OUTSIDE
        # The same value as in the row before is the commonest case of all.
        if length == previous_length and memcmp(base + start, base + previous_start, length) == 0:
            codes[row] = code
            continue
        hash_ = _table_hash(base + start, length)
        place = <uint32_t>hash_ & c.mask
        while True:
            entry = c.places[place]
            if entry.code < 0:
                code = c.count
                result = _codes_add(c, place, hash_, <int32_t>row)
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


def dictionary(bytes wire not None, const int32_t[:] starts, const int32_t[:] lengths):
    """The distinct values of ``n`` slices of ``wire``: ``(codes I32[n], first I32[d])``.

    Codes are dense, in order of first appearance, -1 where the start is negative; ``first`` is the row each value first stands in. Exact:
    bytes are compared, not hashes. Columns of record arrays are taken as they are.

    Raises:
        ValueError: a slice lies outside ``wire``, or the two arrays differ in length.
    """
    cdef cnp.npy_intp rows = starts.shape[0]
    if lengths.shape[0] != rows:
        raise ValueError("starts and lengths differ in length")
    cdef cnp.ndarray codes = cnp.PyArray_SimpleNew(1, &rows, cnp.NPY_INT32)
    cdef int32_t *out = <int32_t *>cnp.PyArray_DATA(codes)
    cdef const uint8_t *base = <const uint8_t *>PyBytes_AS_STRING(wire)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(wire)
    cdef Codes c
    cdef int result
    try:
        result = _codes_open(&c)
        if result == DONE:
            if rows >= RELEASE_ROWS:
                with nogil:
                    result = _dictionary(&c, base, size, starts, lengths, out)
            else:
                result = _dictionary(&c, base, size, starts, lengths, out)
        _raise_for(result)
        return codes, _codes_first(&c)
    finally:
        _codes_close(&c)


cdef int _pair_codes(Codes *c, const uint64_t[:] a, const uint64_t[:] b, int32_t *codes) noexcept nogil:
    cdef Py_ssize_t row
    cdef uint64_t left, right = 0, hash_
    cdef uint32_t place
    cdef int32_t code
    cdef SlotEntry entry
    cdef int result
    for row in range(a.shape[0]):
        left = a[row]
        right = b[row]
        if row and left == a[row - 1] and right == b[row - 1]:
            codes[row] = codes[row - 1]
            continue
        hash_ = _pair_hash(left, right)
        place = <uint32_t>hash_ & c.mask
        while True:
            entry = c.places[place]
            if entry.code < 0:
                code = c.count
                result = _codes_add(c, place, hash_, <int32_t>row)
                if result:
                    return result
                break
            if entry.tag == <uint32_t>(hash_ >> 32) and a[c.first[entry.code]] == left and b[c.first[entry.code]] == right:
                code = entry.code
                break
            place = (place + 1) & c.mask
        codes[row] = code
    return DONE


def find_slice(bytes wire not None, const int32_t[::1] starts, const int32_t[::1] lengths, bytes wanted not None):
    """The first slice of ``wire`` that equals ``wanted``; -1 = none does. A negative start equals nothing.

    Raises:
        ValueError: a slice of that length lies outside ``wire``, or the arrays differ in length.
    """
    cdef Py_ssize_t i, count = starts.shape[0], size = PyBytes_GET_SIZE(wire), length = PyBytes_GET_SIZE(wanted)
    cdef const char *base = PyBytes_AS_STRING(wire)
    cdef const char *text = PyBytes_AS_STRING(wanted)
    if lengths.shape[0] != count:
        raise ValueError("starts and lengths differ in length")
    for i in range(count):
        if starts[i] < 0 or lengths[i] != length:
            continue
        if <Py_ssize_t>starts[i] + length > size:
            raise ValueError("a slice lies outside the bytes")
        if memcmp(base + starts[i], text, length) == 0:
            return i
    return -1


def pair_codes(const uint64_t[:] a, const uint64_t[:] b):
    """The distinct pairs ``(a[i], b[i])``: ``(codes I32[n], first I32[d])``, dense, in order of first appearance, exact.

    Raises:
        ValueError: the arrays differ in length.
    """
    cdef cnp.npy_intp rows = a.shape[0]
    if b.shape[0] != rows:
        raise ValueError("the columns differ in length")
    cdef cnp.ndarray codes = cnp.PyArray_SimpleNew(1, &rows, cnp.NPY_INT32)
    cdef int32_t *out = <int32_t *>cnp.PyArray_DATA(codes)
    cdef Codes c
    cdef int result
    try:
        result = _codes_open(&c)
        if result == DONE:
            if rows >= RELEASE_ROWS:
                with nogil:
                    result = _pair_codes(&c, a, b, out)
            else:
                result = _pair_codes(&c, a, b, out)
        _raise_for(result)
        return codes, _codes_first(&c)
    finally:
        _codes_close(&c)


# --- keyed hashes -----------------------------------------------------------------------------------------------------

cdef int _hash_attributes(
    const uint8_t *base, Py_ssize_t size, const AttributeRow *rows, Py_ssize_t count, const uint64_t *key, uint64_t *out
) noexcept nogil:
    cdef Py_ssize_t i
    cdef Sip sip
    cdef const AttributeRow *row
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
        _sip_start(&sip, key)
        _sip_word(&sip, <uint64_t>row.key_len | (value_length << 32))
        _sip_padded(&sip, base + row.key, row.key_len)
        words = 1 + (<uint64_t>row.key_len + 7) // 8 + (value_length + 7) // 8
        if row.kind == KIND_INT or row.kind == KIND_BOOL:
            _sip_word(&sip, <uint64_t>row.int_value)
        elif row.kind == KIND_DOUBLE:
            memcpy(&word, &row.double_value, 8)
            _sip_word(&sip, word)
        elif value_length:
            _sip_padded(&sip, base + row.value, <Py_ssize_t>value_length)
        _sip_end(&sip, (words * 8 + 1) << 56 | <uint8_t>row.kind, out + 2 * i)
    return DONE


def hash_attributes(bytes wire not None, cnp.ndarray rows not None, key=None):
    """``U64[m,2]``: for each row of layout.ATTRIBUTE the keyed hash of its key, kind and value; arrays and maps by their bytes.

    It is SipHash-1-3-128 of ``<key length u32><value length u32>``, the key and the value, each followed by zeros up to 8 bytes, and the
    kind as a byte.

    Args:
        key: 16 bytes; None = the secret of this process.

    Raises:
        ValueError: a row points outside ``wire``, or the key is not 16 bytes.
    """
    cdef const AttributeRow *base = _take_rows(rows)
    cdef cnp.npy_intp[2] shape = [rows.shape[0], 2]
    cdef cnp.ndarray hashes = cnp.PyArray_SimpleNew(2, shape, cnp.NPY_UINT64)
    cdef uint64_t *out = <uint64_t *>cnp.PyArray_DATA(hashes)
    cdef uint64_t[2] words
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(wire)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(wire), count = shape[0]
    cdef int result
    _take_key(key, words)
    if count >= RELEASE_ROWS:
        with nogil:
            result = _hash_attributes(at, size, base, count, words, out)
    else:
        result = _hash_attributes(at, size, base, count, words, out)
    _raise_for(result)
    return hashes


cdef int _sum_by_owner(
    const uint64_t[:, ::1] hashes, const int32_t[:] owners, const AttributeRow *rows, Py_ssize_t row_count, uint64_t *out
) noexcept nogil:
    cdef Py_ssize_t i, count = hashes.shape[0]
    cdef int32_t owner, later = <int32_t>row_count, greatest = -1
    cdef int32_t *stamp
    cdef uint64_t low
    for i in range(count - 1, -1, -1):
        if owners[i] > later or owners[i] < 0 or owners[i] >= row_count or rows[i].key_code < 0:
            return UNSORTED
        later = owners[i]
        if rows[i].key_code > greatest:
            greatest = rows[i].key_code
    # From the end: the first time a key is met on an owner is its last duplicate.
    stamp = <int32_t *>malloc((<Py_ssize_t>greatest + 2) * sizeof(int32_t))
    if stamp == NULL:
        return NO_MEMORY
    memset(stamp, 0xFF, (<Py_ssize_t>greatest + 2) * sizeof(int32_t))
    for i in range(count - 1, -1, -1):
        owner = owners[i]
        if stamp[rows[i].key_code] == owner:
            continue
        stamp[rows[i].key_code] = owner
        low = out[2 * owner] + hashes[i, 0]
        out[2 * owner + 1] += hashes[i, 1] + (low < hashes[i, 0])
        out[2 * owner] = low
    free(stamp)
    return DONE


def sum_by_owner(const uint64_t[:, ::1] hashes, const int32_t[:] owners, Py_ssize_t row_count, cnp.ndarray rows not None):
    """``U64[n,2]``: the sum mod 2^128 of each owner's attribute hashes, word 0 the low one; (0, 0) for a row without attributes.

    Of a key that an owner holds more than once only the last counts. ``owners`` must not decrease (document order).

    Raises:
        ValueError: the arrays differ in length, an owner is no row, or owners decrease.
    """
    cdef const AttributeRow *base = _take_rows(rows)
    cdef int result
    if hashes.shape[1] != 2 or hashes.shape[0] != owners.shape[0] or hashes.shape[0] != rows.shape[0]:
        raise ValueError("hashes (m, 2), owners (m,) and attribute rows (m,) differ in length")
    if row_count < 0 or row_count > 0x7FFFFFFF:
        raise ValueError("row_count is outside 0 to 2^31 - 1")
    sums = np.zeros((row_count, 2), np.uint64)
    cdef uint64_t *out = <uint64_t *>cnp.PyArray_DATA(<cnp.ndarray>sums)
    if hashes.shape[0] >= RELEASE_ROWS:
        with nogil:
            result = _sum_by_owner(hashes, owners, base, row_count, out)
    else:
        result = _sum_by_owner(hashes, owners, base, row_count, out)
    _raise_for(result)
    return sums


cdef int _hash_slices(
    const uint8_t *base, Py_ssize_t size, const int32_t[:] starts, const int32_t[:] lengths, const uint64_t *key, uint64_t *out
) noexcept nogil:
    cdef Py_ssize_t i
    cdef int32_t start, length
    cdef const uint8_t *rest
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
        _sip_start(&sip, key)
        rest = _sip_words(&sip, base + start, length)
        _sip_end(&sip, (<uint64_t>length << 56) | _load_tail(rest, length & 7), out + 2 * i)
    return DONE


def fnv1a_32(bytes wire not None, const int32_t[:] starts, const int32_t[:] lengths, uint32_t state):
    """``U32[n]``: FNV-1a of each slice of ``wire``, begun from ``state``; ``state`` itself where the start is negative.

    For agreeing with others who hash so; it is no defence against chosen values. Source: draft-eastlake-fnv.

    Raises:
        ValueError: a slice lies outside ``wire``, or the arrays differ in length.
    """
    cdef Py_ssize_t count = starts.shape[0], row, at, end, size = PyBytes_GET_SIZE(wire)
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(wire)
    cdef uint32_t value
    cdef bint inside = True
    if lengths.shape[0] != count:
        raise ValueError("starts and lengths differ in length")
    cdef cnp.npy_intp[1] shape = [count]
    cdef cnp.ndarray hashes = cnp.PyArray_SimpleNew(1, shape, cnp.NPY_UINT32)
    cdef uint32_t *out = <uint32_t *>cnp.PyArray_DATA(hashes)
    for row in range(count):
        value = state
        if starts[row] >= 0:
            at = starts[row]
            end = at + lengths[row]
            if lengths[row] < 0 or end > size:
                inside = False
                break
            while at < end:
                value = (value ^ data[at]) * <uint32_t>0x01000193
                at += 1
        out[row] = value
    if not inside:
        raise ValueError("a slice lies outside the bytes")
    return hashes


def hash_slices(bytes wire not None, const int32_t[:] starts, const int32_t[:] lengths, key=None):
    """``U64[n,2]``: SipHash-1-3-128 of each slice of ``wire``; (0, 0) where the start is negative.

    Args:
        key: 16 bytes; None = the secret of this process.

    Raises:
        ValueError: a slice lies outside ``wire``, the arrays differ in length, or the key is not 16 bytes.
    """
    cdef cnp.npy_intp[2] shape = [starts.shape[0], 2]
    if lengths.shape[0] != starts.shape[0]:
        raise ValueError("starts and lengths differ in length")
    cdef cnp.ndarray hashes = cnp.PyArray_SimpleNew(2, shape, cnp.NPY_UINT64)
    cdef uint64_t *out = <uint64_t *>cnp.PyArray_DATA(hashes)
    cdef uint64_t[2] words
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(wire)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(wire)
    cdef int result
    _take_key(key, words)
    if starts.shape[0] >= RELEASE_ROWS:
        with nogil:
            result = _hash_slices(at, size, starts, lengths, words, out)
    else:
        result = _hash_slices(at, size, starts, lengths, words, out)
    _raise_for(result)
    return hashes


cdef void _combine(const uint64_t[:, ::1] rows, const uint64_t *key, uint64_t *out) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef Sip sip
    for i in range(rows.shape[0]):
        _sip_start(&sip, key)
        for j in range(rows.shape[1]):
            _sip_word(&sip, rows[i, j])
        _sip_end(&sip, <uint64_t>(rows.shape[1] * 8) << 56, out + 2 * i)


def combine(*parts, key=None):
    """``U64[n,2]``: one hash of what stands side by side in the parts, in their order; a part is ``U64[n]`` or ``U64[n,2]``.

    Args:
        parts: Columns of one length.
        key: 16 bytes; None = the secret of this process.

    Raises:
        ValueError: there is no part, the lengths differ, or the key is not 16 bytes.
    """
    cdef uint64_t[2] words
    _take_key(key, words)
    cdef const uint64_t[:, ::1] rows = np.ascontiguousarray(np.column_stack([np.asarray(part, np.uint64) for part in parts]))
    cdef cnp.npy_intp[2] shape = [rows.shape[0], 2]
    cdef cnp.ndarray hashes = cnp.PyArray_SimpleNew(2, shape, cnp.NPY_UINT64)
    cdef uint64_t *out = <uint64_t *>cnp.PyArray_DATA(hashes)
    if rows.shape[0] >= RELEASE_ROWS:
        with nogil:
            _combine(rows, words, out)
    else:
        _combine(rows, words, out)
    return hashes


def clear_rows(list columns, const int32_t[:] slots):
    """Set the rows ``slots`` of each column to zero bytes; slots that are no row of a column are passed over there.

    Args:
        columns: Writable, contiguous arrays with one row a slot and no Python objects.

    Raises:
        ValueError: a column is none of that.
    """
    cdef cnp.ndarray column
    cdef uint8_t *base
    cdef Py_ssize_t i, count, row_bytes
    for column in columns:
        if not cnp.PyArray_ISCARRAY(column) or cnp.PyArray_NDIM(column) < 1 or column.dtype.hasobject:
            raise ValueError("a column must be writable, contiguous and without objects")
        count = cnp.PyArray_DIM(column, 0)
        row_bytes = cnp.PyArray_NBYTES(column) // count if count else 0
        base = <uint8_t *>cnp.PyArray_DATA(column)
        for i in range(slots.shape[0]):
            if 0 <= slots[i] < count:
                memset(base + slots[i] * row_bytes, 0, row_bytes)


# --- keys to slots ----------------------------------------------------------------------------------------------------

cdef class SlotTable:
    """128-bit keys to slots 0, 1, 2 …: open addressing, freed slots are used again, no tombstones.

    The slots' own columns are the caller's (``collector.model.keytable``), who reads ``capacity`` after each insert.
    """

    cdef uint64_t *_keys          # two words a slot
    cdef uint8_t *_live
    cdef int32_t *_free           # stack of freed slots
    cdef int32_t *_places         # open addressing: slot, -1 = free
    cdef uint32_t _mask
    cdef Py_ssize_t _capacity, _used, _free_count

    def __cinit__(self, Py_ssize_t capacity):
        cdef uint32_t size = 16
        if capacity < 1 or capacity > 0x3FFFFFFF:
            raise ValueError("capacity is outside 1 to 2^30 - 1")
        while size < 2 * capacity:
            size *= 2
        self._places = <int32_t *>malloc(size * sizeof(int32_t))
        if self._places == NULL:
            raise MemoryError
        memset(self._places, 0xFF, size * sizeof(int32_t))
        self._mask = size - 1
        if self._resize(capacity):
            raise MemoryError

    def __dealloc__(self):
        free(self._keys)
        free(self._live)
        free(self._free)
        free(self._places)

    @property
    def capacity(self):
        """How many slots there is room for; grows on insert."""
        return self._capacity

    @property
    def memory_bytes(self):
        """What the table holds, without the caller's columns."""
        return self._capacity * (2 * sizeof(uint64_t) + sizeof(uint8_t) + sizeof(int32_t)) + (self._mask + 1) * sizeof(int32_t)

    def __len__(self):
        return self._used - self._free_count

    cdef int _resize(self, Py_ssize_t capacity) noexcept nogil:
        cdef void *block = realloc(self._keys, capacity * 2 * sizeof(uint64_t))
        if block == NULL:
            return NO_MEMORY
        self._keys = <uint64_t *>block
        block = realloc(self._live, capacity * sizeof(uint8_t))
        if block == NULL:
            return NO_MEMORY
        self._live = <uint8_t *>block
        block = realloc(self._free, capacity * sizeof(int32_t))
        if block == NULL:
            return NO_MEMORY
        self._free = <int32_t *>block
        self._capacity = capacity
        return DONE

    cdef int _rehash(self, uint32_t size) noexcept nogil:
        cdef int32_t *places = <int32_t *>malloc(size * sizeof(int32_t))
        cdef Py_ssize_t slot
        cdef uint32_t place
        if places == NULL:
            return NO_MEMORY
        memset(places, 0xFF, size * sizeof(int32_t))
        free(self._places)
        self._places = places
        self._mask = size - 1
        for slot in range(self._used):
            if self._live[slot]:
                place = self._home(slot)
                while places[place] >= 0:
                    place = (place + 1) & self._mask
                places[place] = <int32_t>slot
        return DONE

    cdef inline uint32_t _home(self, Py_ssize_t slot) noexcept nogil:
        return <uint32_t>_pair_hash(self._keys[2 * slot], self._keys[2 * slot + 1]) & self._mask

    cdef inline uint32_t _probe(self, uint64_t low, uint64_t high) noexcept nogil:
        """The place that holds the key, else the free one where it would go."""
        cdef uint32_t place = <uint32_t>_pair_hash(low, high) & self._mask
        cdef int32_t slot = self._places[place]
        while slot >= 0:
            if self._keys[2 * <Py_ssize_t>slot] == low and self._keys[2 * <Py_ssize_t>slot + 1] == high:
                break
            place = (place + 1) & self._mask
            slot = self._places[place]
        return place

    def find(self, const uint64_t[:, :] keys):
        """I32[n]: the slot of each key, -1 = not there."""
        cdef cnp.npy_intp rows = keys.shape[0]
        cdef Py_ssize_t row
        cdef int32_t slot
        if keys.shape[1] != 2:
            raise ValueError("keys must be U64[n,2]")
        cdef cnp.ndarray slots = cnp.PyArray_SimpleNew(1, &rows, cnp.NPY_INT32)
        cdef int32_t *out = <int32_t *>cnp.PyArray_DATA(slots)
        for row in range(rows):
            if row + 2 * AHEAD < rows:
                prefetch(&self._places[<uint32_t>_pair_hash(keys[row + 2 * AHEAD, 0], keys[row + 2 * AHEAD, 1]) & self._mask])
            if row + AHEAD < rows:
                slot = self._places[<uint32_t>_pair_hash(keys[row + AHEAD, 0], keys[row + AHEAD, 1]) & self._mask]
                prefetch(&self._keys[2 * <Py_ssize_t>max(slot, 0)])
            out[row] = self._places[self._probe(keys[row, 0], keys[row, 1])]
        return slots

    def insert(self, const uint64_t[:, :] keys, Py_ssize_t live_limit, Py_ssize_t slot_limit):
        """``(slots I32[n], is_new bool[n], reused bool)``: finds each key or gives it a slot; -1 where a limit forbids a new one.

        Args:
            keys: A key twice gets one slot, new at its first row.
            live_limit: No new slot once so many are in use.
            slot_limit: The capacity never grows beyond it.
        """
        cdef cnp.npy_intp rows = keys.shape[0]
        cdef Py_ssize_t row
        cdef uint32_t place
        cdef int32_t slot
        cdef bint reused = False
        if keys.shape[1] != 2:
            raise ValueError("keys must be U64[n,2]")
        cdef cnp.ndarray slots = cnp.PyArray_SimpleNew(1, &rows, cnp.NPY_INT32)
        cdef cnp.ndarray is_new = cnp.PyArray_ZEROS(1, &rows, cnp.NPY_BOOL, 0)
        cdef int32_t *out = <int32_t *>cnp.PyArray_DATA(slots)
        cdef uint8_t *out_new = <uint8_t *>cnp.PyArray_DATA(is_new)
        for row in range(rows):
            place = self._probe(keys[row, 0], keys[row, 1])
            slot = self._places[place]
            if slot < 0:
                slot = self._take(live_limit, slot_limit, &reused)
                if slot == -2:
                    raise MemoryError
                if slot >= 0:
                    self._keys[2 * <Py_ssize_t>slot] = keys[row, 0]
                    self._keys[2 * <Py_ssize_t>slot + 1] = keys[row, 1]
                    self._live[slot] = 1
                    self._places[place] = slot
                    out_new[row] = 1
                    if 2 * (self._used - self._free_count) > <Py_ssize_t>self._mask and self._rehash(2 * (self._mask + 1)):
                        raise MemoryError
            out[row] = slot
        return slots, is_new, reused

    cdef int32_t _take(self, Py_ssize_t live_limit, Py_ssize_t slot_limit, bint *reused) noexcept nogil:
        """A free slot; -1 = a limit forbids it, -2 = no memory."""
        cdef Py_ssize_t wanted
        if self._used - self._free_count >= live_limit:
            return -1
        if self._free_count:
            self._free_count -= 1
            reused[0] = True
            return self._free[self._free_count]
        if self._used == self._capacity:
            wanted = min(2 * self._capacity, slot_limit)
            if wanted <= self._capacity:
                return -1
            if self._resize(wanted):
                return -2
        self._used += 1
        return <int32_t>(self._used - 1)

    def remove(self, const int32_t[:] slots):
        """Frees slots; -1 and slots that are free already are passed over.

        Raises:
            IndexError: a slot was never given; nothing was removed.
        """
        cdef Py_ssize_t i
        for i in range(slots.shape[0]):
            if slots[i] < -1 or slots[i] >= self._used:
                raise IndexError("no such slot")
        for i in range(slots.shape[0]):
            if slots[i] >= 0 and self._live[slots[i]]:
                self._vacate(self._probe(self._keys[2 * <Py_ssize_t>slots[i]], self._keys[2 * <Py_ssize_t>slots[i] + 1]))
                self._live[slots[i]] = 0
                self._free[self._free_count] = slots[i]
                self._free_count += 1

    cdef void _vacate(self, uint32_t hole) noexcept nogil:
        """Empties a place and moves later ones up, so that no search stops short."""
        cdef uint32_t place = hole
        cdef uint32_t home
        while True:
            place = (place + 1) & self._mask
            if self._places[place] < 0:
                break
            home = self._home(self._places[place])
            # It may move into the hole when its home does not lie behind the hole, in ring order.
            if ((place - home) & self._mask) >= ((place - hole) & self._mask):
                self._places[hole] = self._places[place]
                hole = place
        self._places[hole] = -1

    def keys(self, const int32_t[:] slots):
        """U64[k,2]: the keys of slots in use.

        Raises:
            IndexError: a slot is not in use.
        """
        cdef cnp.npy_intp[2] shape = [slots.shape[0], 2]
        cdef cnp.ndarray keys = cnp.PyArray_SimpleNew(2, shape, cnp.NPY_UINT64)
        cdef uint64_t *out = <uint64_t *>cnp.PyArray_DATA(keys)
        cdef Py_ssize_t i
        for i in range(slots.shape[0]):
            if slots[i] < 0 or slots[i] >= self._used or not self._live[slots[i]]:
                raise IndexError("no such slot in use")
            memcpy(out + 2 * i, self._keys + 2 * <Py_ssize_t>slots[i], 16)
        return keys

    def live(self):
        """I32: the slots in use, ascending."""
        cdef cnp.npy_intp size = self._used
        if size == 0:
            return np.zeros(0, np.int32)
        return np.flatnonzero(<uint8_t[:size]>self._live).astype(np.int32)
