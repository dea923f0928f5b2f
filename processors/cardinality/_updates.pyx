"""The work of ``cardinality`` per point, in C: the updates that a batch makes of its sources, and the gains of numbers.

An update is a point with its source, in order of time. ``take_updates`` makes them and brings times and status of the
sources up to date; after that ``add_numbers``, or ``add_histograms`` of ``_histograms``, adds the gain of each update
to its accumulator and stores the last value of each source. ``tests/unit/processors/cardinality/test_fold.py`` compares
all of it with a slow implementation in Python.

Rules are those of docs/reference/cardinality.md. Keys and slots are the matter of ``collector.model.keytable``,
exponential histograms of ``exponential``.

Every slot, row and offset is checked against its array before it is used. The GIL is kept: other code of the event loop
reads sources and accumulators, and a batch takes less than a millisecond.
"""

import numpy as np

from collector.wire.layout import ATTRIBUTE, METRIC, POINT
from processors.cardinality.records import ACCUMULATOR, SOURCE, UPDATE

cimport numpy as cnp
from libc.math cimport fabs, isfinite
from libc.stdint cimport UINT64_MAX, int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from collector.wire.layout cimport (
    KIND_EMPTY, KIND_STRING, METRIC_EXPONENTIAL_HISTOGRAM, METRIC_GAUGE, METRIC_HISTOGRAM, METRIC_SUM,
    TEMPORALITY_DELTA, VALUE_INT, AttributeRow, MetricRow, PointRow,
)
from processors.cardinality._records cimport (
    AHEAD, Accumulator, Source, Update,
    add_to_totals, check_updates, gains_whole_value, has_gain, prefetch, record_data,
)

cnp.import_array()

if (
    SOURCE.itemsize != sizeof(Source) or ACCUMULATOR.itemsize != sizeof(Accumulator)
    or UPDATE.itemsize != sizeof(Update)
):
    raise ImportError("the records of processors.cardinality.records and of _records.pxd differ; rebuild the kernels")

cdef enum:                         # records.STATUS
    NEW = 0
    LIVE = 1
    FREED = 3

cdef enum:                         # records.DROP_REASONS
    NOT_FINITE = 1
    OUT_OF_RANGE = 2
    STATE_FULL = 4
    OUT_OF_ORDER = 5

cdef enum:                         # records.COUNTS
    COUNTS = 1

cdef enum:
    FOLD_LAST = 1                  # records.FOLDS: "last" and adding up; only these take a gauge that is not finite

# No histogram point has more observations than this; larger counts are errors, and their sums could wrap.
cdef uint64_t COUNT_MAX = <uint64_t>1 << 48
cdef uint64_t TOTAL_MAX = <uint64_t>1 << 62
cdef double SAFE = 2.0**62         # sums below it cannot wrap, whatever the rounding of their doubles


def any_empty(cnp.ndarray rows not None):
    """Whether any of the attributes (``layout.ATTRIBUTE``) has no value, or an empty text."""
    cdef const AttributeRow* row = <const AttributeRow*>record_data(rows, ATTRIBUTE)
    cdef Py_ssize_t i
    for i in range(rows.shape[0]):
        if row[i].kind == KIND_EMPTY or (row[i].kind == KIND_STRING and row[i].value_len == 0):
            return True
    return False


cdef inline uint8_t _why_unusable(const PointRow* point, int kind, uint8_t fold) noexcept nogil:
    # Why a point can neither be added nor stored, 0 if it can. A NaN would stay in a sum forever; the latest value of a
    # gauge may be one.
    if kind == METRIC_HISTOGRAM or kind == METRIC_EXPONENTIAL_HISTOGRAM:
        return OUT_OF_RANGE if point.count > COUNT_MAX else 0
    if (kind == METRIC_SUM or fold > FOLD_LAST) and point.value_kind != VALUE_INT and not isfinite(point.double_value):
        return NOT_FINITE
    return 0


