# A growing byte buffer for kernels that write protobuf or JSON, usable without the GIL. When memory runs out,
# ``failed`` is set and later writes do nothing; take() then raises MemoryError, so that callers need not check each
# write. Call open_writer, write, take the bytes, and always close_writer, which may be called twice.
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

ctypedef struct Writer:
    uint8_t* data
    Py_ssize_t size, room
    bint failed


cdef inline void open_writer(Writer* w, Py_ssize_t room) noexcept nogil:
    w.size = 0
    w.room = room if room > 64 else 64
    w.data = <uint8_t*>malloc(w.room)
    w.failed = w.data == NULL


cdef inline void close_writer(Writer* w) noexcept nogil:
    free(w.data)
    w.data = NULL
    w.failed = True


cdef inline bytes take(Writer* w):
    """The bytes written."""
    if w.failed:
        raise MemoryError
    return PyBytes_FromStringAndSize(<char*>w.data, w.size)


cdef inline bint reserve(Writer* w, Py_ssize_t length) noexcept nogil:
    """Makes room for ``length`` more bytes; False without memory."""
    cdef Py_ssize_t room
    cdef uint8_t* data
    if w.size + length <= w.room and not w.failed:
        return True
    if w.failed:
        return False
    room = 2 * w.room
    if room < w.size + length:
        room = w.size + length
    data = <uint8_t*>realloc(w.data, room)
    if data == NULL:
        w.failed = True
        return False
    w.data = data
    w.room = room
    return True


cdef inline int varint_size(uint64_t value) noexcept nogil:
    cdef int size = 1
    while value >= 128:
        value >>= 7
        size += 1
    return size


cdef inline uint8_t* set_varint(uint8_t* at, uint64_t value) noexcept nogil:
    while value >= 128:
        at[0] = <uint8_t>(value | 128)
        value >>= 7
        at += 1
    at[0] = <uint8_t>value
    return at + 1


cdef inline void put_byte(Writer* w, uint8_t value) noexcept nogil:
    if reserve(w, 1):
        w.data[w.size] = value
        w.size += 1


cdef inline void put_varint(Writer* w, uint64_t value) noexcept nogil:
    if reserve(w, 10):
        w.size = set_varint(w.data + w.size, value) - w.data


cdef inline void put_bytes(Writer* w, const void* data, Py_ssize_t length) noexcept nogil:
    if length > 0 and reserve(w, length):
        memcpy(w.data + w.size, data, length)
        w.size += length


cdef inline void put_slice(Writer* w, uint32_t tag, const void* data, Py_ssize_t length) noexcept nogil:
    """Writes a length-delimited field; ``tag`` is number << 3 | 2."""
    if reserve(w, length + 20):
        w.size = set_varint(set_varint(w.data + w.size, tag), <uint64_t>length) - w.data
        if length > 0:
            memcpy(w.data + w.size, data, length)
            w.size += length


cdef inline void put_fixed64(Writer* w, uint32_t tag, uint64_t value) noexcept nogil:
    """Writes a fixed64, sfixed64 or, by its bits, double field; ``tag`` is number << 3 | 1."""
    if reserve(w, 18):
        w.size = set_varint(w.data + w.size, tag) - w.data
        memcpy(w.data + w.size, &value, 8)
        w.size += 8


cdef inline void put_fixed32(Writer* w, uint32_t tag, uint32_t value) noexcept nogil:
    if reserve(w, 14):
        w.size = set_varint(w.data + w.size, tag) - w.data
        memcpy(w.data + w.size, &value, 4)
        w.size += 4


cdef inline void put_number(Writer* w, uint32_t tag, uint64_t value) noexcept nogil:
    """Writes a varint field; ``tag`` is number << 3."""
    if reserve(w, 20):
        w.size = set_varint(set_varint(w.data + w.size, tag), value) - w.data


cdef inline Py_ssize_t begin(Writer* w, uint32_t tag) noexcept nogil:
    """Starts a nested message; pass the result to ``end``, which makes more room if the length needs over a byte."""
    put_varint(w, tag)
    put_byte(w, 0)
    return w.size


cdef inline void end(Writer* w, Py_ssize_t mark) noexcept nogil:
    cdef Py_ssize_t length = w.size - mark
    cdef int size = varint_size(<uint64_t>length)
    if w.failed:
        return
    if size > 1:
        if not reserve(w, size - 1):
            return
        memmove(w.data + mark + size - 1, w.data + mark, length)
        w.size += size - 1
    set_varint(w.data + mark - 1, <uint64_t>length)
