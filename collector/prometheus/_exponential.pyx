"""Adds up exponential histograms of streams that share a series.

Two histograms are brought to the lower scale, and further down until a side has at most 320 buckets. The state is a
table of records, one for each stream (its last value) and for each series (its sum).
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

import numpy as np

from collector.wire.layout cimport PointRow
from collector.wire.proto cimport Ptr, read_varint
from collector.wire.writer cimport Writer, close_writer, open_writer, put_varint, take

cdef enum:
    WIDTH_MAX = 320
    MIN_SCALE = -4     # the coarsest that native histograms have
    SHIFT_MAX = 62     # every index is 0 or -1 by then
    IS_SENT = 1
    IS_LOST = 2
    IS_KNOWN = 4
    POSITIVE = 0
    NEGATIVE = 1

SENT, LOST, KNOWN = IS_SENT, IS_LOST, IS_KNOWN

cdef int64_t COUNT_MAX = (<int64_t>1 << 62) - 1  # the sum of two is within the limits of the type

cdef struct Histogram:
    int64_t is_used, scale, count, zero_count
    double total, zero_threshold
    int64_t offset[2]  # of the positive and the negative side
    int64_t length[2]
    int64_t counts[2][WIDTH_MAX]

RECORD = np.dtype(
    [
        ("is_used", "<i8"), ("scale", "<i8"), ("count", "<i8"), ("zero_count", "<i8"), ("sum", "<f8"),
        ("zero_threshold", "<f8"), ("offset", "<i8", 2), ("length", "<i8", 2), ("counts", "<i8", (2, WIDTH_MAX)),
    ]
)


cdef inline int64_t _capped(int64_t value) noexcept nogil:
    return COUNT_MAX if value > COUNT_MAX else -COUNT_MAX if value < -COUNT_MAX else value


cdef inline int64_t _count(uint64_t value) noexcept nogil:
    return COUNT_MAX if value > <uint64_t>COUNT_MAX else <int64_t>value


cdef inline int64_t _shift(int64_t from_scale, int64_t to_scale) noexcept nogil:
    return SHIFT_MAX if from_scale - to_scale > SHIFT_MAX else from_scale - to_scale


cdef inline bint _fits(int64_t begin, int64_t end) noexcept nogil:
    return end - begin <= WIDTH_MAX


cdef bint _read(const PointRow *point, const uint8_t *wire, Histogram *out) noexcept nogil:
    """Read a point, at a lower scale if it has too many buckets; False if that would be too low a scale."""
    cdef int64_t size[2]
    cdef int64_t offset[2]
    cdef int64_t number[2]
    cdef int64_t down = 0, index, i
    cdef uint64_t count = 0
    cdef Ptr at, end
    cdef Ptr start[2]
    cdef int side
    start[POSITIVE], size[POSITIVE] = wire + point.positive, point.positive_len
    start[NEGATIVE], size[NEGATIVE] = wire + point.negative, point.negative_len
    offset[POSITIVE], offset[NEGATIVE] = point.positive_offset, point.negative_offset
    for side in range(2):
        number[side] = 0
        for i in range(size[side]):
            number[side] += start[side][i] < 0x80  # the last byte of a count
    while not (
        _fits(offset[POSITIVE] >> down, ((offset[POSITIVE] + number[POSITIVE] - 1) >> down) + 1)
        and _fits(offset[NEGATIVE] >> down, ((offset[NEGATIVE] + number[NEGATIVE] - 1) >> down) + 1)
    ):
        if <int64_t>point.scale - down <= MIN_SCALE:
            return False
        down += 1
    out.is_used = 1
    out.scale = <int64_t>point.scale - down
    out.count, out.zero_count = _count(point.count), _count(point.zero_count)
    out.total, out.zero_threshold = point.sum, point.zero_threshold
    for side in range(2):
        out.offset[side] = offset[side] >> down if number[side] else 0
        out.length[side] = ((offset[side] + number[side] - 1) >> down) + 1 - out.offset[side] if number[side] else 0
        memset(out.counts[side], 0, out.length[side] * sizeof(int64_t))
        at, end = start[side], start[side] + size[side]
        index = offset[side]
        for i in range(number[side]):
            at = read_varint(at, end, &count)
            if at == NULL:  # impossible: the scan has read every count
                break
            out.counts[side][(index >> down) - out.offset[side]] = _capped(
                out.counts[side][(index >> down) - out.offset[side]] + _count(count)
            )
            index += 1
    return True


cdef void _span(
    const Histogram *a, int64_t down_a, const Histogram *b, int64_t down_b, int side, int64_t *begin, int64_t *end,
) noexcept nogil:
    """The indexes that the buckets of both have after shifting; 0 and 0 if there are none."""
    cdef int64_t first, last
    begin[0] = end[0] = 0
    if a.length[side]:
        begin[0] = a.offset[side] >> down_a
        end[0] = ((a.offset[side] + a.length[side] - 1) >> down_a) + 1
    if b.length[side]:
        first = b.offset[side] >> down_b
        last = ((b.offset[side] + b.length[side] - 1) >> down_b) + 1
        begin[0] = first if not a.length[side] or first < begin[0] else begin[0]
        end[0] = last if not a.length[side] or last > end[0] else end[0]


cdef void _add(Histogram *out, const Histogram *value, int side, int64_t down, int64_t sign) noexcept nogil:
    cdef int64_t i
    cdef int64_t *counts = out.counts[side]
    cdef int64_t offset = out.offset[side]
    for i in range(value.length[side]):
        counts[((value.offset[side] + i) >> down) - offset] = _capped(
            counts[((value.offset[side] + i) >> down) - offset] + sign * value.counts[side][i]
        )


cdef bint _combine(const Histogram *a, const Histogram *b, int64_t sign, Histogram *out) noexcept nogil:
    """``a + sign * b``; False if their buckets are too far apart."""
    cdef int64_t scale = a.scale if a.scale < b.scale else b.scale
    cdef int64_t begin[2]
    cdef int64_t end[2]
    cdef int64_t down_a, down_b
    cdef int side
    while True:
        down_a, down_b = _shift(a.scale, scale), _shift(b.scale, scale)
        for side in range(2):
            _span(a, down_a, b, down_b, side, &begin[side], &end[side])
        if _fits(begin[POSITIVE], end[POSITIVE]) and _fits(begin[NEGATIVE], end[NEGATIVE]):
            break
        if scale <= MIN_SCALE:
            return False
        scale -= 1
    out.is_used = 1
    out.scale = scale
    out.count = _capped(a.count + sign * b.count)
    out.zero_count = _capped(a.zero_count + sign * b.zero_count)
    out.total = a.total + sign * b.total
    out.zero_threshold = a.zero_threshold if a.zero_threshold > b.zero_threshold else b.zero_threshold
    for side in range(2):
        out.offset[side] = begin[side]
        out.length[side] = end[side] - begin[side]
        memset(out.counts[side], 0, out.length[side] * sizeof(int64_t))
        _add(out, a, side, down_a, 1)
        _add(out, b, side, down_b, sign)
    return True


cdef bint _is_negative(const Histogram *value) noexcept nogil:
    """Whether this is a difference to a histogram that counted more: there was a reset between them."""
    cdef int side
    cdef int64_t i
    if value.count < 0 or value.zero_count < 0:
        return True
    for side in range(2):
        for i in range(value.length[side]):
            if value.counts[side][i] < 0:
                return True
    return False


cdef void _copy(Histogram *out, const Histogram *value) noexcept nogil:
    cdef int side
    memcpy(out, value, sizeof(Histogram) - sizeof(value.counts))
    for side in range(2):
        memcpy(out.counts[side], value.counts[side], value.length[side] * sizeof(int64_t))


cdef void _write(const Histogram *value, PointRow *point, Writer *out, int64_t end) noexcept nogil:
    """Set the fields of a point, which refers to the bucket counts as if the output were at ``end``."""
    cdef int64_t i
    cdef int64_t at[3]
    cdef int side
    at[0] = out.size
    for side in range(2):
        for i in range(value.length[side]):
            put_varint(out, <uint64_t>value.counts[side][i])
        at[side + 1] = out.size
    point.positive_offset, point.negative_offset = <int32_t>value.offset[POSITIVE], <int32_t>value.offset[NEGATIVE]
    point.positive, point.negative = <int32_t>(end + at[0]), <int32_t>(end + at[1])
    point.positive_len, point.negative_len = <int32_t>(at[1] - at[0]), <int32_t>(at[2] - at[1])
    point.scale = <int32_t>value.scale
    point.count, point.zero_count = <uint64_t>value.count, <uint64_t>value.zero_count
    point.sum, point.zero_threshold = value.total, value.zero_threshold


def merge(
    bytes wire not None,
    uint8_t[::1] points not None,                # PointRow records; the merged values are written to them
    uint8_t[::1] table not None,                 # RECORD
    const int64_t[::1] rows not None,            # point rows, by series and time
    const int32_t[::1] stream not None,          # (rows,) the record of each point's stream
    const int32_t[::1] series not None,          # (rows,) the record of its series
    const int32_t[::1] source not None,          # (rows,) index into ``last_time``
    const uint64_t[::1] times not None,          # (rows,) nanoseconds
    const uint8_t[::1] is_baseline not None,     # (rows,) whether the first value of a stream is a baseline, no gain
    const uint64_t[::1] emitted not None,        # (rows,) the time of the last sample of the series
    uint64_t[::1] last_time not None,            # of each source; updated
    int64_t end,                                 # where the bytes that are returned will be
):
    """The merged bucket counts, and a combination of SENT, LOST and KNOWN for each row.

    Of the rows of a series and millisecond the last one that is not lost is sent, with the sum so far.
    """
    cdef Py_ssize_t row_count = rows.shape[0], i, pending = -1
    cdef Py_ssize_t point_count = points.shape[0] // <Py_ssize_t>sizeof(PointRow)
    cdef Py_ssize_t record_count = table.shape[0] // <Py_ssize_t>sizeof(Histogram)
    cdef PointRow *point
    cdef PointRow *all_points = <PointRow *>&points[0] if points.shape[0] else NULL
    cdef Histogram *records = <Histogram *>&table[0] if table.shape[0] else NULL
    cdef Histogram *before
    cdef Histogram *total
    cdef Histogram *gain
    cdef Histogram value, difference, added
    cdef const uint8_t *buffer = wire
    cdef bint is_new_run
    cdef Writer out
    states = np.zeros(row_count, np.uint8)
    cdef uint8_t[::1] state = states
    for i in range(row_count):
        if not (
            0 <= rows[i] < point_count and 0 <= stream[i] < record_count and 0 <= series[i] < record_count
            and 0 <= source[i] < last_time.shape[0]
        ):
            raise IndexError("a row is outside of its table")
    open_writer(&out, 4096)
    try:
        with nogil:
            for i in range(row_count):
                is_new_run = (
                    i == 0 or series[i] != series[i - 1] or times[i] // 1000000 != times[i - 1] // 1000000
                )
                if is_new_run and pending >= 0:
                    _write(&records[series[pending]], &all_points[rows[pending]], &out, end)
                    state[pending] |= IS_SENT
                    pending = -1
                point = &all_points[rows[i]]
                before, total = &records[stream[i]], &records[series[i]]
                if not _read(point, buffer, &value):
                    state[i] = IS_LOST
                    continue
                gain = &value
                if before.is_used:
                    if not (0 < last_time[source[i]] <= point.start_time):
                        if _combine(&value, before, -1, &difference) and not _is_negative(&difference):
                            gain = &difference
                elif is_baseline[i]:
                    gain = NULL
                    if not total.is_used:
                        _copy(total, &value)
                if gain != NULL:
                    if not total.is_used:
                        _copy(total, gain)
                    elif _combine(total, gain, 1, &added):
                        _copy(total, &added)
                    else:
                        state[i] |= IS_LOST
                _copy(before, &value)
                last_time[source[i]] = times[i]
                state[i] |= IS_KNOWN
                if not state[i] & IS_LOST and times[i] // 1000000 > emitted[i] // 1000000:
                    pending = i
            if pending >= 0:
                _write(&records[series[pending]], &all_points[rows[pending]], &out, end)
                state[pending] |= IS_SENT
        return take(&out), states
    finally:
        close_writer(&out)
