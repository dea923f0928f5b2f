"""What a batch does to streams of exponential histograms: cumulative values to deltas, and deltas to totals.

``collector.otlp.exponential_streams`` has the streams and calls it; its tests compare it with a slow implementation in
Python. Points are taken in the order of the batch. The GIL is kept: a batch takes less than a millisecond.

Two histograms are brought to the lower scale, which adds up neighbouring buckets, and to the greater zero threshold,
which moves the buckets below it into the zero bucket. No side has more than ``WIDTH_MAX`` buckets: a wider one is brought
to a scale at which it fits. So the memory of a stream is bounded.

Source: OpenTelemetry metrics data model, "ExponentialHistogram", "Zero Count and Zero Threshold"; the Collector's
cumulativetodelta and deltatocumulative processors.
"""

import numpy as np

from collector.otlp.stream_records import EXPONENTIAL_RESULT, EXPONENTIAL_STREAM
from collector.wire.layout import POINT

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING
from libc.math cimport ceil, exp2, fabs, fmax, fmin, isfinite, isnan, log2, rint
from libc.stdint cimport INT32_MAX, INT32_MIN, int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from collector.wire.layout cimport PRESENT_SUM, PointRow
from collector.wire.proto cimport Ptr, read_varint

cnp.import_array()

cdef struct Stream:                # stream_records.EXPONENTIAL_STREAM
    uint64_t last_time
    uint64_t start_time
    uint64_t count
    uint64_t zero_count
    double total
    double min
    double max
    double zero_threshold
    double seen_s
    int64_t place                  # of the positive buckets in the pool; the negative ones follow
    int64_t scale
    int64_t offset[2]
    int64_t length[2]
    int32_t capacity               # places in the pool
    int32_t present
    int32_t is_known
    int32_t padding

cdef struct Result:                # stream_records.EXPONENTIAL_RESULT
    uint64_t start_time
    uint64_t count
    uint64_t zero_count
    double total
    double min
    double max
    double zero_threshold
    int64_t scale
    int64_t place[2]               # of the buckets in the results
    int64_t offset[2]
    int64_t length[2]
    int32_t present
    int32_t verdict

if EXPONENTIAL_STREAM.itemsize != sizeof(Stream) or EXPONENTIAL_RESULT.itemsize != sizeof(Result):
    raise ImportError("the records of stream_records and of this kernel differ; rebuild the kernels")

cdef enum:                         # stream_records.Verdict
    CHANGED = 0
    UNCHANGED = 1
    INITIAL = 2
    RESET = 3
    OUT_OF_ORDER = 5
    LIMIT = 6
    NO_VALUE = 7
    OLDER_START = 8
    NOT_FINITE = 9

cdef enum:                         # the value of the first point of a stream
    AUTO = 0
    DROP = 2

cdef enum:
    NO_RECORDED_VALUE = 1          # DataPointFlags
    WIDTH_MAX = 640                # buckets of a side of a cumulative histogram
    TOTAL_WIDTH_MAX = 160          # and of a total, as in the Collector
    SHIFT_MAX = 62                 # every index is 0 or -1 by then


cdef struct Side:
    int64_t offset, length
    uint64_t* counts

cdef struct Histogram:
    int64_t scale
    uint64_t zero_count
    double zero_threshold
    Side sides[2]


cdef class BucketPool:
    """Counts of buckets that grow as needed; a place, once taken, stays until ``compact``."""

    cdef uint64_t* data
    cdef int64_t size, used

    def __dealloc__(self):
        free(self.data)

    @property
    def memory_bytes(self):
        """The size of the pool."""
        return 8 * self.size

    @property
    def used_count(self):
        """The places that have been taken."""
        return self.used

    cdef int64_t take(self, int64_t count) except -1:
        """The first of ``count`` new places."""
        cdef int64_t place = self.used
        self.reserve(self.used + count)
        self.used += count
        return place

    cdef int reserve(self, int64_t size) except -1:
        cdef uint64_t* data
        if size > self.size:
            size = max(size, 2 * self.size, 1024)
            data = <uint64_t*>realloc(self.data, size * sizeof(uint64_t))
            if data == NULL:
                raise MemoryError
            self.data, self.size = data, size
        return 0

    def counts(self):
        """The places that have been taken, as an array U64[n]: a copy."""
        cdef cnp.ndarray result = np.empty(self.used, np.uint64)
        if self.used:
            memcpy(cnp.PyArray_DATA(result), self.data, self.used * sizeof(uint64_t))
        return result

    def extend(self, const uint64_t[::1] counts):
        """Take places for these counts, in their order."""
        cdef int64_t place = self.take(counts.shape[0])
        if counts.shape[0]:
            memcpy(self.data + place, &counts[0], counts.shape[0] * sizeof(uint64_t))

    def compact(self, cnp.ndarray streams not None, const int32_t[::1] slots):
        """Keep the places of these streams only, and tell the streams where they are now."""
        cdef BucketPool kept = BucketPool()
        cdef Stream* stream
        cdef Py_ssize_t i
        cdef int64_t length, place
        if streams.dtype != EXPONENTIAL_STREAM or not streams.flags.c_contiguous:
            raise ValueError("the array is not one of streams")
        for i in range(slots.shape[0]):
            if not 0 <= slots[i] < len(streams):
                raise IndexError("a slot is outside its array")
            stream = <Stream*>cnp.PyArray_DATA(streams) + slots[i]
            length = stream.length[0] + stream.length[1]
            place = kept.take(length)
            if length:
                memcpy(kept.data + place, self.data + stream.place, length * sizeof(uint64_t))
            stream.place, stream.capacity = place, <int32_t>length
        self.data, kept.data = kept.data, self.data
        self.size, self.used = kept.size, kept.used


