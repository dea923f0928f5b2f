"""The scan: validates an Export…ServiceRequest to full depth and lists where its items are, in one pass over the bytes.

It is not a decoder: rows are offsets and numbers (``layout.py``), attributes and children are indexed when first asked for. Its rules are
those of "what the door lets in" (docs/architecture.md): whatever is accepted reads the same in every parser.

Sources: opentelemetry-proto 1.x for fields; https://protobuf.dev/programming-guides/encoding/ for the encoding; upb and the Collector's
pdata for what parsers refuse.
"""

import numpy as np

from collector.wire.errors import MalformedBatch
from collector.wire import layout
from collector.wire.normalise import reencode
from collector.wire.scan_repair import repair

cimport cython
cimport numpy as cnp
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from collector.wire.layout cimport (
    AttributeRow, EventRow, ExemplarRow, FrameRow, LinkRow, MetricRow, PointRow, QuantileRow, RecordRow, ResourceRow, ScopeRow, SpanRow,
)
from collector.wire.proto cimport (
    Ptr, is_ascii, is_utf8, load_be64, load_le32, load_le64, read_length, read_tag, read_varint, skip_field,
)

import os

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(PyTypeObject*, cnp.PyArray_Descr*, int, cnp.npy_intp*, cnp.npy_intp*, void*, int, PyObject*)
    void PyArray_UpdateFlags(cnp.ndarray, int)

__all__ = ["check", "find_field", "index_attributes", "index_children", "scan"]

cdef enum:
    # What comes from outside may need row arrays of this many times its size each, and FREE_ROWS rows: two bytes make a row of 200, so
    # without a limit 20 MiB of empty messages would take 2 GB. The smallest real span or point has 20 bytes and needs a factor of 11,
    # a record of one letter 18. Our own bytes are bounded by two bytes a row alone: a rewrite may have left little in each item.
    ROW_BYTES_PER_BYTE = 32
    FREE_ROWS = 1024
    # Nested AnyValues, the outermost included. 8 messages above an exemplar's value + 3 for each list of key-values stay below
    # the 100 messages that upb parses.
    MAX_DEPTH = 30
    MAX_PATH = 128

cdef enum Signal:
    TRACES = 0
    METRICS = 1
    LOGS = 2

cdef enum Flag:                   # the request is legal, but must be rewritten before it may pass
    BAD_TEXT = 1                  # invalid UTF-8
    OLD_FIELD = 2                 # instrumentation-library fields; fields that only old or only new decoders know
    NOT_PLAIN = 4                 # repeated singular field or oneof, unpacked numbers, tag or length too long

cdef enum ItemError:
    BAD_TRACE_ID = 1
    BAD_SPAN_ID = 2
    NO_NAME = 4

cdef enum Kind:
    KIND_EMPTY = 0
    KIND_STRING = 1
    KIND_BOOL = 2
    KIND_INT = 3
    KIND_DOUBLE = 4
    KIND_ARRAY = 5
    KIND_MAP = 6
    KIND_BYTES = 7
    KIND_ABSENT = 255

ctypedef struct Rows:
    uint8_t* rows
    Py_ssize_t count, capacity, limit, size

ctypedef struct Scan:
    Ptr base
    Py_ssize_t length
    int signal
    bint deep                     # False: bytes of our own; find the rows, do not validate what is below them
    bint only_frames              # of items: where they stand, not what is in them
    uint32_t flags
    uint32_t item_error           # ItemError of the item being read
    uint32_t item_errors          # of all items
    int64_t rejected
    Rows resources, scopes, metrics, items
    Rows drops                    # Range: items to be cut out, in document order
    bint out_of_memory
    const char* reason            # NULL: no error
    Py_ssize_t offset
    uint32_t tag                  # of the wrong field, 0: none
    const char* path[MAX_PATH]    # innermost first
    int path_length

ctypedef struct Range:
    int32_t start, end

ctypedef struct Key:
    int32_t start, length


# --- errors and rows ---

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


cdef void* push_slow(Scan* s, Rows* rows, Ptr p) noexcept nogil:
    cdef Py_ssize_t capacity
    cdef void* grown
    if rows.count >= rows.limit:
        fail(s, p, "more empty messages than a request of this size may hold")
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


cdef inline void* push(Scan* s, Rows* rows, Ptr p) noexcept nogil:
    if rows.count == rows.capacity:
        return push_slow(s, rows, p)
    rows.count += 1
    return rows.rows + (rows.count - 1) * rows.size


# --- reading with the error noted ---

cdef Ptr long_tag(Scan* s, Ptr p, Ptr end, uint32_t* tag) noexcept nogil:
    cdef Ptr after = read_tag(p, end, tag)
    if after == NULL:
        return fail(s, p, "no valid field tag (truncated, longer than 5 bytes, or field number 0)")
    if after - p > 1 and (after - 1)[0] == 0:
        s.flags |= NOT_PLAIN
    return after


cdef inline Ptr take_tag(Scan* s, Ptr p, Ptr end, uint32_t* tag) noexcept nogil:
    if 8 <= p[0] < 0x80:
        tag[0] = p[0]
        return p + 1
    return long_tag(s, p, end, tag)


cdef Ptr long_length(Scan* s, Ptr p, Ptr end, Ptr* stop) noexcept nogil:
    cdef Ptr body = read_length(p, end, stop)
    if body == NULL:
        return fail(s, p, "length is truncated or reaches beyond the enclosing message")
    if body - p > 1 and (body - 1)[0] == 0:
        s.flags |= NOT_PLAIN
    return body


cdef inline Ptr take_length(Scan* s, Ptr p, Ptr end, Ptr* stop) noexcept nogil:
    if p < end and p[0] < 0x80 and p[0] < end - p:
        stop[0] = p + 1 + p[0]
        return p + 1
    return long_length(s, p, end, stop)


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
    return after if after != NULL else fail(s, p, "varint is truncated or longer than 64 bits")


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
        return fail(s, p, "fixed64 is truncated")
    bits = load_le64(p)
    memcpy(value, &bits, 8)
    return p + 8


cdef inline Ptr take_fixed32(Scan* s, Ptr p, Ptr end, uint32_t* value) noexcept nogil:
    if end - p < 4:
        return fail(s, p, "fixed32 is truncated")
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


cdef Ptr take_packed64(Scan* s, Ptr p, Ptr end, int32_t* start, int32_t* length) noexcept nogil:
    cdef Ptr stop = NULL
    p = take_length(s, p, end, &stop)
    if p == NULL:
        return NULL
    if (stop - p) % 8:
        return fail(s, p, "packed 8-byte numbers whose length is no multiple of 8")
    start[0] = <int32_t>(p - s.base)
    length[0] = <int32_t>(stop - p)
    return stop


cdef Ptr take_packed_varints(Scan* s, Ptr p, Ptr end, int32_t* start, int32_t* length) noexcept nogil:
    cdef Ptr stop = NULL
    p = take_length(s, p, end, &stop)
    if p == NULL:
        return NULL
    start[0] = <int32_t>(p - s.base)
    length[0] = <int32_t>(stop - p)
    if s.deep:
        while p < stop:
            p = skip_varint(s, p, stop)
            if p == NULL:
                return NULL
    return stop


cdef Ptr other_field(Scan* s, Ptr start, Ptr p, Ptr end, uint32_t tag, uint32_t known, uint32_t old) noexcept nogil:
    """Past a field that the message does not know; refuses a known one (bit set) of another wire type, notes an old one."""
    cdef uint32_t number = tag >> 3
    cdef Ptr after
    if number < 32:
        if (known >> number) & 1:
            return fail(s, start, "a known field with a wrong wire type", tag)
        if (old >> number) & 1:
            s.flags |= OLD_FIELD
    after = skip_field(p, end, tag)
    if after == NULL:
        if (tag & 7) == 3 or (tag & 7) == 4:
            return fail(s, start, "groups are not allowed", tag)
        if (tag & 7) > 5:
            return fail(s, start, "no such wire type", tag)
        return fail(s, start, "an unknown field is truncated or reaches beyond the enclosing message", tag)
    return after


