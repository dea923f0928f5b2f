"""Merges points of a metric that have become equal in their attributes: ``merge_points``.

All points of a batch are merged at once: they are grouped by identity, sorted by group, and each column is reduced over
the runs. Python code runs once per kind of point, not per point or group.

Source: the Collector's internal/coreinternal/aggregateutil, whose choices are followed but for exponential histograms
with different offsets or zero thresholds, which it adds up wrongly; for those the OpenTelemetry metrics data model.
"""

from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from collector.model import (
    METRIC_EXPONENTIAL_HISTOGRAM,
    METRIC_HISTOGRAM,
    METRIC_SUMMARY,
    PRESENT_MAX,
    PRESENT_MIN,
    PRESENT_SUM,
    TEMPORALITY_DELTA,
    Metrics,
    groups,
)
from collector.model.arrays import I64, U64, Array, Indices, Mask, Records, offsets_of, take_records
from collector.model.point_edit import PointEdit
from collector.model.runs import run_starts
from collector.model.series import attribute_identity
from collector.otlp.exponential_buckets import SIDES, bucket_messages, first_index_above, read_varints, zigzag
from collector.otlp.exponential_histogram import shifts_to_fit
from collector.otlp.point_values import to_int
from collector.wire import hash as wire_hash
from collector.wire.layout import VALUE_DOUBLE, VALUE_INT

__all__ = ["AGGREGATIONS", "Aggregation", "merge_points"]

Aggregation: TypeAlias = Literal["sum", "mean", "min", "max", "count", "median"]
"""What becomes of numbers; histograms are always added up."""
AGGREGATIONS: Final = ("sum", "mean", "min", "max", "count", "median")

_WIDTH_MAX: Final = 10_000  # buckets of a side; histograms that need more are merged at a lower scale
_AS_DOUBLE, _AS_INT, _START, _COUNT, _SUM, _BUCKETS = 4, 6, 2, 4, 5, 6  # field numbers of metrics.proto
_HISTOGRAM_MIN, _HISTOGRAM_MAX = 11, 12
_SCALE, _ZERO_COUNT, _ZERO_THRESHOLD, _EXPONENTIAL_MIN, _EXPONENTIAL_MAX = 6, 7, 14, 12, 13


class _Runs:
    """Points in runs, one for each group of more than one."""

    def __init__(self, rows: Indices, codes: Array) -> None:
        order = np.argsort(codes, kind="stable")
        self.rows: Indices = rows[order]
        codes = codes[order]
        self.starts: Indices = np.flatnonzero(run_starts(codes))
        self.lengths: I64 = np.diff(np.append(self.starts, len(rows)))
        self.first: Indices = self.rows[self.starts]

    @property
    def owner(self) -> I64:
        """The run of each point."""
        return np.repeat(np.arange(len(self.starts)), self.lengths)

    def only(self, keep: Mask) -> "_Runs":
        """Some of the runs; ``keep``: one value per run."""
        owner = self.owner
        return _Runs(self.rows[keep[owner]], owner[keep[owner]])


def merge_points(
    batch: Metrics, metrics: Mask, function: Aggregation | None, keys: frozenset[str] | None = None
) -> Metrics:
    """The batch with the points of each metric merged that are equal in attributes and time.

    Points of delta metrics must also begin at the same time, those of histograms have the same bounds (or scale), and
    the same of minimum and maximum. The first point of each group stays, with the result and the earliest start.

    Args:
        batch: Is not changed.
        metrics: bool[m]: whose points are merged. Summaries are left alone.
        function: What becomes of the numbers of gauges and sums; None: the first one stays. As in the Collector,
            ``count`` leaves a point alone that is equal to no other, and results for integers are rounded toward zero.
        keys: The attributes that are compared; None: all. The others of the first point stay.
    """
    rows, codes = _grouped(batch, metrics, keys)
    if not len(rows):
        return batch
    runs = _Runs(rows, codes)
    points = batch.table().rows
    types = batch.table("metrics").rows["type"][points["parent"][runs.first]]
    edit = PointEdit(batch)
    is_histogram, is_exponential = types == METRIC_HISTOGRAM, types == METRIC_EXPONENTIAL_HISTOGRAM
    _merge_numbers(points, runs.only(~is_histogram & ~is_exponential), function, edit)
    _merge_histograms(batch, points, _counted(points, runs.only(is_histogram)), edit)
    _merge_exponential(batch, points, _counted(points, runs.only(is_exponential)), edit)
    keep = np.ones(batch.item_count, np.bool_)
    keep[runs.rows] = False
    keep[runs.first] = True
    return edit.apply().select(keep)