cdef class Scratch:
    """Where a point and the last value of its stream are worked on."""

    cdef BucketPool before, point
    cdef Histogram old, new

    def __cinit__(self):
        self.before, self.point = BucketPool(), BucketPool()


def to_delta(bytes wire not None, cnp.ndarray points not None, const int64_t[::1] rows, const int32_t[::1] slots,
             const uint8_t[::1] is_new, cnp.ndarray streams not None, BucketPool pool not None,
             cnp.ndarray results not None, BucketPool out not None, uint64_t began_unix_nano, int initial,
             double now_s):
    """Fill ``results`` and ``out`` with what the points ``rows`` are as deltas, and bring the streams up to date."""
    cdef Scratch scratch = Scratch()
    cdef const PointRow* point
    cdef Result* result
    cdef Stream* stream
    cdef Py_ssize_t i
    check(points, rows, slots, is_new, streams, results)
    for i in range(rows.shape[0]):
        point = <const PointRow*>cnp.PyArray_DATA(points) + rows[i]
        result = <Result*>cnp.PyArray_DATA(results) + i
        result.verdict = UNCHANGED
        if slots[i] < 0:
            result.verdict = LIMIT
            continue
        stream = <Stream*>cnp.PyArray_DATA(streams) + slots[i]
        if is_new[i]:
            stream.is_known = stream.capacity = 0
            stream.length[0] = stream.length[1] = 0
            stream.seen_s = now_s
        if point.flags & NO_RECORDED_VALUE:
            result.verdict = NO_VALUE
            continue
        read(scratch, wire, point, WIDTH_MAX)
        if not stream.is_known or (
            point.start_time >= stream.last_time and point.start_time != stream.start_time    # it began again
        ):
            if initial == DROP or (
                initial == AUTO and (point.start_time < began_unix_nano or point.time == point.start_time)
            ):
                result.verdict = INITIAL
            keep(pool, stream, point, &scratch.new, now_s)
            continue
        stream.seen_s = now_s
        if point.time < stream.last_time:
            result.verdict = OUT_OF_ORDER
            continue
        result.start_time = stream.last_time
        result.verdict = RESET
        if point.count >= stream.count and subtract(scratch, pool, stream, out, result):
            result.verdict = CHANGED
            result.count = point.count - stream.count
            result.total = point.sum - stream.total
        keep(pool, stream, point, &scratch.new, now_s)
    return None


