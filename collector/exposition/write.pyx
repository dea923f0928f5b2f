"""Writes samples of Prometheus series as an OTLP metrics request.

A ``Layout`` says which samples make up which point, and is made once for a set of series; each scrape then brings
other values. A sample has a role in its point, so that a histogram's buckets, sum and count become one point.

Source: OpenTelemetry specification compatibility/prometheus_and_openmetrics.md, and the Collector's prometheusreceiver
where it leaves something open.
"""

import numpy as np

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport floor
from libc.stdint cimport INT64_MIN, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from collector.exposition.grammar cimport Label, read_label, skip_blanks, unescape
from collector.wire.gil cimport RELEASE_GIL_ROWS
from collector.wire.proto cimport Ptr
from collector.wire.writer cimport (
    Writer, begin, close_writer, end, open_writer, put_bytes, put_fixed64, put_number, put_slice, put_varint, reserve,
    take,
)

cnp.import_array()

__all__ = [
    "EXPONENTIAL_HISTOGRAM", "GAUGE", "HISTOGRAM", "ROLE_BUCKET", "ROLE_COUNT", "ROLE_CREATED", "ROLE_SUM",
    "ROLE_VALUE", "SUM", "SUMMARY", "Exemplars", "Layout", "Natives",
]

# The kinds of metrics, which are the field numbers of their data in the message Metric.
GAUGE, SUM, HISTOGRAM, EXPONENTIAL_HISTOGRAM, SUMMARY = 5, 7, 9, 10, 11
# What a sample is in its point; within a point, samples are in this order, and buckets in that of their bounds.
ROLE_VALUE, ROLE_SUM, ROLE_COUNT, ROLE_CREATED, ROLE_BUCKET = range(5)

cdef enum:
    K_GAUGE = 5
    K_SUM = 7
    K_HISTOGRAM = 9
    K_EXPONENTIAL = 10
    K_SUMMARY = 11
    R_VALUE = 0
    R_SUM = 1
    R_COUNT = 2
    R_CREATED = 3
    R_BUCKET = 4
    STALE_FLAG = 1
    TRACE_ID_CHARS = 32
    SPAN_ID_CHARS = 16

cdef struct Exemplar:
    double value
    int64_t timestamp
    uint32_t start, end

cdef uint64_t STALE_BITS = 0x7FF0000000000002
cdef int64_t MILLISECONDS_MAX = 9223372036854  # more do not fit into 64 bits of nanoseconds
cdef double COUNT_MAX = 18446744073709549568.0  # the largest double below 2**64


cdef class Exemplars:
    """The exemplars of a page: ``numbers`` I32[n] has the row of each sample or -1, in ``rows``, EXEMPLAR[m]."""

    cdef readonly object numbers, rows
    cdef readonly bytes body
    cdef const int32_t* _numbers
    cdef const Exemplar* _rows

    def __init__(self, numbers, rows, bytes body not None):
        """Checks the arguments.

        Raises:
            ValueError: A row is out of range.
        """
        self.numbers = numbers = np.ascontiguousarray(numbers, np.int32)
        self.rows = rows = np.ascontiguousarray(rows)
        self.body = body
        if rows.dtype.itemsize != sizeof(Exemplar) or (len(rows) and rows["end"].max() > len(body)):
            raise ValueError("exemplars must be rows with places in the page")
        if len(numbers) and (numbers.max() >= len(rows) or numbers.min() < -1):
            raise ValueError("a sample has an exemplar that does not exist")
        self._numbers = <const int32_t*>cnp.PyArray_DATA(<cnp.ndarray>numbers)
        self._rows = <const Exemplar*>cnp.PyArray_DATA(<cnp.ndarray>rows)



cdef class Natives:
    """Native histograms: the fields of an ExponentialHistogramDataPoint without time and attributes, by sample.

    ``numbers`` I32[n] has the entry of each sample in ``fields`` or -1.
    """

    cdef readonly object numbers
    cdef readonly list fields
    cdef const int32_t* _numbers

    def __init__(self, numbers, list fields not None):
        """Checks the arguments.

        Raises:
            ValueError: An entry does not exist.
        """
        self.numbers = numbers = np.ascontiguousarray(numbers, np.int32)
        self.fields = fields
        if len(numbers) and (numbers.max() >= len(fields) or numbers.min() < -1):
            raise ValueError("a sample has a histogram that does not exist")
        self._numbers = <const int32_t*>cnp.PyArray_DATA(<cnp.ndarray>numbers)