def _identity(batch: Metrics, keys: frozenset[str] | None) -> U64:
    """The identity of the attributes of each point."""
    if keys is None:
        return attribute_identity(batch, "points")
    attributes = batch.attributes()
    wanted = {key.encode("utf-8", "replace") for key in keys}
    is_compared = np.array([key in wanted for key in attributes.keys] or [False])
    rows = take_records(attributes.rows, is_compared[attributes.rows["key_code"]])
    return wire_hash.sum_by_owner(wire_hash.hash_attributes(batch.wire, rows), rows["owner"], batch.item_count, rows)


def _grouped(batch: Metrics, metrics: Mask, keys: frozenset[str] | None) -> tuple[Indices, Array]:
    """The points that are equal to others, and the group of each."""
    parent = batch.table().parent
    kinds = batch.table("metrics").rows
    rows = np.flatnonzero((metrics & (kinds["type"] != METRIC_SUMMARY))[parent])
    if not len(rows):
        return rows, rows
    points, parent = take_records(batch.table().rows, rows), parent[rows]
    is_delta = kinds["temporality"][parent] == TEMPORALITY_DELTA
    is_histogram = kinds["type"][parent] == METRIC_HISTOGRAM
    is_either = is_histogram | (kinds["type"][parent] == METRIC_EXPONENTIAL_HISTOGRAM)
    columns: list[Array] = [
        parent.copy(),
        _identity(batch, keys)[rows],
        points["time"].copy(),
        np.where(is_delta, points["start_time"], np.uint64(0)),
    ]
    if is_either.any():
        lengths = np.where(is_histogram, points["bounds_len"], -1)
        starts = np.where(lengths > 0, points["bounds"], -1).astype(np.int32)
        columns += [
            wire_hash.hash_slices(batch.wire, starts, lengths.astype(np.int32)),
            np.where(is_histogram, points["buckets_len"], points["scale"]),
            np.where(is_either, points["present"] & (PRESENT_MIN | PRESENT_MAX), 0),
            np.where(is_either, points["flags"], 0).astype(np.uint32),
        ]
    found = groups(*columns)
    is_shared = found.counts[found.codes] > 1
    return rows[is_shared], found.codes[is_shared]


def _counted(points: Records, runs: _Runs) -> _Runs:
    """The runs without histograms that counted nothing, but for the first of each run."""
    keep = points["count"][runs.rows] > 0
    keep[runs.starts] = True
    return _Runs(runs.rows[keep], runs.owner[keep]) if len(keep) else runs


def _merge_numbers(points: Records, runs: _Runs, function: Aggregation | None, edit: PointEdit) -> None:
    _set_start(points, runs, edit)
    if function is None:
        return
    kinds = points["value_kind"]
    for kind in (VALUE_DOUBLE, VALUE_INT):
        part = runs.only(kinds[runs.first] == kind)
        if not len(part.rows):
            continue
        own = kinds[part.rows]
        ints, doubles = points["int_value"][part.rows], points["double_value"][part.rows]
        if kind == VALUE_DOUBLE:
            values: Array = np.where(own == VALUE_DOUBLE, doubles, ints.astype(np.float64))
            edit.set_fixed64(_AS_DOUBLE, _AGGREGATES[function](part, values.copy()), part.first, column="double_value")
        else:
            # As in the Collector, doubles among ints count as 0 in sums, and as whole numbers elsewhere.
            others = np.zeros(len(own), np.int64) if function in {"sum", "mean"} else to_int(doubles)
            values = np.where(own == VALUE_DOUBLE, others, ints)
            edit.set_fixed64(_AS_INT, _AGGREGATES[function](part, values), part.first, column="int_value")


