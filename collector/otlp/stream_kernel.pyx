"""What a batch does to streams of points, in C: cumulative values to deltas, and deltas to cumulative values.

``collector.otlp.streams`` has the streams and calls it; ``tests/unit/collector/otlp/test_streams.py`` compares it with a
slow implementation in Python. Points are taken in the order of the batch. Every slot, row and offset is checked against
its array before it is used. The GIL is kept: a batch takes less than a millisecond.

Source: OpenTelemetry metrics data model, "Temporality", "Resets and Gaps"; the Collector's cumulativetodelta and
deltatocumulative processors.
"""

import numpy as np

from collector.otlp.stream_records import RESULT, STREAM
from collector.wire.layout import POINT

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING
from libc.math cimport fmax, fmin, isfinite, isnan
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from collector.wire.layout cimport PRESENT_SUM, VALUE_DOUBLE, PointRow

cnp.import_array()

cdef struct Stream:                # stream_records.STREAM
    uint64_t last_time
    uint64_t start_time
    uint64_t count
    int64_t int_value
    double value                   # the sum of a histogram
    double min
    double max
    double seen_s
    uint64_t bounds
    int64_t place
    int32_t bucket_count
    int32_t present

cdef struct Result:                # stream_records.RESULT
    uint64_t start_time
    uint64_t count
    int64_t int_value
    double value
    double min
    double max
    int64_t place
    int32_t bucket_count
    int32_t present
    int32_t verdict
    int32_t padding

if STREAM.itemsize != sizeof(Stream) or RESULT.itemsize != sizeof(Result):
    raise ImportError("the records of stream_records and of this kernel differ; rebuild the kernels")

cdef enum:                         # stream_records.VERDICTS
    CHANGED = 0
    UNCHANGED = 1
    INITIAL = 2
    RESET = 3
    BUCKET_MISMATCH = 4
    OUT_OF_ORDER = 5
    LIMIT = 6
    NO_VALUE = 7
    OLDER_START = 8
    NOT_FINITE = 9

cdef enum:                         # the value of the first point of a stream
    AUTO = 0
    KEEP = 1
    DROP = 2

cdef enum:
    NO_RECORDED_VALUE = 1          # DataPointFlags


cdef struct Work:
    const uint8_t* wire
    Stream* streams
    uint64_t* pool                 # the buckets of all streams
    int64_t pool_size
    int64_t used
    uint64_t* deltas               # the buckets of all results
    int64_t deltas_size
    int64_t deltas_used
    double now_s


def to_delta(bytes wire not None, cnp.ndarray points not None, const int64_t[::1] rows, const int32_t[::1] slots,
             const uint8_t[::1] is_new, const uint64_t[::1] bounds, bint histograms, cnp.ndarray streams not None,
             uint64_t[::1] pool, int64_t used, cnp.ndarray results not None, uint64_t[::1] deltas,
             uint64_t began_unix_nano, int initial, double now_s):
    """Fill ``results`` with what the points ``rows`` are as deltas, and bring the streams up to date.

    Returns (used places of ``pool``, used places of ``deltas``).
    """
    cdef Work work
    cdef const PointRow* point
    cdef Result* result
    cdef Stream* stream
    cdef Py_ssize_t i
    cdef const PointRow* all_points = <const PointRow*>cnp.PyArray_DATA(points)
    cdef Result* all_results = <Result*>cnp.PyArray_DATA(results)
    begin(&work, wire, points, rows, slots, is_new, bounds, streams, pool, used, results, deltas, now_s)
    for i in range(rows.shape[0]):
        point, result = all_points + rows[i], all_results + i
        copy_point(point, result)
        if slots[i] < 0:
            result.verdict = LIMIT
            continue
        stream = work.streams + slots[i]
        if point.flags & NO_RECORDED_VALUE:
            result.verdict = NO_VALUE
            if is_new[i]:
                stream.last_time = 0
                stream.bucket_count = -1   # nothing is known yet: the next point counts as the first
            continue
        if not histograms and (point.value_kind == 0 or (point.value_kind == VALUE_DOUBLE and isnan(point.double_value))):
            result.verdict = UNCHANGED     # not a value to compute with; it does not touch the stream
            if is_new[i]:
                stream.bucket_count = -1
            continue
        if histograms and not has_buckets(&work, wire, point):
            raise ValueError("the buckets of a point are outside the request")
        if is_new[i] or stream.bucket_count < 0 or (
            point.start_time >= stream.last_time and point.start_time != stream.start_time    # it began again
        ):
            store(&work, point, stream, bounds[i], histograms)
            stream.start_time = point.start_time
            if initial == DROP or (
                initial == AUTO and (point.start_time < began_unix_nano or point.time == point.start_time)
            ):
                result.verdict = INITIAL
            else:
                result.verdict = UNCHANGED
            continue
        stream.seen_s = now_s
        if point.time < stream.last_time:
            result.verdict = OUT_OF_ORDER
            continue
        if histograms:
            result.verdict = histogram_delta(&work, point, stream, bounds[i], result)
        else:
            result.verdict = number_delta(point, stream, result)
        result.start_time = stream.last_time
        store(&work, point, stream, bounds[i], histograms)
        stream.start_time = point.start_time
    return work.used, work.deltas_used


