"""The distinct keys of one index, by open addressing over key codes.

The hash has a secret of the process, because senders choose the keys and could otherwise make every lookup a walk over
all of them.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from collector.wire.hash.places cimport slice_hash
from collector.wire.proto cimport Ptr
from collector.wire.scan.state cimport Scan, prepare, push

cdef bytes _secret = os.urandom(32)
cdef uint64_t[4] SECRET
memcpy(SECRET, PyBytes_AS_STRING(_secret), 32)


cdef void begin_keys(Keys* keys, Py_ssize_t length):
    """Starts without keys; finish_keys() must follow, even after an error."""
    memset(keys, 0, sizeof(Keys))
    keys.previous = -1
    prepare(&keys.list, sizeof(Key), length, 32)


cdef void finish_keys(Keys* keys):
    free(keys.slots)
    free(keys.hashes)
    free(keys.followers)
    free(keys.list.rows)


cdef list names_of(Scan* s, Keys* keys):
    """The keys in the order of their codes."""
    cdef Key* key
    cdef Py_ssize_t i
    names = []
    for i in range(keys.list.count):
        key = <Key*>keys.list.rows + i
        names.append(PyBytes_FromStringAndSize(<char*>s.base + key.start, key.length))
    return names


cdef int grow_keys(Scan* s, Keys* keys) noexcept nogil:
    cdef Py_ssize_t count = keys.slot_count * 2 if keys.slot_count else 64, i, slot
    cdef int32_t* slots = <int32_t*>malloc(<size_t>count * sizeof(int32_t))
    cdef uint32_t* hashes = <uint32_t*>realloc(keys.hashes, <size_t>count * sizeof(uint32_t))
    cdef int32_t* followers = <int32_t*>realloc(keys.followers, <size_t>count * sizeof(int32_t))
    if hashes != NULL:
        keys.hashes = hashes
    if followers != NULL:
        keys.followers = followers
    if slots == NULL or hashes == NULL or followers == NULL:
        free(slots)
        s.out_of_memory = True
        return -1
    free(keys.slots)
    keys.slots = slots
    keys.slot_count = count
    memset(slots, 0xFF, <size_t>count * sizeof(int32_t))
    for i in range(keys.list.count):
        slot = keys.hashes[i] & (count - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (count - 1)
        slots[slot] = <int32_t>i
    return 0


cdef int32_t add_key(Scan* s, Keys* keys, Ptr p, int32_t length) noexcept nogil:
    cdef uint32_t h = <uint32_t>slice_hash(SECRET, p, length)
    cdef Py_ssize_t slot
    cdef int32_t code
    cdef Key* key
    if keys.list.count * 2 >= keys.slot_count and grow_keys(s, keys) < 0:
        return -1
    slot = h & (keys.slot_count - 1)
    while True:
        code = keys.slots[slot]
        if code < 0:
            break
        if keys.hashes[code] == h:
            key = <Key*>keys.list.rows + code
            if key.length == length and same(s.base + key.start, p, length):
                return code
        slot = (slot + 1) & (keys.slot_count - 1)
    code = <int32_t>keys.list.count
    key = <Key*>push(s, &keys.list, p)
    if key == NULL:
        return -1
    key.start = <int32_t>(p - s.base)
    key.length = length
    keys.slots[slot] = code
    keys.hashes[code] = h
    keys.followers[code] = -1
    return code