def _sums(runs: _Runs, values: Array) -> Array:
    if values.dtype == np.float64:
        return np.bincount(runs.owner, weights=values, minlength=len(runs.starts))
    with np.errstate(over="ignore"):
        return np.add.reduceat(values, runs.starts)


def _means(runs: _Runs, values: Array) -> Array:
    sums = _sums(runs, values)
    return sums / runs.lengths if values.dtype == np.float64 else _truncated(sums, runs.lengths)


def _medians(runs: _Runs, values: Array) -> Array:
    ordered = values[np.lexsort((values, runs.owner))]
    middle = runs.starts + runs.lengths // 2
    upper, lower = ordered[middle], ordered[middle - 1]
    with np.errstate(over="ignore"):
        pair = lower + upper
    halves = pair / 2 if values.dtype == np.float64 else _truncated(pair, np.int64(2))
    return np.where(runs.lengths % 2 == 1, upper, halves)


def _truncated(dividends: I64, divisors: I64 | np.int64) -> I64:
    """The quotients, rounded toward zero."""
    quotients: I64 = dividends // divisors
    rounded: I64 = quotients + ((quotients < 0) & (quotients * divisors != dividends))
    return rounded


_AGGREGATES: Final[dict[Aggregation, Callable[[_Runs, Any], Array]]] = {
    "sum": _sums,
    "mean": _means,
    "min": lambda runs, values: np.minimum.reduceat(values, runs.starts),
    "max": lambda runs, values: np.maximum.reduceat(values, runs.starts),
    "count": lambda runs, values: runs.lengths.astype(values.dtype),
    "median": _medians,
}


def _set_start(points: Records, runs: _Runs, edit: PointEdit) -> None:
    if not len(runs.rows):
        return
    starts = np.minimum.reduceat(points["start_time"][runs.rows], runs.starts)
    changed = starts != points["start_time"][runs.first]
    edit.set_fixed64(_START, starts[changed], runs.first[changed], column="start_time")


def _set_common(
    batch: Metrics, points: Records, runs: _Runs, edit: PointEdit, minimum_number: int, maximum_number: int
) -> None:
    """Count, sum, extremes, start and exemplars, which both kinds of histograms have."""
    rows, first, starts = runs.rows, runs.first, runs.starts
    edit.set_fixed64(_COUNT, np.add.reduceat(points["count"][rows], starts), first, column="count")
    present = points["present"]
    sums = np.where(present[rows] & PRESENT_SUM, points["sum"][rows], 0.0)
    edit.set_fixed64(_SUM, np.bincount(runs.owner, weights=sums, minlength=len(starts)), first, column="sum")
    for name, bit, number, reduce in (
        ("min", PRESENT_MIN, minimum_number, np.minimum),
        ("max", PRESENT_MAX, maximum_number, np.maximum),
    ):
        has = present[first] & bit != 0
        edit.set_fixed64(number, reduce.reduceat(points[name][rows], starts)[has], first[has], column=name)
    _set_start(points, runs, edit)
    exemplars = batch.table("exemplars").rows
    if len(exemplars):
        target = np.full(len(points), -1, np.int64)
        target[rows] = first[runs.owner]
        target[first] = -1
        moved = np.flatnonzero(target[exemplars["parent"]] >= 0)
        moved = moved[np.argsort(target[exemplars["parent"]][moved], kind="stable")]
        edit.insert_raw(
            batch.wire,
            exemplars["start"][moved].astype(np.int64),
            (exemplars["end"] - exemplars["start"])[moved].astype(np.int64),
            target[exemplars["parent"]][moved],
        )