ctypedef struct Group:
    Py_ssize_t resource, resource_end, scope, scope_end, metric_count
    bint same_resource

ctypedef struct Metric:
    Py_ssize_t head, tail, tail_end, point_count
    int kind

ctypedef struct Values:
    const double* values
    const int64_t* timestamps
    int64_t now_ms
    bint stale
    Ptr page
    const Exemplar* exemplars
    const int32_t* exemplar_of
    const int32_t* native_of
    Ptr natives
    const int64_t* native_offsets

ctypedef struct Counts:
    int64_t points, incomplete, invalid, other_time


cdef class Layout:
    """Which samples make up which point, metric, scope and resource.

    Args:
        groups: A scope each: the fields of the Resource message, those of its ScopeMetrics without the metrics, and the
            number of metrics. Groups of one resource follow each other.
        metrics: Kind, the fields before the data, the fields of the data after the points, and the number of points.
        attributes: The attributes of each point, as its fields.
        starts: I64[points + 1]: where the samples of each point begin in the following columns.
        rows: I64[m]: the row of each sample among the values.
        roles: U8[m]: what it is in the point.
        bounds: F64[m]: ``le`` or ``quantile`` of a bucket.

    Raises:
        ValueError: The numbers do not agree.
    """

    cdef readonly Py_ssize_t point_count, row_count, sample_count
    cdef Group* _groups
    cdef Metric* _metrics
    cdef Py_ssize_t _group_count
    cdef bytes _blob, _attributes
    cdef object _arrays         # what the pointers point into
    cdef Ptr _blob_at
    cdef Ptr _attributes_at
    cdef const int64_t* _offsets
    cdef const int64_t* _starts
    cdef const int64_t* _rows
    cdef const uint8_t* _roles
    cdef const double* _bounds

    def __init__(self, list groups not None, list metrics not None, list attributes not None, starts, rows, roles, bounds):
        """Copies what it needs."""
        cdef Py_ssize_t i, position = 0
        starts = np.array(starts, np.int64)
        rows = np.array(rows, np.int64)
        roles = np.array(roles, np.uint8)
        bounds = np.array(bounds, np.float64)
        self.point_count = len(attributes)
        self.row_count = int(rows.max()) + 1 if len(rows) else 0
        if (
            sum([group[2] for group in groups]) != len(metrics)
            or sum([metric[3] for metric in metrics]) != len(attributes)
            or len(starts) != len(attributes) + 1
            or starts.item(0) != 0
            or starts.item(len(starts) - 1) != len(rows)
            or (np.diff(starts) < 0).any()
            or len(rows) != len(roles)
            or len(rows) != len(bounds)
            or (len(rows) and rows.min() < 0)
        ):
            raise ValueError("the parts of the layout do not agree")
        self._attributes = b"".join(attributes)
        offsets = np.zeros(len(attributes) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, attributes), np.int64, len(attributes)), out=offsets[1:])
        self._arrays = (offsets, starts, rows, roles, bounds)
        self._attributes_at = <Ptr>PyBytes_AS_STRING(self._attributes)
        self._offsets = <const int64_t*>cnp.PyArray_DATA(<cnp.ndarray>offsets)
        self._starts = <const int64_t*>cnp.PyArray_DATA(<cnp.ndarray>starts)
        self._rows = <const int64_t*>cnp.PyArray_DATA(<cnp.ndarray>rows)
        self._roles = <const uint8_t*>cnp.PyArray_DATA(<cnp.ndarray>roles)
        self._bounds = <const double*>cnp.PyArray_DATA(<cnp.ndarray>bounds)
        self.sample_count = len(rows)
        parts = []
        self._groups = <Group*>malloc(max(len(groups), 1) * sizeof(Group))
        self._metrics = <Metric*>malloc(max(len(metrics), 1) * sizeof(Metric))
        if self._groups == NULL or self._metrics == NULL:
            raise MemoryError
        self._group_count = len(groups)
        previous = None
        for i, (resource, scope, metric_count) in enumerate(groups):
            parts += (resource, scope)
            self._groups[i].resource = position
            position += len(resource)
            self._groups[i].resource_end = self._groups[i].scope = position
            position += len(scope)
            self._groups[i].scope_end = position
            self._groups[i].metric_count = metric_count
            self._groups[i].same_resource = resource == previous
            previous = resource
        for i, (kind, head, tail, point_count) in enumerate(metrics):
            parts += (head, tail)
            self._metrics[i].head = position
            position += len(head)
            self._metrics[i].tail = position
            position += len(tail)
            self._metrics[i].tail_end = position
            self._metrics[i].kind = kind
            self._metrics[i].point_count = point_count
        self._blob = b"".join(parts)
        self._blob_at = <Ptr>PyBytes_AS_STRING(self._blob)

    def __dealloc__(self):
        free(self._groups)
        free(self._metrics)

    def write(self, values, timestamps, int64_t now_ms, Exemplars exemplars=None, Natives natives=None):
        """The request with these values, and the numbers of points: written, without a count, invalid.

        ``values`` is F64[n] and ``timestamps`` I64[n], milliseconds or NO_TIMESTAMP, which means ``now_ms``. The fourth
        number is of samples whose timestamp is not that of their point.

        Raises:
            ValueError: There are too few rows.
        """
        cdef Values v
        cdef bytes native_blob
        values = np.ascontiguousarray(values, np.float64)
        timestamps = np.ascontiguousarray(timestamps, np.int64)
        if min(len(values), len(timestamps)) < self.row_count:
            raise ValueError(f"expected {self.row_count} values and timestamps")
        v.values = <const double*>cnp.PyArray_DATA(<cnp.ndarray>values)
        v.timestamps = <const int64_t*>cnp.PyArray_DATA(<cnp.ndarray>timestamps)
        v.now_ms = now_ms
        v.stale = False
        v.exemplar_of = v.native_of = NULL
        if exemplars is not None:
            if len(exemplars.numbers) < self.row_count:
                raise ValueError(f"expected exemplars of {self.row_count} samples")
            v.page = <Ptr>PyBytes_AS_STRING(exemplars.body)
            v.exemplars = exemplars._rows
            v.exemplar_of = exemplars._numbers
        if natives is not None:
            if len(natives.numbers) < self.row_count:
                raise ValueError(f"expected histograms of {self.row_count} samples")
            native_blob = b"".join(natives.fields)
            offsets = np.zeros(len(natives.fields) + 1, np.int64)
            np.cumsum([len(fields) for fields in natives.fields], out=offsets[1:])
            v.natives = <Ptr>PyBytes_AS_STRING(native_blob)
            v.native_offsets = <const int64_t*>cnp.PyArray_DATA(<cnp.ndarray>offsets)
            v.native_of = natives._numbers
        return self._write(&v)

    def write_stale(self, int64_t now_ms):
        """The request that says of all points that they have no value any more; see ``write``."""
        cdef Values v
        v.stale = True
        v.now_ms = now_ms
        v.exemplar_of = v.native_of = NULL
        return self._write(&v)

    cdef _write(self, Values* v):
        cdef Writer w
        cdef Counts counts
        counts.points = counts.incomplete = counts.invalid = counts.other_time = 0
        open_writer(&w, PyBytes_GET_SIZE(self._attributes) + 32 * self.sample_count + PyBytes_GET_SIZE(self._blob))
        try:
            if self.sample_count > RELEASE_GIL_ROWS:
                with nogil:
                    write_groups(&w, self, v, &counts)
            else:
                write_groups(&w, self, v, &counts)
            return take(&w), counts.points, counts.incomplete, counts.invalid, counts.other_time
        finally:
            close_writer(&w)


