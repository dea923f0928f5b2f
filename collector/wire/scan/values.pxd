# Validation of attributes, inline for their common form, and reading of the kind and content of an AnyValue.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from collector.wire.layout cimport KIND_DOUBLE, KIND_EMPTY, AttributeRow
from collector.wire.proto cimport Ptr, is_ascii
from collector.wire.scan.readers cimport other_field, take_fixed64, take_length, take_tag, take_varint
from collector.wire.scan.state cimport Scan, within


cdef int check_key_value(Scan* s, Ptr p, Ptr end, int depth) noexcept nogil
cdef int check_any(Scan* s, Ptr p, Ptr end, int depth) noexcept nogil


cdef inline bint is_plain(Ptr p, Ptr end) noexcept nogil:
    """Whether a KeyValue has the common form: a short ASCII key, then a number, a bool or a short ASCII text."""
    cdef Ptr value
    if end - p < 6 or p[0] != 0x0A or p[1] > end - p - 4 or p[1] >= 0x80:
        return False
    value = p + 2 + p[1]
    if value[0] != 0x12 or value[1] >= 0x80 or value[1] != end - value - 2 or value[1] < 2 or not is_ascii(p + 2, p[1]):
        return False
    value += 2
    if value[0] == 0x0A:
        return value[1] == end - value - 2 and is_ascii(value + 2, value[1])
    if value[0] == 0x18 or value[0] == 0x10:
        return value[1] < 0x80 and end - value == 2 or value[1] >= 0x80 and end - value == 3 and value[2] < 0x80
    return value[0] == 0x21 and end - value == 9


cdef inline Ptr take_attribute(Scan* s, Ptr p, Ptr end, const char* name, int32_t* count) noexcept nogil:
    cdef Ptr stop = NULL
    p = take_length(s, p, end, &stop)
    if p == NULL or (s.deep and not is_plain(p, stop) and check_key_value(s, p, stop, 1) < 0):
        within(s, name)
        return NULL
    count[0] += 1
    return stop


cdef inline int read_any(Scan* s, Ptr p, Ptr end, AttributeRow* row) noexcept nogil:
    """Fills the kind and content of a validated AnyValue without descending; the last member of the oneof counts."""
    cdef uint32_t tag = 0
    cdef uint64_t number = 0
    cdef Ptr start, stop = NULL
    row.kind = KIND_EMPTY
    row.value = -1
    row.value_len = 0
    row.int_value = 0
    row.double_value = 0
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        if tag == 0x0A or tag == 0x2A or tag == 0x32 or tag == 0x3A:
            p = take_length(s, p, end, &stop)
            if p == NULL:
                return -1
            row.kind = tag >> 3
            row.value = <int32_t>(p - s.base)
            row.value_len = <int32_t>(stop - p)
            row.int_value = 0
            row.double_value = 0
            p = stop
        elif tag == 0x10 or tag == 0x18:
            p = take_varint(s, p, end, &number)
            row.kind = tag >> 3
            row.value = -1
            row.value_len = 0
            row.int_value = <int64_t>number if tag == 0x18 else number != 0
            row.double_value = 0
        elif tag == 0x21:
            p = take_fixed64(s, p, end, &row.double_value)
            row.kind = KIND_DOUBLE
            row.value = -1
            row.value_len = 0
            row.int_value = 0
        else:
            p = other_field(s, start, p, end, tag, 0xFE, 0)
        if p == NULL:
            return -1
    return 0
