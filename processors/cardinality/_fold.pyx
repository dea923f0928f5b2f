"""The work of ``cardinality`` a point, in C: which lines a batch's points make, and what each adds to its accumulator.

A line is a point of a known source, in order of time. Lines are taken one after the other: what a source had before is in its record
(``stores``), which ``take_lines`` (times, first sight) and then ``add_numbers`` or ``add_histograms`` (values) bring up to date.
``tests/unit/processors/cardinality/test_fold.py`` says the same in slow Python.

Not here: keys and slots (``collector.model.keytable``), exponential histograms (``exponential``), rows of buckets given out and taken back.

Every slot, row and offset is checked against its array before it is used. The GIL is kept: sources and accumulators are what the event
loop's other readers see, and a batch takes less than a millisecond.
"""

import numpy as np

from collector.wire.layout import ATTRIBUTE, METRIC, POINT
from processors.cardinality.stores import ACCUMULATOR, LINE, SOURCE

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport fabs, isfinite
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from collector.wire.layout cimport AttributeRow, MetricRow, PointRow

cnp.import_array()

ctypedef struct Source:            # stores.SOURCE
    uint64_t start, time
    int64_t value                  # of sums and gauges; of histograms (set, row), see Place
    float seen
    int32_t accumulator, mark
    uint8_t status, kind, is_double

ctypedef struct Accumulator:       # stores.ACCUMULATOR
    int64_t int_part
    double double_part
    uint64_t count
    double sum, min, max
    uint64_t pending, start
    double seen
    int32_t set, row
    uint8_t is_double, touched, fold, kind, lacks_sum, lacks_range

ctypedef struct Line:              # stores.LINE
    int32_t row, slot, target
    uint8_t kind, first, last, fresh, full, overwrites, started_anew, cumulative

ctypedef struct Place:             # the value of a histogram's source: where its buckets are
    int32_t set, row

ctypedef struct Store:             # rows of uint64 cells, all of one set of bounds
    uint64_t *cells
    Py_ssize_t rows, width         # width: buckets, without what stands before them

if SOURCE.itemsize != sizeof(Source) or ACCUMULATOR.itemsize != sizeof(Accumulator) or LINE.itemsize != sizeof(Line):
    raise ImportError("the records of processors.cardinality.stores and _fold differ")

cdef enum:                         # layout.py
    KIND_EMPTY = 0
    KIND_STRING = 1
    GAUGE = 1
    SUM = 2
    HISTOGRAM = 3
    EXPONENTIAL = 4
    DELTA = 1
    PRESENT_SUM = 1
    PRESENT_RANGE = 6              # minimum and maximum
    VALUE_INT = 1

cdef enum:                         # stores.STATUS
    NEW = 0
    LIVE = 1
    FREED = 3

cdef enum:                         # stores.REASONS
    NOT_FINITE = 1
    OUT_OF_RANGE = 2
    STATE_FULL = 4
    OUT_OF_ORDER = 5

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *at) noexcept nogil   # a hint; any address may be given

cdef Py_ssize_t AHEAD = 8          # rows: records and cells are on their way to the cache when their turn comes

cdef enum:
    CELLS_BEFORE = 2               # count and sum before the buckets of a source
    FOLD_LAST = 1                  # stores.FOLDS: up to it a gauge's value may be no number

cdef uint64_t COUNT_MAX = <uint64_t>1 << 48   # observations of one histogram point; more are no measurement, and their sums could wrap
cdef uint64_t TOTAL_MAX = <uint64_t>1 << 62
cdef double SAFE = 2.0**62         # sums below it cannot wrap, whatever the rounding of their doubles


cdef void *_records(cnp.ndarray array, object dtype) except? NULL:
    if array.ndim != 1 or array.dtype != dtype or not array.flags.c_contiguous:
        raise ValueError("records must be one contiguous array of their dtype")
    return cnp.PyArray_DATA(array)