ctypedef struct Point:
    Py_ssize_t first, last      # its samples
    Ptr attributes
    Py_ssize_t attributes_size
    const int64_t* rows
    const uint8_t* roles
    const double* bounds


cdef void write_groups(Writer* w, Layout layout, Values* v, Counts* counts) noexcept nogil:
    cdef Group* group
    cdef Metric* metric = layout._metrics
    cdef Py_ssize_t i, j, k, start, resource_mark = -1, resource_start = 0, scope_mark, scope_start, mark, data_mark
    cdef Py_ssize_t point = 0
    cdef int64_t before
    cdef bint resource_has_points = False, scope_has_points
    cdef Ptr blob = layout._blob_at
    cdef const int64_t* offsets = layout._offsets
    cdef const int64_t* starts = layout._starts
    cdef Point p
    p.rows, p.roles, p.bounds = layout._rows, layout._roles, layout._bounds
    for i in range(layout._group_count):
        group = layout._groups + i
        if resource_mark < 0 or not group.same_resource:
            if resource_mark >= 0:
                close_message(w, resource_mark, resource_start, resource_has_points)
            resource_start = w.size
            resource_has_points = False
            resource_mark = begin(w, 1 << 3 | 2)
            put_slice(w, 1 << 3 | 2, blob + group.resource, group.resource_end - group.resource)
        scope_start = w.size
        scope_has_points = False
        scope_mark = begin(w, 2 << 3 | 2)
        put_bytes(w, blob + group.scope, group.scope_end - group.scope)
        for j in range(group.metric_count):
            before = counts.points
            start = w.size
            mark = begin(w, 2 << 3 | 2)
            put_bytes(w, blob + metric.head, metric.tail - metric.head)
            data_mark = begin(w, <uint32_t>(metric.kind << 3 | 2))
            for k in range(metric.point_count):
                p.first, p.last = starts[point], starts[point + 1]
                p.attributes = layout._attributes_at + offsets[point]
                p.attributes_size = offsets[point + 1] - offsets[point]
                write_point(w, metric.kind, &p, v, counts)
                point += 1
            put_bytes(w, blob + metric.tail, metric.tail_end - metric.tail)
            end(w, data_mark)
            close_message(w, mark, start, counts.points > before)
            scope_has_points = scope_has_points or counts.points > before
            metric += 1
        close_message(w, scope_mark, scope_start, scope_has_points)
        resource_has_points = resource_has_points or scope_has_points
    if resource_mark >= 0:
        close_message(w, resource_mark, resource_start, resource_has_points)


