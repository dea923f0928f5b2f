"""Walks an Export…ServiceRequest down to its items: resources, scopes and the frames of spans, records and metrics.

The contents of an item are read by the module of its signal.

Source: ``resource.proto``, ``common.proto`` (InstrumentationScope, EntityRef), ``trace.proto``, ``metrics.proto`` and
``logs.proto`` (Resource…, Scope…) of opentelemetry-proto 1.x.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.string cimport memset

from collector.wire.layout cimport FrameRow, MetricRow, RecordRow, ResourceRow, ScopeRow, SpanRow
from collector.wire.proto cimport Ptr
from collector.wire.scan.logs cimport walk_record
from collector.wire.scan.metrics cimport walk_metric
from collector.wire.scan.readers cimport other_field, skip_text, skip_varint, take_length, take_tag, take_text
from collector.wire.scan.state cimport (
    LOGS, METRICS, NO_NAME, NOT_PLAIN, OLD_FIELD, TRACES, Rows, Scan, fail, push, reject, within,
)
from collector.wire.scan.traces cimport walk_span
from collector.wire.scan.values cimport take_attribute


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
    """Walks one span, record or metric."""
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
        if metric.name_len == 0:           # it is dropped as a whole, whatever is wrong with its points
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
        if tag == 0x12 or tag == 0x1F42:   # 1000: the instrumentation-library field, which old decoders read
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
            p = fail(s, start, "a known field has a wrong wire type", tag)
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