cdef inline uint64_t _word(const uint8_t *at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, 8)
    return word


def any_empty(cnp.ndarray rows not None):
    """Whether any of the attributes (``layout.ATTRIBUTE``) has no value: none at all, or an empty text."""
    cdef const AttributeRow *row = <const AttributeRow *>_records(rows, ATTRIBUTE)
    cdef Py_ssize_t i
    for i in range(rows.shape[0]):
        if row[i].kind == KIND_EMPTY or (row[i].kind == KIND_STRING and row[i].value_len == 0):
            return True
    return False


# --- lines ------------------------------------------------------------------------------------------------------------

cdef inline uint8_t _usable(const PointRow *point, int kind, uint8_t fold) noexcept nogil:
    """Why a point cannot be added up or remembered, 0: it can. One NaN would be in a sum for ever; a gauge's latest value may be one."""
    if kind == HISTOGRAM or kind == EXPONENTIAL:
        return OUT_OF_RANGE if point.count > COUNT_MAX else 0
    if (kind == SUM or fold > FOLD_LAST) and point.value_kind != VALUE_INT and not isfinite(point.double_value):
        return NOT_FINITE
    return 0


def take_lines(
    cnp.ndarray points not None, cnp.ndarray metrics not None, const int64_t[::1] rows not None, const int32_t[::1] slots not None,
    const int32_t[::1] targets not None, const uint8_t[::1] own_name not None, cnp.ndarray sources not None,
    cnp.ndarray accumulators not None, uint8_t[::1] reasons not None, *, uint64_t full_from, bint never_full, ended, double now_s,
):
    """The lines of a batch, ordered by source and time where a source has several; sources and accumulators know of them afterwards.

    Args:
        points: POINT records of the batch.
        metrics: METRIC records of the batch.
        rows: (n,) of points.
        slots: (n,) their sources; -1: there was no room for it. A new one has status NEW and keeps it if no line of it is taken.
        targets: (n,) the accumulator for sources that have none; -1: the series has its name, its value is remembered.
        own_name: (n,) the accumulator writes under the name the source had until now.
        sources: SOURCE records, by slot.
        accumulators: ACCUMULATOR records, by slot.
        reasons: (n,) why a row is not taken (index of ``REASONS``); rows that have one are passed over, others get theirs here.
        full_from: Rule 2: a new source that started then or later counts with its whole value.
        never_full: No new source does.
        ended: (n,) uint64: only if it started after this time; None: of all rows 0.
        now_s: Monotonic clock.

    Raises:
        ValueError: a row or slot is outside its array, or the arrays differ in length.
    """
    cdef const PointRow *point_of = <const PointRow *>_records(points, POINT)
    cdef const MetricRow *metric_of = <const MetricRow *>_records(metrics, METRIC)
    cdef Source *source_of = <Source *>_records(sources, SOURCE)
    cdef Accumulator *accumulator_of = <Accumulator *>_records(accumulators, ACCUMULATOR)
    cdef Py_ssize_t count = rows.shape[0], steps = count, i, k, taken = 0
    cdef Py_ssize_t point_count = points.shape[0], metric_count = metrics.shape[0]
    cdef Py_ssize_t source_count = sources.shape[0], accumulator_count = accumulators.shape[0]
    cdef const uint64_t[::1] ended_at = ended
    cdef const int64_t[::1] order = None
    cdef const PointRow *point
    cdef const MetricRow *metric
    cdef Source *source
    cdef Accumulator *into
    cdef Line *line
    cdef int32_t target, before
    cdef int kind
    cdef bint fresh, counts, repeats = False
    if slots.shape[0] != count or targets.shape[0] != count or own_name.shape[0] != count or reasons.shape[0] != count or (
        ended is not None and ended_at.shape[0] != count
    ):
        raise ValueError("rows and what is said of them differ in length")
    for i in range(count):
        if i + AHEAD < count:
            prefetch(&source_of[slots[i + AHEAD]])
        if rows[i] < 0 or rows[i] >= point_count or slots[i] < -1 or slots[i] >= source_count:
            raise ValueError("a row or slot is outside its array")
        if targets[i] < -1 or targets[i] >= accumulator_count:
            raise ValueError("an accumulator is outside the array")
        if point_of[rows[i]].parent < 0 or point_of[rows[i]].parent >= metric_count:
            raise ValueError("a point's metric is outside the array")
        if slots[i] >= 0:
            if source_of[slots[i]].status == NEW:
                source_of[slots[i]].accumulator = -1
            if source_of[slots[i]].accumulator < -1 or source_of[slots[i]].accumulator >= accumulator_count:
                raise ValueError("a source's accumulator is outside the array")
        if not reasons[i]:
            target = source_of[slots[i]].accumulator if slots[i] >= 0 else -1
            target = target if target >= 0 else targets[i]
            point = &point_of[rows[i]]
            reasons[i] = _usable(point, metric_of[point.parent].type, accumulator_of[target].fold if target >= 0 else 0)
            if not reasons[i] and slots[i] >= 0:
                source_of[slots[i]].mark = <int32_t>i
    for i in range(count):
        if not reasons[i] and slots[i] >= 0 and source_of[slots[i]].mark != i:
            repeats = True
            break
    if repeats:
        usable = np.flatnonzero(np.asarray(reasons) == 0)
        order = usable[np.lexsort((points["time"][np.asarray(rows)[usable]], np.asarray(slots)[usable]))]
        steps = order.shape[0]
    cdef cnp.ndarray lines = np.empty(count, LINE)
    cdef Line *line_of = <Line *>cnp.PyArray_DATA(lines)
    for k in range(steps):
        i = order[k] if repeats else k
        if reasons[i]:
            continue
        if slots[i] < 0:
            reasons[i] = STATE_FULL
            continue
        point = &point_of[rows[i]]
        metric = &metric_of[point.parent]
        source = &source_of[slots[i]]
        kind = metric.type
        before = source.accumulator
        target = before if before >= 0 else targets[i]
        into = &accumulator_of[target] if target >= 0 else NULL
        fresh = source.status == NEW
        # Who repeats himself lives, so what he counted stays known; but a latest value is no newer for it (rule 6).
        if into == NULL or into.fold == 0:
            source.seen = <float>now_s
        # The last of those of one time counts.
        if (not fresh and point.time <= source.time) or (
            repeats and k + 1 < steps and slots[order[k + 1]] == slots[i] and point_of[rows[order[k + 1]]].time == point.time
        ):
            reasons[i] = OUT_OF_ORDER
            continue
        counts = kind == HISTOGRAM or kind == EXPONENTIAL
        if into != NULL:
            if counts:
                # An accumulator whose count would leave 62 bits takes no more: dropped and counted, never wrapped.
                if into.count + into.pending + point.count >= TOTAL_MAX:
                    reasons[i] = OUT_OF_RANGE
                    continue
                into.pending += point.count
            into.touched = 1
            into.seen = now_s
        line = &line_of[taken]
        line.row, line.slot, line.target = <int32_t>rows[i], slots[i], target
        line.kind = <uint8_t>kind
        line.first = taken == 0 or line_of[taken - 1].slot != slots[i]
        if taken:
            line_of[taken - 1].last = line.first
        line.fresh = fresh
        line.cumulative = metric.temporality != DELTA
        line.overwrites = (
            line.first and not fresh and before < 0 and own_name[i] and source.status != FREED and line.cumulative
        )
        line.full = not never_full and point.start_time >= full_from and (ended is None or not ended_at[i] or point.start_time > ended_at[i])
        line.started_anew = point.start_time != source.start
        if fresh:
            source.is_double = 0
            source.value = -1 if counts else 0   # -1: (set, row) of no buckets
        source.start, source.time, source.seen = point.start_time, point.time, <float>now_s
        source.accumulator, source.status, source.kind = target, LIVE, <uint8_t>kind
        taken += 1
    if taken:
        line_of[taken - 1].last = True
    for i in range(taken):
        if line_of[i].target >= 0:
            accumulator_of[line_of[i].target].pending = 0
    return lines[:taken]