cdef inline void close_message(Writer* w, Py_ssize_t mark, Py_ssize_t start, bint keep) noexcept nogil:
    """Ends a message, or takes it back."""
    if keep:
        end(w, mark)
    elif not w.failed:
        w.size = start


cdef inline bint is_stale(double value) noexcept nogil:
    cdef uint64_t bits
    memcpy(&bits, &value, 8)
    return bits == STALE_BITS


cdef inline void put_double(Writer* w, uint32_t tag, double value) noexcept nogil:
    cdef uint64_t bits
    memcpy(&bits, &value, 8)
    put_fixed64(w, tag, bits)


cdef inline uint64_t nanoseconds(int64_t milliseconds) noexcept nogil:
    if milliseconds <= 0:
        return 0
    return <uint64_t>(MILLISECONDS_MAX if milliseconds > MILLISECONDS_MAX else milliseconds) * 1000000


cdef inline uint64_t created_nanoseconds(double seconds) noexcept nogil:
    cdef double whole
    if not 0 < seconds < 9e9:
        return 0
    whole = floor(seconds)
    return <uint64_t>whole * 1000000000 + <uint64_t>((seconds - whole) * 1e9)


cdef void write_point(Writer* w, int kind, Point* p, Values* v, Counts* counts) noexcept nogil:
    cdef Py_ssize_t i, mark, row, first_bucket = p.last
    cdef Py_ssize_t start = w.size
    cdef int64_t timestamp = v.now_ms, own
    cdef double count = 0, total = 0, created = 0, value = 0
    cdef bint has_count = False, has_sum = False, has_value = False, stale = v.stale, is_first = True, is_valid = True
    for i in range(p.first, p.last):
        if p.roles[i] == R_BUCKET:
            if first_bucket == p.last:
                first_bucket = i
            if v.stale:
                break
        elif v.stale:
            has_value = has_value or p.roles[i] == R_VALUE
            has_count = has_count or p.roles[i] == R_COUNT
            continue
        row = p.rows[i]
        own = v.now_ms if v.timestamps[row] == INT64_MIN else v.timestamps[row]
        if is_first:
            timestamp = own
            is_first = False
        elif own != timestamp:
            counts.other_time += 1
            continue
        if p.roles[i] == R_VALUE:
            value = v.values[row]
            has_value = True
        elif p.roles[i] == R_SUM:
            total = v.values[row]
            has_sum = True
        elif p.roles[i] == R_COUNT:
            count = v.values[row]
            has_count = True
        elif p.roles[i] == R_CREATED:
            created = v.values[row]
    if kind == K_HISTOGRAM or kind == K_SUMMARY:
        if not has_count:
            counts.incomplete += 1
            return
        stale = stale or is_stale(count) or (has_sum and is_stale(total))
        if not stale and not 0 <= count <= COUNT_MAX:
            counts.invalid += 1
            return
    else:
        if not has_value:
            counts.incomplete += 1
            return
        stale = stale or is_stale(value)
    mark = begin(w, 1 << 3 | 2)
    put_bytes(w, p.attributes, p.attributes_size)
    # A gauge has no start. Fields 2 and 3 are the times in every kind of point.
    if created != 0 and kind != K_GAUGE and not stale and created_nanoseconds(created):
        put_fixed64(w, 2 << 3 | 1, created_nanoseconds(created))
    put_fixed64(w, 3 << 3 | 1, nanoseconds(timestamp))
    if kind == K_HISTOGRAM:
        is_valid = write_histogram(w, p, v, first_bucket, stale, count, total, has_sum, timestamp)
    elif kind == K_SUMMARY:
        write_summary(w, p, v, first_bucket, stale, count, total, has_sum, timestamp)
    elif kind == K_EXPONENTIAL:
        row = p.rows[p.first]
        if not stale and v.native_of != NULL and v.native_of[row] >= 0:
            i = v.native_offsets[v.native_of[row]]
            put_bytes(w, v.natives + i, v.native_offsets[v.native_of[row] + 1] - i)
            write_exemplar(w, p, v, p.first, timestamp, 11 << 3 | 2)
    elif not stale:
        put_double(w, 4 << 3 | 1, value)
        write_exemplar(w, p, v, p.first, timestamp, 5 << 3 | 2)
    if stale:
        put_number(w, (10 << 3) if kind == K_HISTOGRAM or kind == K_EXPONENTIAL else (8 << 3), STALE_FLAG)
    if is_valid:
        end(w, mark)
        counts.points += 1
    else:
        counts.invalid += 1
        if not w.failed:
            w.size = start


