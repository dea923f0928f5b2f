# The distinct keys of one index. The first guess is the key that followed the previous key last time, then the table.
from libc.stdint cimport int32_t, uint32_t

from collector.wire.proto cimport Ptr, load_le32, load_le64
from collector.wire.scan.state cimport Rows, Scan

ctypedef struct Key:
    int32_t start, length

ctypedef struct Keys:
    Rows list                     # Key
    int32_t* slots                # key code, -1 = free
    uint32_t* hashes              # by key code
    Py_ssize_t slot_count
    int32_t previous              # code of the previous key
    int32_t* followers            # by key code: the code that followed it last time; items tend to repeat their keys


cdef void begin_keys(Keys* keys, Py_ssize_t length)
cdef void finish_keys(Keys* keys)
cdef list names_of(Scan* s, Keys* keys)
cdef int32_t add_key(Scan* s, Keys* keys, Ptr p, int32_t length) noexcept nogil


cdef inline bint same(Ptr a, Ptr b, int32_t length) noexcept nogil:
    """memcmp() == 0 without the call, which costs more than comparing a short key."""
    cdef int32_t at = 0
    cdef uint32_t differs = 0
    if length >= 8:
        while at < length - 8:
            if load_le64(a + at) != load_le64(b + at):
                return False
            at += 8
        return load_le64(a + length - 8) == load_le64(b + length - 8)
    if length >= 4:
        return load_le32(a) == load_le32(b) and load_le32(a + length - 4) == load_le32(b + length - 4)
    for at in range(length):
        differs |= a[at] ^ b[at]
    return differs == 0


cdef inline int32_t key_code(Scan* s, Keys* keys, Ptr p, int32_t length) noexcept nogil:
    """The code of a key, which is added if it is new; -1 after an error."""
    cdef int32_t code = -1
    cdef Key* key
    if keys.previous >= 0:
        code = keys.followers[keys.previous]
        if code >= 0:
            key = <Key*>keys.list.rows + code
            if key.length != length or not same(s.base + key.start, p, length):
                code = -1
    if code < 0:
        code = add_key(s, keys, p, length)
        if code < 0:
            return -1
        if keys.previous >= 0:
            keys.followers[keys.previous] = code
    keys.previous = code
    return code