cdef inline bint _has_value(const PointRow* point, bint is_histogram) noexcept nogil:
    if is_histogram:
        return point.count != 0
    return point.int_value != 0 if point.value_kind == VALUE_INT else point.double_value != 0


def other_starts(
    cnp.ndarray points not None, cnp.ndarray metrics not None, const int64_t[::1] rows not None,
    const int32_t[::1] slots not None, cnp.ndarray sources not None, uint8_t[::1] reasons not None,
):
    """Indices of rows (``int64``) of cumulative points that have another start time than their source.

    A new source gets the start time of its first row. A start time of 0 is unknown and equals every other one. Rows that
    cannot be used get their reason.

    Raises:
        ValueError: a row or slot is outside its array, or the arrays differ in length.
    """
    cdef const PointRow* point_of = <const PointRow*>record_data(points, POINT)
    cdef const MetricRow* metric_of = <const MetricRow*>record_data(metrics, METRIC)
    cdef Source* source_of = <Source*>record_data(sources, SOURCE)
    cdef Py_ssize_t i, count = rows.shape[0]
    cdef const PointRow* point
    cdef const MetricRow* metric
    cdef Source* source
    cdef Py_ssize_t used = 0
    cdef int64_t[::1] found = None
    if slots.shape[0] != count or reasons.shape[0] != count:
        raise ValueError("rows, slots and reasons differ in length")
    for i in range(count):
        if i + AHEAD < count and slots[i + AHEAD] >= 0:
            prefetch(&source_of[slots[i + AHEAD]])
        if rows[i] < 0 or rows[i] >= points.shape[0] or slots[i] < -1 or slots[i] >= sources.shape[0]:
            raise ValueError("a row or slot is outside its array")
        point = &point_of[rows[i]]
        if slots[i] < 0 or reasons[i]:
            continue
        if point.parent < 0 or point.parent >= metrics.shape[0]:
            raise ValueError("the metric of a point is outside the array")
        metric = &metric_of[point.parent]
        if metric.type == METRIC_GAUGE or metric.temporality == TEMPORALITY_DELTA:
            continue
        reasons[i] = _why_unusable(point, metric.type, 0)
        source = &source_of[slots[i]]
        if reasons[i] or point.start_time == 0 or point.start_time == source.start:
            continue
        if source.start:
            if found is None:
                found = np.empty(count, np.int64)
            found[used] = i
            used += 1
        elif source.status == NEW:
            source.start = point.start_time
    return np.asarray(found[:used]) if used else np.zeros(0, np.int64)