cdef inline bint counts_at(Point* p, Values* v, Py_ssize_t i, int64_t timestamp) noexcept nogil:
    """Whether the bucket belongs to the point: its timestamp is that of the others."""
    cdef int64_t own
    if v.stale:
        return True
    own = v.timestamps[p.rows[i]]
    return (v.now_ms if own == INT64_MIN else own) == timestamp


cdef bint write_histogram(
    Writer* w, Point* p, Values* v, Py_ssize_t first, bint stale, double count, double total, bint has_sum,
    int64_t timestamp,
) noexcept nogil:
    """Writes count, sum, buckets and exemplars; False if the buckets are not cumulative."""
    cdef Py_ssize_t i, number = 0
    cdef double previous = 0, value
    cdef uint64_t difference
    if not stale:
        put_fixed64(w, 4 << 3 | 1, <uint64_t>count)
        if has_sum:
            put_double(w, 5 << 3 | 1, total)
    for i in range(first, p.last):
        # The last bucket is the count; its bound +Inf is not written.
        if p.bounds[i] != INF and counts_at(p, v, i, timestamp):
            number += 1
    put_varint(w, 6 << 3 | 2)
    put_varint(w, 8 * (<uint64_t>number + 1))
    for i in range(first, p.last):
        if p.bounds[i] != INF and counts_at(p, v, i, timestamp):
            difference = 0
            if not stale:
                value = v.values[p.rows[i]]
                if not previous <= value <= count:
                    return False
                difference = <uint64_t>(value - previous)
                previous = value
            put_bytes(w, &difference, 8)
    difference = 0 if stale else <uint64_t>(count - previous)
    put_bytes(w, &difference, 8)
    if number:
        put_varint(w, 7 << 3 | 2)
        put_varint(w, 8 * <uint64_t>number)
        for i in range(first, p.last):
            if p.bounds[i] != INF and counts_at(p, v, i, timestamp):
                put_bytes(w, p.bounds + i, 8)
    if not stale:
        for i in range(p.first, p.last):
            write_exemplar(w, p, v, i, timestamp, 8 << 3 | 2)
    return True


