"""Indexes on demand what a scan leaves out: events, links, exemplars, quantiles, attributes and single fields.

The bytes passed the door, so values are not validated again. Rows are not trusted: whatever they contain, nothing is
read outside the bytes.

Field numbers: opentelemetry-proto 1.x.
"""

import numpy as np

from collector.wire import layout

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memset

from collector.wire.gil cimport RELEASE_GIL_BYTES
from collector.wire.layout cimport (
    KIND_STRING, METRIC_EXPONENTIAL_HISTOGRAM, METRIC_HISTOGRAM, AttributeRow, EventRow, ExemplarRow, FrameRow, LinkRow,
    PointRow, QuantileRow, ResourceRow, SpanRow,
)
from collector.wire.proto cimport Ptr, read_tag, skip_field
from collector.wire.scan.keys cimport Keys, begin_keys, finish_keys, key_code, names_of
from collector.wire.scan.metrics cimport walk_exemplar, walk_quantile
from collector.wire.scan.readers cimport other_field, pass_over, take_length, take_tag
from collector.wire.scan.state cimport TRACES, Scan, array, begin, error, fail, finish, prepare, push
from collector.wire.scan.traces cimport walk_event, walk_link
from collector.wire.scan.values cimport read_any

__all__ = ["find_field", "index_attributes", "index_children"]

# The entry points come last in this module: with the kernels after them, GCC lays the hot loop out so that it takes 5 %
# longer.

ctypedef struct Owners:
    Py_buffer view
    Ptr rows
    Py_ssize_t count, size

# Tables below the items: name, dtype of the parents, own dtype.
cdef tuple CHILDREN = (
    ("events", layout.SPAN, layout.EVENT),
    ("links", layout.SPAN, layout.LINK),
    ("exemplars", layout.POINT, layout.EXEMPLAR),
    ("quantiles", layout.POINT, layout.QUANTILE),
)

# Tables with attributes: the dtype of their rows and the tag of the attribute field.
cdef dict OWNERS = {
    "resources": (layout.RESOURCE, 0x0A),
    "scopes": (layout.SCOPE, 0x1A),
    "spans": (layout.SPAN, 0x4A),
    "events": (layout.EVENT, 0x1A),
    "links": (layout.LINK, 0x22),
    "records": (layout.RECORD, 0x32),
    "points": (layout.POINT, 0x3A),
    "exemplars": (layout.EXEMPLAR, 0x3A),
}