def to_cumulative(bytes wire not None, cnp.ndarray points not None, const int64_t[::1] rows,
                  const int32_t[::1] slots, const uint8_t[::1] is_new, const uint64_t[::1] bounds, bint histograms,
                  cnp.ndarray streams not None, uint64_t[::1] pool, int64_t used, cnp.ndarray results not None,
                  uint64_t[::1] deltas, double now_s):
    """Fill ``results`` with the totals of the streams after each of the points ``rows``. Returns as ``to_delta``."""
    cdef Work work
    cdef const PointRow* point
    cdef Result* result
    cdef Stream* stream
    cdef Py_ssize_t i
    cdef const PointRow* all_points = <const PointRow*>cnp.PyArray_DATA(points)
    cdef Result* all_results = <Result*>cnp.PyArray_DATA(results)
    begin(&work, wire, points, rows, slots, is_new, bounds, streams, pool, used, results, deltas, now_s)
    for i in range(rows.shape[0]):
        point, result = all_points + rows[i], all_results + i
        copy_point(point, result)
        if slots[i] < 0:
            result.verdict = LIMIT
            continue
        stream = work.streams + slots[i]
        if is_new[i]:
            stream.bucket_count = -1
            stream.seen_s = now_s
        if point.flags & NO_RECORDED_VALUE or (not histograms and point.value_kind == 0):
            result.verdict = NO_VALUE
            continue
        if (not histograms and point.value_kind == VALUE_DOUBLE and not isfinite(point.double_value)) or (
            histograms and point.present & PRESENT_SUM and not isfinite(point.sum)
        ):
            result.verdict = NOT_FINITE    # it would spoil the total for ever
            continue
        if histograms and not has_buckets(&work, wire, point):
            raise ValueError("the buckets of a point are outside the request")
        if stream.bucket_count < 0:
            store(&work, point, stream, bounds[i], histograms)
            stream.start_time = point.start_time
            result.verdict = UNCHANGED
            continue
        if point.start_time < stream.start_time:
            result.verdict = OLDER_START
            continue
        if point.time <= stream.last_time:
            result.verdict = OUT_OF_ORDER
            continue
        stream.seen_s = now_s
        if histograms:
            if stream.bounds != bounds[i] or stream.bucket_count != point.buckets_len // 8:
                store(&work, point, stream, bounds[i], histograms)    # cannot be merged: the stream begins again
                stream.start_time = point.start_time
                result.verdict = UNCHANGED
                continue
            add_histogram(&work, point, stream, result)
        else:
            stream.int_value = <int64_t>(<uint64_t>stream.int_value + <uint64_t>point.int_value)
            stream.value += point.double_value
            result.int_value, result.value = stream.int_value, stream.value
        stream.last_time = point.time
        result.start_time = stream.start_time
        result.verdict = CHANGED
    return work.used, work.deltas_used


cdef int begin(Work* work, bytes wire, cnp.ndarray points, const int64_t[::1] rows, const int32_t[::1] slots,
               const uint8_t[::1] is_new, const uint64_t[::1] bounds, cnp.ndarray streams, uint64_t[::1] pool,
               int64_t used, cnp.ndarray results, uint64_t[::1] deltas, double now_s) except -1:
    cdef Py_ssize_t i, count = rows.shape[0]
    if points.dtype != POINT or streams.dtype != STREAM or results.dtype != RESULT:
        raise ValueError("the arrays are not of the expected records")
    if not (points.flags.c_contiguous and streams.flags.c_contiguous and results.flags.c_contiguous):
        raise ValueError("the arrays are not contiguous")
    if slots.shape[0] != count or is_new.shape[0] != count or bounds.shape[0] != count or len(results) != count:
        raise ValueError("the arrays differ in length")
    for i in range(count):
        if not 0 <= rows[i] < len(points) or slots[i] >= len(streams):
            raise IndexError("a row or slot is outside its array")
    if not 0 <= used <= pool.shape[0]:
        raise IndexError("the pool is smaller than what is used of it")
    work.wire = <const uint8_t*>PyBytes_AS_STRING(wire)
    work.streams = <Stream*>cnp.PyArray_DATA(streams)
    work.pool = &pool[0] if pool.shape[0] else NULL
    work.pool_size, work.used = pool.shape[0], used
    work.deltas = &deltas[0] if deltas.shape[0] else NULL
    work.deltas_size, work.deltas_used = deltas.shape[0], 0
    work.now_s = now_s
    return 0


