"""Histograms with bounds, in C: bounds and buckets in the bytes of a request, and the gain of each update.

See docs/reference/cardinality.md, rule 5.

Updates come from ``take_updates`` of ``_updates``; ``histograms`` allocates and releases the rows of buckets. Every
slot, row and offset is checked against its array before it is used, and the GIL is kept, as in ``_updates``.
"""

import numpy as np

from collector.wire.layout import POINT
from processors.cardinality.records import ACCUMULATOR, SOURCE, UPDATE

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport isfinite
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from collector.wire.layout cimport PRESENT_SUM, PointRow
from processors.cardinality._records cimport (
    AHEAD, Accumulator, BucketPlace, Source, Update, add_to_totals, check_updates, gains_whole_value,
    has_gain, prefetch, read_word, record_data,
)

cnp.import_array()

ctypedef struct BucketRows:        # rows of uint64 cells for the buckets of one set of bounds
    uint64_t* cells
    Py_ssize_t rows, width         # width: buckets, without the cells before them

cdef enum:
    CELLS_BEFORE = 2               # count and sum before the buckets of a source


def bounds_of(cnp.ndarray points not None, cnp.ndarray updates not None):
    """Where the bounds of histograms are in the request: ``(starts I32[n], lengths I32[n], fits bool[n])``.

    A point fits if it has one bucket more than bounds. Where it does not, or has no bounds, start is -1 and length 0.

    Raises:
        ValueError: the point of an update is outside the array.
    """
    cdef const PointRow* point_of = <const PointRow*>record_data(points, POINT)
    cdef const Update* update = <const Update*>record_data(updates, UPDATE)
    cdef Py_ssize_t i, count = updates.shape[0]
    cdef const PointRow* point
    slices = np.empty((2, count), np.int32)
    fitting = np.empty(count, np.bool_)
    cdef int32_t* starts = <int32_t*>cnp.PyArray_DATA(<cnp.ndarray>slices)
    cdef cnp.npy_bool* fits = <cnp.npy_bool*>cnp.PyArray_DATA(<cnp.ndarray>fitting)
    for i in range(count):
        if update[i].point < 0 or update[i].point >= points.shape[0]:
            raise ValueError("the point of an update is outside its array")
        point = &point_of[update[i].point]
        fits[i] = <int64_t>point.buckets_len == <int64_t>point.bounds_len + 8
        starts[count + i] = point.bounds_len if fits[i] else 0
        starts[i] = point.bounds if starts[count + i] > 0 else -1
    return slices[0], slices[1], fitting


def wrong_buckets(
    bytes wire not None, cnp.ndarray points not None, cnp.ndarray updates not None, const int32_t[::1] widths not None
):
    """``bool[n]``: updates whose buckets do not add up to their count; they would corrupt every sum they are part of.

    Args:
        wire: The request.
        points: POINT records of the batch.
        updates: UPDATE records of histograms.
        widths: (n,) how many buckets each has; 0: they are not checked.

    Raises:
        ValueError: buckets are outside the request, a point is outside its array, or the arrays differ in length.
    """
    cdef const PointRow* point_of = <const PointRow*>record_data(points, POINT)
    cdef const Update* update = <const Update*>record_data(updates, UPDATE)
    cdef const uint8_t* text = <const uint8_t*>PyBytes_AS_STRING(wire)
    cdef Py_ssize_t i, k, count = updates.shape[0], size = PyBytes_GET_SIZE(wire)
    cdef const PointRow* point
    cdef const uint8_t* at
    cdef uint64_t total, value
    if widths.shape[0] != count:
        raise ValueError("updates and widths differ in length")
    cdef cnp.ndarray wrong = np.zeros(count, np.bool_)
    cdef cnp.npy_bool* is_wrong = <cnp.npy_bool*>cnp.PyArray_DATA(wrong)
    for i in range(count):
        if update[i].point < 0 or update[i].point >= points.shape[0]:
            raise ValueError("the point of an update is outside its array")
        if not widths[i]:
            continue
        point = &point_of[update[i].point]
        if widths[i] < 0 or point.buckets < 0 or <Py_ssize_t>point.buckets + 8 * <Py_ssize_t>widths[i] > size:
            raise ValueError("buckets are outside the request")
        at = text + point.buckets
        total = 0
        for k in range(widths[i]):
            value = read_word(at + 8 * k)
            if value > point.count:  # this also keeps the sum from wrapping: counts are below 2^48, buckets are few
                is_wrong[i] = True
                break
            total += value
        if total != point.count:
            is_wrong[i] = True
    return wrong


cdef BucketRows* _rows_of_set(
    BucketRows* by_set, list pools, int32_t number, str name, Py_ssize_t cells_before
) except NULL:
    # The rows of a set of bounds, looked up when an update first needs them.
    cdef cnp.ndarray cells
    if number < 0 or number >= len(pools):
        raise ValueError("no such set of bounds")
    if by_set[number].cells == NULL:
        cells = pools[number][name]
        if cells.ndim != 2 or cells.dtype != np.uint64 or not cells.flags.c_contiguous or cells.shape[1] < cells_before:
            raise ValueError("cells must be U64[rows, cells before the buckets and buckets]")
        by_set[number].cells = <uint64_t*>cnp.PyArray_DATA(cells)
        by_set[number].rows, by_set[number].width = cells.shape[0], cells.shape[1] - cells_before
    return &by_set[number]