cdef int owners_of(Owners* owners, object rows, object dtype) except -1:
    """Opens the rows of a table; PyBuffer_Release(&owners.view) must follow."""
    if rows.dtype != dtype:
        raise ValueError(f"the rows belong to another table; their dtype is {rows.dtype}")
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
    """The tag of the exemplars of a point that has some, found from its fields alone.

    They are in field 5 of number points, 8 of histograms and 11 of exponential histograms. Fields 5 and 11 of the other
    types are not messages (5 is a sum, 11 the minimum of a histogram), so their presence decides; otherwise it is 8.
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


cdef inline int read_key_value(Scan* s, Keys* keys, Ptr p, Ptr end, AttributeRow* row) noexcept nogil:
    cdef uint32_t tag = 0
    cdef Ptr start, stop = NULL, value = NULL, value_end = NULL
    # The common form: a short key, then a value that is a short text or a small number.
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
    if metric_type == METRIC_HISTOGRAM:
        return 0x4A
    return 0x0A if metric_type == METRIC_EXPONENTIAL_HISTOGRAM else 0x3A


cdef int attributes_of(
    Scan* s, Keys* keys, Owners* owners, uint32_t wanted, bint inner, const int32_t* types
) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint32_t tag = 0
    cdef int32_t body, stop_at
    cdef FrameRow* owner
    cdef AttributeRow* row
    cdef Ptr p, end, start, stop = NULL
    for i in range(owners.count):
        owner = <FrameRow*>(owners.rows + i * owners.size)
        if inner:                          # resource and scope rows begin with the same fields
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
            memset(row, 0, sizeof(AttributeRow))       # including the padding, so that no bytes of the heap leak
            row.owner = <int32_t>i
            row.start = <int32_t>(start - s.base)
            row.end = <int32_t>(stop - s.base)
            if read_key_value(s, keys, p, stop, row) < 0:
                return -1
            p = stop
    return 0


cdef Py_ssize_t expected_attributes(Owners* owners, str table):
    """The number of attributes according to the rows, capped, because rows are not trusted."""
    cdef Py_ssize_t i, at = OWNERS[table][0].fields["attribute_count"][1], total = 0
    for i in range(owners.count):
        total += max((<int32_t*>(owners.rows + i * owners.size + at))[0], 0)
    return min(total, 1 << 20) + 1


cdef int find_in(
    Scan* s,
    const int32_t* bodies,
    const int32_t* ends,
    Py_ssize_t count,
    uint32_t number,
    int32_t* starts,
    int32_t* stops,
) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint32_t tag = 0
    cdef Ptr p, end, start
    for i in range(count):
        if not inside(s, bodies[i], ends[i]):
            fail(s, s.base, "a message is outside the request")
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


def index_children(str table not None, bytes wire not None, parents not None):
    """Read-only rows of ``events``, ``links`` (of spans), ``exemplars`` or ``quantiles`` (of points), in their order.

    Raises:
        MalformedBatch: The rows of ``parents`` do not belong to these bytes.
    """
    cdef Scan s
    cdef Owners owners
    cdef int code, rc
    for code in range(4):
        if CHILDREN[code][0] == table:
            break
    else:
        raise ValueError(f"expected events, links, exemplars or quantiles, got {table!r}")
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


def index_attributes(str table not None, bytes wire not None, rows not None, types=None):
    """(Read-only ATTRIBUTE rows in document order, distinct keys); ``key_code`` is an index into the keys.

    Args:
        table: The name of the table.
        wire: The request.
        rows: The rows of the table.
        types: For ``points``: the type of the metric of each point, I32[n].

    Raises:
        MalformedBatch: The rows do not belong to these bytes.
    """
    cdef Scan s
    cdef Keys keys
    cdef Owners owners
    cdef const int32_t[::1] kinds
    cdef const int32_t* kinds_at = NULL
    cdef int rc
    cdef uint32_t tag
    cdef bint inner = table == "resources" or table == "scopes"
    if table not in OWNERS:
        raise ValueError(f"table {table!r} has no attributes")
    dtype, tag = OWNERS[table]
    if table == "points":
        if types is None:
            raise ValueError("the types of the metrics are required for points, whose fields depend on them")
        kinds = np.ascontiguousarray(types, np.int32)
        if kinds.shape[0] != len(rows):
            raise ValueError(f"expected the types of {len(rows)} points, got {kinds.shape[0]}")
        if len(rows):
            kinds_at = &kinds[0]
    begin(&s, wire, TRACES, False)
    owners_of(&owners, rows, dtype)
    begin_keys(&keys, s.length)
    try:
        prepare(&s.items, sizeof(AttributeRow), s.length, expected_attributes(&owners, table))
        if s.length > RELEASE_GIL_BYTES:
            with nogil:
                rc = attributes_of(&s, &keys, &owners, tag, inner, kinds_at)
        else:
            rc = attributes_of(&s, &keys, &owners, tag, inner, kinds_at)
        if rc < 0:
            raise error(&s, table)
        return array(&s.items, layout.ATTRIBUTE), names_of(&s, &keys)
    finally:
        finish_keys(&keys)
        PyBuffer_Release(&owners.view)
        finish(&s)


def find_field(bytes wire not None, bodies not None, ends not None, uint32_t field_number):
    """The last occurrence of a field in each message: (start of its tag, end), I32; (-1, -1) if it is absent.

    ``bodies`` and ``ends`` are the extent of the content of the messages, I32.

    Raises:
        MalformedBatch: A message is not valid or not within these bytes.
    """
    cdef Scan s
    cdef const int32_t[::1] body = np.ascontiguousarray(bodies, np.int32)
    cdef const int32_t[::1] end = np.ascontiguousarray(ends, np.int32)
    cdef Py_ssize_t count = body.shape[0]
    cdef int rc
    if end.shape[0] != count:
        raise ValueError(f"got {count} bodies but {end.shape[0]} ends")
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