cdef void write_summary(
    Writer* w, Point* p, Values* v, Py_ssize_t first, bint stale, double count, double total, bint has_sum,
    int64_t timestamp,
) noexcept nogil:
    cdef Py_ssize_t i, mark
    if not stale:
        put_fixed64(w, 4 << 3 | 1, <uint64_t>count)
        if has_sum:
            put_double(w, 5 << 3 | 1, total)
    for i in range(first, p.last):
        if counts_at(p, v, i, timestamp):
            mark = begin(w, 6 << 3 | 2)
            put_double(w, 1 << 3 | 1, p.bounds[i])
            if not stale:
                put_double(w, 2 << 3 | 1, v.values[p.rows[i]])
            end(w, mark)


cdef void write_exemplar(
    Writer* w, Point* p, Values* v, Py_ssize_t i, int64_t timestamp, uint32_t tag
) noexcept nogil:
    """Writes the exemplar of a sample, if it has one."""
    cdef const Exemplar* exemplar
    cdef Ptr at
    cdef Ptr stop
    cdef Label label
    cdef Py_ssize_t mark
    if v.exemplar_of == NULL or v.exemplar_of[p.rows[i]] < 0:
        return
    exemplar = v.exemplars + v.exemplar_of[p.rows[i]]
    mark = begin(w, tag)
    put_fixed64(w, 2 << 3 | 1, nanoseconds(timestamp if exemplar.timestamp == INT64_MIN else exemplar.timestamp))
    put_double(w, 3 << 3 | 1, exemplar.value)
    stop = v.page + exemplar.end
    at = skip_blanks(v.page + exemplar.start + 1, stop)
    while at < stop and at[0] != 125:
        at = read_label(at, stop, &label)
        if at == NULL or label.value == NULL:
            break
        if label.value == label.value_end:
            continue
        if (
            is_key(&label, b"trace_id", 8) and put_id(w, 5 << 3 | 2, label.value, label.value_end, TRACE_ID_CHARS)
        ) or (is_key(&label, b"span_id", 7) and put_id(w, 4 << 3 | 2, label.value, label.value_end, SPAN_ID_CHARS)):
            continue
        put_attribute(w, &label)
    end(w, mark)


cdef inline bint is_key(Label* label, const char* key, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint8_t c
    if label.name_end - label.name != length:
        return False
    for i in range(length):
        c = label.name[i]
        if (c | 32 if c != 95 else c) != <uint8_t>key[i]:
            return False
    return True


cdef bint put_id(Writer* w, uint32_t tag, Ptr p, Ptr stop, int chars) noexcept nogil:
    """Writes an id in hexadecimal digits as bytes; False if it is not one, or zero."""
    cdef uint8_t[16] raw
    cdef int i, digit, seen = 0
    if stop - p != chars:
        return False
    for i in range(chars):
        digit = p[i]
        if 48 <= digit <= 57:
            digit -= 48
        elif 97 <= (digit | 32) <= 102:
            digit = (digit | 32) - 87
        else:
            return False
        seen |= digit
        raw[i // 2] = <uint8_t>((raw[i // 2] << 4 | digit) if i & 1 else digit)
    if not seen:
        return False
    put_slice(w, tag, raw, chars // 2)
    return True


cdef void put_attribute(Writer* w, Label* label) noexcept nogil:
    cdef Py_ssize_t mark = begin(w, 7 << 3 | 2), inner
    put_unescaped(w, 1 << 3 | 2, label.name, label.name_end)
    inner = begin(w, 2 << 3 | 2)
    put_unescaped(w, 1 << 3 | 2, label.value, label.value_end)
    end(w, inner)
    end(w, mark)


cdef inline void put_unescaped(Writer* w, uint32_t tag, Ptr p, Ptr stop) noexcept nogil:
    cdef Py_ssize_t mark = begin(w, tag)
    if reserve(w, stop - p):
        w.size += unescape(p, stop, w.data + w.size)
    end(w, mark)


cdef double INF = float("inf")