cdef inline void copy_point(const PointRow* point, Result* result) noexcept:
    result.start_time, result.count = point.start_time, point.count
    result.int_value = point.int_value
    result.value = point.double_value
    result.min, result.max = point.min, point.max
    result.place, result.bucket_count, result.present = 0, 0, point.present
    result.verdict = UNCHANGED
    result.padding = 0


cdef inline bint has_buckets(Work* work, bytes wire, const PointRow* point):
    """Whether the buckets are inside the request, and there is room for them in both pools."""
    cdef int64_t count = point.buckets_len // 8
    return point.buckets_len >= 0 and (
        count == 0 or (0 <= point.buckets and point.buckets + <int64_t>point.buckets_len <= len(wire))
    ) and work.used + count <= work.pool_size and work.deltas_used + count <= work.deltas_size


cdef inline uint64_t bucket_of(Work* work, const PointRow* point, int64_t i) noexcept:
    cdef uint64_t value
    memcpy(&value, work.wire + point.buckets + 8 * i, 8)
    return value


cdef void store(Work* work, const PointRow* point, Stream* stream, uint64_t bounds, bint histograms) noexcept:
    """Make the point the last one of the stream."""
    cdef int32_t i, count = point.buckets_len // 8 if histograms else 0
    if count != stream.bucket_count and count:
        stream.place = work.used
        work.used += count
    for i in range(count):
        work.pool[stream.place + i] = bucket_of(work, point, i)
    stream.bucket_count = count
    stream.last_time = point.time
    stream.seen_s = work.now_s
    stream.bounds, stream.present = bounds, point.present
    stream.count, stream.int_value = point.count, point.int_value
    if not histograms:
        stream.value = point.double_value
    elif not isnan(point.sum):         # else the last sum that was known stays
        stream.value = point.sum
    stream.min, stream.max = point.min, point.max


cdef int number_delta(const PointRow* point, Stream* stream, Result* result) noexcept:
    if point.value_kind == VALUE_DOUBLE:
        result.value = point.double_value - stream.value
        return RESET if point.double_value < stream.value else CHANGED
    result.int_value = <int64_t>(<uint64_t>point.int_value - <uint64_t>stream.int_value)
    return RESET if point.int_value < stream.int_value else CHANGED


cdef int histogram_delta(Work* work, const PointRow* point, Stream* stream, uint64_t bounds, Result* result) noexcept:
    cdef int32_t i, count = point.buckets_len // 8
    cdef uint64_t value, before
    if count != stream.bucket_count or bounds != stream.bounds:
        return BUCKET_MISMATCH
    if point.count < stream.count:
        return RESET
    result.place, result.bucket_count = work.deltas_used, count
    for i in range(count):
        value, before = bucket_of(work, point, i), work.pool[stream.place + i]
        if value < before:
            return RESET
        work.deltas[work.deltas_used + i] = value - before
    work.deltas_used += count
    result.count = point.count - stream.count
    result.value = point.sum - stream.value
    return CHANGED


cdef void add_histogram(Work* work, const PointRow* point, Stream* stream, Result* result) noexcept:
    cdef int32_t i
    result.place, result.bucket_count = work.deltas_used, stream.bucket_count
    for i in range(stream.bucket_count):
        work.pool[stream.place + i] += bucket_of(work, point, i)
        work.deltas[work.deltas_used + i] = work.pool[stream.place + i]
    work.deltas_used += stream.bucket_count
    stream.present &= point.present
    stream.count += point.count
    stream.value += point.sum
    stream.min, stream.max = fmin(stream.min, point.min), fmax(stream.max, point.max)
    result.count, result.value, result.present = stream.count, stream.value, stream.present
    result.min, result.max = stream.min, stream.max