cdef int _check_lines(cnp.ndarray lines, cnp.ndarray points, cnp.ndarray sources, cnp.ndarray accumulators) except -1:
    cdef const Line *line = <const Line *>_records(lines, LINE)
    cdef Py_ssize_t i
    for i in range(lines.shape[0]):
        if line[i].row < 0 or line[i].row >= points.shape[0] or line[i].slot < 0 or line[i].slot >= sources.shape[0]:
            raise ValueError("a line's row or slot is outside its array")
        if line[i].target < -1 or line[i].target >= accumulators.shape[0]:
            raise ValueError("a line's accumulator is outside the array")
    return 0


cdef inline bint _adds(const Line *line) noexcept nogil:
    """Whether a line adds anything: it is folded, and no baseline (rule 2)."""
    return line.target >= 0 and not (line.cumulative and line.fresh and not line.full and not line.overwrites)


cdef inline bint _whole(const Line *line, bint fell) noexcept nogil:
    """Whether a line counts with its whole value: of delta, of a restarted source, of a new one that began after us (rules 1, 2, 4)."""
    if not line.cumulative or line.overwrites:
        return True
    if line.fresh:
        return line.full != 0
    return fell or line.started_anew != 0


# --- numbers ----------------------------------------------------------------------------------------------------------

def add_numbers(cnp.ndarray points not None, cnp.ndarray metrics not None, cnp.ndarray lines not None, cnp.ndarray sources not None,
                cnp.ndarray accumulators not None):
    """Adds the gains of sums (rules 1, 2 and 4) and remembers the values of sums and gauges; lines of other types are passed over.

    Ints and doubles have a part each, so that ints stay exact; what is written is both together. Cumulative sums that are not monotonic
    are sums of latest values (rule 6) and made when they are written.

    Returns:
        How many gains went into the double because the int would have left 62 bits (never a wrapped number).

    Raises:
        ValueError: a line's row or slot is outside its array.
    """
    cdef const PointRow *point_of = <const PointRow *>_records(points, POINT)
    cdef const MetricRow *metric_of = <const MetricRow *>_records(metrics, METRIC)
    cdef Source *source_of = <Source *>_records(sources, SOURCE)
    cdef Accumulator *accumulator_of = <Accumulator *>_records(accumulators, ACCUMULATOR)
    cdef const Line *line_of = <const Line *>_records(lines, LINE)
    cdef Py_ssize_t i, lost = 0, metric_count = metrics.shape[0]
    cdef const Line *line
    cdef const PointRow *point
    cdef Source *source
    cdef Accumulator *into
    cdef bint is_int, whole, fell
    cdef int64_t now_int, was_int, base_int
    cdef double now_double, was_double, wide
    _check_lines(lines, points, sources, accumulators)
    for i in range(lines.shape[0]):
        line = &line_of[i]
        if line.kind != SUM and line.kind != GAUGE:
            continue
        point = &point_of[line.row]
        source = &source_of[line.slot]
        is_int = point.value_kind == VALUE_INT
        if line.kind == SUM and _adds(line):
            if point.parent < 0 or point.parent >= metric_count:
                raise ValueError("a point's metric is outside the array")
            if metric_of[point.parent].monotonic or not line.cumulative:
                into = &accumulator_of[line.target]
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
                whole = _whole(line, fell)
                base_int = 0 if whole else was_int
                if not is_int or was_double != 0:
                    into.is_double = 1
                wide = <double>now_int - <double>base_int
                if fabs(<double>into.int_part) + fabs(wide) < SAFE:
                    # Unsigned: a difference that wraps is none that is below the bound.
                    into.int_part = <int64_t>(<uint64_t>into.int_part + (<uint64_t>now_int - <uint64_t>base_int))
                else:
                    into.double_part += <double>into.int_part + wide
                    into.int_part = 0
                    into.is_double = 1
                    lost += 1
                into.double_part += now_double if whole else now_double - was_double
        if is_int:
            source.value = point.int_value
        else:
            memcpy(&source.value, &point.double_value, 8)
        source.is_double = not is_int
    return lost


