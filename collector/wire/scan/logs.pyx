"""Validates a log record and fills its row.

Source: ``logs.proto`` (LogRecord) of opentelemetry-proto 1.x.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memset

from collector.wire.layout cimport KIND_ABSENT, KIND_STRING, AttributeRow, FrameRow, RecordRow
from collector.wire.proto cimport Ptr
from collector.wire.scan.readers cimport (
    other_field, skip_varint, take_fixed32, take_fixed64, take_int, take_length, take_span_id, take_tag, take_text,
    take_trace_id,
)
from collector.wire.scan.state cimport NOT_PLAIN, Scan, within
from collector.wire.scan.values cimport check_any, read_any, take_attribute


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
