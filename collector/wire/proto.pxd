# Inline protobuf readers that never leave the buffer and do not need the GIL. Each takes the position and the end of
# the enclosing message and returns the position after what it read, or NULL if that does not fit or is invalid. Limits
# are those of upb, the strictest of the parsers that read our bytes: a tag has at most 5 bytes and a field number from
# 1 to 2^29 - 1, a length has at most 5 bytes, and a varint at most 64 bits. Groups are refused: no OTLP message has
# one.
# Source: https://protobuf.dev/programming-guides/encoding/
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

ctypedef const uint8_t* Ptr

cdef enum WireType:
    WIRE_VARINT = 0
    WIRE_FIXED64 = 1
    WIRE_LEN = 2
    WIRE_FIXED32 = 5

cdef extern from *:
    """
    static inline uint64_t tailrace_le64(const uint8_t *p) {
        uint64_t v; memcpy(&v, p, 8);
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        v = __builtin_bswap64(v);
    #endif
        return v;
    }
    static inline uint32_t tailrace_le32(const uint8_t *p) {
        uint32_t v; memcpy(&v, p, 4);
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        v = __builtin_bswap32(v);
    #endif
        return v;
    }
    #define TAILRACE_HIGH_BITS UINT64_C(0x8080808080808080)
    static inline uint64_t tailrace_be64(const uint8_t *p) { return __builtin_bswap64(tailrace_le64(p)); }
    """
    uint64_t load_le64 "tailrace_le64"(Ptr p) noexcept nogil      # 8 readable bytes at p
    uint32_t load_le32 "tailrace_le32"(Ptr p) noexcept nogil
    uint64_t HIGH_BITS "TAILRACE_HIGH_BITS"
    uint64_t load_be64 "tailrace_be64"(Ptr p) noexcept nogil


cdef inline Ptr read_varint(Ptr p, Ptr end, uint64_t* value) noexcept nogil:
    cdef uint64_t result = 0
    cdef uint32_t shift = 0
    cdef uint8_t byte
    while p < end:
        byte = p[0]
        p += 1
        if shift == 63 and byte > 1:      # the tenth byte holds one bit
            return NULL
        result |= (<uint64_t>(byte & 0x7F)) << shift
        if byte < 0x80:
            value[0] = result
            return p
        shift += 7
        if shift > 63:
            return NULL
    return NULL


cdef inline Ptr read_tag(Ptr p, Ptr end, uint32_t* tag) noexcept nogil:
    """tag = field number << 3 | wire type. The number is not 0; skip_field checks the wire type."""
    cdef uint64_t value = 0
    cdef Ptr start = p
    if p < end and p[0] < 0x80:
        tag[0] = p[0]
        return p + 1 if p[0] >= 8 else NULL
    p = read_varint(p, end, &value)
    if p == NULL or p - start > 5 or value >> 32 or value < 8:
        return NULL
    tag[0] = <uint32_t>value
    return p


cdef inline Ptr read_length(Ptr p, Ptr end, Ptr* stop) noexcept nogil:
    """Returns the first content byte; ``stop`` is one past the last, within the message."""
    cdef uint64_t value = 0
    cdef Ptr start = p
    if p < end and p[0] < 0x80:
        value = p[0]
        p += 1
    else:
        p = read_varint(p, end, &value)
        if p == NULL or p - start > 5:
            return NULL
    if value > <uint64_t>(end - p):
        return NULL
    stop[0] = p + value
    return p


cdef inline Ptr skip_field(Ptr p, Ptr end, uint32_t tag) noexcept nogil:
    """Skips the value of a field whose tag was just read."""
    cdef uint64_t value = 0
    cdef Ptr stop = NULL
    cdef uint32_t wire_type = tag & 7
    if wire_type == WIRE_LEN:
        return stop if read_length(p, end, &stop) != NULL else NULL
    if wire_type == WIRE_VARINT:
        return read_varint(p, end, &value)
    if wire_type == WIRE_FIXED64:
        return p + 8 if end - p >= 8 else NULL
    if wire_type == WIRE_FIXED32:
        return p + 4 if end - p >= 4 else NULL
    return NULL


cdef inline bint is_ascii(Ptr p, Py_ssize_t length) noexcept nogil:
    cdef uint64_t word, seen = 0
    cdef uint32_t head, tail
    cdef Ptr last
    if length >= 8:
        last = p + length - 8
        while p < last:
            memcpy(&word, p, 8)
            seen |= word
            p += 8
        memcpy(&word, last, 8)
        return not ((seen | word) & HIGH_BITS)
    if length >= 4:
        memcpy(&head, p, 4)
        memcpy(&tail, p + length - 4, 4)
        return not ((head | tail) & <uint32_t>HIGH_BITS)
    while length > 0:
        length -= 1
        seen |= p[length]
    return (seen & 0x80) == 0


cdef inline int utf8_step(Ptr p, Ptr end) noexcept nogil:
    """The length of the well-formed sequence at p < end, or minus that of the ill-formed one that one U+FFFD replaces.

    Source: The Unicode Standard 3.9, table 3-7 and "maximal subpart" (as in the decoders of Python and browsers).
    """
    cdef uint8_t first = p[0], low = 0x80, high = 0xBF
    cdef int length, i
    if first < 0x80:
        return 1
    if first < 0xC2 or first > 0xF4:
        return -1
    if first < 0xE0:
        length = 2
    elif first < 0xF0:
        length = 3
        if first == 0xE0:
            low = 0xA0
        elif first == 0xED:
            high = 0x9F
    else:
        length = 4
        if first == 0xF0:
            low = 0x90
        elif first == 0xF4:
            high = 0x8F
    if p + 1 >= end or p[1] < low or p[1] > high:
        return -1
    for i in range(2, length):
        if p + i >= end or (p[i] & 0xC0) != 0x80:
            return -i
    return length


cdef inline bint is_utf8(Ptr p, Ptr end) noexcept nogil:
    cdef int step
    if is_ascii(p, end - p):
        return True
    while p < end:
        step = utf8_step(p, end)
        if step < 0:
            return False
        p += step
    return True