# --- histograms -------------------------------------------------------------------------------------------------------

cdef inline void _add_totals(
    Accumulator *into, const Line *line, const PointRow *point, uint64_t count, double sum_, bint has_sum
) noexcept nogil:
    into.count += count
    into.sum += sum_
    if not has_sum:
        into.lacks_sum = 1
    if line.cumulative or point.present & PRESENT_RANGE != PRESENT_RANGE:
        into.lacks_range = 1
    if point.present & PRESENT_RANGE == PRESENT_RANGE:
        if point.min < into.min or point.min != point.min:
            into.min = point.min
        if point.max > into.max or point.max != point.max:
            into.max = point.max


def add_totals(cnp.ndarray points not None, cnp.ndarray lines not None, cnp.ndarray accumulators not None,
               const uint64_t[::1] counts not None, const double[::1] sums not None, const uint8_t[::1] has_sum not None):
    """Adds counts, sums, minima and maxima of lines (all (n,), each with a target) to their accumulators.

    ``sum`` is written only while every point had one, minimum and maximum only of delta (a cumulative one would be for ever).

    Raises:
        ValueError: a line's row or target is outside its array, or the arrays differ in length.
    """
    cdef const PointRow *point_of = <const PointRow *>_records(points, POINT)
    cdef const Line *line = <const Line *>_records(lines, LINE)
    cdef Accumulator *accumulator_of = <Accumulator *>_records(accumulators, ACCUMULATOR)
    cdef Py_ssize_t i, count = lines.shape[0]
    if counts.shape[0] != count or sums.shape[0] != count or has_sum.shape[0] != count:
        raise ValueError("lines and what is said of them differ in length")
    for i in range(count):
        if line[i].row < 0 or line[i].row >= points.shape[0] or line[i].target < 0 or line[i].target >= accumulators.shape[0]:
            raise ValueError("a line's row or target is outside its array")
        _add_totals(&accumulator_of[line[i].target], &line[i], &point_of[line[i].row], counts[i], sums[i], has_sum[i])


