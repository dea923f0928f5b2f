# The readers of proto.pxd for a scan. Each returns the position after what it read, or NULL after setting the error of
# the scan with fail(). They also note what must be rewritten before the request may pass (Flag) and ids of a wrong
# length (ItemError).
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy

from collector.wire.proto cimport Ptr, is_ascii, is_utf8, load_be64, load_le32, load_le64, read_varint
from collector.wire.scan.state cimport BAD_SPAN_ID, BAD_TEXT, BAD_TRACE_ID, Scan, fail, likely


cdef Ptr long_tag(Scan* s, Ptr p, Ptr end, uint32_t* tag) noexcept nogil
cdef Ptr long_length(Scan* s, Ptr p, Ptr end, Ptr* stop) noexcept nogil
cdef Ptr skip_long_varint(Ptr p, Ptr end) noexcept nogil
cdef Ptr other_field(Scan* s, Ptr start, Ptr p, Ptr end, uint32_t tag, uint32_t known, uint32_t old) noexcept nogil


cdef inline Ptr take_tag(Scan* s, Ptr p, Ptr end, uint32_t* tag) noexcept nogil:
    cdef uint32_t long_one = 0             # a separate variable, because one whose address is passed on stays in memory
    if 8 <= p[0] < 0x80:
        tag[0] = p[0]
        return p + 1
    p = long_tag(s, p, end, &long_one)
    tag[0] = long_one
    return p


cdef inline Ptr take_length(Scan* s, Ptr p, Ptr end, Ptr* stop) noexcept nogil:
    cdef Ptr long_one = NULL               # see take_tag
    if likely(p < end and p[0] < 0x80 and p[0] < end - p):
        stop[0] = p + 1 + p[0]
        return p + 1
    p = long_length(s, p, end, &long_one)
    stop[0] = long_one
    return p


cdef inline Ptr take_text(Scan* s, Ptr p, Ptr end, int32_t* start, int32_t* length) noexcept nogil:
    cdef Ptr stop = NULL
    p = take_length(s, p, end, &stop)
    if p == NULL:
        return NULL
    start[0] = <int32_t>(p - s.base)
    length[0] = <int32_t>(stop - p)
    if s.deep and not is_ascii(p, stop - p) and not is_utf8(p, stop):
        s.flags |= BAD_TEXT
    return stop


cdef inline Ptr skip_text(Scan* s, Ptr p, Ptr end) noexcept nogil:
    cdef int32_t start, length
    return take_text(s, p, end, &start, &length)


cdef inline Ptr take_varint(Scan* s, Ptr p, Ptr end, uint64_t* value) noexcept nogil:
    cdef Ptr after
    if p < end and p[0] < 0x80:
        value[0] = p[0]
        return p + 1
    after = read_varint(p, end, value)
    return after if after != NULL else fail(s, p, "the varint is truncated or longer than 64 bits")


cdef inline Ptr skip_varint(Scan* s, Ptr p, Ptr end) noexcept nogil:
    cdef uint64_t value
    return take_varint(s, p, end, &value)


cdef inline Ptr take_int(Scan* s, Ptr p, Ptr end, int32_t* value) noexcept nogil:
    cdef uint64_t number = 0
    p = take_varint(s, p, end, &number)
    value[0] = <int32_t>number
    return p


cdef inline Ptr take_zigzag(Scan* s, Ptr p, Ptr end, int32_t* value) noexcept nogil:
    cdef uint64_t number = 0
    p = take_varint(s, p, end, &number)
    value[0] = <int32_t>((<uint32_t>number >> 1) ^ (0 - (<uint32_t>number & 1)))
    return p


cdef inline Ptr take_fixed64(Scan* s, Ptr p, Ptr end, void* value) noexcept nogil:
    cdef uint64_t bits
    if end - p < 8:
        return fail(s, p, "the fixed64 is truncated")
    bits = load_le64(p)
    memcpy(value, &bits, 8)
    return p + 8


cdef inline Ptr take_fixed32(Scan* s, Ptr p, Ptr end, uint32_t* value) noexcept nogil:
    if end - p < 4:
        return fail(s, p, "the fixed32 is truncated")
    value[0] = load_le32(p)
    return p + 4


cdef inline Ptr take_trace_id(Scan* s, Ptr p, Ptr end, uint64_t* high, uint64_t* low) noexcept nogil:
    cdef Ptr stop = NULL
    p = take_length(s, p, end, &stop)
    if p == NULL:
        return NULL
    high[0] = low[0] = 0
    if stop - p == 16:
        high[0] = load_be64(p)
        low[0] = load_be64(p + 8)
    elif stop != p:
        s.item_error |= BAD_TRACE_ID
    return stop


cdef inline Ptr take_span_id(Scan* s, Ptr p, Ptr end, uint64_t* value) noexcept nogil:
    cdef Ptr stop = NULL
    p = take_length(s, p, end, &stop)
    if p == NULL:
        return NULL
    value[0] = 0
    if stop - p == 8:
        value[0] = load_be64(p)
    elif stop != p:
        s.item_error |= BAD_SPAN_ID
    return stop


cdef inline Ptr pass_over(Scan* s, Ptr start, Ptr p, Ptr end, uint32_t tag) noexcept nogil:
    """Skips any field, quickly, in bytes that were validated before."""
    if (tag & 7) == 2 and p < end and p[0] < 0x80 and p[0] < end - p:
        return p + 1 + p[0]
    if (tag & 7) == 1 and end - p >= 8:
        return p + 8
    if (tag & 7) == 0 and p < end and p[0] < 0x80:
        return p + 1
    return other_field(s, start, p, end, tag, 0, 0)