def to_cumulative(bytes wire not None, cnp.ndarray points not None, const int64_t[::1] rows,
                  const int32_t[::1] slots, const uint8_t[::1] is_new, cnp.ndarray streams not None,
                  BucketPool pool not None, cnp.ndarray results not None, BucketPool out not None, double now_s):
    """Fill ``results`` and ``out`` with the totals of the streams after each of the points ``rows``."""
    cdef Scratch scratch = Scratch()
    cdef const PointRow* point
    cdef Result* result
    cdef Stream* stream
    cdef Py_ssize_t i
    check(points, rows, slots, is_new, streams, results)
    for i in range(rows.shape[0]):
        point = <const PointRow*>cnp.PyArray_DATA(points) + rows[i]
        result = <Result*>cnp.PyArray_DATA(results) + i
        result.verdict = UNCHANGED
        if slots[i] < 0:
            result.verdict = LIMIT
            continue
        stream = <Stream*>cnp.PyArray_DATA(streams) + slots[i]
        if is_new[i]:
            stream.is_known = stream.capacity = 0
            stream.length[0] = stream.length[1] = 0
            stream.seen_s = now_s
        if point.flags & NO_RECORDED_VALUE:
            result.verdict = NO_VALUE
            continue
        if point.present & PRESENT_SUM and not isfinite(point.sum):
            result.verdict = NOT_FINITE    # it would spoil the total for ever
            continue
        read(scratch, wire, point, TOTAL_WIDTH_MAX)
        if not stream.is_known:
            keep(pool, stream, point, &scratch.new, now_s)
            continue
        if point.start_time < stream.start_time:
            result.verdict = OLDER_START
            continue
        if point.time <= stream.last_time:
            result.verdict = OUT_OF_ORDER
            continue
        stream.seen_s, stream.last_time = now_s, point.time
        stream.present &= point.present
        stream.count += point.count
        stream.total += point.sum
        stream.min, stream.max = fmin(stream.min, point.min), fmax(stream.max, point.max)
        add(scratch, pool, stream, out, result)
        result.start_time, result.count, result.total = stream.start_time, stream.count, stream.total
        result.min, result.max, result.present = stream.min, stream.max, stream.present
        result.verdict = CHANGED
    return None


cdef int check(cnp.ndarray points, const int64_t[::1] rows, const int32_t[::1] slots, const uint8_t[::1] is_new,
               cnp.ndarray streams, cnp.ndarray results) except -1:
    cdef Py_ssize_t i, count = rows.shape[0]
    if points.dtype != POINT or streams.dtype != EXPONENTIAL_STREAM or results.dtype != EXPONENTIAL_RESULT:
        raise ValueError("the arrays are not of the expected records")
    if not (points.flags.c_contiguous and streams.flags.c_contiguous and results.flags.c_contiguous):
        raise ValueError("the arrays are not contiguous")
    if slots.shape[0] != count or is_new.shape[0] != count or len(results) != count:
        raise ValueError("the arrays differ in length")
    for i in range(count):
        if not 0 <= rows[i] < len(points) or slots[i] >= len(streams):
            raise IndexError("a row or slot is outside its array")
    return 0


cdef int read(Scratch scratch, bytes wire, const PointRow* point, int64_t width_max) except -1:
    """Make the point the new histogram of the scratch, at a scale at which its sides have room."""
    cdef Histogram* new = &scratch.new
    cdef int64_t place = 0, size
    cdef int side
    scratch.point.used = 0
    scratch.point.reserve(<int64_t>max(point.positive_len, 0) + max(point.negative_len, 0))
    new.scale, new.zero_count, new.zero_threshold = point.scale, point.zero_count, point.zero_threshold
    for side in range(2):
        size = point.positive_len if side == 0 else point.negative_len
        new.sides[side].counts = scratch.point.data + place
        new.sides[side].offset = point.positive_offset if side == 0 else point.negative_offset
        new.sides[side].length = decode(
            wire, point.positive if side == 0 else point.negative, size, new.sides[side].counts
        )
        place += new.sides[side].length
        trim(&new.sides[side])
    fit(new, NULL, width_max)
    return 0


cdef int64_t decode(bytes wire, int64_t start, int64_t size, uint64_t* counts) except -1:
    """Read packed counts; returns how many there are."""
    cdef Ptr at, end
    cdef int64_t number = 0
    if size <= 0:
        return 0
    if start < 0 or start + size > len(wire):
        raise ValueError("the buckets of a point are outside the request")
    at = <Ptr>PyBytes_AS_STRING(wire) + start
    end = at + size
    while at < end:
        at = read_varint(at, end, &counts[number])
        if at == NULL:
            raise ValueError("the buckets of a point are not valid")
        number += 1
    return number


cdef void trim(Side* side) noexcept:
    """Leave out empty buckets at both ends."""
    while side.length and side.counts[side.length - 1] == 0:
        side.length -= 1
    while side.length and side.counts[0] == 0:
        side.counts += 1
        side.offset += 1
        side.length -= 1
    if side.length == 0:
        side.offset = 0


cdef int64_t width(const Side* side, const Side* other, int64_t side_shift, int64_t other_shift) noexcept:
    """How many buckets both have together after coarsening."""
    cdef int64_t low = side.offset >> side_shift, high = (side.offset + side.length - 1) >> side_shift
    cdef int64_t other_low, other_high
    if other == NULL or other.length == 0:
        return high - low + 1 if side.length else 0
    other_low, other_high = other.offset >> other_shift, (other.offset + other.length - 1) >> other_shift
    if side.length == 0:
        return other_high - other_low + 1
    return max(high, other_high) - min(low, other_low) + 1