def bounds_of(cnp.ndarray points not None, cnp.ndarray lines not None):
    """Where the bounds of lines of histograms stand: ``(starts I32[n], lengths I32[n], fits bool[n])``.

    A line fits if it has one bucket more than bounds; the start is -1 and the length 0 where it does not, or there are no bounds.

    Raises:
        ValueError: a line's row is outside the array.
    """
    cdef const PointRow *point_of = <const PointRow *>_records(points, POINT)
    cdef const Line *line = <const Line *>_records(lines, LINE)
    cdef Py_ssize_t i, count = lines.shape[0]
    cdef const PointRow *point
    found = np.empty((2, count), np.int32)
    fitting = np.empty(count, np.bool_)
    cdef int32_t *starts = <int32_t *>cnp.PyArray_DATA(<cnp.ndarray>found)
    cdef cnp.npy_bool *fits = <cnp.npy_bool *>cnp.PyArray_DATA(<cnp.ndarray>fitting)
    for i in range(count):
        if line[i].row < 0 or line[i].row >= points.shape[0]:
            raise ValueError("a line's row is outside its array")
        point = &point_of[line[i].row]
        fits[i] = <int64_t>point.buckets_len == <int64_t>point.bounds_len + 8
        starts[count + i] = point.bounds_len if fits[i] else 0
        starts[i] = point.bounds if starts[count + i] > 0 else -1
    return found[0], found[1], fitting


