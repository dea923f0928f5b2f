"""The rare cases of the readers, kept out of the inline ones (``readers.pxd``), which are faster without them.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from libc.stdint cimport int32_t, uint32_t

from collector.wire.proto cimport WIRE_VARINT, Ptr, read_length, read_tag, skip_field
from collector.wire.scan.state cimport NOT_PLAIN, OLD_FIELD, Range, Scan, fail, push


cdef Ptr long_tag(Scan* s, Ptr p, Ptr end, uint32_t* tag) noexcept nogil:
    cdef Ptr after = read_tag(p, end, tag)
    if after == NULL:
        return fail(s, p, "invalid field tag (truncated, longer than 5 bytes, or field number 0)")
    if after - p > 1 and (after - 1)[0] == 0:
        s.flags |= NOT_PLAIN
    return after


cdef Ptr long_length(Scan* s, Ptr p, Ptr end, Ptr* stop) noexcept nogil:
    cdef Ptr body = read_length(p, end, stop)
    if body == NULL:
        return fail(s, p, "the length is truncated or reaches beyond the enclosing message")
    if body - p > 1 and (body - 1)[0] == 0:
        s.flags |= NOT_PLAIN
    return body


cdef Ptr skip_long_varint(Ptr p, Ptr end) noexcept nogil:
    """Skips a varint of at most 10 bytes, of whatever value: upb and gogo accept them in fields that they skip."""
    cdef Ptr last = p + 10 if end - p > 10 else end
    while p < last:
        p += 1
        if (p - 1)[0] < 0x80:
            return p
    return NULL


cdef Ptr other_field(Scan* s, Ptr start, Ptr p, Ptr end, uint32_t tag, uint32_t known, uint32_t old) noexcept nogil:
    """Skips a field that the message does not know.

    Refuses a known field (by its bit in ``known``), which then has a wrong wire type, notes an ``old`` one, and lists
    the field if the scan asks for that.
    """
    cdef uint32_t number = tag >> 3
    cdef Ptr after
    if number < 32:
        if (known >> number) & 1:
            return fail(s, start, "a known field has a wrong wire type", tag)
        if (old >> number) & 1:
            s.flags |= OLD_FIELD
    after = skip_field(p, end, tag)
    if after == NULL and (tag & 7) == WIRE_VARINT:
        after = skip_long_varint(p, end)
        if after != NULL:
            s.flags |= OLD_FIELD           # rewritten in 64 bits, because not every decoder accepts it
    if after == NULL:
        if (tag & 7) == 3 or (tag & 7) == 4:
            return fail(s, start, "groups are not allowed", tag)
        if (tag & 7) > 5:
            return fail(s, start, "invalid wire type", tag)
        return fail(s, start, "an unknown field is truncated or reaches beyond the enclosing message", tag)
    if s.lists_unknown and not list_unknown(s, start, after):
        return NULL
    return after


cdef bint list_unknown(Scan* s, Ptr start, Ptr end) noexcept nogil:
    """Adds a field to the drops; False after an error. Some values are read twice, and listed the first time."""
    cdef int32_t at = <int32_t>(start - s.base)
    cdef Range* field
    if s.drops.count and (<Range*>s.drops.rows)[s.drops.count - 1].start >= at:
        return True
    field = <Range*>push(s, &s.drops, start)
    if field == NULL:
        return False
    field.start, field.end = at, <int32_t>(end - s.base)
    return True