cdef void fit(Histogram* one, Histogram* other, int64_t width_max) noexcept:
    """Bring one or two histograms to a common scale at which the sides of both together have room."""
    cdef int64_t scale = one.scale if other == NULL else min(one.scale, other.scale)
    cdef int64_t one_shift, other_shift
    cdef int side
    cdef bint is_too_wide = True
    while is_too_wide:
        one_shift = min(one.scale - scale, SHIFT_MAX)
        other_shift = 0 if other == NULL else min(other.scale - scale, SHIFT_MAX)
        is_too_wide = False
        for side in range(2):
            if width(
                &one.sides[side], NULL if other == NULL else &other.sides[side], one_shift, other_shift
            ) > width_max:
                is_too_wide = True
        if is_too_wide:
            scale -= 1
    for side in range(2):
        coarsen(&one.sides[side], one_shift)
        if other != NULL:
            coarsen(&other.sides[side], other_shift)
    one.scale = scale
    if other != NULL:
        other.scale = scale


cdef void coarsen(Side* side, int64_t shift) noexcept:
    """Add up ``2 ** shift`` neighbouring buckets."""
    cdef int64_t i, offset = side.offset >> shift
    cdef uint64_t count
    if shift == 0 or side.length == 0:
        return
    for i in range(side.length):
        count, side.counts[i] = side.counts[i], 0
        side.counts[((side.offset + i) >> shift) - offset] += count
    side.length = ((side.offset + side.length - 1) >> shift) - offset + 1
    side.offset = offset


cdef void widen(Histogram* histogram, double threshold) noexcept:
    """Move the buckets that a greater zero bucket reaches into to it; it then extends to the end of the last of them."""
    cdef double exact = log2(threshold) * exp2(<double>histogram.scale), nearest = rint(exact)
    cdef double first
    cdef int64_t i, first_kept, removed
    cdef Side* side
    cdef int number
    # A threshold that is the bound of a bucket gives that bound, although the logarithm is rounded.
    first = nearest if fabs(exact - nearest) < 1e-6 * fmax(1.0, fabs(exact) * 1e-6) else ceil(exact)
    first_kept = <int64_t>fmax(fmin(first, 2.0 ** 40), -(2.0 ** 40))
    histogram.zero_threshold = threshold
    for number in range(2):
        side = &histogram.sides[number]
        removed = max(min(first_kept - side.offset, side.length), 0)
        if removed and side.offset + removed == first_kept and side.counts[removed - 1]:
            histogram.zero_threshold = fmax(histogram.zero_threshold, exp2(first_kept * exp2(-<double>histogram.scale)))
        for i in range(removed):
            histogram.zero_count += side.counts[i]
        side.counts += removed
        side.offset += removed
        side.length -= removed
        trim(side)


cdef int load(Scratch scratch, BucketPool pool, const Stream* stream) except -1:
    """Make the last value of the stream the old histogram of the scratch."""
    cdef Histogram* old = &scratch.old
    cdef int64_t total = stream.length[0] + stream.length[1]
    cdef int side
    scratch.before.reserve(total)
    if total:
        memcpy(scratch.before.data, pool.data + stream.place, total * sizeof(uint64_t))
    old.scale, old.zero_count, old.zero_threshold = stream.scale, stream.zero_count, stream.zero_threshold
    for side in range(2):
        old.sides[side].counts = scratch.before.data + (stream.length[0] if side else 0)
        old.sides[side].offset, old.sides[side].length = stream.offset[side], stream.length[side]
    return 0


cdef int store(BucketPool pool, Stream* stream, const Histogram* histogram) except -1:
    """Make the histogram the last value of the stream."""
    cdef int64_t total = histogram.sides[0].length + histogram.sides[1].length
    cdef int64_t place
    cdef int side
    if total > stream.capacity:
        stream.place, stream.capacity = pool.take(total), <int32_t>total
    stream.scale, stream.zero_count, stream.zero_threshold = (
        histogram.scale, histogram.zero_count, histogram.zero_threshold,
    )
    place = stream.place
    for side in range(2):
        stream.offset[side], stream.length[side] = histogram.sides[side].offset, histogram.sides[side].length
        if stream.length[side]:
            memcpy(pool.data + place, histogram.sides[side].counts, stream.length[side] * sizeof(uint64_t))
        place += stream.length[side]
    return 0