cdef const int32_t* _mapping(
    object shared, int32_t from_set, BucketRows* from_rows, int32_t to_set, BucketRows* to_rows, list keep, bint* loses
) except? NULL:
    # Into which bucket of another set of bounds each bucket goes. NULL: no bucket goes anywhere.
    cdef const int32_t[::1] places
    cdef Py_ssize_t i
    loses[0] = False
    if to_rows.width == 0:
        return NULL
    if from_rows.width == 0:
        loses[0] = to_rows.width > 1
        return NULL
    places, is_exact = shared(from_set, to_set)
    if places.shape[0] != from_rows.width:
        raise ValueError("expected one place for each bucket")
    for i in range(from_rows.width):
        if places[i] < 0 or places[i] >= to_rows.width:
            raise ValueError("the place of a bucket is outside the buckets")
    loses[0] = not is_exact
    keep.append(places)
    return &places[0]


cdef inline const uint8_t* _project(
    const uint8_t* buckets, Py_ssize_t width, uint64_t count, const int32_t* places, Py_ssize_t out_width, uint64_t* out
) noexcept nogil:
    # Bucket counts in the buckets of another set of bounds; without buckets, the whole count goes into +Inf.
    cdef Py_ssize_t i
    memset(out, 0, 8 * out_width)
    if width == 0:
        if out_width:
            out[out_width - 1] = count
    elif places != NULL:
        for i in range(width):
            out[places[i]] += read_word(buckets + 8 * i)
    return <const uint8_t*>out