def wrong_buckets(bytes wire not None, cnp.ndarray points not None, cnp.ndarray lines not None, const int32_t[::1] widths not None):
    """``bool[n]``: lines whose buckets do not add up to their count: they would break every sum they are part of.

    Args:
        wire: The request.
        points: POINT records of the batch.
        lines: LINE records of histograms.
        widths: (n,) buckets of each; 0: none are looked at.

    Raises:
        ValueError: buckets lie outside the request, a line's row outside the array, or the arrays differ in length.
    """
    cdef const PointRow *point_of = <const PointRow *>_records(points, POINT)
    cdef const Line *line = <const Line *>_records(lines, LINE)
    cdef const uint8_t *text = <const uint8_t *>PyBytes_AS_STRING(wire)
    cdef Py_ssize_t i, k, count = lines.shape[0], size = PyBytes_GET_SIZE(wire)
    cdef const PointRow *point
    cdef const uint8_t *at
    cdef uint64_t total, value
    if widths.shape[0] != count:
        raise ValueError("lines and widths differ in length")
    cdef cnp.ndarray found = np.zeros(count, np.bool_)
    cdef cnp.npy_bool *wrong = <cnp.npy_bool *>cnp.PyArray_DATA(found)
    for i in range(count):
        if line[i].row < 0 or line[i].row >= points.shape[0]:
            raise ValueError("a line's row is outside its array")
        if not widths[i]:
            continue
        point = &point_of[line[i].row]
        if widths[i] < 0 or point.buckets < 0 or <Py_ssize_t>point.buckets + 8 * <Py_ssize_t>widths[i] > size:
            raise ValueError("buckets lie outside the request")
        at = text + point.buckets
        total = 0
        for k in range(widths[i]):
            value = _word(at + 8 * k)
            if value > point.count:  # and so the sum does not wrap: counts are below 2^48, buckets few
                wrong[i] = True
                break
            total += value
        if total != point.count:
            wrong[i] = True
    return found


cdef Store *_store(Store *stores, list rows, int32_t number, str name, Py_ssize_t before) except NULL:
    """The cells of a set of bounds, looked up when a line first needs them."""
    cdef cnp.ndarray cells
    if number < 0 or number >= len(rows):
        raise ValueError("no such set of bounds")
    if stores[number].cells == NULL:
        cells = rows[number][name]
        if cells.ndim != 2 or cells.dtype != np.uint64 or not cells.flags.c_contiguous or cells.shape[1] < before:
            raise ValueError("cells must be U64[n, buckets and what stands before them]")
        stores[number].cells = <uint64_t *>cnp.PyArray_DATA(cells)
        stores[number].rows, stores[number].width = cells.shape[0], cells.shape[1] - before
    return &stores[number]


cdef const int32_t *_shared(object shared, int32_t number, Store *of, int32_t into, Store *to, list keep, bint *loses) except? NULL:
    """Where the buckets of one set go in another: up to the next bound both have. NULL: no bucket goes anywhere by it."""
    cdef const int32_t[::1] places
    cdef Py_ssize_t i
    loses[0] = False
    if to.width == 0:
        return NULL
    if of.width == 0:
        loses[0] = to.width > 1
        return NULL
    places, is_exact = shared(number, into)
    if places.shape[0] != of.width:
        raise ValueError("a place a bucket")
    for i in range(of.width):
        if places[i] < 0 or places[i] >= to.width:
            raise ValueError("a bucket goes nowhere")
    loses[0] = not is_exact
    keep.append(places)
    return &places[0]


cdef inline const uint8_t *_project(
    const uint8_t *buckets, Py_ssize_t width, uint64_t count, const int32_t *places, Py_ssize_t into, uint64_t *out
) noexcept nogil:
    """Bucket counts of one set of bounds in another's buckets, in ``out``; the count alone goes into +Inf."""
    cdef Py_ssize_t i
    memset(out, 0, 8 * into)
    if width == 0:
        if into:
            out[into - 1] = count
    elif places != NULL:
        for i in range(width):
            out[places[i]] += _word(buckets + 8 * i)
    return <const uint8_t *>out


