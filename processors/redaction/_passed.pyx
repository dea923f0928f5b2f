"""Picks the attributes that have to be looked at: not those whose key says nothing and whose value has passed before.

``tests/unit/processors/redaction/test_passed.py`` compares it with a slow implementation in Python.

What has passed is a set of 128-bit hashes with a secret of the process, so no sender can make a value that is taken for
another one. The set has two generations of a fixed size: when the recent one is full, it becomes the older one, and
what was in the older one and has not been used since then is gone.

Every slice is checked against its source before it is read. The GIL is kept: a batch takes less than a millisecond.
"""

import os

import numpy as np

from collector.wire.layout import ATTRIBUTE

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from collector.wire.hash.places cimport load_tail
from collector.wire.hash.siphash cimport Sip, sip_end, sip_start, sip_word, sip_words
from collector.wire.layout cimport KIND_STRING, AttributeRow

cnp.import_array()

__all__ = ["PassedValues"]

cdef bytes _secret = os.urandom(16)
cdef uint64_t[2] SECRET
memcpy(SECRET, PyBytes_AS_STRING(_secret), 16)

cdef enum:                # what ``attributes.Action`` says of a key
    CHECK = 0
    SKIP = 1
    FIRST_SLOTS = 256

cdef struct Generation:
    uint64_t* slots       # pairs; 0, 0 = free
    Py_ssize_t slot_count, count


@cython.final
cdef class PassedValues:
    """The values that have passed; see the module."""

    cdef Generation recent, older
    cdef Py_ssize_t max_count

    def __cinit__(self, Py_ssize_t max_count):
        """``max_count``: of the values of one generation; each takes 32 bytes at most."""
        self.max_count = max_count
        self.recent.slots = self.older.slots = NULL
        self.recent.slot_count = self.older.slot_count = self.recent.count = self.older.count = 0

    def __dealloc__(self):
        free(self.recent.slots)
        free(self.older.slots)

    @property
    def memory_bytes(self):
        """The size of the set."""
        return (self.recent.slot_count + self.older.slot_count) * 16

    def to_check(self, rows not None, bytes source not None, bytes actions not None, bint all_kinds):
        """I32[k]: the places in ``rows`` (ATTRIBUTE[m]) of the attributes that have to be looked at.

        Args:
            rows: The attributes.
            source: The bytes that their slices point into.
            actions: U16 for each key code: 0, the value has to be checked unless it has passed; 1, the attribute is
                left alone; else it has to be looked at.
            all_kinds: Whether values that are not text have to be checked as well.

        Raises:
            ValueError: A key code or a slice is outside.
        """
        cdef Py_ssize_t count = rows.shape[0], i, found = 0
        cdef const AttributeRow* row = attribute_rows(rows)
        cdef const uint16_t* action = <const uint16_t*>PyBytes_AS_STRING(actions)
        cdef Py_ssize_t key_count = PyBytes_GET_SIZE(actions) // 2
        cdef cnp.ndarray result = np.empty(count, np.int32)
        cdef int32_t* out = <int32_t*>cnp.PyArray_DATA(result)
        cdef uint64_t[2] key
        for i in range(count):
            if not 0 <= row[i].key_code < key_count:
                raise ValueError(f"attribute {i} has a key code that does not exist")
            if action[row[i].key_code] == SKIP:
                continue
            if action[row[i].key_code] == CHECK:
                if row[i].kind != KIND_STRING and not all_kinds:
                    continue
                if not hash_value(&row[i], source, key):
                    raise ValueError(f"the value of attribute {i} is outside its source")
                if self.has(key):
                    continue
            out[found] = <int32_t>i
            found += 1
        return result[:found]

    def add(self, rows not None, bytes source not None):
        """Enter the values of attributes: they have passed.

        Raises:
            ValueError: A slice is outside.
        """
        cdef Py_ssize_t count = rows.shape[0], i
        cdef const AttributeRow* row = attribute_rows(rows)
        cdef uint64_t[2] key
        for i in range(count):
            if not hash_value(&row[i], source, key):
                raise ValueError(f"the value of attribute {i} is outside its source")
            self.put(key)

    cdef bint has(self, const uint64_t* key) except -1:
        if find(&self.recent, key) >= 0:
            return True
        if find(&self.older, key) < 0:
            return False
        self.put(key)
        return True

    cdef int put(self, const uint64_t* key) except -1:
        cdef Py_ssize_t slot
        if find(&self.recent, key) >= 0:
            return 0
        if self.recent.count >= self.max_count:
            free(self.older.slots)
            self.older = self.recent
            self.recent.slots = NULL
            self.recent.slot_count = self.recent.count = 0
        if self.recent.count * 2 >= self.recent.slot_count:
            grow(&self.recent)
        insert(&self.recent, key)
        return 0


cdef int grow(Generation* generation) except -1:
    cdef Py_ssize_t i, old_count = generation.slot_count
    cdef uint64_t* old = generation.slots
    cdef uint64_t* slots
    cdef Py_ssize_t slot_count = old_count * 2 if old_count else FIRST_SLOTS
    slots = <uint64_t*>calloc(slot_count, 16)
    if slots == NULL:
        raise MemoryError
    generation.slots, generation.slot_count, generation.count = slots, slot_count, 0
    for i in range(old_count):
        if old[2 * i]:
            insert(generation, &old[2 * i])
    free(old)
    return 0


cdef void insert(Generation* generation, const uint64_t* key) noexcept:
    """Puts a key that is not in it; there must be a free slot."""
    cdef Py_ssize_t slot = key[1] & (generation.slot_count - 1)
    while generation.slots[2 * slot]:
        slot = (slot + 1) & (generation.slot_count - 1)
    generation.slots[2 * slot], generation.slots[2 * slot + 1] = key[0], key[1]
    generation.count += 1


cdef Py_ssize_t find(const Generation* generation, const uint64_t* key) noexcept:
    cdef Py_ssize_t slot
    if not generation.count:
        return -1
    slot = key[1] & (generation.slot_count - 1)
    while generation.slots[2 * slot]:
        if generation.slots[2 * slot] == key[0] and generation.slots[2 * slot + 1] == key[1]:
            return slot
        slot = (slot + 1) & (generation.slot_count - 1)
    return -1


cdef bint hash_value(const AttributeRow* row, bytes source, uint64_t* key) noexcept:
    """The hash of a value and its kind, whose first word is not 0; False if the value is outside its source."""
    cdef Sip s
    cdef int32_t start = row.any, length = row.any_len
    cdef const uint8_t* at
    if row.kind == KIND_STRING:
        start, length = row.value, row.value_len
    if start < 0:                      # an empty value
        start = length = 0
    if length < 0 or start > PyBytes_GET_SIZE(source) - length:
        return False
    at = <const uint8_t*>PyBytes_AS_STRING(source) + start
    sip_start(&s, SECRET)
    sip_word(&s, <uint64_t>row.kind << 32 | <uint64_t>length)
    at = sip_words(&s, at, length)
    sip_end(&s, load_tail(at, length & 7) | <uint64_t>length << 56, key)
    key[0] |= 1
    return True


cdef const AttributeRow* attribute_rows(rows) except NULL:
    cdef cnp.ndarray array = rows
    if array.dtype != ATTRIBUTE or not cnp.PyArray_IS_C_CONTIGUOUS(array) or array.ndim != 1:
        raise ValueError("expected contiguous ATTRIBUTE rows")
    return <const AttributeRow*>cnp.PyArray_DATA(array)