def add_histograms(
    bytes wire not None, cnp.ndarray points not None, cnp.ndarray updates not None, const int32_t[::1] sets not None,
    const int32_t[::1] rows not None, list source_rows not None, list accumulator_rows not None, shared,
    cnp.ndarray sources not None, cnp.ndarray accumulators not None,
):
    """Add the gains of histograms with bounds, and store their last values.

    Args:
        wire: The request.
        points: POINT records of the batch.
        updates: UPDATE records of histograms, without those of ``wrong_buckets``.
        sets: (n,) the set of bounds of each.
        rows: (n,) for the last update of a cumulative source, the row of ``source_rows[set]`` that stores its value.
        source_rows: By set: ``["cells"]`` is U64[rows, 2 + width]: count, sum (the bits of a double), buckets.
        accumulator_rows: By set: ``["counts"]`` is U64[rows, width].
        shared: (set, set) → into which bucket of the second set each bucket of the first goes, I32[width], and whether
            every bucket of the second stays exact.
        sources: SOURCE records, by slot; their value is a BucketPlace.
        accumulators: ACCUMULATOR records, by slot; those of the updates have a set and a row.

    Returns:
        How many updates are not counted in every bucket they belong to.

    Raises:
        ValueError: a set, row, slot or slice is outside its array.
    """
    cdef const PointRow* point_of = <const PointRow*>record_data(points, POINT)
    cdef const Update* update_of = <const Update*>record_data(updates, UPDATE)
    cdef Source* source_of = <Source*>record_data(sources, SOURCE)
    cdef Accumulator* accumulator_of = <Accumulator*>record_data(accumulators, ACCUMULATOR)
    cdef const uint8_t* text = <const uint8_t*>PyBytes_AS_STRING(wire)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(wire), count = updates.shape[0], set_count = len(source_rows)
    cdef Py_ssize_t i, k, inexact = 0, width
    cdef BucketRows* sources_by_set
    cdef BucketRows* accumulators_by_set
    cdef BucketRows* now_rows          # of the update's own set of bounds
    cdef BucketRows* was_rows          # of the set that its source had before
    cdef BucketRows* into_rows         # of the accumulator's set
    cdef const Update* update
    cdef const PointRow* point
    cdef const PointRow* previous
    cdef Accumulator* into
    cdef BucketPlace* place
    cdef const int32_t* places
    cdef const uint8_t* was_buckets
    cdef const uint8_t* now
    cdef const uint8_t* was
    cdef uint64_t* now_scratch
    cdef uint64_t* was_scratch
    cdef uint64_t* cells
    cdef uint64_t was_count
    cdef double was_sum, sum_
    cdef int32_t was_set
    cdef bint has_sum, loses, ignored, is_whole, gain_is_unknown, bucket_fell
    cdef list keep = []                # keeps the arrays alive into which ``places`` points
    if sets.shape[0] != count or rows.shape[0] != count or len(accumulator_rows) != set_count:
        raise ValueError("updates, sets and rows, or the rows of sources and accumulators, differ in length")
    check_updates(update_of, count, points.shape[0], sources.shape[0], accumulators.shape[0])
    sources_by_set = <BucketRows*>calloc(2 * set_count + 1, sizeof(BucketRows))
    if sources_by_set == NULL:
        raise MemoryError
    accumulators_by_set = sources_by_set + set_count
    cdef cnp.ndarray scratch = np.empty((2, 1), np.uint64)
    try:
        for i in range(count):
            if i + AHEAD < count:
                prefetch(&source_of[update_of[i + AHEAD].source])
            update = &update_of[i]
            point = &point_of[update.point]
            now_rows = _rows_of_set(sources_by_set, source_rows, sets[i], "cells", CELLS_BEFORE)
            if i + AHEAD // 2 < count:
                place = <BucketPlace*>&source_of[update_of[i + AHEAD // 2].source].value
                if place.set == sets[i] and 0 <= place.row < now_rows.rows:
                    cells = now_rows.cells + place.row * (now_rows.width + CELLS_BEFORE)
                    prefetch(cells)
                    prefetch(cells + CELLS_BEFORE + now_rows.width - 1)
            if now_rows.width and (point.buckets < 0 or <Py_ssize_t>point.buckets + 8 * now_rows.width > size):
                raise ValueError("buckets are outside the request")
            has_sum = point.present & PRESENT_SUM and isfinite(point.sum)
            sum_ = point.sum if has_sum else 0.0
            place = <BucketPlace*>&source_of[update.source].value
            if has_gain(update):
                into = &accumulator_of[update.accumulator]
                into_rows = _rows_of_set(accumulators_by_set, accumulator_rows, into.set, "counts", 0)
                width = into_rows.width
                if into.row < 0 or into.row >= into_rows.rows:
                    raise ValueError("the row of an accumulator is outside its array")
                # What the source had before: the update above, or what is stored.
                was_buckets = NULL
                was_count, was_sum, was_set, was_rows = 0, 0.0, -1, NULL
                if not update.is_first:
                    previous = &point_of[update_of[i - 1].point]
                    was_set, was_count = sets[i - 1], previous.count
                    if previous.present & PRESENT_SUM and isfinite(previous.sum):
                        was_sum = previous.sum
                    was_rows = &sources_by_set[was_set]
                    was_buckets = text + previous.buckets
                elif place.set >= 0:
                    was_set = place.set
                    was_rows = _rows_of_set(sources_by_set, source_rows, was_set, "cells", CELLS_BEFORE)
                    if place.row < 0 or place.row >= was_rows.rows:
                        raise ValueError("the row of a source is outside its array")
                    cells = was_rows.cells + place.row * (was_rows.width + CELLS_BEFORE)
                    was_count = cells[0]
                    memcpy(&was_sum, cells + 1, 8)
                    was_buckets = <const uint8_t*>(cells + CELLS_BEFORE)
                if width > scratch.shape[1]:
                    scratch = np.empty((2, width), np.uint64)
                now_scratch = <uint64_t*>cnp.PyArray_DATA(scratch)
                was_scratch = now_scratch + scratch.shape[1]
                loses = False
                now, was = text + point.buckets, was_buckets
                if sets[i] != into.set:
                    places = _mapping(shared, sets[i], now_rows, into.set, into_rows, keep, &loses)
                    now = _project(now, now_rows.width, point.count, places, width, now_scratch)
                if was_rows == NULL:
                    was = _project(NULL, 0, 0, NULL, width, was_scratch)
                elif was_set != into.set:
                    places = _mapping(shared, was_set, was_rows, into.set, into_rows, keep, &ignored)
                    was = _project(was, was_rows.width, was_count, places, width, was_scratch)
                is_whole = gains_whole_value(update, point.count < was_count)
                gain_is_unknown = False
                if not is_whole:
                    bucket_fell = False
                    for k in range(width):
                        bucket_fell |= read_word(now + 8 * k) < read_word(was + 8 * k)
                    # A bucket that fell means a restart, whatever the count says; unless the bounds have changed as
                    # well, when it means nothing. The gain of the count then goes into +Inf.
                    if bucket_fell:
                        if sets[i] == was_set:
                            is_whole = True
                        else:
                            gain_is_unknown = True
                            loses = True
                cells = into_rows.cells + into.row * width
                if gain_is_unknown:
                    if width:
                        cells[width - 1] += point.count - was_count
                elif is_whole:
                    for k in range(width):
                        cells[k] += read_word(now + 8 * k)
                else:
                    for k in range(width):
                        cells[k] += read_word(now + 8 * k) - read_word(was + 8 * k)
                add_to_totals(
                    into, update, point, point.count if is_whole else point.count - was_count,
                    sum_ if is_whole else sum_ - was_sum, has_sum,
                )
                inexact += loses
            if update.is_last and update.is_cumulative:
                if rows[i] < 0 or rows[i] >= now_rows.rows:
                    raise ValueError("the row of a source is outside its array")
                cells = now_rows.cells + rows[i] * (now_rows.width + CELLS_BEFORE)
                cells[0] = point.count
                memcpy(cells + 1, &sum_, 8)
                if now_rows.width:
                    memcpy(cells + CELLS_BEFORE, text + point.buckets, 8 * now_rows.width)
                place.set, place.row = sets[i], rows[i]
    finally:
        free(sources_by_set)
    return inexact