cdef inline Ptr pass_over(Scan* s, Ptr start, Ptr p, Ptr end, uint32_t tag) noexcept nogil:
    """Past any field, quickly: for bytes that were validated before."""
    if (tag & 7) == 2 and p < end and p[0] < 0x80 and p[0] < end - p:
        return p + 1 + p[0]
    if (tag & 7) == 1 and end - p >= 8:
        return p + 8
    if (tag & 7) == 0 and p < end and p[0] < 0x80:
        return p + 1
    return other_field(s, start, p, end, tag, 0, 0)


# --- values: validation only; attributes are indexed when asked for ---

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
        fail(s, p, "values are nested deeper than 30")
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
            p = p + 8 if end - p >= 8 else fail(s, p, "fixed64 is truncated")
        elif tag == 0x2A or tag == 0x32:
            p = take_length(s, p, end, &stop)
            if p == NULL or check_list(s, p, stop, depth, tag == 0x32) < 0:
                return within(s, "kvlist_value" if tag == 0x32 else "array_value")
            p = stop
        elif tag == 0x3A:
            if take_length(s, p, end, &p) == NULL:
                return within(s, "bytes_value")
        elif tag == 0x40:                  # string_value_strindex: profiles only, and not in every decoder's oneof
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
    """An ArrayValue or a KeyValueList: both hold one repeated field, number 1."""
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


cdef inline bint is_plain(Ptr p, Ptr end) noexcept nogil:
    """Whether a KeyValue is what nearly all are: a short ASCII key, then a value of one number, bool or short ASCII text."""
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


cdef int read_any(Scan* s, Ptr p, Ptr end, AttributeRow* row) noexcept nogil:
    """Kind and content of a validated AnyValue, not descending; the last member of the oneof wins."""
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


# --- traces ---

cdef int walk_event(Scan* s, Ptr p, Ptr end, EventRow* row) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef Ptr start
    memset(<uint8_t*>row + sizeof(FrameRow), 0, sizeof(EventRow) - sizeof(FrameRow))
    row.name = -1
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        if tag == 0x1A:
            p = take_attribute(s, p, end, "attributes", &row.attribute_count)
            if p == NULL:
                return -1
            continue
        bit = <uint32_t>1 << ((tag >> 3) & 31)
        if tag == 0x09:
            p = take_fixed64(s, p, end, &row.time)
        elif tag == 0x12:
            p = take_text(s, p, end, &row.name, &row.name_len)
        elif tag == 0x20:
            p = skip_varint(s, p, end)
        else:
            bit = 0
            p = other_field(s, start, p, end, tag, 0x1E, 0)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef int walk_link(Scan* s, Ptr p, Ptr end, LinkRow* row) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef Ptr start
    memset(<uint8_t*>row + sizeof(FrameRow), 0, sizeof(LinkRow) - sizeof(FrameRow))
    row.trace_state = -1
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        if tag == 0x22:
            p = take_attribute(s, p, end, "attributes", &row.attribute_count)
            if p == NULL:
                return -1
            continue
        bit = <uint32_t>1 << ((tag >> 3) & 31)
        if tag == 0x0A:
            p = take_trace_id(s, p, end, &row.trace_id_hi, &row.trace_id_lo)
        elif tag == 0x12:
            p = take_span_id(s, p, end, &row.span_id)
        elif tag == 0x1A:
            p = take_text(s, p, end, &row.trace_state, &row.trace_state_len)
        elif tag == 0x28:
            p = skip_varint(s, p, end)
        elif tag == 0x35:
            p = take_fixed32(s, p, end, &row.flags)
        else:
            bit = 0
            p = other_field(s, start, p, end, tag, 0x7E, 0)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef int walk_status(Scan* s, Ptr p, Ptr end, SpanRow* row) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef Ptr start
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        bit = <uint32_t>1 << ((tag >> 3) & 31)
        if tag == 0x12:
            p = take_text(s, p, end, &row.status_message, &row.status_message_len)
        elif tag == 0x18:
            p = take_int(s, p, end, &row.status_code)
        else:
            bit = 0
            p = other_field(s, start, p, end, tag, 0x0C, 0x02)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef int walk_span(Scan* s, Ptr p, Ptr end, SpanRow* row) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef Ptr start, stop = NULL
    cdef EventRow event
    cdef LinkRow link
    memset(<uint8_t*>row + sizeof(FrameRow), 0, sizeof(SpanRow) - sizeof(FrameRow))
    row.name = row.trace_state = row.status_message = -1
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        if tag == 0x4A:
            p = take_attribute(s, p, end, "attributes", &row.attribute_count)
            if p == NULL:
                return -1
            continue
        bit = <uint32_t>1 << ((tag >> 3) & 31)
        if tag == 0x0A:
            p = take_trace_id(s, p, end, &row.trace_id_hi, &row.trace_id_lo)
        elif tag == 0x12:
            p = take_span_id(s, p, end, &row.span_id)
        elif tag == 0x1A:
            p = take_text(s, p, end, &row.trace_state, &row.trace_state_len)
        elif tag == 0x22:
            p = take_span_id(s, p, end, &row.parent_span_id)
        elif tag == 0x2A:
            p = take_text(s, p, end, &row.name, &row.name_len)
        elif tag == 0x30:
            p = take_int(s, p, end, &row.kind)
        elif tag == 0x39:
            p = take_fixed64(s, p, end, &row.start_time)
        elif tag == 0x41:
            p = take_fixed64(s, p, end, &row.end_time)
        elif tag == 0x50 or tag == 0x60 or tag == 0x70:       # dropped counts
            p = skip_varint(s, p, end)
        elif tag == 0x5A:
            bit = 0
            p = take_length(s, p, end, &stop)
            if p == NULL or (s.deep and walk_event(s, p, stop, &event) < 0):
                return within(s, "events")
            row.event_count += 1
            p = stop
        elif tag == 0x6A:
            bit = 0
            p = take_length(s, p, end, &stop)
            if p == NULL or (s.deep and walk_link(s, p, stop, &link) < 0):
                return within(s, "links")
            row.link_count += 1
            p = stop
        elif tag == 0x7A:
            p = take_length(s, p, end, &stop)
            if p == NULL or walk_status(s, p, stop, row) < 0:
                return within(s, "status")
            p = stop
        elif tag == 0x85:
            p = take_fixed32(s, p, end, &row.flags)
        else:
            bit = 0
            p = other_field(s, start, p, end, tag, 0x1FFFE, 0)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


# --- logs ---

cdef int walk_record(Scan* s, Ptr p, Ptr end, RecordRow* row) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef Ptr start, stop = NULL
    cdef AttributeRow value
    memset(<uint8_t*>row + sizeof(FrameRow), 0, sizeof(RecordRow) - sizeof(FrameRow))
    row.severity_text = row.event_name = row.any = row.text = -1
    row.body_kind = KIND_ABSENT
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        if tag == 0x32:
            p = take_attribute(s, p, end, "attributes", &row.attribute_count)
            if p == NULL:
                return -1
            continue
        bit = <uint32_t>1 << ((tag >> 3) & 31)
        if tag == 0x09:
            p = take_fixed64(s, p, end, &row.time)
        elif tag == 0x10:
            p = take_int(s, p, end, &row.severity_number)
        elif tag == 0x1A:
            p = take_text(s, p, end, &row.severity_text, &row.severity_text_len)
        elif tag == 0x2A:
            p = take_length(s, p, end, &stop)
            if p == NULL or (s.deep and check_any(s, p, stop, 1) < 0) or read_any(s, p, stop, &value) < 0:
                return within(s, "body")
            row.body_kind = value.kind
            row.any = <int32_t>(p - s.base)
            row.any_len = <int32_t>(stop - p)
            row.text = value.value if value.kind == KIND_STRING else -1
            row.text_len = value.value_len if value.kind == KIND_STRING else 0
            p = stop
        elif tag == 0x38:
            p = skip_varint(s, p, end)
        elif tag == 0x45:
            p = take_fixed32(s, p, end, &row.flags)
        elif tag == 0x4A:
            p = take_trace_id(s, p, end, &row.trace_id_hi, &row.trace_id_lo)
        elif tag == 0x52:
            p = take_span_id(s, p, end, &row.span_id)
        elif tag == 0x59:
            p = take_fixed64(s, p, end, &row.observed_time)
        elif tag == 0x62:
            p = take_text(s, p, end, &row.event_name, &row.event_name_len)
        else:
            bit = 0
            p = other_field(s, start, p, end, tag, 0x1FEE, 0x10)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


