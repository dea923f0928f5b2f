# The records of ``processors.cardinality.records`` as C structs, and what both kernels do with them.
#
# ``_updates`` checks when it is imported that the two definitions agree. Rules are those of
# docs/reference/cardinality.md.

cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from collector.wire.layout cimport PointRow

ctypedef struct Source:            # records.SOURCE
    uint64_t start, time
    int64_t value                  # of sums and gauges; of histograms a BucketPlace
    float seen
    int32_t accumulator, mark
    uint8_t status, kind, is_double, flags

ctypedef struct Accumulator:       # records.ACCUMULATOR
    int64_t int_part
    double double_part
    uint64_t count
    double sum, min, max
    uint64_t pending, start
    double seen
    int32_t set, row
    uint8_t is_double, touched, fold, kind, lacks_sum, lacks_range

ctypedef struct Update:            # records.UPDATE
    int32_t point, source, accumulator
    uint8_t kind, is_first, is_last, is_new, counts_in_full, overwrites, restarted, is_cumulative

ctypedef struct BucketPlace:       # the value of a histogram's source: where its buckets are stored
    int32_t set, row

cdef enum:
    PRESENT_RANGE = 6              # PRESENT_MIN | PRESENT_MAX

cdef enum:
    AHEAD = 8                      # rows: records and cells are prefetched so far before they are used

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void* at) noexcept nogil   # a hint; any address is allowed


cdef inline void* record_data(cnp.ndarray array, object dtype) except? NULL:
    if array.ndim != 1 or array.dtype != dtype or not array.flags.c_contiguous:
        raise ValueError("expected one contiguous array of records of the right dtype")
    return cnp.PyArray_DATA(array)


cdef inline uint64_t read_word(const uint8_t* at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, 8)
    return word


cdef inline int check_updates(
    const Update* update, Py_ssize_t count, Py_ssize_t point_count, Py_ssize_t source_count,
    Py_ssize_t accumulator_count
) except -1:
    cdef Py_ssize_t i
    for i in range(count):
        if (
            update[i].point < 0 or update[i].point >= point_count
            or update[i].source < 0 or update[i].source >= source_count
        ):
            raise ValueError("the point or source of an update is outside its array")
        if update[i].accumulator < -1 or update[i].accumulator >= accumulator_count:
            raise ValueError("the accumulator of an update is outside its array")
    return 0


cdef inline bint has_gain(const Update* update) noexcept nogil:
    # Whether an update adds anything: its source is merged, and it is not a baseline (rule 2).
    return update.accumulator >= 0 and not (
        update.is_cumulative and update.is_new and not update.counts_in_full and not update.overwrites
    )


cdef inline bint gains_whole_value(const Update* update, bint fell) noexcept nogil:
    # Whether the gain is the whole value and not the difference to the last one (rules 1, 2 and 4): deltas, sources
    # that have restarted, and new ones that started after us.
    if not update.is_cumulative or update.overwrites:
        return True
    if update.is_new:
        return update.counts_in_full != 0
    return fell or update.restarted != 0


cdef inline void add_to_totals(
    Accumulator* into, const Update* update, const PointRow* point, uint64_t count, double sum_, bint has_sum
) noexcept nogil:
    into.count += count
    into.sum += sum_
    if not has_sum:
        into.lacks_sum = 1
    if update.is_cumulative or point.present & PRESENT_RANGE != PRESENT_RANGE:
        into.lacks_range = 1
    if point.present & PRESENT_RANGE == PRESENT_RANGE:
        if point.min < into.min or point.min != point.min:
            into.min = point.min
        if point.max > into.max or point.max != point.max:
            into.max = point.max