def take_updates(
    cnp.ndarray points not None, cnp.ndarray metrics not None, const int64_t[::1] rows not None,
    const int32_t[::1] slots not None, const int32_t[::1] targets not None, const uint8_t[::1] own_name not None,
    cnp.ndarray sources not None, cnp.ndarray accumulators not None, uint8_t[::1] reasons not None, *,
    uint64_t full_from, uint64_t began, bint never_full, ended, uint64_t believed_until, double now_s,
):
    """The updates of a batch, by source and time where a source has several; updates times and status of the sources.

    Args:
        points: POINT records of the batch.
        metrics: METRIC records of the batch.
        rows: (n,) rows of the points.
        slots: (n,) the sources of the rows; -1: there was no room for it. A new source has status NEW, and keeps it if
            none of its points is used.
        targets: (n,) the accumulator for sources that have none; -1: the series is named, its value is only stored.
        own_name: (n,) the accumulator writes under the name that the source has had until now.
        sources: SOURCE records, by slot.
        accumulators: ACCUMULATOR records, by slot.
        reasons: (n,) why a row is not used (index of ``DROP_REASONS``). Rows with a reason are skipped; others get one
            here if necessary.
        full_from: Rule 2: a new source that started then or later counts with its whole value.
        never_full: No new source counts with its whole value.
        began: When the processor started; of sources that started later, everything was seen.
        ended: (n,) uint64: the source counts with its whole value only if it started after this time; None: 0 for all.
        believed_until: Rule 10: a last time that is later is not believed once a point has an earlier one.
        now_s: Monotonic clock.

    Returns:
        The updates, and how many were baselines although they had a value: because the source started before the
        processor (or nobody knows when), because it had been known before, and because it may have been (``ended`` is
        2^64 - 1).

    Raises:
        ValueError: a row or slot is outside its array, or the arrays differ in length.
    """
    cdef const PointRow* point_of = <const PointRow*>record_data(points, POINT)
    cdef const MetricRow* metric_of = <const MetricRow*>record_data(metrics, METRIC)
    cdef Source* source_of = <Source*>record_data(sources, SOURCE)
    cdef Accumulator* accumulator_of = <Accumulator*>record_data(accumulators, ACCUMULATOR)
    cdef Py_ssize_t count = rows.shape[0], steps = count, i, k, used = 0
    cdef Py_ssize_t baseline_count = 0, forgotten_count = 0, overlap_count = 0
    cdef Py_ssize_t point_count = points.shape[0], metric_count = metrics.shape[0]
    cdef Py_ssize_t source_count = sources.shape[0], accumulator_count = accumulators.shape[0]
    cdef const uint64_t[::1] ended_at = ended
    cdef const int64_t[::1] order = None
    cdef const PointRow* point
    cdef const MetricRow* metric
    cdef Source* source
    cdef Accumulator* into
    cdef Update* update
    cdef int32_t target, previous_target
    cdef int kind
    cdef bint is_new, is_histogram, has_repeats = False
    if (
        slots.shape[0] != count or targets.shape[0] != count or own_name.shape[0] != count
        or reasons.shape[0] != count or (ended is not None and ended_at.shape[0] != count)
    ):
        raise ValueError("rows, slots, targets, own_name, reasons and ended differ in length")
    for i in range(count):
        if i + AHEAD < count:
            prefetch(&source_of[slots[i + AHEAD]])
        if rows[i] < 0 or rows[i] >= point_count or slots[i] < -1 or slots[i] >= source_count:
            raise ValueError("a row or slot is outside its array")
        if targets[i] < -1 or targets[i] >= accumulator_count:
            raise ValueError("an accumulator is outside the array")
        if point_of[rows[i]].parent < 0 or point_of[rows[i]].parent >= metric_count:
            raise ValueError("the metric of a point is outside the array")
        if slots[i] >= 0:
            if source_of[slots[i]].status == NEW:
                source_of[slots[i]].accumulator = -1
            if source_of[slots[i]].accumulator < -1 or source_of[slots[i]].accumulator >= accumulator_count:
                raise ValueError("the accumulator of a source is outside the array")
        if not reasons[i]:
            target = source_of[slots[i]].accumulator if slots[i] >= 0 else -1
            target = target if target >= 0 else targets[i]
            point = &point_of[rows[i]]
            reasons[i] = _why_unusable(
                point, metric_of[point.parent].type, accumulator_of[target].fold if target >= 0 else 0
            )
            if not reasons[i] and slots[i] >= 0:
                source_of[slots[i]].mark = <int32_t>i
    for i in range(count):
        if not reasons[i] and slots[i] >= 0 and source_of[slots[i]].mark != i:
            has_repeats = True
            break
    if has_repeats:
        usable = np.flatnonzero(np.asarray(reasons) == 0)
        order = usable[np.lexsort((points["time"][np.asarray(rows)[usable]], np.asarray(slots)[usable]))]
        steps = order.shape[0]
    cdef cnp.ndarray updates = np.empty(count, UPDATE)
    cdef Update* update_of = <Update*>cnp.PyArray_DATA(updates)
    for k in range(steps):
        i = order[k] if has_repeats else k
        if reasons[i]:
            continue
        if slots[i] < 0:
            reasons[i] = STATE_FULL
            continue
        point = &point_of[rows[i]]
        metric = &metric_of[point.parent]
        source = &source_of[slots[i]]
        kind = metric.type
        previous_target = source.accumulator
        target = previous_target if previous_target >= 0 else targets[i]
        into = &accumulator_of[target] if target >= 0 else NULL
        is_new = source.status == NEW
        # A source that repeats a point is alive, so its counts stay known; but that keeps no latest value alive (rule
        # 6).
        if into == NULL or into.fold == 0:
            source.seen = <float>now_s
        # Of points with the same time the last one counts.
        if (
            not is_new and point.time <= source.time
            and not (source.time > believed_until and point.time <= believed_until)
        ) or (
            has_repeats and k + 1 < steps and slots[order[k + 1]] == slots[i]
            and point_of[rows[order[k + 1]]].time == point.time
        ):
            reasons[i] = OUT_OF_ORDER
            continue
        is_histogram = kind == METRIC_HISTOGRAM or kind == METRIC_EXPONENTIAL_HISTOGRAM
        if into != NULL:
            if is_histogram:
                # A point that would take the count of its accumulator beyond 62 bits is dropped, so that it cannot
                # wrap.
                if into.count + into.pending + point.count >= TOTAL_MAX:
                    reasons[i] = OUT_OF_RANGE
                    continue
                into.pending += point.count
            into.touched = 1
            into.seen = now_s
        update = &update_of[used]
        update.point, update.source, update.accumulator = <int32_t>rows[i], slots[i], target
        update.kind = <uint8_t>kind
        update.is_first = used == 0 or update_of[used - 1].source != slots[i]
        if used:
            update_of[used - 1].is_last = update.is_first
        update.is_new = is_new
        update.is_cumulative = metric.temporality != TEMPORALITY_DELTA
        update.overwrites = (
            update.is_first and not is_new and previous_target < 0 and own_name[i] and source.status != FREED
            and update.is_cumulative
        )
        update.counts_in_full = (
            not never_full and point.start_time >= full_from
            and (ended is None or not ended_at[i] or point.start_time > ended_at[i])
        )
        # A start before the last point proves that two processes have one identity, not a restart (rule 13).
        update.restarted = point.start_time != source.start and point.start_time >= source.time
        if (
            is_new and update.is_cumulative and not update.counts_in_full and into != NULL and into.fold == 0
            and _has_value(point, is_histogram)
        ):
            if ended is not None and ended_at[i] == UINT64_MAX:
                overlap_count += 1
            elif (ended is not None and ended_at[i]) or (not never_full and point.start_time >= began):
                forgotten_count += 1
            else:
                baseline_count += 1
        if is_new:
            if update.is_cumulative and (is_histogram or (kind == METRIC_SUM and metric.monotonic)):
                source.flags |= COUNTS
            source.is_double = 0
            source.value = -1 if is_histogram else 0   # -1: the BucketPlace of a source without buckets
        if point.start_time or is_new:  # a known start time stays known
            source.start = point.start_time
        source.time, source.seen = point.time, <float>now_s
        source.accumulator, source.status, source.kind = target, LIVE, <uint8_t>kind
        used += 1
    if used:
        update_of[used - 1].is_last = True
    for i in range(used):
        if update_of[i].accumulator >= 0:
            accumulator_of[update_of[i].accumulator].pending = 0
    return updates[:used], baseline_count, forgotten_count, overlap_count


