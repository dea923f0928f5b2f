"""The table from 128-bit keys to slots. The columns of the slots belong to ``collector.model.keytable``."""

import os

import numpy as np

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from collector.wire.hash.places cimport pair_hash

cnp.import_array()

__all__ = ["SlotTable", "clear_rows"]

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void* at) noexcept nogil   # a hint; any address may be passed

cdef enum:
    PREFETCH_ROWS = 8       # places and keys of a large table are fetched into the cache this many rows ahead
    MAX_CAPACITY = 0x3FFFFFFF
    NO_SLOT = -1            # a limit forbids a new slot
    NO_MEMORY = -2

cdef bytes _secret = os.urandom(32)
cdef uint64_t[4] SECRET
memcpy(SECRET, PyBytes_AS_STRING(_secret), 32)


cdef class SlotTable:
    """128-bit keys to slots 0, 1, 2, …, by open addressing without tombstones; freed slots are reused.

    The caller keeps the columns of the slots and must check ``capacity`` after each insert.
    """

    cdef uint64_t* key_words    # two words per slot
    cdef uint8_t* is_live
    cdef int32_t* free_slots    # a stack
    cdef int32_t* places        # the slot at each place, -1 = free
    cdef uint32_t mask
    cdef Py_ssize_t room, used, free_count

    def __cinit__(self, Py_ssize_t capacity):
        cdef uint32_t size = 16
        if capacity < 1 or capacity > MAX_CAPACITY:
            raise ValueError(f"expected a capacity from 1 to 2^30 - 1, got {capacity}")
        while size < 2 * capacity:
            size *= 2
        self.places = <int32_t*>malloc(size * sizeof(int32_t))
        if self.places == NULL:
            raise MemoryError
        memset(self.places, 0xFF, size * sizeof(int32_t))
        self.mask = size - 1
        if self.resize(capacity):
            raise MemoryError

    def __dealloc__(self):
        free(self.key_words)
        free(self.is_live)
        free(self.free_slots)
        free(self.places)

    @property
    def capacity(self):
        """The number of slots there is room for; grows on insert."""
        return self.room

    @property
    def memory_bytes(self):
        """The size of the table, without the caller's columns."""
        cdef Py_ssize_t slot_bytes = 2 * sizeof(uint64_t) + sizeof(uint8_t) + sizeof(int32_t)
        return self.room * slot_bytes + (self.mask + 1) * sizeof(int32_t)

    def __len__(self):
        return self.used - self.free_count

    cdef int resize(self, Py_ssize_t capacity) noexcept nogil:
        cdef void* block = realloc(self.key_words, capacity * 2 * sizeof(uint64_t))
        if block == NULL:
            return NO_MEMORY
        self.key_words = <uint64_t*>block
        block = realloc(self.is_live, capacity * sizeof(uint8_t))
        if block == NULL:
            return NO_MEMORY
        self.is_live = <uint8_t*>block
        block = realloc(self.free_slots, capacity * sizeof(int32_t))
        if block == NULL:
            return NO_MEMORY
        self.free_slots = <int32_t*>block
        self.room = capacity
        return 0

    cdef int rehash(self, uint32_t size) noexcept nogil:
        cdef int32_t* places = <int32_t*>malloc(size * sizeof(int32_t))
        cdef Py_ssize_t slot
        cdef uint32_t place
        if places == NULL:
            return NO_MEMORY
        memset(places, 0xFF, size * sizeof(int32_t))
        free(self.places)
        self.places = places
        self.mask = size - 1
        for slot in range(self.used):
            if self.is_live[slot]:
                place = self.home(slot)
                while places[place] >= 0:
                    place = (place + 1) & self.mask
                places[place] = <int32_t>slot
        return 0

    cdef inline uint32_t home(self, Py_ssize_t slot) noexcept nogil:
        return self.first_place(self.key_words[2 * slot], self.key_words[2 * slot + 1])

    cdef inline uint32_t first_place(self, uint64_t low, uint64_t high) noexcept nogil:
        return <uint32_t>pair_hash(SECRET, low, high) & self.mask

    cdef inline uint32_t probe(self, uint64_t low, uint64_t high) noexcept nogil:
        """The place that holds the key, or else the free place for it."""
        cdef uint32_t place = self.first_place(low, high)
        cdef int32_t slot = self.places[place]
        while slot >= 0:
            if self.key_words[2 * <Py_ssize_t>slot] == low and self.key_words[2 * <Py_ssize_t>slot + 1] == high:
                break
            place = (place + 1) & self.mask
            slot = self.places[place]
        return place

    def find(self, const uint64_t[:, :] keys):
        """I32[n]: the slot of each key, -1 if it is not in the table."""
        cdef cnp.npy_intp rows = keys.shape[0]
        cdef Py_ssize_t row
        cdef int32_t slot
        cdef uint32_t place
        if keys.shape[1] != 2:
            raise ValueError("keys must be U64[n,2]")
        cdef cnp.ndarray slots = cnp.PyArray_SimpleNew(1, &rows, cnp.NPY_INT32)
        cdef int32_t* out = <int32_t*>cnp.PyArray_DATA(slots)
        for row in range(rows):
            if row + 2 * PREFETCH_ROWS < rows:
                place = self.first_place(keys[row + 2 * PREFETCH_ROWS, 0], keys[row + 2 * PREFETCH_ROWS, 1])
                prefetch(&self.places[place])
            if row + PREFETCH_ROWS < rows:
                slot = self.places[self.first_place(keys[row + PREFETCH_ROWS, 0], keys[row + PREFETCH_ROWS, 1])]
                prefetch(&self.key_words[2 * <Py_ssize_t>max(slot, 0)])
            out[row] = self.places[self.probe(keys[row, 0], keys[row, 1])]
        return slots

    def insert(self, const uint64_t[:, :] keys, Py_ssize_t live_limit, Py_ssize_t slot_limit):
        """Finds or inserts each key: ``(slots I32[n], is_new bool[n], reused bool)``.

        The slot is -1 where a limit forbids a new one; ``reused`` says whether a freed slot was taken.

        Args:
            keys: A key that occurs twice gets one slot, which is new at its first row.
            live_limit: No new slot is given once this many are in use.
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
        cdef int32_t* out = <int32_t*>cnp.PyArray_DATA(slots)
        cdef uint8_t* out_new = <uint8_t*>cnp.PyArray_DATA(is_new)
        for row in range(rows):
            place = self.probe(keys[row, 0], keys[row, 1])
            slot = self.places[place]
            if slot < 0:
                slot = self.take(live_limit, slot_limit, &reused)
                if slot == NO_MEMORY:
                    raise MemoryError
                if slot >= 0:
                    self.key_words[2 * <Py_ssize_t>slot] = keys[row, 0]
                    self.key_words[2 * <Py_ssize_t>slot + 1] = keys[row, 1]
                    self.is_live[slot] = 1
                    self.places[place] = slot
                    out_new[row] = 1
                    if 2 * (self.used - self.free_count) > <Py_ssize_t>self.mask and self.rehash(2 * (self.mask + 1)):
                        raise MemoryError
            out[row] = slot
        return slots, is_new, reused

    cdef int32_t take(self, Py_ssize_t live_limit, Py_ssize_t slot_limit, bint* reused) noexcept nogil:
        """A free slot, or NO_SLOT or NO_MEMORY."""
        cdef Py_ssize_t wanted
        if self.used - self.free_count >= live_limit:
            return NO_SLOT
        if self.free_count:
            self.free_count -= 1
            reused[0] = True
            return self.free_slots[self.free_count]
        if self.used == self.room:
            wanted = min(2 * self.room, slot_limit)
            if wanted <= self.room:
                return NO_SLOT
            if self.resize(wanted):
                return NO_MEMORY
        self.used += 1
        return <int32_t>(self.used - 1)

    def remove(self, const int32_t[:] slots):
        """Frees slots. -1 and slots that are already free are ignored.

        Raises:
            IndexError: A slot was never in use; nothing is removed then.
        """
        cdef Py_ssize_t i
        cdef const uint64_t* key
        for i in range(slots.shape[0]):
            if slots[i] < -1 or slots[i] >= self.used:
                raise IndexError(f"slot {slots[i]} was never in use")
        for i in range(slots.shape[0]):
            if slots[i] >= 0 and self.is_live[slots[i]]:
                key = self.key_words + 2 * <Py_ssize_t>slots[i]
                self.vacate(self.probe(key[0], key[1]))
                self.is_live[slots[i]] = 0
                self.free_slots[self.free_count] = slots[i]
                self.free_count += 1

    cdef void vacate(self, uint32_t hole) noexcept nogil:
        """Empties a place and moves later entries up, so that no search ends too early."""
        cdef uint32_t place = hole
        cdef uint32_t home
        while True:
            place = (place + 1) & self.mask
            if self.places[place] < 0:
                break
            home = self.home(self.places[place])
            # It may move into the hole unless its home is behind the hole, in ring order.
            if ((place - home) & self.mask) >= ((place - hole) & self.mask):
                self.places[hole] = self.places[place]
                hole = place
        self.places[hole] = -1

    def keys(self, const int32_t[:] slots):
        """U64[k,2]: the keys of slots in use.

        Raises:
            IndexError: A slot is not in use.
        """
        cdef cnp.npy_intp[2] shape = [slots.shape[0], 2]
        cdef cnp.ndarray keys = cnp.PyArray_SimpleNew(2, shape, cnp.NPY_UINT64)
        cdef uint64_t* out = <uint64_t*>cnp.PyArray_DATA(keys)
        cdef Py_ssize_t i
        for i in range(slots.shape[0]):
            if slots[i] < 0 or slots[i] >= self.used or not self.is_live[slots[i]]:
                raise IndexError(f"slot {slots[i]} is not in use")
            memcpy(out + 2 * i, self.key_words + 2 * <Py_ssize_t>slots[i], 16)
        return keys

    def live(self):
        """I32: the slots in use, in ascending order."""
        cdef cnp.npy_intp size = self.used
        if size == 0:
            return np.zeros(0, np.int32)
        return np.flatnonzero(<uint8_t[:size]>self.is_live).astype(np.int32)


def clear_rows(list columns, const int32_t[:] slots):
    """Sets the rows ``slots`` of each column to zero bytes, ignoring slots that are outside a column.

    Args:
        columns: Writable, contiguous arrays with one row per slot and without Python objects.
        slots: The rows to clear.

    Raises:
        ValueError: A column is not such an array.
    """
    cdef cnp.ndarray column
    cdef uint8_t* base
    cdef Py_ssize_t i, count, row_bytes
    for column in columns:
        if not cnp.PyArray_ISCARRAY(column) or cnp.PyArray_NDIM(column) < 1 or column.dtype.hasobject:
            raise ValueError("a column must be writable, contiguous and without Python objects")
        count = cnp.PyArray_DIM(column, 0)
        row_bytes = cnp.PyArray_NBYTES(column) // count if count else 0
        base = <uint8_t*>cnp.PyArray_DATA(column)
        for i in range(slots.shape[0]):
            if 0 <= slots[i] < count:
                memset(base + slots[i] * row_bytes, 0, row_bytes)