# --- metrics ---

cdef int walk_exemplar(Scan* s, Ptr p, Ptr end, ExemplarRow* row) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef Ptr start
    memset(<uint8_t*>row + sizeof(FrameRow), 0, sizeof(ExemplarRow) - sizeof(FrameRow))
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        if tag == 0x3A:
            p = take_attribute(s, p, end, "filtered_attributes", &row.attribute_count)
            if p == NULL:
                return -1
            continue
        bit = <uint32_t>1 << ((tag >> 3) & 31)
        if tag == 0x11:
            p = take_fixed64(s, p, end, &row.time)
        elif tag == 0x19:
            p = take_fixed64(s, p, end, &row.double_value)
            row.int_value = 0
            row.value_kind = 2
        elif tag == 0x31:
            bit = 0x08                     # one oneof with as_double
            p = take_fixed64(s, p, end, &row.int_value)
            row.double_value = 0
            row.value_kind = 1
        elif tag == 0x22:
            p = take_span_id(s, p, end, &row.span_id)
        elif tag == 0x2A:
            p = take_trace_id(s, p, end, &row.trace_id_hi, &row.trace_id_lo)
        else:
            bit = 0
            p = other_field(s, start, p, end, tag, 0xFC, 0x02)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef int walk_quantile(Scan* s, Ptr p, Ptr end, QuantileRow* row) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef Ptr start
    row.quantile = row.value = 0
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        bit = tag >> 3
        if tag == 0x09:
            p = take_fixed64(s, p, end, &row.quantile)
        elif tag == 0x11:
            p = take_fixed64(s, p, end, &row.value)
        else:
            bit = 0
            p = other_field(s, start, p, end, tag, 0x06, 0)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef inline Ptr take_exemplar(Scan* s, Ptr p, Ptr end, int32_t* count) noexcept nogil:
    cdef ExemplarRow row
    cdef Ptr stop = NULL
    p = take_length(s, p, end, &stop)
    if p == NULL or (s.deep and walk_exemplar(s, p, stop, &row) < 0):
        within(s, "exemplars")
        return NULL
    count[0] += 1
    return stop