def add_histograms(
    bytes wire not None, cnp.ndarray points not None, cnp.ndarray lines not None, const int32_t[::1] sets not None,
    const int32_t[::1] rows not None, list source_rows not None, list accumulator_rows not None, shared,
    cnp.ndarray sources not None, cnp.ndarray accumulators not None,
):
    """Adds the gains of histograms with bounds (rule 5), and remembers what they say.

    Args:
        wire: The request.
        points: POINT records of the batch.
        lines: LINE records of histograms, whose buckets are not ``wrong_buckets``.
        sets: (n,) the set of bounds of each.
        rows: (n,) at a cumulative source's last line the row of ``source_rows[set]`` that remembers it.
        source_rows: By set: ``["cells"]`` is U64[rows, 2 + width]: count, sum (a double's bits), buckets.
        accumulator_rows: By set: ``["counts"]`` is U64[rows, width].
        shared: (set, set) → where each bucket of the first goes in the second I32[width], and whether none of the second loses by that.
        sources: SOURCE records, by slot; their value is (set, row).
        accumulators: ACCUMULATOR records, by slot; those that are added to have a set and a row.

    Returns:
        How many lines are not in every bucket they belong to.

    Raises:
        ValueError: a set, row, slot or slice is outside what there is.
    """
    cdef const PointRow *point_of = <const PointRow *>_records(points, POINT)
    cdef const Line *line_of = <const Line *>_records(lines, LINE)
    cdef Source *source_of = <Source *>_records(sources, SOURCE)
    cdef Accumulator *accumulator_of = <Accumulator *>_records(accumulators, ACCUMULATOR)
    cdef const uint8_t *text = <const uint8_t *>PyBytes_AS_STRING(wire)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(wire), count = lines.shape[0], set_count = len(source_rows), i, k, inexact = 0, width
    cdef Store *source_stores
    cdef Store *accumulator_stores
    cdef Store *mine
    cdef Store *theirs
    cdef Store *to
    cdef const Line *line
    cdef const PointRow *point
    cdef const PointRow *above
    cdef Accumulator *into
    cdef Place *place
    cdef const int32_t *places
    cdef const uint8_t *was_buckets
    cdef const uint8_t *now
    cdef const uint8_t *was
    cdef uint64_t *now_scratch
    cdef uint64_t *was_scratch
    cdef uint64_t *cells
    cdef uint64_t was_count
    cdef double was_sum, sum_
    cdef int32_t was_set
    cdef bint has_sum, loses, ignored, whole, fell, bucket_fell
    cdef list keep = []
    if sets.shape[0] != count or rows.shape[0] != count or len(accumulator_rows) != set_count:
        raise ValueError("lines and what is said of them differ in length")
    _check_lines(lines, points, sources, accumulators)
    source_stores = <Store *>calloc(2 * set_count + 1, sizeof(Store))
    if source_stores == NULL:
        raise MemoryError
    accumulator_stores = source_stores + set_count
    cdef cnp.ndarray scratch = np.empty((2, 1), np.uint64)
    try:
        for i in range(count):
            if i + AHEAD < count:
                prefetch(&source_of[line_of[i + AHEAD].slot])
            line = &line_of[i]
            point = &point_of[line.row]
            mine = _store(source_stores, source_rows, sets[i], "cells", CELLS_BEFORE)
            if i + AHEAD // 2 < count:
                place = <Place *>&source_of[line_of[i + AHEAD // 2].slot].value
                if place.set == sets[i] and 0 <= place.row < mine.rows:
                    cells = mine.cells + place.row * (mine.width + CELLS_BEFORE)
                    prefetch(cells)
                    prefetch(cells + CELLS_BEFORE + mine.width - 1)
            if mine.width and (point.buckets < 0 or <Py_ssize_t>point.buckets + 8 * mine.width > size):
                raise ValueError("buckets lie outside the request")
            has_sum = point.present & PRESENT_SUM and isfinite(point.sum)
            sum_ = point.sum if has_sum else 0.0
            place = <Place *>&source_of[line.slot].value
            if _adds(line):
                into = &accumulator_of[line.target]
                to = _store(accumulator_stores, accumulator_rows, into.set, "counts", 0)
                width = to.width
                if into.row < 0 or into.row >= to.rows:
                    raise ValueError("an accumulator's row is outside its store")
                # What the source had before: the line above, or what is stored.
                was_buckets = NULL
                was_count, was_sum, was_set, theirs = 0, 0.0, -1, NULL
                if not line.first:
                    above = &point_of[line_of[i - 1].row]
                    was_set, was_count = sets[i - 1], above.count
                    if above.present & PRESENT_SUM and isfinite(above.sum):
                        was_sum = above.sum
                    theirs = &source_stores[was_set]
                    was_buckets = text + above.buckets
                elif place.set >= 0:
                    was_set = place.set
                    theirs = _store(source_stores, source_rows, was_set, "cells", CELLS_BEFORE)
                    if place.row < 0 or place.row >= theirs.rows:
                        raise ValueError("a source's row is outside its store")
                    cells = theirs.cells + place.row * (theirs.width + CELLS_BEFORE)
                    was_count = cells[0]
                    memcpy(&was_sum, cells + 1, 8)
                    was_buckets = <const uint8_t *>(cells + CELLS_BEFORE)
                if width > scratch.shape[1]:
                    scratch = np.empty((2, width), np.uint64)
                now_scratch = <uint64_t *>cnp.PyArray_DATA(scratch)
                was_scratch = now_scratch + scratch.shape[1]
                loses = False
                now, was = text + point.buckets, was_buckets
                if sets[i] != into.set:
                    places = _shared(shared, sets[i], mine, into.set, to, keep, &loses)
                    now = _project(now, mine.width, point.count, places, width, now_scratch)
                if theirs == NULL:
                    was = _project(NULL, 0, 0, NULL, width, was_scratch)
                elif was_set != into.set:
                    places = _shared(shared, was_set, theirs, into.set, to, keep, &ignored)
                    was = _project(was, theirs.width, was_count, places, width, was_scratch)
                whole = _whole(line, point.count < was_count)
                fell = False
                if not whole:
                    bucket_fell = False
                    for k in range(width):
                        bucket_fell |= _word(now + 8 * k) < _word(was + 8 * k)
                    # A bucket that fell is a restart, whatever the count says; unless the bounds have changed, which tells nothing.
                    if bucket_fell:
                        if sets[i] == was_set:
                            whole = True
                        else:
                            fell = True
                            loses = True
                cells = to.cells + into.row * width
                if fell:
                    if width:
                        cells[width - 1] += point.count - was_count
                elif whole:
                    for k in range(width):
                        cells[k] += _word(now + 8 * k)
                else:
                    for k in range(width):
                        cells[k] += _word(now + 8 * k) - _word(was + 8 * k)
                _add_totals(
                    into, line, point, point.count if whole else point.count - was_count, sum_ if whole else sum_ - was_sum, has_sum
                )
                inexact += loses
            if line.last and line.cumulative:
                if rows[i] < 0 or rows[i] >= mine.rows:
                    raise ValueError("a source's row is outside its store")
                cells = mine.cells + rows[i] * (mine.width + CELLS_BEFORE)
                cells[0] = point.count
                memcpy(cells + 1, &sum_, 8)
                if mine.width:
                    memcpy(cells + CELLS_BEFORE, text + point.buckets, 8 * mine.width)
                place.set, place.row = sets[i], rows[i]
    finally:
        free(source_stores)
    return inexact
