"""Writes Prometheus remote-write 1.0 requests from index rows and cached label bytes.

A *run* is the points of one series (of all the series of one histogram or summary) that follow each other in the
request: same source labels, same bounds, in time order. The labels of a series are written from five pieces, so that
only the source's own pieces need caching: ``a`` (the labels that sort before ``__name__``), the name label, ``b``, the
``le`` or ``quantile`` label, ``c``. The kernel does not know names and label rules: the bytes arrive finished.

Source: prometheus prompb/remote.proto, prompb/types.proto.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove

import numpy as np

from collector.wire.layout cimport ExemplarRow, PointRow, QuantileRow
from collector.wire.proto cimport Ptr, read_varint
from collector.wire.writer cimport (
    Writer, close_writer, put_byte, put_bytes, put_fixed64, put_varint, reserve, varint_size,
)

cdef enum:
    GAUGE = 1
    SUM = 2
    HISTOGRAM = 3
    EXPONENTIAL = 4
    SUMMARY = 5
    CUSTOM = 6             # a histogram with explicit bounds, as a native histogram with custom buckets
    CUSTOM_SCHEMA = -53
    NAME_BASE = 0
    NAME_BUCKET = 1
    NAME_SUM = 2
    NAME_COUNT = 3
    NO_RECORDED_VALUE = 1
    PRESENT_SUM = 1
    MAX_SCALE = 8
    MIN_SCALE = -4
    EXEMPLAR_MAX_BYTES = 128

CUSTOM_BUCKETS = CUSTOM

cdef uint64_t STALE_NAN = 0x7FF0000000000002


cdef struct Piece:
    const uint8_t *at
    int32_t size


cdef struct Labels:
    Piece a, name, b, extra, c


cdef int _room(Writer *out, Py_ssize_t more) except -1 nogil:
    """Make room for one whole message, so that running out of memory is reported at once."""
    if not reserve(out, more):
        with gil:
            raise MemoryError
    return 0


cdef inline uint64_t _bits(double value) noexcept nogil:
    cdef uint64_t bits
    memcpy(&bits, &value, 8)
    return bits


cdef inline uint64_t _zigzag(int64_t value) noexcept nogil:
    return (<uint64_t>value << 1) ^ <uint64_t>(value >> 63)


cdef inline uint64_t _milliseconds(uint64_t nanoseconds) noexcept nogil:
    return nanoseconds // 1000000


cdef inline int32_t _labels_size(Labels *labels) noexcept nogil:
    return labels.a.size + labels.name.size + labels.b.size + labels.extra.size + labels.c.size


cdef inline void _labels(Writer *out, Labels *labels) noexcept nogil:
    put_bytes(out, labels.a.at, labels.a.size)
    put_bytes(out, labels.name.at, labels.name.size)
    put_bytes(out, labels.b.at, labels.b.size)
    put_bytes(out, labels.extra.at, labels.extra.size)
    put_bytes(out, labels.c.at, labels.c.size)


cdef int _series(
    Writer *out, Labels *labels, const uint64_t *values, const uint64_t *times, int32_t count, Writer *exemplars
) except -1 nogil:
    """One TimeSeries: labels, ``count`` samples (value bits, milliseconds), finished exemplar fields."""
    cdef int32_t i
    cdef size_t size = _labels_size(labels)
    for i in range(count):
        size += 2 + 10 + varint_size(times[i])
    size += exemplars.size
    _room(out, size + 16)
    put_byte(out, 0x0A)
    put_varint(out, size)
    _labels(out, labels)
    for i in range(count):
        put_byte(out, 0x12)
        put_byte(out, <uint8_t>(10 + varint_size(times[i])))
        put_fixed64(out, 0x09, values[i])
        put_byte(out, 0x10)
        put_varint(out, times[i])
    put_bytes(out, exemplars.data, <int32_t>exemplars.size)
    exemplars.size = 0
    return 0


cdef uint8_t[16] HEX
HEX[:] = b"0123456789abcdef"


cdef void _hex_label(
    Writer *out, const char *name, int32_t name_size, uint64_t high, uint64_t low, int32_t digits
) noexcept nogil:
    """A Label whose value is an id in hex."""
    cdef int32_t i
    cdef uint64_t word
    put_byte(out, 0x0A)
    put_byte(out, <uint8_t>(2 + name_size + 2 + digits))
    put_byte(out, 0x0A)
    put_byte(out, <uint8_t>name_size)
    put_bytes(out, <const uint8_t *>name, name_size)
    put_byte(out, 0x12)
    put_byte(out, <uint8_t>digits)
    for i in range(digits):
        word = high if digits == 32 and i < 16 else low
        put_byte(out, HEX[(word >> (60 - 4 * (i & 15))) & 15])


cdef int _exemplar(
    Writer *out, ExemplarRow *row, const uint8_t *extra, int32_t extra_size, int32_t extra_chars
) except -1 nogil:
    """One Exemplar field: span_id, trace_id, then the other attributes if all of it fits into 128 characters."""
    cdef int32_t trace = 0, span = 0, others = 0
    cdef size_t size
    cdef double value = <double>row.int_value if row.value_kind == 1 else row.double_value
    cdef uint64_t time = _milliseconds(row.time)
    if row.trace_id_hi | row.trace_id_lo:
        trace = 2 + 2 + 8 + 2 + 32
    if row.span_id:
        span = 2 + 2 + 7 + 2 + 16
    if extra_size > 0 and (40 if trace else 0) + (23 if span else 0) + extra_chars <= EXEMPLAR_MAX_BYTES:
        others = extra_size
    size = trace + span + others + 9 + 1 + varint_size(time)
    _room(out, size + 16)
    put_byte(out, 0x1A)
    put_varint(out, size)
    if span:
        _hex_label(out, "span_id", 7, 0, row.span_id, 16)
    if trace:
        _hex_label(out, "trace_id", 8, row.trace_id_hi, row.trace_id_lo, 32)
    put_bytes(out, extra, others)
    put_fixed64(out, 0x11, _bits(value))
    put_byte(out, 0x18)
    put_varint(out, time)
    return 0


# Native histograms.

cdef struct Spans:
    Writer spans      # finished BucketSpan messages
    Writer deltas     # packed zigzag varints
    int64_t last_count
    int64_t next_index
    int32_t span_offset
    uint32_t span_length
    bint open


cdef inline void _start_spans(Spans *s) noexcept nogil:
    s.spans.size = 0
    s.deltas.size = 0
    s.last_count = 0
    s.next_index = 0
    s.span_length = 0
    s.open = False


cdef int _close_span(Spans *s, uint8_t tag) except -1 nogil:
    cdef uint64_t offset = _zigzag(s.span_offset)
    if not s.open:
        return 0
    _room(&s.spans, 24)
    put_byte(&s.spans, tag)
    put_byte(&s.spans, <uint8_t>(2 + varint_size(offset) + varint_size(s.span_length)))
    put_byte(&s.spans, 0x08)
    put_varint(&s.spans, offset)
    put_byte(&s.spans, 0x10)
    put_varint(&s.spans, s.span_length)
    s.open = False
    return 0


cdef int _add_bucket(Spans *s, uint8_t tag, int64_t index, int64_t count) except -1 nogil:
    """Append one non-empty bucket; a gap of up to two empty ones is filled, a longer one starts a new span."""
    cdef int64_t gap = index - s.next_index
    if not s.open and s.spans.size == 0 and s.span_length == 0:
        s.span_offset = <int32_t>index
        s.open = True
    elif gap > 2:
        _close_span(s, tag)
        s.span_offset = <int32_t>gap
        s.span_length = 0
        s.open = True
    else:
        while gap > 0:
            _room(&s.deltas, 16)
            put_varint(&s.deltas, _zigzag(-s.last_count))
            s.last_count = 0
            s.span_length += 1
            gap -= 1
    _room(&s.deltas, 16)
    put_varint(&s.deltas, _zigzag(count - s.last_count))
    s.last_count = count
    s.span_length += 1
    s.next_index = index + 1
    return 0


cdef int _buckets(
    Spans *s, uint8_t tag, const uint8_t *at, int32_t size, int64_t offset, int32_t down
) except -1 nogil:
    """Write the packed varint counts as spans and deltas; every ``2**down`` buckets are merged into one."""
    cdef int64_t index = offset, merged_index = 0, merged = 0, target
    cdef uint64_t count = 0
    cdef Ptr end = at + size
    cdef bint have = False
    _start_spans(s)
    while at < end:
        at = read_varint(at, end, &count)
        if at == NULL:  # impossible: the scan has read every count
            break
        # Prometheus' bucket i ends at base**i, OpenTelemetry's bucket i ends at base**(i+1).
        target = (index >> down) + 1
        if have and target != merged_index:
            if merged:
                _add_bucket(s, tag, merged_index, merged)
            merged = 0
        merged_index = target
        merged += <int64_t>count
        have = True
        index += 1
    if have and merged:
        _add_bucket(s, tag, merged_index, merged)
    _close_span(s, tag)
    return 0


cdef int _native(
    Writer *out, Labels *labels, PointRow *rows, const int32_t *run, int32_t count, const uint8_t *wire,
    Spans *positive, Spans *negative, Writer *exemplars,
) except -1 nogil:
    """One TimeSeries of native histograms."""
    cdef Writer body
    cdef PointRow *point
    cdef int32_t i, down, scale
    cdef uint64_t time, total
    cdef bint stale
    cdef size_t size
    body.data = NULL
    body.size = 0
    body.room = 0
    body.failed = False
    try:
        for i in range(count):
            point = &rows[run[i]]
            stale = point.flags & NO_RECORDED_VALUE
            down = point.scale - MAX_SCALE if point.scale > MAX_SCALE else 0
            if down > 62:
                down = 62
            scale = MAX_SCALE if point.scale > MAX_SCALE else point.scale
            _buckets(
                positive, 0x5A, wire + point.positive, 0 if stale else point.positive_len, point.positive_offset, down
            )
            _buckets(
                negative, 0x42, wire + point.negative, 0 if stale else point.negative_len, point.negative_offset, down
            )
            time = _milliseconds(point.time)
            total = 0 if stale else point.count
            size = (1 + varint_size(total) + 9 + 1 + varint_size(_zigzag(scale)) + 9 + 1 + varint_size(point.zero_count)
                    + negative.spans.size + positive.spans.size + 1 + varint_size(time))
            if negative.deltas.size:
                size += 1 + varint_size(negative.deltas.size) + negative.deltas.size
            if positive.deltas.size:
                size += 1 + varint_size(positive.deltas.size) + positive.deltas.size
            _room(&body, size + 64)
            put_byte(&body, 0x22)
            put_varint(&body, size)
            put_byte(&body, 0x08)
            put_varint(&body, total)
            put_fixed64(&body, 0x19, STALE_NAN if stale else _bits(point.sum))
            put_byte(&body, 0x20)
            put_varint(&body, _zigzag(scale))
            put_fixed64(&body, 0x29, _bits(point.zero_threshold if point.zero_threshold > 0 else 1e-128))
            put_byte(&body, 0x30)
            put_varint(&body, point.zero_count)
            put_bytes(&body, negative.spans.data, <int32_t>negative.spans.size)
            if negative.deltas.size:
                put_byte(&body, 0x4A)
                put_varint(&body, negative.deltas.size)
                put_bytes(&body, negative.deltas.data, <int32_t>negative.deltas.size)
            put_bytes(&body, positive.spans.data, <int32_t>positive.spans.size)
            if positive.deltas.size:
                put_byte(&body, 0x62)
                put_varint(&body, positive.deltas.size)
                put_bytes(&body, positive.deltas.data, <int32_t>positive.deltas.size)
            put_byte(&body, 0x78)
            put_varint(&body, time)
        size = _labels_size(labels) + body.size + exemplars.size
        _room(out, size + 16)
        put_byte(out, 0x0A)
        put_varint(out, size)
        _labels(out, labels)
        put_bytes(out, exemplars.data, <int32_t>exemplars.size)
        put_bytes(out, body.data, <int32_t>body.size)
        exemplars.size = 0
    finally:
        close_writer(&body)
    return 0


cdef int _custom(
    Writer *out, Labels *labels, PointRow *rows, const int32_t *run, int32_t count, const uint8_t *wire,
    Spans *spans, Writer *body, Writer *exemplars,
) except -1 nogil:
    """One TimeSeries of native histograms with custom buckets."""
    cdef PointRow *point
    cdef int32_t i, j, bound_count, bucket_count
    cdef uint64_t time, total, value
    cdef uint64_t schema = _zigzag(CUSTOM_SCHEMA)
    cdef int64_t merged
    cdef bint stale
    cdef size_t size
    body.size = 0
    for i in range(count):
        point = &rows[run[i]]
        stale = point.flags & NO_RECORDED_VALUE
        bucket_count = point.buckets_len // 8
        bound_count = point.bounds_len // 8
        if bound_count >= bucket_count:
            bound_count = bucket_count - 1 if bucket_count else 0
        while bound_count > 0 and _bound(point, wire, bound_count - 1) == INFINITY:
            bound_count -= 1
        total = 0
        _start_spans(spans)
        if not stale and not bucket_count and point.count:  # all that is known is the count
            total = point.count
            _add_bucket(spans, 0x5A, 0, <int64_t>total)
        merged = 0
        for j in range(0 if stale else bucket_count):
            value = _bucket(point, wire, j)
            total += value
            if j < bound_count:
                if value:
                    _add_bucket(spans, 0x5A, j, <int64_t>value)
            else:  # the last bucket ends at infinity, also if that is an explicit bound
                merged += <int64_t>value
        if merged:
            _add_bucket(spans, 0x5A, bound_count, merged)
        _close_span(spans, 0x5A)
        time = _milliseconds(point.time)
        # The receiver demands that the count is that of the buckets.
        size = (1 + varint_size(total) + 9 + 1 + varint_size(schema) + spans.spans.size + 1 + varint_size(time))
        if spans.deltas.size:
            size += 1 + varint_size(spans.deltas.size) + spans.deltas.size
        if bound_count:
            size += 2 + varint_size(8 * bound_count) + 8 * bound_count
        _room(body, size + 64)
        put_byte(body, 0x22)
        put_varint(body, size)
        put_byte(body, 0x08)
        put_varint(body, total)
        put_fixed64(body, 0x19, STALE_NAN if stale else _bits(point.sum) if point.present & PRESENT_SUM else 0)
        put_byte(body, 0x20)
        put_varint(body, schema)
        put_bytes(body, spans.spans.data, <int32_t>spans.spans.size)
        if spans.deltas.size:
            put_byte(body, 0x62)
            put_varint(body, spans.deltas.size)
            put_bytes(body, spans.deltas.data, <int32_t>spans.deltas.size)
        put_byte(body, 0x78)
        put_varint(body, time)
        if bound_count:
            put_byte(body, 0x82)
            put_byte(body, 0x01)
            put_varint(body, 8 * bound_count)
            put_bytes(body, wire + point.bounds, 8 * bound_count)
    size = _labels_size(labels) + body.size + exemplars.size
    _room(out, size + 16)
    put_byte(out, 0x0A)
    put_varint(out, size)
    _labels(out, labels)
    put_bytes(out, exemplars.data, <int32_t>exemplars.size)
    put_bytes(out, body.data, <int32_t>body.size)
    exemplars.size = 0
    return 0


def bucket_counts(
    bytes wire not None,
    const uint8_t[::1] points not None,              # PointRow records
    const int64_t[::1] chosen not None,              # rows of exponential histograms
):
    """The sum of the bucket counts of each chosen point, zero bucket included; 2**63 if it is not below that."""
    cdef PointRow *rows = <PointRow *>&points[0] if points.shape[0] else NULL
    cdef PointRow *point
    cdef const uint8_t *buffer = wire
    cdef uint64_t total
    cdef Py_ssize_t i
    result = np.empty(chosen.shape[0], np.uint64)
    cdef uint64_t[::1] out = result
    for i in range(chosen.shape[0]):
        point = &rows[chosen[i]]
        total = _sum(point.zero_count, 0)
        total = _sum(total, _packed_sum(buffer + point.positive, point.positive_len))
        out[i] = _sum(total, _packed_sum(buffer + point.negative, point.negative_len))
    return result


cdef uint64_t LIMIT = <uint64_t>1 << 63


cdef inline uint64_t _sum(uint64_t a, uint64_t b) noexcept nogil:
    """``a + b``, at most 2**63."""
    return LIMIT if a >= LIMIT or b >= LIMIT or a + b >= LIMIT else a + b


cdef uint64_t _packed_sum(const uint8_t *at, int32_t size) noexcept nogil:
    """The sum of packed varints, at most 2**63."""
    cdef uint64_t total = 0, count
    cdef int shift
    cdef int32_t i = 0
    while i < size:
        if at[i] < 0x80 and total < LIMIT:  # nearly always
            total += at[i]
            i += 1
            continue
        count = 0
        shift = 0
        while i < size and shift < 64:
            count |= <uint64_t>(at[i] & 0x7F) << shift
            shift += 7
            i += 1
            if at[i - 1] < 0x80:
                break
        total = _sum(total, count)
    return LIMIT if total > LIMIT else total


cdef class Encoder:
    """Encodes runs into requests of at most ``max_bytes``; a run that is larger makes up a request of its own."""

    cdef Writer out
    cdef Writer exemplars
    cdef Spans positive, negative
    cdef uint64_t *values
    cdef uint64_t *times
    cdef uint64_t *totals
    cdef Py_ssize_t scratch
    cdef object cut_rows
    cdef int64_t[:, ::1] cuts
    cdef Py_ssize_t cut, first_cut, whole
    cdef int64_t completed

    def __cinit__(self):
        self.values = NULL
        self.times = NULL
        self.totals = NULL

    def __dealloc__(self):
        close_writer(&self.out)
        close_writer(&self.exemplars)
        close_writer(&self.positive.spans)
        close_writer(&self.positive.deltas)
        close_writer(&self.negative.spans)
        close_writer(&self.negative.deltas)
        free(self.values)
        free(self.times)
        free(self.totals)

    cdef int _scratch(self, Py_ssize_t count) except -1:
        if count > self.scratch:
            free(self.values)
            free(self.times)
            free(self.totals)
            self.scratch = 0
            self.values = <uint64_t *>malloc(count * sizeof(uint64_t))
            self.times = <uint64_t *>malloc(count * sizeof(uint64_t))
            self.totals = <uint64_t *>malloc(count * sizeof(uint64_t))
            if self.values == NULL or self.times == NULL or self.totals == NULL:
                raise MemoryError
            self.scratch = count
        return 0

    cdef int _complete(self, int32_t points, Py_ssize_t max_bytes, list requests) except -1:
        """Note that a run ends here. If it did not fit, the runs before it are a request and it begins the next one."""
        if max_bytes and self.whole and self.out.size > max_bytes:
            self._close(requests)
        self.completed += points
        self.whole = self.out.size
        self.cuts[self.cut, 0] = self.whole
        self.cuts[self.cut, 1] = self.completed
        self.cut += 1
        return 0

    cdef int _close(self, list requests) except -1:
        """Make the whole runs so far a request, and move what follows them to the front."""
        requests.append((self.out.data[:self.whole], self.cut_rows[self.first_cut:self.cut]))
        self.out.size -= self.whole
        memmove(self.out.data, self.out.data + self.whole, self.out.size)
        self.first_cut = self.cut
        self.whole = 0
        self.completed = 0
        return 0

    def encode(
        self,
        bytes wire not None,
        const uint8_t[::1] points not None,              # PointRow records
        const int32_t[::1] types not None,               # (points,) METRIC_*
        const int32_t[::1] order not None,               # point rows, run after run
        const int32_t[::1] runs not None,                # (runs + 1,) positions in ``order``
        const uint8_t[::1] arena not None,               # label pieces a, b, c of each source, one after the other
        const int64_t[:, ::1] pieces not None,           # (runs, 4): start in ``arena``, size of a, b, c
        const uint8_t[::1] names not None,               # name labels
        const int32_t[:, :, ::1] name_slices not None,   # (families, 4 variants, 2): start, size
        const int32_t[::1] family not None,              # (runs,)
        const uint8_t[::1] extras not None,              # le and quantile labels
        const int32_t[:, ::1] extra_slices not None,     # (labels, 2): start, size
        const int32_t[::1] extra_first not None,         # (sets + 1,): rows of ``extra_slices`` of each set of bounds
                                                         # or quantiles; the last bound of a histogram is +Inf
        const int32_t[::1] extra_set not None,           # (runs,): set of the run; -1: none
        const uint8_t[::1] exemplar_rows not None,       # ExemplarRow records, by parent
        const int32_t[::1] exemplar_first not None,      # (points + 1,)
        const uint8_t[::1] exemplar_arena not None,      # other labels of each exemplar
        const int32_t[:, ::1] exemplar_slices not None,  # (exemplars, 3): start, size, characters
        const uint8_t[::1] quantile_rows not None,       # QuantileRow records, by parent
        const int32_t[::1] quantile_first not None,      # (points + 1,)
        Py_ssize_t max_bytes,                            # 0: no limit
    ):
        """The requests that carry these runs, in order, as tuples (bytes, where the request may be cut).

        Cuts are int64 (k, 2), a row for each run: where it ends, and the number of points up to there.
        """
        cdef PointRow *rows = <PointRow *>&points[0] if points.shape[0] else NULL
        cdef ExemplarRow *exemplars = <ExemplarRow *>&exemplar_rows[0] if exemplar_rows.shape[0] else NULL
        cdef QuantileRow *quantiles = <QuantileRow *>&quantile_rows[0] if quantile_rows.shape[0] else NULL
        cdef const uint8_t *buffer = wire
        cdef Py_ssize_t run_count = runs.shape[0] - 1, r
        cdef Py_ssize_t longest = 0
        cdef int32_t i, n, j, kind, set_, first_label, label_count
        cdef const int32_t *run
        cdef Labels labels
        cdef PointRow *point
        cdef list requests = []
        self.out.size = 0
        self.cut_rows = np.empty((run_count, 2), np.int64)
        self.cuts = self.cut_rows
        self.cut = self.first_cut = self.whole = 0
        self.completed = 0
        for r in range(run_count):
            longest = max(longest, runs[r + 1] - runs[r])
        self._scratch(longest if longest else 1)
        for r in range(run_count):
            n = runs[r + 1] - runs[r]
            if n <= 0:
                continue
            run = &order[runs[r]]
            kind = types[run[0]]
            labels.a.at = &arena[0] + pieces[r, 0] if arena.shape[0] else NULL
            labels.a.size = <int32_t>pieces[r, 1]
            labels.b.at = labels.a.at + pieces[r, 1]
            labels.b.size = <int32_t>pieces[r, 2]
            labels.c.at = labels.b.at + pieces[r, 2]
            labels.c.size = <int32_t>pieces[r, 3]
            labels.extra.at = NULL
            labels.extra.size = 0
            for i in range(n):
                self.times[i] = _milliseconds(rows[run[i]].time)
            if kind == GAUGE or kind == SUM:
                for i in range(n):
                    point = &rows[run[i]]
                    if point.flags & NO_RECORDED_VALUE:
                        self.values[i] = STALE_NAN
                    elif point.value_kind == 1:
                        self.values[i] = _bits(<double>point.int_value)
                    else:
                        self.values[i] = _bits(point.double_value)
                if kind == SUM:
                    self._all_exemplars(exemplars, exemplar_first, exemplar_arena, exemplar_slices, run, n)
                self._name(&labels, names, name_slices, family[r], NAME_BASE)
                _series(&self.out, &labels, self.values, self.times, n, &self.exemplars)
            elif kind == EXPONENTIAL:
                self._all_exemplars(exemplars, exemplar_first, exemplar_arena, exemplar_slices, run, n)
                self._name(&labels, names, name_slices, family[r], NAME_BASE)
                _native(&self.out, &labels, rows, run, n, buffer, &self.positive, &self.negative, &self.exemplars)
            elif kind == CUSTOM:
                self._all_exemplars(exemplars, exemplar_first, exemplar_arena, exemplar_slices, run, n)
                self._name(&labels, names, name_slices, family[r], NAME_BASE)
                _custom(&self.out, &labels, rows, run, n, buffer, &self.positive, &self.negative.deltas, &self.exemplars)
            else:
                set_ = extra_set[r]
                first_label = extra_first[set_] if set_ >= 0 else 0
                label_count = extra_first[set_ + 1] - first_label if set_ >= 0 else 0
                self._name(&labels, names, name_slices, family[r], NAME_BUCKET if kind == HISTOGRAM else NAME_BASE)
                for i in range(n):
                    self.totals[i] = 0
                for j in range(label_count):
                    labels.extra.at = &extras[0] + extra_slices[first_label + j, 0]
                    labels.extra.size = extra_slices[first_label + j, 1]
                    if kind == HISTOGRAM:
                        for i in range(n):
                            point = &rows[run[i]]
                            self.totals[i] += _bucket(point, buffer, j)
                            if point.flags & NO_RECORDED_VALUE:
                                self.values[i] = STALE_NAN
                            elif j == label_count - 1:  # the count decides, whatever the buckets add up to
                                self.values[i] = _bits(<double>point.count)
                            else:
                                self.values[i] = _bits(<double>self.totals[i])
                            self._bucket_exemplars(
                                exemplars, exemplar_first, exemplar_arena, exemplar_slices, run[i], point, buffer, j,
                                label_count,
                            )
                    else:
                        for i in range(n):
                            point = &rows[run[i]]
                            if point.flags & NO_RECORDED_VALUE:
                                self.values[i] = STALE_NAN
                            else:
                                self.values[i] = _bits(quantiles[quantile_first[run[i]] + j].value)
                    _series(&self.out, &labels, self.values, self.times, n, &self.exemplars)
                labels.extra.size = 0
                # `_sum` exists only where every point of the run has one; histograms of negative values leave it out.
                j = 0
                for i in range(n):
                    point = &rows[run[i]]
                    if kind == HISTOGRAM and not point.present & PRESENT_SUM and not point.flags & NO_RECORDED_VALUE:
                        continue
                    self.values[j] = STALE_NAN if point.flags & NO_RECORDED_VALUE else _bits(point.sum)
                    self.times[j] = _milliseconds(point.time)
                    j += 1
                if j:
                    self._name(&labels, names, name_slices, family[r], NAME_SUM)
                    _series(&self.out, &labels, self.values, self.times, j, &self.exemplars)
                for i in range(n):
                    point = &rows[run[i]]
                    self.values[i] = STALE_NAN if point.flags & NO_RECORDED_VALUE else _bits(<double>point.count)
                    self.times[i] = _milliseconds(point.time)
                self._name(&labels, names, name_slices, family[r], NAME_COUNT)
                _series(&self.out, &labels, self.values, self.times, n, &self.exemplars)
            self._complete(n, max_bytes, requests)
        if self.out.size:
            self._close(requests)
        self.cuts = self.cut_rows = None
        return requests

    cdef void _name(
        self, Labels *labels, const uint8_t[::1] names, const int32_t[:, :, ::1] slices, int32_t family, int32_t variant
    ) noexcept:
        labels.name.at = &names[0] + slices[family, variant, 0]
        labels.name.size = slices[family, variant, 1]

    cdef int _all_exemplars(
        self, ExemplarRow *rows, const int32_t[::1] first, const uint8_t[::1] arena, const int32_t[:, ::1] slices,
        const int32_t *run, int32_t count,
    ) except -1:
        """Write all exemplars of the points of a run."""
        cdef int32_t i, e
        cdef const uint8_t *base = &arena[0] if arena.shape[0] else NULL
        for i in range(count):
            for e in range(first[run[i]], first[run[i] + 1]):
                _exemplar(&self.exemplars, &rows[e], base + slices[e, 0], slices[e, 1], slices[e, 2])
        return 0

    cdef int _bucket_exemplars(
        self, ExemplarRow *rows, const int32_t[::1] first, const uint8_t[::1] arena, const int32_t[:, ::1] slices,
        int32_t row, PointRow *point, const uint8_t *wire, int32_t bucket, int32_t label_count,
    ) except -1:
        """Write the exemplars of a point whose value falls into this bucket: the first whose bound is not below it."""
        cdef int32_t e
        cdef const uint8_t *base = &arena[0] if arena.shape[0] else NULL
        cdef double value, upper, lower
        if first[row] == first[row + 1]:
            return 0
        upper = INFINITY if bucket == label_count - 1 else _bound(point, wire, bucket)
        lower = -INFINITY if bucket == 0 else _bound(point, wire, bucket - 1)
        for e in range(first[row], first[row + 1]):
            value = <double>rows[e].int_value if rows[e].value_kind == 1 else rows[e].double_value
            if value <= upper and (value > lower or bucket == 0):
                _exemplar(&self.exemplars, &rows[e], base + slices[e, 0], slices[e, 1], slices[e, 2])
        return 0


cdef inline double _bound(PointRow *point, const uint8_t *wire, int32_t index) noexcept nogil:
    cdef double bound = INFINITY
    if index >= 0 and (index + 1) * 8 <= point.bounds_len:
        memcpy(&bound, wire + point.bounds + index * 8, 8)
    return bound


cdef inline uint64_t _bucket(PointRow *point, const uint8_t *wire, int32_t index) noexcept nogil:
    cdef uint64_t count = 0
    if (index + 1) * 8 <= point.buckets_len:
        memcpy(&count, wire + point.buckets + index * 8, 8)
    return count