cdef int walk_number_point(Scan* s, Ptr p, Ptr end, PointRow* row) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef Ptr start
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        if tag == 0x3A:
            p = take_attribute(s, p, end, "attributes", &row.attribute_count)
            if p == NULL:
                return -1
            continue
        bit = <uint32_t>1 << ((tag >> 3) & 31)
        if tag == 0x11:
            p = take_fixed64(s, p, end, &row.start_time)
        elif tag == 0x19:
            p = take_fixed64(s, p, end, &row.time)
        elif tag == 0x21:
            p = take_fixed64(s, p, end, &row.double_value)
            row.int_value = 0
            row.value_kind = 2
        elif tag == 0x31:
            bit = 0x10                     # one oneof with as_double
            p = take_fixed64(s, p, end, &row.int_value)
            row.double_value = 0
            row.value_kind = 1
        elif tag == 0x2A:
            bit = 0
            p = take_exemplar(s, p, end, &row.exemplar_count)
        elif tag == 0x40:
            p = take_int(s, p, end, <int32_t*>&row.flags)
        else:
            bit = 0
            p = other_field(s, start, p, end, tag, 0x1FC, 0x02)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef int walk_histogram_point(Scan* s, Ptr p, Ptr end, PointRow* row) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef uint64_t number
    cdef Ptr start
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        if tag == 0x4A:
            p = take_attribute(s, p, end, "attributes", &row.attribute_count)
            if p == NULL:
                return -1
            continue
        bit = <uint32_t>1 << ((tag >> 3) & 31)
        if tag == 0x11:
            p = take_fixed64(s, p, end, &row.start_time)
        elif tag == 0x19:
            p = take_fixed64(s, p, end, &row.time)
        elif tag == 0x21:
            p = take_fixed64(s, p, end, &row.count)
        elif tag == 0x29:
            p = take_fixed64(s, p, end, &row.sum)
            row.present |= 1
        elif tag == 0x32:
            p = take_packed64(s, p, end, &row.buckets, &row.buckets_len)
        elif tag == 0x3A:
            p = take_packed64(s, p, end, &row.bounds, &row.bounds_len)
        elif tag == 0x31 or tag == 0x39:   # written unpacked, one number a field
            s.flags |= NOT_PLAIN
            p = take_fixed64(s, p, end, &number)
        elif tag == 0x42:
            bit = 0
            p = take_exemplar(s, p, end, &row.exemplar_count)
        elif tag == 0x50:
            p = take_int(s, p, end, <int32_t*>&row.flags)
        elif tag == 0x59:
            p = take_fixed64(s, p, end, &row.min)
            row.present |= 2
        elif tag == 0x61:
            p = take_fixed64(s, p, end, &row.max)
            row.present |= 4
        else:
            bit = 0
            p = other_field(s, start, p, end, tag, 0x1FFC, 0x02)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef int walk_buckets(Scan* s, Ptr p, Ptr end, int32_t* offset, int32_t* counts, int32_t* counts_len) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef Ptr start
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        bit = tag >> 3
        if tag == 0x08:
            p = take_zigzag(s, p, end, offset)
        elif tag == 0x12:
            p = take_packed_varints(s, p, end, counts, counts_len)
        elif tag == 0x10:
            s.flags |= NOT_PLAIN
            p = skip_varint(s, p, end)
        else:
            bit = 0
            p = other_field(s, start, p, end, tag, 0x06, 0)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef int walk_exponential_point(Scan* s, Ptr p, Ptr end, PointRow* row) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef Ptr start, stop = NULL
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        if tag == 0x0A:
            p = take_attribute(s, p, end, "attributes", &row.attribute_count)
            if p == NULL:
                return -1
            continue
        bit = <uint32_t>1 << ((tag >> 3) & 31)
        if tag == 0x11:
            p = take_fixed64(s, p, end, &row.start_time)
        elif tag == 0x19:
            p = take_fixed64(s, p, end, &row.time)
        elif tag == 0x21:
            p = take_fixed64(s, p, end, &row.count)
        elif tag == 0x29:
            p = take_fixed64(s, p, end, &row.sum)
            row.present |= 1
        elif tag == 0x30:
            p = take_zigzag(s, p, end, &row.scale)
        elif tag == 0x39:
            p = take_fixed64(s, p, end, &row.zero_count)
        elif tag == 0x42:
            p = take_length(s, p, end, &stop)
            if p == NULL or walk_buckets(s, p, stop, &row.positive_offset, &row.positive, &row.positive_len) < 0:
                return within(s, "positive")
            p = stop
        elif tag == 0x4A:
            p = take_length(s, p, end, &stop)
            if p == NULL or walk_buckets(s, p, stop, &row.negative_offset, &row.negative, &row.negative_len) < 0:
                return within(s, "negative")
            p = stop
        elif tag == 0x50:
            p = take_int(s, p, end, <int32_t*>&row.flags)
        elif tag == 0x5A:
            bit = 0
            p = take_exemplar(s, p, end, &row.exemplar_count)
        elif tag == 0x61:
            p = take_fixed64(s, p, end, &row.min)
            row.present |= 2
        elif tag == 0x69:
            p = take_fixed64(s, p, end, &row.max)
            row.present |= 4
        elif tag == 0x71:
            p = take_fixed64(s, p, end, &row.zero_threshold)
        else:
            bit = 0
            p = other_field(s, start, p, end, tag, 0x7FFE, 0)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef int walk_summary_point(Scan* s, Ptr p, Ptr end, PointRow* row) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef QuantileRow quantile
    cdef Ptr start, stop = NULL
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        if tag == 0x3A:
            p = take_attribute(s, p, end, "attributes", &row.attribute_count)
            if p == NULL:
                return -1
            continue
        bit = <uint32_t>1 << ((tag >> 3) & 31)
        if tag == 0x11:
            p = take_fixed64(s, p, end, &row.start_time)
        elif tag == 0x19:
            p = take_fixed64(s, p, end, &row.time)
        elif tag == 0x21:
            p = take_fixed64(s, p, end, &row.count)
        elif tag == 0x29:
            p = take_fixed64(s, p, end, &row.sum)
            row.present |= 1
        elif tag == 0x32:
            bit = 0
            p = take_length(s, p, end, &stop)
            if p == NULL or (s.deep and walk_quantile(s, p, stop, &quantile) < 0):
                return within(s, "quantile_values")
            row.quantile_count += 1
            p = stop
        elif tag == 0x40:
            p = take_int(s, p, end, <int32_t*>&row.flags)
        else:
            bit = 0
            p = other_field(s, start, p, end, tag, 0x1FC, 0x02)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef int walk_data(Scan* s, Ptr p, Ptr end, MetricRow* metric, int32_t parent) noexcept nogil:
    """A Gauge, Sum, Histogram, ExponentialHistogram or Summary."""
    cdef uint32_t tag = 0, seen = 0, again = 0, bit, known = 0x02
    cdef uint64_t number = 0
    cdef Ptr start, stop = NULL
    cdef PointRow* row
    cdef int rc
    cdef int kind = metric.type
    metric.temporality = metric.monotonic = 0
    if kind == 2:
        known = 0x0E
    elif kind == 3 or kind == 4:
        known = 0x06
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        bit = 0
        if tag == 0x0A:
            p = take_length(s, p, end, &stop)
            if p == NULL:
                return within(s, "data_points")
            row = <PointRow*>push(s, &s.items, start)
            if row == NULL:
                return within(s, "data_points")
            memset(row, 0, sizeof(PointRow))
            row.parent = parent
            row.start = <int32_t>(start - s.base)
            row.body = <int32_t>(p - s.base)
            row.end = <int32_t>(stop - s.base)
            row.buckets = row.bounds = row.positive = row.negative = -1
            metric.point_count += 1
            s.item_error = 0
            if kind <= 2:
                rc = walk_number_point(s, p, stop, row)
            elif kind == 3:
                rc = walk_histogram_point(s, p, stop, row)
            elif kind == 4:
                rc = walk_exponential_point(s, p, stop, row)
            else:
                rc = walk_summary_point(s, p, stop, row)
            if rc < 0 or (s.item_error and reject(s, row.start, row.end, 1) < 0):
                return within(s, "data_points")
            p = stop
        elif tag == 0x10 and (known & 0x04):
            bit = 4
            p = take_int(s, p, end, &metric.temporality)
        elif tag == 0x18 and (known & 0x08):
            bit = 8
            p = take_varint(s, p, end, &number)
            metric.monotonic = number != 0
        else:
            p = other_field(s, start, p, end, tag, known, 0)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef int walk_metric(Scan* s, Ptr p, Ptr end, MetricRow* row, int32_t index) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef Ptr start, stop = NULL
    cdef int32_t metadata_count = 0
    cdef const char* name
    memset(<uint8_t*>row + sizeof(FrameRow), 0, sizeof(MetricRow) - sizeof(FrameRow))
    row.name = row.description = row.unit = row.data_start = row.data_body = row.data_end = -1
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        bit = <uint32_t>1 << ((tag >> 3) & 31)
        if tag == 0x0A:
            p = take_text(s, p, end, &row.name, &row.name_len)
        elif tag == 0x12:
            p = take_text(s, p, end, &row.description, &row.description_len)
        elif tag == 0x1A:
            p = take_text(s, p, end, &row.unit, &row.unit_len)
        elif tag == 0x2A or tag == 0x3A or tag == 0x4A or tag == 0x52 or tag == 0x5A:
            bit = 0x20                     # the oneof
            if tag == 0x2A:
                row.type = 1
                name = "gauge"
            elif tag == 0x3A:
                row.type = 2
                name = "sum"
            elif tag == 0x4A:
                row.type = 3
                name = "histogram"
            elif tag == 0x52:
                row.type = 4
                name = "exponential_histogram"
            else:
                row.type = 5
                name = "summary"
            p = take_length(s, p, end, &stop)
            if p == NULL:
                return within(s, name)
            row.data_start = <int32_t>(start - s.base)
            row.data_body = <int32_t>(p - s.base)
            row.data_end = <int32_t>(stop - s.base)
            if walk_data(s, p, stop, row, index) < 0:
                return within(s, name)
            p = stop
        elif tag == 0x62:
            bit = 0
            p = take_attribute(s, p, end, "metadata", &metadata_count)
        else:
            bit = 0
            p = other_field(s, start, p, end, tag, 0x1EAE, 0x150)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


# --- scopes, resources, the request ---

cdef int reject(Scan* s, int32_t start, int32_t end, int64_t count) noexcept nogil:
    cdef Range* drop = <Range*>push(s, &s.drops, s.base + start)
    if drop == NULL:
        return -1
    drop.start = start
    drop.end = end
    s.rejected += count
    s.item_errors |= s.item_error
    return 0


cdef int walk_entity(Scan* s, Ptr p, Ptr end) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef Ptr start
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        bit = 0
        if tag == 0x0A or tag == 0x12:
            bit = tag >> 3
            p = skip_text(s, p, end)
        elif tag == 0x1A or tag == 0x22:
            p = skip_text(s, p, end)
        else:
            p = other_field(s, start, p, end, tag, 0x1E, 0)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef int walk_inner_resource(Scan* s, Ptr p, Ptr end, ResourceRow* row) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef Ptr start, stop = NULL
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        bit = 0
        if tag == 0x0A:
            p = take_attribute(s, p, end, "attributes", &row.attribute_count)
        elif tag == 0x10:
            bit = 2
            p = skip_varint(s, p, end)
        elif tag == 0x1A:
            p = take_length(s, p, end, &stop)
            if p == NULL or (s.deep and walk_entity(s, p, stop) < 0):
                return within(s, "entity_refs")
            p = stop
        else:
            p = other_field(s, start, p, end, tag, 0x0E, 0)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef int walk_inner_scope(Scan* s, Ptr p, Ptr end, ScopeRow* row) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef Ptr start
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        bit = <uint32_t>1 << ((tag >> 3) & 31)
        if tag == 0x0A:
            p = take_text(s, p, end, &row.name, &row.name_len)
        elif tag == 0x12:
            p = take_text(s, p, end, &row.version, &row.version_len)
        elif tag == 0x1A:
            bit = 0
            p = take_attribute(s, p, end, "attributes", &row.attribute_count)
        elif tag == 0x20:
            p = skip_varint(s, p, end)
        else:
            bit = 0
            p = other_field(s, start, p, end, tag, 0x1E, 0)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef int walk_item(Scan* s, Ptr start, Ptr p, Ptr end, int32_t parent) noexcept nogil:
    """One span, record or metric."""
    cdef Rows* rows = &s.metrics if s.signal == METRICS else &s.items
    cdef int32_t index = <int32_t>rows.count
    cdef FrameRow* frame = <FrameRow*>push(s, rows, start)
    cdef Py_ssize_t drop_count = s.drops.count
    cdef int64_t rejected = s.rejected
    cdef uint32_t item_errors = s.item_errors
    cdef MetricRow* metric
    if frame == NULL:
        return -1
    frame.parent = parent
    frame.start = <int32_t>(start - s.base)
    frame.body = <int32_t>(p - s.base)
    frame.end = <int32_t>(end - s.base)
    if s.only_frames:
        return 0
    s.item_error = 0
    if s.signal == TRACES:
        if walk_span(s, p, end, <SpanRow*>frame) < 0:
            return -1
    elif s.signal == LOGS:
        if walk_record(s, p, end, <RecordRow*>frame) < 0:
            return -1
    else:
        metric = <MetricRow*>frame
        if walk_metric(s, p, end, metric, index) < 0:
            return -1
        s.item_error = 0
        if metric.name_len == 0:           # goes as a whole, whatever is wrong with its points
            s.drops.count = drop_count
            s.rejected = rejected
            s.item_errors = item_errors
            s.item_error = NO_NAME
            return reject(s, frame.start, frame.end, metric.point_count)
    if s.item_error:
        return reject(s, frame.start, frame.end, 1)
    return 0


