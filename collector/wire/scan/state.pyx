"""The state of a scan and its conversion to Python: rows that grow within a limit, the error, and rejected items.

It does not read bytes (``readers``) and does not know any message.
"""

import numpy as np

from collector.wire.errors import MalformedBatch

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from collector.wire.proto cimport Ptr

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(
        PyTypeObject*, cnp.PyArray_Descr*, int, cnp.npy_intp*, cnp.npy_intp*, void*, int, PyObject*
    )
    void PyArray_UpdateFlags(cnp.ndarray, int)

cdef enum:
    # An untrusted request may need row arrays of this many times its size each, plus FREE_ROWS rows. Two bytes can make
    # a row of 200, so without a limit 20 MiB of empty messages would take 2 GB. The smallest real span or point has 20
    # bytes and needs a factor of 11, a record of one letter 18. Trusted bytes are bounded by two bytes per row alone,
    # because a rewrite may have left little in each item.
    ROW_BYTES_PER_BYTE = 32
    # For requests well above 20 MiB, so that one of 64 MiB cannot take much more memory than one of 20 MiB.
    ROW_BYTES_PER_BYTE_OF_LARGE = 11
    LARGE_BYTES = 20 * 1024 * 1024
    FREE_ROWS = 1024


cdef Ptr fail(Scan* s, Ptr p, const char* reason, uint32_t tag=0) noexcept nogil:
    s.reason = reason
    s.offset = p - s.base
    s.tag = tag
    return NULL


cdef int within(Scan* s, const char* name) noexcept nogil:
    if s.path_length < MAX_PATH:
        s.path[s.path_length] = name
        s.path_length += 1
    return -1


cdef int reject(Scan* s, int32_t start, int32_t end, int64_t count) noexcept nogil:
    cdef Range* drop
    if s.lists_unknown:
        return 0
    drop = <Range*>push(s, &s.drops, s.base + start)
    if drop == NULL:
        return -1
    drop.start = start
    drop.end = end
    s.rejected += count
    s.item_errors |= s.item_error
    return 0


cdef void* push_slow(Scan* s, Rows* rows, Ptr p) noexcept nogil:
    cdef Py_ssize_t capacity
    cdef void* grown
    if rows.count >= rows.limit:
        fail(s, p, "the request has more empty messages than its size allows")
        return NULL
    capacity = rows.capacity * 2
    if capacity < 16:
        capacity = 16
    if capacity > rows.limit:
        capacity = rows.limit
    grown = realloc(rows.rows, <size_t>(capacity * rows.size))
    if grown == NULL:
        s.out_of_memory = True
        fail(s, p, "out of memory")
        return NULL
    rows.rows = <uint8_t*>grown
    rows.capacity = capacity
    rows.count += 1
    return rows.rows + (rows.count - 1) * rows.size


cdef int begin(Scan* s, bytes wire, int signal, bint deep) except -1:
    cdef Py_ssize_t length = PyBytes_GET_SIZE(wire)
    if length > 0x7FFFFFFF:
        raise MalformedBatch("", 0, "the request has 2 GiB or more")
    memset(s, 0, sizeof(Scan))
    s.base = <Ptr>PyBytes_AS_STRING(wire)
    s.length = length
    s.signal = signal
    s.deep = deep
    return 0


cdef Py_ssize_t row_bytes_limit(Py_ssize_t length) noexcept nogil:
    """How many bytes of rows an untrusted request of this length may need, in addition to FREE_ROWS rows."""
    cdef Py_ssize_t limit = (length if length < LARGE_BYTES else LARGE_BYTES) * ROW_BYTES_PER_BYTE
    cdef Py_ssize_t large_limit = length * ROW_BYTES_PER_BYTE_OF_LARGE
    return limit if limit > large_limit else large_limit


cdef void prepare(Rows* rows, Py_ssize_t size, Py_ssize_t length, Py_ssize_t expected, bint from_outside=False):
    memset(rows, 0, sizeof(Rows))
    rows.size = size
    rows.limit = FREE_ROWS + row_bytes_limit(length) // size if from_outside else 1 + length // 2
    rows.capacity = expected
    rows.rows = <uint8_t*>malloc(<size_t>(expected * size))
    if rows.rows == NULL:
        rows.capacity = 0                  # push() tries again and reports the error


cdef void finish(Scan* s):
    free(s.resources.rows)
    free(s.scopes.rows)
    free(s.metrics.rows)
    free(s.items.rows)
    free(s.drops.rows)
    s.resources.rows = s.scopes.rows = s.metrics.rows = s.items.rows = s.drops.rows = NULL


cdef object error(Scan* s, str prefix=""):
    if s.out_of_memory:
        return MemoryError()
    cdef int i
    names = [prefix] if prefix else []
    for i in range(s.path_length - 1, -1, -1):
        names.append(s.path[i].decode())
    reason = s.reason.decode()
    if s.tag:
        reason += f": field {s.tag >> 3}, wire type {s.tag & 7}"
    return MalformedBatch(".".join(names), s.offset, reason)


@cython.final
cdef class Memory:
    """Owns the rows of a numpy array."""

    cdef void* rows

    def __dealloc__(self):
        free(self.rows)


cdef object array(Rows* rows, object dtype):
    """A read-only record array of the rows, which it takes over."""
    cdef Memory memory
    cdef void* shrunk
    cdef cnp.npy_intp count
    if rows.count == 0:
        empty = np.empty(0, dtype)
        empty.flags.writeable = False
        return empty
    memory = Memory.__new__(Memory)
    if rows.capacity - rows.count > rows.count >> 3:
        shrunk = realloc(rows.rows, <size_t>(rows.count * rows.size))
        if shrunk != NULL:
            rows.rows = <uint8_t*>shrunk
    memory.rows = rows.rows
    rows.rows = NULL
    # Like np.frombuffer, which costs more than the scan of a small request.
    count = rows.count
    Py_INCREF(dtype)  # PyArray_NewFromDescr steals a reference
    cdef cnp.ndarray made = PyArray_NewFromDescr(
        <PyTypeObject*>cnp.ndarray,
        <cnp.PyArray_Descr*>dtype,
        1,
        &count,
        NULL,
        memory.rows,
        cnp.NPY_ARRAY_CARRAY_RO,
        NULL,
    )
    PyArray_UpdateFlags(made, cnp.NPY_ARRAY_ALIGNED)
    cnp.set_array_base(made, memory)
    return made
