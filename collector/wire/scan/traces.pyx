"""Validates a span with its events, links and status, and fills its row.

Source: ``trace.proto`` (Span, Status) of opentelemetry-proto 1.x.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from collector.wire.layout cimport EventRow, FrameRow, LinkRow, SpanRow
from collector.wire.proto cimport Ptr
from collector.wire.scan.readers cimport (
    other_field, skip_varint, take_fixed32, take_fixed64, take_int, take_length, take_span_id, take_tag, take_text,
    take_trace_id,
)
from collector.wire.scan.state cimport NOT_PLAIN, Scan, within
from collector.wire.scan.values cimport take_attribute


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