def _merge_histograms(batch: Metrics, points: Records, runs: _Runs, edit: PointEdit) -> None:
    if not len(runs.rows):
        return
    _set_common(batch, points, runs, edit, _HISTOGRAM_MIN, _HISTOGRAM_MAX)
    # All points of a run have as many buckets as the first, because the number is part of the identity.
    widths = np.maximum(points["buckets_len"][runs.rows], 0).astype(np.int64) // 8
    owner = np.repeat(np.arange(len(widths)), widths)
    within = np.arange(len(owner)) - offsets_of(widths)[:-1][owner]
    places = points["buckets"][runs.rows].astype(np.int64)[owner] + 8 * within
    octets = np.frombuffer(batch.wire, np.uint8)[places[:, None] + np.arange(8)]
    counts: U64 = np.ascontiguousarray(octets).view("<u8").reshape(-1)
    offsets = offsets_of(widths[runs.starts])
    totals = np.zeros(int(offsets[-1]), np.uint64)
    np.add.at(totals, offsets[:-1][runs.owner[owner]] + within, counts)
    has = np.flatnonzero(widths[runs.starts])
    edit.set_bytes(_BUCKETS, totals.tobytes(), 8 * offsets[:-1][has], 8 * np.diff(offsets)[has], runs.first[has])


def _merge_exponential(batch: Metrics, points: Records, runs: _Runs, edit: PointEdit) -> None:
    if not len(runs.rows):
        return
    _set_common(batch, points, runs, edit, _EXPONENTIAL_MIN, _EXPONENTIAL_MAX)
    rows, first, starts = runs.rows, runs.first, runs.starts
    zero_counts = np.add.reduceat(points["zero_count"][rows], starts)
    thresholds = np.maximum.reduceat(points["zero_threshold"][rows], starts)
    is_widened = thresholds > np.minimum.reduceat(points["zero_threshold"][rows], starts)
    scales = points["scale"][first].astype(np.int64)
    sides = []
    for name, _ in SIDES:
        counts, slices, number = read_varints(batch.wire, points[name][rows], points[f"{name}_len"][rows])
        index = points[f"{name}_offset"][rows].astype(np.int64)[slices] + number
        sides.append((counts, runs.owner[slices], index))
    shifts = np.maximum(*(_shifts(owner, index, len(starts)) for _, owner, index in sides))
    edit.set_varint(_SCALE, zigzag(scales - shifts)[shifts > 0], first[shifts > 0])
    # Buckets that a wider zero bucket reaches into are added to it; it then extends to the end of the last of them.
    lowest = np.full(len(starts), np.iinfo(np.int64).min)
    lowest[is_widened] = first_index_above(thresholds[is_widened], (scales - shifts)[is_widened])
    for (_, field_number), (counts, owner, finer_index) in zip(SIDES, sides, strict=True):
        index = finer_index >> shifts[owner]
        is_zero = (index < lowest[owner]) & (counts > 0)
        reaching = owner[is_zero & (index == lowest[owner] - 1)]
        ends = np.exp2(lowest[reaching] * np.exp2(-(scales - shifts)[reaching].astype(np.float64)))
        thresholds[reaching] = np.maximum(thresholds[reaching], ends)
        np.add.at(zero_counts, owner[is_zero], counts[is_zero])
        kept = index >= lowest[owner]
        _set_buckets(edit, field_number, counts[kept], owner[kept], index[kept], first)
    edit.set_fixed64(_ZERO_COUNT, zero_counts, first, column="zero_count")
    edit.set_fixed64(_ZERO_THRESHOLD, thresholds[is_widened], first[is_widened])


def _shifts(owner: I64, index: I64, count: int) -> I64:
    """By how many scales each of the histograms must become coarser to have room for its buckets."""
    low, high = np.full(count, np.iinfo(np.int64).max), np.full(count, np.iinfo(np.int64).min)
    np.minimum.at(low, owner, index)
    np.maximum.at(high, owner, index)
    is_empty = low > high
    return shifts_to_fit(np.where(is_empty, 0, low), np.where(is_empty, 0, high), _WIDTH_MAX)


def _set_buckets(edit: PointEdit, number: int, counts: U64, owner: I64, index: I64, first: Indices) -> None:
    """Sets one side of the histograms ``first`` to the sums of these buckets."""
    none = np.iinfo(np.int64).max
    lowest = np.full(len(first), none)
    np.minimum.at(lowest, owner, index)
    has = lowest < none
    content, starts, sizes = bucket_messages(np.where(has, lowest, 0), owner, index, counts)
    edit.remove(number, first[~has])
    edit.set_bytes(number, content, starts[has], sizes[has], first[has])