def add_numbers(
    cnp.ndarray points not None, cnp.ndarray metrics not None, cnp.ndarray updates not None,
    cnp.ndarray sources not None, cnp.ndarray accumulators not None,
):
    """Add the gains of sums (rules 1, 2 and 4) and store the values of sums and gauges; other types are skipped.

    Integers and doubles are added up separately, so that integers stay exact; what is written is the sum of both.
    Cumulative sums that are not monotonic are sums of latest values (rule 6), which are computed when they are written.

    Returns:
        How many gains were added as doubles because the integer would have left 62 bits; it never wraps.

    Raises:
        ValueError: the point, source or accumulator of an update is outside its array.
    """
    cdef const PointRow* point_of = <const PointRow*>record_data(points, POINT)
    cdef const MetricRow* metric_of = <const MetricRow*>record_data(metrics, METRIC)
    cdef Source* source_of = <Source*>record_data(sources, SOURCE)
    cdef Accumulator* accumulator_of = <Accumulator*>record_data(accumulators, ACCUMULATOR)
    cdef const Update* update_of = <const Update*>record_data(updates, UPDATE)
    cdef Py_ssize_t i, overflow_count = 0, metric_count = metrics.shape[0]
    cdef const Update* update
    cdef const PointRow* point
    cdef Source* source
    cdef Accumulator* into
    cdef bint is_int, is_whole, fell
    cdef int64_t now_int, was_int, base_int
    cdef double now_double, was_double, wide
    check_updates(update_of, updates.shape[0], points.shape[0], sources.shape[0], accumulators.shape[0])
    for i in range(updates.shape[0]):
        update = &update_of[i]
        if update.kind != METRIC_SUM and update.kind != METRIC_GAUGE:
            continue
        point = &point_of[update.point]
        source = &source_of[update.source]
        is_int = point.value_kind == VALUE_INT
        if update.kind == METRIC_SUM and has_gain(update):
            if point.parent < 0 or point.parent >= metric_count:
                raise ValueError("the metric of a point is outside the array")
            if metric_of[point.parent].monotonic or not update.is_cumulative:
                into = &accumulator_of[update.accumulator]
                now_int = point.int_value if is_int else 0
                now_double = 0.0 if is_int else point.double_value
                was_int, was_double = 0, 0.0
                if source.is_double:
                    memcpy(&was_double, &source.value, 8)
                else:
                    was_int = source.value
                if was_double == 0 and is_int:
                    fell = now_int < was_int
                else:
                    fell = <double>now_int + now_double < <double>was_int + was_double
                is_whole = gains_whole_value(update, fell)
                base_int = 0 if is_whole else was_int
                if not is_int or was_double != 0:
                    into.is_double = 1
                wide = <double>now_int - <double>base_int
                if fabs(<double>into.int_part) + fabs(wide) < SAFE:
                    # In unsigned arithmetic, because the difference of the values may wrap where that of the sums does
                    # not.
                    into.int_part = <int64_t>(<uint64_t>into.int_part + (<uint64_t>now_int - <uint64_t>base_int))
                else:
                    into.double_part += <double>into.int_part + wide
                    into.int_part = 0
                    into.is_double = 1
                    overflow_count += 1
                into.double_part += now_double if is_whole else now_double - was_double
        if is_int:
            source.value = point.int_value
        else:
            memcpy(&source.value, &point.double_value, 8)
        source.is_double = not is_int
    return overflow_count


