"""Validates values and attributes to full depth. Attributes are indexed on demand (``index``).

Source: ``common.proto`` (AnyValue, ArrayValue, KeyValueList, KeyValue) of opentelemetry-proto 1.x.
"""

from libc.stdint cimport uint32_t

from collector.wire.proto cimport Ptr
from collector.wire.scan.readers cimport other_field, skip_text, skip_varint, take_length, take_tag
from collector.wire.scan.state cimport NOT_PLAIN, OLD_FIELD, Scan, fail, within

cdef enum:
    # Of nested AnyValues, including the outermost. 8 messages above the value of an exemplar and 3 for each list of
    # key-values stay below the 100 messages that upb parses.
    MAX_DEPTH = 30


cdef int check_key_value(Scan* s, Ptr p, Ptr end, int depth) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0
    cdef Ptr start, stop = NULL
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        if tag == 0x0A:
            again |= seen & 1
            seen |= 1
            p = skip_text(s, p, end)
            if p == NULL:
                return within(s, "key")
        elif tag == 0x12:
            again |= seen & 2
            seen |= 2
            p = take_length(s, p, end, &stop)
            if p == NULL or check_any(s, p, stop, depth) < 0:
                return within(s, "value")
            p = stop
        elif tag == 0x18:                  # key_strindex: profiles only, unknown to most decoders
            s.flags |= OLD_FIELD
            p = skip_varint(s, p, end)
        else:
            p = other_field(s, start, p, end, tag, 0x0E, 0)
        if p == NULL:
            return -1
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef int check_any(Scan* s, Ptr p, Ptr end, int depth) noexcept nogil:
    cdef uint32_t tag = 0
    cdef int members = 0
    cdef Ptr start, stop = NULL
    if depth > MAX_DEPTH:
        fail(s, p, "values nest deeper than 30")
        return -1
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        members += 1
        if tag == 0x0A:
            p = skip_text(s, p, end)
        elif tag == 0x18 or tag == 0x10:
            p = skip_varint(s, p, end)
        elif tag == 0x21:
            p = p + 8 if end - p >= 8 else fail(s, p, "the fixed64 is truncated")
        elif tag == 0x2A or tag == 0x32:
            p = take_length(s, p, end, &stop)
            if p == NULL or check_list(s, p, stop, depth, tag == 0x32) < 0:
                return within(s, "kvlist_value" if tag == 0x32 else "array_value")
            p = stop
        elif tag == 0x3A:
            if take_length(s, p, end, &p) == NULL:
                return within(s, "bytes_value")
        elif tag == 0x40:                  # string_value_strindex: profiles only, and not part of the oneof everywhere
            s.flags |= OLD_FIELD
            members -= 1
            p = skip_varint(s, p, end)
        else:
            members -= 1
            p = other_field(s, start, p, end, tag, 0x1FE, 0)
        if p == NULL:
            return -1
    if members > 1:
        s.flags |= NOT_PLAIN
    return 0


cdef int check_list(Scan* s, Ptr p, Ptr end, int depth, bint key_values) noexcept nogil:
    """Checks an ArrayValue or a KeyValueList; both have one repeated field, number 1."""
    cdef uint32_t tag = 0
    cdef Ptr start, stop = NULL
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        if tag == 0x0A:
            p = take_length(s, p, end, &stop)
            if p == NULL:
                return within(s, "values")
            if (check_key_value(s, p, stop, depth + 1) if key_values else check_any(s, p, stop, depth + 1)) < 0:
                return within(s, "values")
            p = stop
        else:
            p = other_field(s, start, p, end, tag, 0x02, 0)
            if p == NULL:
                return -1
    return 0
