"""Validates a metric with its points, exemplars and quantiles; fills its row and adds a row for each point.

Source: ``metrics.proto`` of opentelemetry-proto 1.x.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from collector.wire.layout cimport (
    METRIC_EXPONENTIAL_HISTOGRAM, METRIC_GAUGE, METRIC_HISTOGRAM, METRIC_SUM, METRIC_SUMMARY, PRESENT_MAX, PRESENT_MIN,
    PRESENT_SUM, VALUE_DOUBLE, VALUE_INT, ExemplarRow, FrameRow, MetricRow, PointRow, QuantileRow,
)
from collector.wire.proto cimport Ptr
from collector.wire.scan.readers cimport (
    other_field, skip_varint, take_fixed64, take_int, take_length, take_span_id, take_tag, take_text, take_trace_id,
    take_varint, take_zigzag,
)
from collector.wire.scan.state cimport NOT_PLAIN, Scan, fail, push, reject, within
from collector.wire.scan.values cimport take_attribute


cdef Ptr take_packed64(Scan* s, Ptr p, Ptr end, int32_t* start, int32_t* length) noexcept nogil:
    cdef Ptr stop = NULL
    p = take_length(s, p, end, &stop)
    if p == NULL:
        return NULL
    if (stop - p) % 8:
        return fail(s, p, "the length of packed 8-byte numbers is not a multiple of 8")
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
            row.value_kind = VALUE_DOUBLE
        elif tag == 0x31:
            bit = 0x08                     # the same oneof as as_double
            p = take_fixed64(s, p, end, &row.int_value)
            row.double_value = 0
            row.value_kind = VALUE_INT
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
            row.value_kind = VALUE_DOUBLE
        elif tag == 0x31:
            bit = 0x10                     # the same oneof as as_double
            p = take_fixed64(s, p, end, &row.int_value)
            row.double_value = 0
            row.value_kind = VALUE_INT
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
            row.present |= PRESENT_SUM
        elif tag == 0x32:
            p = take_packed64(s, p, end, &row.buckets, &row.buckets_len)
        elif tag == 0x3A:
            p = take_packed64(s, p, end, &row.bounds, &row.bounds_len)
        elif tag == 0x31 or tag == 0x39:   # not packed: one number per field
            s.flags |= NOT_PLAIN
            p = take_fixed64(s, p, end, &number)
        elif tag == 0x42:
            bit = 0
            p = take_exemplar(s, p, end, &row.exemplar_count)
        elif tag == 0x50:
            p = take_int(s, p, end, <int32_t*>&row.flags)
        elif tag == 0x59:
            p = take_fixed64(s, p, end, &row.min)
            row.present |= PRESENT_MIN
        elif tag == 0x61:
            p = take_fixed64(s, p, end, &row.max)
            row.present |= PRESENT_MAX
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
            row.present |= PRESENT_SUM
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
            row.present |= PRESENT_MIN
        elif tag == 0x69:
            p = take_fixed64(s, p, end, &row.max)
            row.present |= PRESENT_MAX
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
            row.present |= PRESENT_SUM
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
    """Walks a Gauge, Sum, Histogram, ExponentialHistogram or Summary."""
    cdef uint32_t tag = 0, seen = 0, again = 0, bit, known = 0x02
    cdef uint64_t number = 0
    cdef Ptr start, stop = NULL
    cdef PointRow* row
    cdef int rc
    cdef int kind = metric.type
    metric.temporality = metric.monotonic = 0
    if kind == METRIC_SUM:
        known = 0x0E
    elif kind == METRIC_HISTOGRAM or kind == METRIC_EXPONENTIAL_HISTOGRAM:
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
            if kind <= METRIC_SUM:
                rc = walk_number_point(s, p, stop, row)
            elif kind == METRIC_HISTOGRAM:
                rc = walk_histogram_point(s, p, stop, row)
            elif kind == METRIC_EXPONENTIAL_HISTOGRAM:
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
                row.type = METRIC_GAUGE
                name = "gauge"
            elif tag == 0x3A:
                row.type = METRIC_SUM
                name = "sum"
            elif tag == 0x4A:
                row.type = METRIC_HISTOGRAM
                name = "histogram"
            elif tag == 0x52:
                row.type = METRIC_EXPONENTIAL_HISTOGRAM
                name = "exponential_histogram"
            else:
                row.type = METRIC_SUMMARY
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