def add_totals(
    cnp.ndarray points not None, cnp.ndarray updates not None, cnp.ndarray accumulators not None,
    const uint64_t[::1] counts not None, const double[::1] sums not None, const uint8_t[::1] has_sum not None,
):
    """Add counts, sums, minima and maxima of updates (all (n,), each with an accumulator) to their accumulators.

    ``sum`` is written only while every point had one, minimum and maximum only of deltas: cumulative ones are never
    reset.

    Raises:
        ValueError: the point or accumulator of an update is outside its array, or the arrays differ in length.
    """
    cdef const PointRow* point_of = <const PointRow*>record_data(points, POINT)
    cdef const Update* update = <const Update*>record_data(updates, UPDATE)
    cdef Accumulator* accumulator_of = <Accumulator*>record_data(accumulators, ACCUMULATOR)
    cdef Py_ssize_t i, count = updates.shape[0]
    if counts.shape[0] != count or sums.shape[0] != count or has_sum.shape[0] != count:
        raise ValueError("updates, counts, sums and has_sum differ in length")
    for i in range(count):
        if (
            update[i].point < 0 or update[i].point >= points.shape[0]
            or update[i].accumulator < 0 or update[i].accumulator >= accumulators.shape[0]
        ):
            raise ValueError("the point or accumulator of an update is outside its array")
        add_to_totals(
            &accumulator_of[update[i].accumulator], &update[i], &point_of[update[i].point], counts[i], sums[i],
            has_sum[i],
        )