cdef int keep(BucketPool pool, Stream* stream, const PointRow* point, const Histogram* histogram,
              double now_s) except -1:
    """Make the point the last one of the stream."""
    store(pool, stream, histogram)
    stream.is_known, stream.seen_s = 1, now_s
    stream.last_time, stream.start_time = point.time, point.start_time
    stream.count, stream.present = point.count, point.present
    if not isnan(point.sum):               # else the last sum that was known stays
        stream.total = point.sum
    stream.min, stream.max = point.min, point.max
    return 0


cdef int subtract(Scratch scratch, BucketPool pool, const Stream* stream, BucketPool out, Result* result) except -1:
    """Write the new histogram without the old one; returns 0 if it has less than the old one anywhere."""
    cdef Histogram* old = &scratch.old
    cdef Histogram* new = &scratch.new
    cdef Side* mine
    cdef Side* other
    cdef Side difference
    cdef int64_t i, index
    cdef uint64_t count
    cdef int side
    load(scratch, pool, stream)
    if new.zero_threshold < old.zero_threshold or new.scale > old.scale:
        return 0                           # neither happens to a histogram that only grows
    for side in range(2):
        coarsen(&old.sides[side], min(old.scale - new.scale, SHIFT_MAX))
    old.scale = new.scale
    if new.zero_threshold > old.zero_threshold:
        widen(old, new.zero_threshold)
    if new.zero_count < old.zero_count:
        return 0
    for side in range(2):
        mine, other = &new.sides[side], &old.sides[side]
        if other.length and (
            other.offset < mine.offset or other.offset + other.length > mine.offset + mine.length
        ):
            return 0
        for i in range(other.length):
            if mine.counts[other.offset - mine.offset + i] < other.counts[i]:
                return 0
    for side in range(2):
        mine, other = &new.sides[side], &old.sides[side]
        result.place[side] = out.take(mine.length)
        difference.offset, difference.length = mine.offset, mine.length
        difference.counts = out.data + result.place[side]
        for i in range(mine.length):
            index = mine.offset + i - other.offset
            count = other.counts[index] if 0 <= index < other.length else 0
            difference.counts[i] = mine.counts[i] - count
        trim(&difference)
        result.place[side] = difference.counts - out.data
        result.offset[side], result.length[side] = difference.offset, difference.length
    result.scale, result.zero_threshold = new.scale, new.zero_threshold
    result.zero_count = new.zero_count - old.zero_count
    return 1


cdef int add(Scratch scratch, BucketPool pool, Stream* stream, BucketPool out, Result* result) except -1:
    """Add the new histogram to the stream, and write the total."""
    cdef Histogram* old = &scratch.old
    cdef Histogram* new = &scratch.new
    cdef Histogram total
    cdef Side* sum_
    cdef int64_t i, low, high
    cdef int side
    load(scratch, pool, stream)
    fit(old, new, TOTAL_WIDTH_MAX)
    if old.zero_threshold < new.zero_threshold:
        widen(old, new.zero_threshold)
    elif new.zero_threshold < old.zero_threshold:
        widen(new, old.zero_threshold)
    total.scale = max(min(old.scale, INT32_MAX), INT32_MIN)
    total.zero_count = old.zero_count + new.zero_count
    total.zero_threshold = fmax(old.zero_threshold, new.zero_threshold)
    for side in range(2):
        sum_ = &total.sides[side]
        low, high = bounds(&old.sides[side], &new.sides[side], &sum_.offset)
        sum_.length = high - low
        result.place[side] = out.take(sum_.length)
        sum_.counts = out.data + result.place[side]
        for i in range(sum_.length):
            sum_.counts[i] = at(&old.sides[side], low + i) + at(&new.sides[side], low + i)
        result.offset[side], result.length[side] = sum_.offset, sum_.length
    for side in range(2):                  # the pool may have moved
        total.sides[side].counts = out.data + result.place[side]
    store(pool, stream, &total)
    result.scale, result.zero_count, result.zero_threshold = total.scale, total.zero_count, total.zero_threshold
    return 0


cdef inline uint64_t at(const Side* side, int64_t index) noexcept:
    return side.counts[index - side.offset] if side.offset <= index < side.offset + side.length else 0


cdef (int64_t, int64_t) bounds(const Side* side, const Side* other, int64_t* low) noexcept:
    """The first bucket of both, which is also written to ``low``, and one past the last."""
    cdef int64_t high = max(side.offset + side.length, other.offset + other.length)
    low[0] = min(side.offset, other.offset)
    if side.length == 0:
        low[0], high = other.offset, other.offset + other.length
    elif other.length == 0:
        low[0], high = side.offset, side.offset + side.length
    return low[0], high