cdef const char* item_name(int signal) noexcept nogil:
    return "spans" if signal == TRACES else "metrics" if signal == METRICS else "log_records"


cdef const char* scope_name(int signal) noexcept nogil:
    return "scope_spans" if signal == TRACES else "scope_metrics" if signal == METRICS else "scope_logs"


cdef const char* resource_name(int signal) noexcept nogil:
    return "resource_spans" if signal == TRACES else "resource_metrics" if signal == METRICS else "resource_logs"


cdef int walk_scope(Scan* s, Ptr start, Ptr p, Ptr end, int32_t parent) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef Ptr stop = NULL
    cdef int32_t index = <int32_t>s.scopes.count
    cdef ScopeRow* row = <ScopeRow*>push(s, &s.scopes, start)
    if row == NULL:
        return -1
    memset(row, 0, sizeof(ScopeRow))
    row.parent = parent
    row.start = <int32_t>(start - s.base)
    row.body = <int32_t>(p - s.base)
    row.end = <int32_t>(end - s.base)
    row.inner_start = row.inner_body = row.inner_end = row.schema_url = row.name = row.version = -1
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        bit = 0
        if tag == 0x12:
            p = take_length(s, p, end, &stop)
            if p == NULL or walk_item(s, start, p, stop, index) < 0:
                return within(s, item_name(s.signal))
            p = stop
        elif tag == 0x0A:
            bit = 1
            p = take_length(s, p, end, &stop)
            if p == NULL:
                return within(s, "scope")
            row.inner_start = <int32_t>(start - s.base)
            row.inner_body = <int32_t>(p - s.base)
            row.inner_end = <int32_t>(stop - s.base)
            if walk_inner_scope(s, p, stop, row) < 0:
                return within(s, "scope")
            p = stop
        elif tag == 0x1A:
            bit = 2
            p = take_text(s, p, end, &row.schema_url, &row.schema_url_len)
        else:
            p = other_field(s, start, p, end, tag, 0x0E, 0)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef int walk_resource(Scan* s, Ptr start, Ptr p, Ptr end) noexcept nogil:
    cdef uint32_t tag = 0, seen = 0, again = 0, bit
    cdef Ptr stop = NULL
    cdef int32_t index = <int32_t>s.resources.count
    cdef ResourceRow* row = <ResourceRow*>push(s, &s.resources, start)
    if row == NULL:
        return -1
    memset(row, 0, sizeof(ResourceRow))
    row.parent = -1
    row.start = <int32_t>(start - s.base)
    row.body = <int32_t>(p - s.base)
    row.end = <int32_t>(end - s.base)
    row.inner_start = row.inner_body = row.inner_end = row.schema_url = -1
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        bit = 0
        if tag == 0x12 or tag == 0x1F42:   # 1000: the instrumentation-library form, which old decoders read as data
            if tag == 0x1F42:
                s.flags |= OLD_FIELD
            p = take_length(s, p, end, &stop)
            if p == NULL or walk_scope(s, start, p, stop, index) < 0:
                return within(s, scope_name(s.signal))
            p = stop
        elif tag == 0x0A:
            bit = 1
            p = take_length(s, p, end, &stop)
            if p == NULL:
                return within(s, "resource")
            row.inner_start = <int32_t>(start - s.base)
            row.inner_body = <int32_t>(p - s.base)
            row.inner_end = <int32_t>(stop - s.base)
            if walk_inner_resource(s, p, stop, row) < 0:
                return within(s, "resource")
            p = stop
        elif tag == 0x1A:
            bit = 2
            p = take_text(s, p, end, &row.schema_url, &row.schema_url_len)
        elif tag >> 3 == 1000:
            p = fail(s, start, "a known field with a wrong wire type", tag)
        else:
            p = other_field(s, start, p, end, tag, 0x0E, 0)
        if p == NULL:
            return -1
        again |= seen & bit
        seen |= bit
    if again:
        s.flags |= NOT_PLAIN
    return 0


cdef int walk_request(Scan* s, Ptr p, Ptr end) noexcept nogil:
    cdef uint32_t tag = 0
    cdef Ptr start, stop = NULL
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        if tag == 0x0A:
            p = take_length(s, p, end, &stop)
            if p == NULL or walk_resource(s, start, p, stop) < 0:
                return within(s, resource_name(s.signal))
            p = stop
        else:
            p = other_field(s, start, p, end, tag, 0x02, 0)
            if p == NULL:
                return -1
    return 0


# --- from C to numpy ---

cdef int signal_of(str signal) except -1:
    if signal == "traces":
        return TRACES
    if signal == "metrics":
        return METRICS
    if signal == "logs":
        return LOGS
    raise ValueError(f"signal is traces, metrics or logs, not {signal!r}")


cdef void prepare(Rows* rows, Py_ssize_t size, Py_ssize_t length, Py_ssize_t expected, bint from_outside=False):
    memset(rows, 0, sizeof(Rows))
    rows.size = size
    rows.limit = FREE_ROWS + length * ROW_BYTES_PER_BYTE // size if from_outside else 1 + length // 2
    rows.capacity = expected
    rows.rows = <uint8_t*>malloc(<size_t>(expected * size))
    if rows.rows == NULL:
        rows.capacity = 0                  # push tries again and reports


cdef int begin(Scan* s, bytes wire, int signal, bint deep) except -1:
    cdef Py_ssize_t length = PyBytes_GET_SIZE(wire)
    if length > 0x7FFFFFFF:
        raise MalformedBatch("", 0, "a request of 2 GiB and more")
    memset(s, 0, sizeof(Scan))
    s.base = <Ptr>PyBytes_AS_STRING(wire)
    s.length = length
    s.signal = signal
    s.deep = deep
    return 0


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
cdef class _Memory:
    """Owns the rows under a numpy array."""

    cdef void* rows

    def __dealloc__(self):
        free(self.rows)


cdef object array(Rows* rows, object dtype):
    """Read-only record array of the rows, which it takes over."""
    cdef _Memory memory
    cdef void* shrunk
    cdef cnp.npy_intp count
    if rows.count == 0:
        empty = np.empty(0, dtype)
        empty.flags.writeable = False
        return empty
    memory = _Memory.__new__(_Memory)
    if rows.capacity - rows.count > rows.count >> 3:
        shrunk = realloc(rows.rows, <size_t>(rows.count * rows.size))
        if shrunk != NULL:
            rows.rows = <uint8_t*>shrunk
    memory.rows = rows.rows
    rows.rows = NULL
    # As np.frombuffer, which costs more than the scan of a small request.
    count = rows.count
    Py_INCREF(dtype)  # is taken over
    cdef cnp.ndarray made = PyArray_NewFromDescr(
        <PyTypeObject*>cnp.ndarray, <cnp.PyArray_Descr*>dtype, 1, &count, NULL, memory.rows, cnp.NPY_ARRAY_CARRAY_RO, NULL
    )
    PyArray_UpdateFlags(made, cnp.NPY_ARRAY_ALIGNED)
    cnp.set_array_base(made, memory)
    return made


cdef void make_room(Scan* s):
    """Row arrays of a likely size; finish() must follow whatever happens."""
    cdef Py_ssize_t length = s.length
    cdef Py_ssize_t size = sizeof(SpanRow) if s.signal == TRACES else sizeof(RecordRow) if s.signal == LOGS else sizeof(PointRow)
    if s.only_frames:
        size = sizeof(FrameRow)
    prepare(&s.resources, sizeof(ResourceRow), length, 4, s.deep)
    prepare(&s.scopes, sizeof(ScopeRow), length, 8, s.deep)
    prepare(&s.items, size, length, 16 + length // 256, s.deep)
    prepare(&s.drops, sizeof(Range), length, 0)
    if s.signal == METRICS:
        prepare(&s.metrics, sizeof(MetricRow), length, 16 + length // 1024, s.deep)


cdef int run(Scan* s) except -1:
    """Fills the row arrays; finish() must follow whatever happens."""
    cdef int rc
    make_room(s)
    if s.length > RELEASE_GIL_BYTES:
        with nogil:
            rc = walk_request(s, s.base, s.base + s.length)
    else:
        rc = walk_request(s, s.base, s.base + s.length)
    if rc < 0:
        raise error(s)
    return 0


cdef int walk_requests(Scan* s, Py_ssize_t count, const int64_t* ends, int64_t* counts) noexcept nogil:
    """Several requests that lie end to end, each within its own bytes; their numbers of items."""
    cdef Py_ssize_t i
    cdef int64_t start = 0, before
    for i in range(count):
        before = s.items.count
        if walk_request(s, s.base + start, s.base + ends[i]) < 0:
            return -1
        counts[i] = s.items.count - before
        start = ends[i]
    return 0


cdef tuple tables(Scan* s):
    resources = array(&s.resources, layout.RESOURCE)
    scopes = array(&s.scopes, layout.SCOPE)
    if s.only_frames:
        return resources, scopes, array(&s.items, layout.FRAME)
    if s.signal == TRACES:
        return resources, scopes, array(&s.items, layout.SPAN)
    if s.signal == LOGS:
        return resources, scopes, array(&s.items, layout.RECORD)
    return resources, scopes, array(&s.metrics, layout.METRIC), array(&s.items, layout.POINT)


cdef str why(int signal, int64_t count, uint32_t errors):
    noun = ("span", "data point", "log record")[signal]
    reasons = []
    if errors & BAD_TRACE_ID:
        reasons.append("trace_id must be empty or 16 bytes")
    if errors & BAD_SPAN_ID:
        reasons.append("span_id must be empty or 8 bytes")
    if errors & NO_NAME:
        reasons.append("a metric needs a name")
    return f"{count} {noun}{'' if count == 1 else 's'} rejected: {'; '.join(reasons)}"


def check(str signal not None, bytes wire not None):
    """What may pass of a request from outside: (wire, tables, rejected_count, message, repaired_count).

    ``wire`` is the same object when nothing had to change. Tables: see ``scan``.

    Raises:
        MalformedBatch: the request is no valid OTLP.
    """
    cdef Scan s
    cdef int code = signal_of(signal)
    cdef uint32_t flags
    cdef int64_t rejected = 0
    cdef int attempt
    cdef str message = ""
    repaired = 0
    for attempt in range(3):               # as it came; normalised; without the rejected items
        begin(&s, wire, code, True)
        try:
            run(&s)
            flags = s.flags
            if not flags and s.drops.count == 0:
                return wire, tables(&s), rejected, message, repaired
            if not flags:
                rejected += s.rejected
                message = why(code, s.rejected, s.item_errors)
                drops = PyBytes_FromStringAndSize(<char*>s.drops.rows, s.drops.count * sizeof(Range))
        finally:
            finish(&s)
        if not flags:
            wire, _ = repair(signal, wire, drops)
            continue
        if flags & (BAD_TEXT | OLD_FIELD):
            wire, count = repair(signal, wire, b"")
            repaired += count
        if flags & NOT_PLAIN:
            wire = reencode(signal, wire)
    raise MalformedBatch("", 0, "the request cannot be brought into plain form")


def check_joined(str signal not None, list wires not None):
    """What may pass of several requests, as one: (their bytes joined, tables, list of the number of items of each).

    None where they do not all pass as they came: then each needs a check of its own. One pass for all: a small request costs less
    than the making of its tables.
    """
    cdef Scan s
    cdef bytes wire = b"".join(wires)
    cdef Py_ssize_t count = len(wires), i
    cdef int64_t end = 0
    cdef int64_t* ends
    cdef int rc
    begin(&s, wire, signal_of(signal), True)
    ends = <int64_t*>malloc((2 * count + 1) * sizeof(int64_t))   # and their numbers of items
    if ends == NULL:
        raise MemoryError()
    try:
        for i in range(count):
            end += len(<bytes?>wires[i])
            ends[i] = end
        make_room(&s)
        if s.length > RELEASE_GIL_BYTES:
            with nogil:
                rc = walk_requests(&s, count, ends, ends + count)
        else:
            rc = walk_requests(&s, count, ends, ends + count)
        if rc < 0 or s.flags or s.drops.count:
            return None
        return wire, tables(&s), [ends[count + i] for i in range(count)]
    finally:
        free(ends)
        finish(&s)


def scan(str signal not None, bytes wire not None):
    """The index of bytes that passed ``check`` before or that we wrote: no validation below the rows.

    Tables, in this order, each a read-only record array of ``layout``: RESOURCE, SCOPE and SPAN (traces), RECORD (logs) or
    METRIC, POINT (metrics); rows in document order.

    Raises:
        MalformedBatch: they are not such bytes after all.
    """
    cdef Scan s
    begin(&s, wire, signal_of(signal), False)
    try:
        run(&s)
        if s.flags & OLD_FIELD or s.drops.count:
            raise MalformedBatch("", 0, "not the bytes of a checked request")
        return tables(&s)
    finally:
        finish(&s)


def frames(str signal not None, bytes wire not None):
    """As ``scan``, of traces or logs, with the items as ``layout.FRAME``: what cutting takes, in a fraction of the time.

    Raises:
        MalformedBatch: they are not the bytes of a checked request after all.
        ValueError: of metrics the items are not what stands below the scopes.
    """
    cdef Scan s
    cdef int code = signal_of(signal)
    if code == METRICS:
        raise ValueError("the frames of metrics say nothing of their points")
    begin(&s, wire, code, False)
    s.only_frames = True
    try:
        run(&s)
        if s.flags & OLD_FIELD:
            raise MalformedBatch("", 0, "not the bytes of a checked request")
        return tables(&s)
    finally:
        finish(&s)


# --- children and attributes ---

ctypedef struct Owners:
    Py_buffer view
    Ptr rows
    Py_ssize_t count, size


cdef int owners_of(Owners* owners, object rows, object dtype) except -1:
    """Opens the rows of a table; PyBuffer_Release(&owners.view) must follow."""
    if rows.dtype != dtype:
        raise ValueError(f"rows of another table: {rows.dtype}")
    PyObject_GetBuffer(np.ascontiguousarray(rows), &owners.view, PyBUF_SIMPLE)
    owners.rows = <Ptr>owners.view.buf
    owners.size = dtype.itemsize
    owners.count = owners.view.len // owners.size
    return 0


cdef inline bint inside(Scan* s, int32_t body, int32_t end) noexcept nogil:
    return 0 <= body <= end <= s.length


cdef int walk_child(Scan* s, int table, Ptr p, Ptr end, FrameRow* row) noexcept nogil:
    if table == 0:
        return walk_event(s, p, end, <EventRow*>row)
    if table == 1:
        return walk_link(s, p, end, <LinkRow*>row)
    if table == 2:
        return walk_exemplar(s, p, end, <ExemplarRow*>row)
    return walk_quantile(s, p, end, <QuantileRow*>row)


cdef int children_of(Scan* s, int table, Owners* owners) noexcept nogil:
    cdef Py_ssize_t i
    cdef int32_t expected
    cdef uint32_t tag = 0, wanted
    cdef FrameRow* parent
    cdef FrameRow* row
    cdef Ptr p, end, start, stop = NULL
    for i in range(owners.count):
        parent = <FrameRow*>(owners.rows + i * owners.size)
        if table == 0:
            expected = (<SpanRow*>parent).event_count
            wanted = 0x5A
        elif table == 1:
            expected = (<SpanRow*>parent).link_count
            wanted = 0x6A
        elif table == 2:
            expected = (<PointRow*>parent).exemplar_count
            wanted = 0
        else:
            expected = (<PointRow*>parent).quantile_count
            wanted = 0x32
        if expected <= 0:
            continue
        if not inside(s, parent.body, parent.end):
            fail(s, s.base, "a row points outside the request")
            return -1
        if table == 2:
            wanted = exemplar_tag(s, s.base + parent.body, s.base + parent.end)
        p = s.base + parent.body
        end = s.base + parent.end
        while p < end:
            start = p
            p = take_tag(s, p, end, &tag)
            if p == NULL:
                return -1
            if tag != wanted:
                p = pass_over(s, start, p, end, tag)
                if p == NULL:
                    return -1
                continue
            p = take_length(s, p, end, &stop)
            if p == NULL:
                return -1
            row = <FrameRow*>push(s, &s.items, start)
            if row == NULL:
                return -1
            row.parent = <int32_t>i
            row.start = <int32_t>(start - s.base)
            row.body = <int32_t>(p - s.base)
            row.end = <int32_t>(stop - s.base)
            if walk_child(s, table, p, stop, row) < 0:
                return -1
            p = stop
    return 0


cdef uint32_t exemplar_tag(Scan* s, Ptr p, Ptr end) noexcept nogil:
    """Tag of the exemplars of a point that has some, by its fields alone.

    Number points have them in field 5, histograms 8, exponential histograms 11. Fields 5 and 11 of the other types hold no message
    (5 is a sum everywhere else, 11 a histogram's minimum), so they decide; 8 is only left to histograms.
    """
    cdef uint32_t tag = 0, found = 0x42
    while p < end:
        p = read_tag(p, end, &tag)
        if p == NULL:
            return found
        if tag == 0x2A:
            return tag
        if tag == 0x5A:
            found = tag
        p = skip_field(p, end, tag)
        if p == NULL:
            return found
    return found


cdef tuple CHILDREN = (
    ("events", layout.SPAN, layout.EVENT),
    ("links", layout.SPAN, layout.LINK),
    ("exemplars", layout.POINT, layout.EXEMPLAR),
    ("quantiles", layout.POINT, layout.QUANTILE),
)


def index_children(str table not None, bytes wire not None, parents not None):
    """Read-only rows of ``events``, ``links`` (of spans), ``exemplars`` or ``quantiles`` (of points), in document order.

    ``parent`` is the row in ``parents``.

    Raises:
        MalformedBatch: the rows do not belong to these bytes.
    """
    cdef Scan s
    cdef Owners owners
    cdef int code, rc
    for code in range(4):
        if CHILDREN[code][0] == table:
            break
    else:
        raise ValueError(f"no child table: {table!r}")
    _, parent_dtype, dtype = CHILDREN[code]
    begin(&s, wire, TRACES, False)
    owners_of(&owners, parents, parent_dtype)
    try:
        prepare(&s.items, dtype.itemsize, s.length, 16 + s.length // 1024)
        if s.length > RELEASE_GIL_BYTES:
            with nogil:
                rc = children_of(&s, code, &owners)
        else:
            rc = children_of(&s, code, &owners)
        if rc < 0:
            raise error(&s, table)
        return array(&s.items, dtype)
    finally:
        PyBuffer_Release(&owners.view)
        finish(&s)


# Distinct keys of one call: open addressing over key codes. Seeded per process: keys come from outside, and colliding ones
# would make each lookup a walk over all.
ctypedef struct Keys:
    Rows list                     # Key
    int32_t* slots                # key code, -1 free
    uint32_t* hashes              # of each key code
    Py_ssize_t slot_count
    int32_t previous              # code of the key before
    int32_t* followers            # by key code: the code that came after it last time; items tend to repeat their order of keys

cdef uint64_t SEED = int.from_bytes(os.urandom(8), "little") | 1

cdef extern from *:
    """
    static inline uint64_t tailrace_mix(uint64_t h, uint64_t seed) {
        __uint128_t m = (__uint128_t)h * (seed ^ UINT64_C(0x9E3779B97F4A7C14));
        return (uint64_t)m ^ (uint64_t)(m >> 64);
    }
    """
    uint64_t mix "tailrace_mix"(uint64_t value, uint64_t seed) noexcept nogil


cdef inline uint32_t hash_key(Ptr p, int32_t length) noexcept nogil:
    cdef uint64_t h = SEED ^ <uint64_t>length, word
    while length >= 8:
        h = mix(h ^ load_le64(p), SEED)
        p += 8
        length -= 8
    if length:
        word = 0
        memcpy(&word, p, <size_t>length)
        h = mix(h ^ word, SEED)
    h = mix(h ^ 0x5851F42D, SEED)
    return <uint32_t>(h ^ (h >> 32))


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
    cdef uint32_t h = hash_key(p, length)
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


cdef inline int32_t key_code(Scan* s, Keys* keys, Ptr p, int32_t length) noexcept nogil:
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


cdef inline int read_key_value(Scan* s, Keys* keys, Ptr p, Ptr end, AttributeRow* row) noexcept nogil:
    cdef uint32_t tag = 0
    cdef Ptr start, stop = NULL, value = NULL, value_end = NULL
    # Nearly all: a short key, then a value of one short text or small number.
    if end - p >= 6 and p[0] == 0x0A and p[1] <= end - p - 6 and p[1] < 0x80:
        start = p + 2
        value = start + p[1] + 2
        if (value - 2)[0] == 0x12 and (value - 1)[0] < 0x80 and (value - 1)[0] == end - value:
            row.key = <int32_t>(start - s.base)
            row.key_len = p[1]
            row.any = <int32_t>(value - s.base)
            row.any_len = (value - 1)[0]
            row.key_code = key_code(s, keys, start, row.key_len)
            if row.key_code < 0:
                return -1
            if value[0] == 0x0A and value[1] == end - value - 2:
                row.kind = KIND_STRING
                row.value = <int32_t>(value + 2 - s.base)
                row.value_len = value[1]
                return 0
            return read_any(s, value, end, row)
        value = NULL
    row.key = -1
    row.any = -1
    while p < end:
        start = p
        p = take_tag(s, p, end, &tag)
        if p == NULL:
            return -1
        if tag == 0x0A:
            p = take_length(s, p, end, &stop)
            if p == NULL:
                return -1
            row.key = <int32_t>(p - s.base)
            row.key_len = <int32_t>(stop - p)
            p = stop
        elif tag == 0x12:
            p = take_length(s, p, end, &stop)
            if p == NULL:
                return -1
            value = p
            value_end = stop
            row.any = <int32_t>(p - s.base)
            row.any_len = <int32_t>(stop - p)
            p = stop
        else:
            p = other_field(s, start, p, end, tag, 0x06, 0)
            if p == NULL:
                return -1
    row.key_code = key_code(s, keys, s.base + row.key if row.key >= 0 else s.base, row.key_len)
    if row.key_code < 0:
        return -1
    return read_any(s, value, value_end, row)


cdef uint32_t point_attribute_tag(int32_t metric_type) noexcept nogil:
    return 0x4A if metric_type == 3 else 0x0A if metric_type == 4 else 0x3A


cdef int attributes_of(Scan* s, Keys* keys, Owners* owners, uint32_t wanted, bint inner, const int32_t* types) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint32_t tag = 0
    cdef int32_t body, stop_at
    cdef FrameRow* owner
    cdef AttributeRow* row
    cdef Ptr p, end, start, stop = NULL
    for i in range(owners.count):
        owner = <FrameRow*>(owners.rows + i * owners.size)
        if inner:                          # Resource and Scope rows start alike
            if (<ResourceRow*>owner).attribute_count <= 0:
                continue
            body = (<ResourceRow*>owner).inner_body
            stop_at = (<ResourceRow*>owner).inner_end
        else:
            body = owner.body
            stop_at = owner.end
        if not inside(s, body, stop_at):
            fail(s, s.base, "a row points outside the request")
            return -1
        if types != NULL:
            wanted = point_attribute_tag(types[i])
        p = s.base + body
        end = s.base + stop_at
        while p < end:
            start = p
            p = take_tag(s, p, end, &tag)
            if p == NULL:
                return -1
            if tag != wanted:
                p = pass_over(s, start, p, end, tag)
                if p == NULL:
                    return -1
                continue
            p = take_length(s, p, end, &stop)
            if p == NULL:
                return -1
            row = <AttributeRow*>push(s, &s.items, start)
            if row == NULL:
                return -1
            memset(row, 0, sizeof(AttributeRow))       # the padding too: no bytes of the heap get out
            row.owner = <int32_t>i
            row.start = <int32_t>(start - s.base)
            row.end = <int32_t>(stop - s.base)
            if read_key_value(s, keys, p, stop, row) < 0:
                return -1
            p = stop
    return 0


cdef Py_ssize_t expected_attributes(Owners* owners, str table):
    """What the rows say of it, within reason: they may be anyone's."""
    cdef Py_ssize_t i, at = layout_offset(table), total = 0
    for i in range(owners.count):
        total += max((<int32_t*>(owners.rows + i * owners.size + at))[0], 0)
    return min(total, 1 << 20) + 1


cdef Py_ssize_t layout_offset(str table):
    return OWNERS[table][0].fields["attribute_count"][1]


cdef dict OWNERS = {
    "resources": (layout.RESOURCE, 0x0A), "scopes": (layout.SCOPE, 0x1A), "spans": (layout.SPAN, 0x4A), "events": (layout.EVENT, 0x1A),
    "links": (layout.LINK, 0x22), "records": (layout.RECORD, 0x32), "points": (layout.POINT, 0x3A), "exemplars": (layout.EXEMPLAR, 0x3A),
}


def index_attributes(str table not None, bytes wire not None, rows not None, types=None):
    """(read-only ATTRIBUTE rows in document order, distinct keys): ``key_code`` is an index into the keys.

    ``rows`` are those of ``table``; ``types`` (I32, one a row) is the metric's type of each point, needed for ``points`` only.

    Raises:
        MalformedBatch: the rows do not belong to these bytes.
    """
    cdef Scan s
    cdef Keys keys
    cdef Owners owners
    cdef const int32_t[::1] kinds
    cdef const int32_t* kinds_at = NULL
    cdef Key* key
    cdef Py_ssize_t i
    cdef int rc
    cdef uint32_t tag
    cdef bint inner = table == "resources" or table == "scopes"
    if table not in OWNERS:
        raise ValueError(f"no table with attributes: {table!r}")
    dtype, tag = OWNERS[table]
    if table == "points":
        if types is None:
            raise ValueError("points need the type of their metrics: their fields differ")
        kinds = np.ascontiguousarray(types, np.int32)
        if kinds.shape[0] != len(rows):
            raise ValueError(f"{kinds.shape[0]} types for {len(rows)} points")
        if len(rows):
            kinds_at = &kinds[0]
    begin(&s, wire, TRACES, False)
    memset(&keys, 0, sizeof(Keys))
    keys.previous = -1
    owners_of(&owners, rows, dtype)
    try:
        prepare(&s.items, sizeof(AttributeRow), s.length, expected_attributes(&owners, table))
        prepare(&keys.list, sizeof(Key), s.length, 32)
        if s.length > RELEASE_GIL_BYTES:
            with nogil:
                rc = attributes_of(&s, &keys, &owners, tag, inner, kinds_at)
        else:
            rc = attributes_of(&s, &keys, &owners, tag, inner, kinds_at)
        if rc < 0:
            raise error(&s, table)
        names = []
        for i in range(keys.list.count):   # distinct keys
            key = <Key*>keys.list.rows + i
            names.append(PyBytes_FromStringAndSize(<char*>s.base + key.start, key.length))
        return array(&s.items, layout.ATTRIBUTE), names
    finally:
        free(keys.slots)
        free(keys.hashes)
        free(keys.followers)
        free(keys.list.rows)
        PyBuffer_Release(&owners.view)
        finish(&s)


cdef int find_in(Scan* s, const int32_t* bodies, const int32_t* ends, Py_ssize_t count, uint32_t number, int32_t* starts, int32_t* stops) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint32_t tag = 0
    cdef Ptr p, end, start
    for i in range(count):
        if not inside(s, bodies[i], ends[i]):
            fail(s, s.base, "a message outside the request")
            return -1
        p = s.base + bodies[i]
        end = s.base + ends[i]
        starts[i] = stops[i] = -1
        while p < end:
            start = p
            p = take_tag(s, p, end, &tag)
            if p == NULL:
                return -1
            p = pass_over(s, start, p, end, tag)
            if p == NULL:
                return -1
            if tag >> 3 == number:
                starts[i] = <int32_t>(start - s.base)
                stops[i] = <int32_t>(p - s.base)
    return 0


def find_field(bytes wire not None, bodies not None, ends not None, uint32_t field_number):
    """(start of the tag, one past the end) of the last occurrence of a field in each message, I32; -1, -1 where there is none.

    ``bodies``, ``ends``: content of the messages, I32.

    Raises:
        MalformedBatch: one of them is no message within these bytes.
    """
    cdef Scan s
    cdef const int32_t[::1] body = np.ascontiguousarray(bodies, np.int32)
    cdef const int32_t[::1] end = np.ascontiguousarray(ends, np.int32)
    cdef Py_ssize_t count = body.shape[0]
    cdef int rc
    if end.shape[0] != count:
        raise ValueError(f"{count} bodies, {end.shape[0]} ends")
    starts = np.empty(count, np.int32)
    stops = np.empty(count, np.int32)
    cdef int32_t[::1] starts_at = starts, stops_at = stops
    if count == 0:
        return starts, stops
    begin(&s, wire, TRACES, False)
    if s.length > RELEASE_GIL_BYTES:
        with nogil:
            rc = find_in(&s, &body[0], &end[0], count, field_number, &starts_at[0], &stops_at[0])
    else:
        rc = find_in(&s, &body[0], &end[0], count, field_number, &starts_at[0], &stops_at[0])
    if rc < 0:
        raise error(&s)
    return starts, stops
