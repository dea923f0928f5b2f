"""Streams of metric points, to convert between cumulative and delta temporality.

A stream is a series (``collector.model.series``) of one type of value. It remembers its last point or its total:
numbers, and the buckets of histograms. ``exponential_streams`` has those of exponential histograms.

The number of streams is bounded, and so is their memory: the buckets of all streams are in one array, from which those
of removed streams are taken out when they make up half of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np

from collector.model import (
    METRIC_EXPONENTIAL_HISTOGRAM,
    METRIC_HISTOGRAM,
    METRIC_SUM,
    PRESENT_MAX,
    PRESENT_MIN,
    PRESENT_SUM,
    TEMPORALITY_CUMULATIVE,
    TEMPORALITY_DELTA,
    KeyTable,
    Metrics,
    combine_keys,
)
from collector.model.arrays import I64, U64, Array, Indices, Mask, Records, offsets_of, take_records
from collector.model.checkpoint import CheckpointError, Part, Parts, nested, part_of, within
from collector.model.point_edit import PointEdit
from collector.otlp import exponential_stream_kernel
from collector.otlp.exponential_streams import ExponentialStreams, set_exponential
from collector.otlp.stream_kernel import to_cumulative, to_delta
from collector.otlp.stream_records import RESULT, STREAM, Verdict
from collector.wire import hash as wire_hash
from collector.wire.layout import VALUE_DOUBLE

__all__ = ["Conversion", "InitialValue", "Streams"]

InitialValue = Literal["auto", "keep", "drop"]
_INITIAL: Final[dict[InitialValue, int]] = {"auto": 0, "keep": 1, "drop": 2}
_HISTOGRAMS: Final = (METRIC_HISTOGRAM, METRIC_EXPONENTIAL_HISTOGRAM)
_POOL_MIN: Final = 1024
_START, _COUNT, _SUM, _BUCKETS = 2, 4, 5, 6  # field numbers of metrics.proto
_AS_DOUBLE, _AS_INT = 4, 6
_HISTOGRAM_MIN, _HISTOGRAM_MAX = 11, 12


@dataclass(frozen=True, slots=True)
class Conversion:
    """A converted batch, and what happened to its points."""

    batch: Metrics
    counts: dict[tuple[int, str], int]
    """(type of the metric, ``""`` or the reason of the drop) → points that were converted or dropped."""

    def dropped(self) -> dict[str, int]:
        """Reason → points."""
        found: dict[str, int] = {}
        for (_, reason), count in self.counts.items():
            if reason:
                found[reason] = found.get(reason, 0) + count
        return found


class Streams:
    """The streams of one processor."""

    def __init__(self, max_streams: int) -> None:
        """At most ``max_streams`` are kept; points of further ones are dropped with the reason ``limit``."""
        self.max_streams = max_streams
        self._table = KeyTable(STREAM)
        self._pool: U64 = np.zeros(_POOL_MIN, np.uint64)
        self._used = 0
        self._exponential = ExponentialStreams()

    def __len__(self) -> int:
        return len(self._table) + len(self._exponential)

    @property
    def memory_bytes(self) -> int:
        """The size of all streams."""
        return self._table.memory_bytes + self._pool.nbytes + self._exponential.memory_bytes

    def to_delta(
        self, batch: Metrics, metrics: Mask, *, initial: InitialValue, began_unix_nano: int, now_s: float
    ) -> Conversion:
        """The batch with the cumulative monotonic sums, and histograms, of the mask as deltas.

        ``metrics``: bool[m]. ``initial`` and ``began_unix_nano`` decide about the first point of a stream: with
        ``auto`` it is kept if it began after ``began_unix_nano``.
        """
        rows = batch.table("metrics").rows
        metrics = metrics & (rows["temporality"] == TEMPORALITY_CUMULATIVE)
        metrics &= ((rows["type"] == METRIC_SUM) & (rows["monotonic"] != 0)) | np.isin(rows["type"], _HISTOGRAMS)
        first = _INITIAL[initial]
        compute = partial(to_delta, began_unix_nano=began_unix_nano, initial=first, now_s=now_s)
        exponential = partial(
            exponential_stream_kernel.to_delta, began_unix_nano=began_unix_nano, initial=first, now_s=now_s
        )
        return self._convert(batch, metrics, compute, exponential, TEMPORALITY_DELTA)

    def to_cumulative(self, batch: Metrics, *, now_s: float) -> Conversion:
        """The batch with its delta sums and histograms as cumulative totals."""
        rows = batch.table("metrics").rows
        metrics = (rows["temporality"] == TEMPORALITY_DELTA) & np.isin(rows["type"], (METRIC_SUM, *_HISTOGRAMS))
        exponential = partial(exponential_stream_kernel.to_cumulative, now_s=now_s)
        return self._convert(batch, metrics, partial(to_cumulative, now_s=now_s), exponential, TEMPORALITY_CUMULATIVE)

    def parts(self) -> dict[str, Part]:
        """All streams, for a checkpoint."""
        return {
            "pool": self._pool[: self._used],
            **nested("table", self._table.snapshot()),
            **nested("exponential", self._exponential.parts()),
        }

    def restore(self, parts: Parts, elapsed_s: float) -> None:
        """Continue from ``parts``; ``elapsed_s`` is added to the times at which streams were seen.

        Raises:
            CheckpointError: They are not those of streams; there are none then.
        """
        self._pool, self._used = np.zeros(_POOL_MIN, np.uint64), 0
        self._exponential = ExponentialStreams()
        self._exponential.restore(within("exponential", parts), elapsed_s)
        self._table.restore(within("table", parts))
        live, records = self._table.live(), self._table.records
        pool = part_of(parts, "pool", np.uint64)
        places, counts = records["place"][live], records["bucket_count"][live]
        is_within = (places >= 0) & (places <= len(pool) - counts)
        if pool.ndim != 1 or not (is_within | (counts <= 0)).all():
            self._table.remove(live)
            self._exponential = ExponentialStreams()
            raise CheckpointError("the buckets of a stream are not among those that were saved")
        records["seen_s"][live] += elapsed_s
        self._pool, self._used = np.concatenate((pool, np.zeros(_POOL_MIN, np.uint64))), len(pool)

    def expire(self, before_s: float) -> int:
        """Remove the streams without a point since ``before_s``; returns how many."""
        live = self._table.live()
        stale = live[self._table.records["seen_s"][live] < before_s]
        self._table.remove(stale)
        self._make_room(0)
        return len(stale) + self._exponential.expire(before_s)

    def _convert(
        self,
        batch: Metrics,
        metrics: Mask,
        compute: Callable[..., tuple[int, int]],
        compute_exponential: Callable[..., None],
        temporality: int,
    ) -> Conversion:
        if not metrics.any():
            return Conversion(batch, {})
        points = batch.table().rows
        types = batch.table("metrics").rows["type"]
        parent = batch.table().parent
        keys = batch.series_key()
        edit = PointEdit(batch)
        keep = np.ones(batch.item_count, np.bool_)
        counts: dict[tuple[int, str], int] = {}
        for type_ in (METRIC_SUM, *_HISTOGRAMS):
            rows = np.flatnonzero((metrics & (types == type_))[parent])
            if not len(rows):
                continue
            if type_ == METRIC_EXPONENTIAL_HISTOGRAM:
                limit = self.max_streams - len(self._table)
                results, buckets = self._exponential.update(batch, rows, keys[rows], limit, compute_exponential)
                set_exponential(edit, take_records(points, rows), rows, results, buckets, temporality)
                _count(counts, keep, type_, rows, results["verdict"])
                continue
            is_histogram = type_ == METRIC_HISTOGRAM
            kinds = points["value_kind"][rows].copy()
            results, buckets = self._update(batch, rows, combine_keys(keys[rows], kinds), is_histogram, compute)
            verdicts = results["verdict"]
            changed = np.flatnonzero(verdicts == Verdict.CHANGED)
            if is_histogram:
                of_changed = take_records(points, rows[changed])
                taken = take_records(results, changed)
                _set_histograms(edit, of_changed, rows[changed], taken, buckets, temporality)
            else:
                _set_numbers(edit, kinds[changed], rows[changed], take_records(results, changed))
            if is_histogram and temporality == TEMPORALITY_DELTA:
                # Extremes of all time say nothing about an interval.
                passed = rows[verdicts == Verdict.UNCHANGED]
                edit.remove(_HISTOGRAM_MIN, passed)
                edit.remove(_HISTOGRAM_MAX, passed)
            _count(counts, keep, type_, rows, verdicts)
        edit.set_temporality(temporality, metrics)
        converted = edit.apply()
        return Conversion(converted if keep.all() else converted.select(keep), counts)

    def _update(
        self,
        batch: Metrics,
        rows: Indices,
        keys: U64,
        is_histogram: bool,
        compute: Callable[..., tuple[int, int]],
    ) -> tuple[Records, U64]:
        """Results of the points, and the buckets that they refer to."""
        points = batch.table().rows
        bounds = np.zeros(len(rows), np.uint64)
        bucket_total = 0
        if is_histogram:
            starts, lengths = points["bounds"][rows].copy(), np.maximum(points["bounds_len"][rows], 0)
            bounds = np.ascontiguousarray(wire_hash.hash_slices(batch.wire, starts, lengths)[:, 0])
            bucket_total = int(np.maximum(points["buckets_len"][rows], 0).sum()) // 8
            self._make_room(bucket_total)
        slots, is_new = self._table.insert(keys, self.max_streams - len(self._exponential))
        results = np.zeros(len(rows), RESULT)
        buckets = np.zeros(bucket_total, np.uint64)
        self._used, _ = compute(
            batch.wire,
            points,
            rows.astype(np.int64),
            slots,
            is_new.view(np.uint8),
            bounds,
            is_histogram,
            self._table.records,
            self._pool,
            self._used,
            results,
            buckets,
        )
        return results, buckets

    def _make_room(self, count: int) -> None:
        """Make the pool hold ``count`` more buckets, without those of streams that are gone."""
        needed = self._used + count
        if needed <= len(self._pool) and self._used <= len(self._pool) // 2:
            return
        live = self._table.live()
        records = self._table.records
        live = live[records["bucket_count"][live] > 0]
        lengths = records["bucket_count"][live].astype(np.int64)
        offsets = offsets_of(lengths)
        total = int(offsets[-1])
        if 2 * total > self._used and needed <= len(self._pool):
            return
        pool = np.zeros(max(_POOL_MIN, 2 * total, total + count), np.uint64)
        source = np.repeat(records["place"][live] - offsets[:-1], lengths) + np.arange(total)
        pool[:total] = self._pool[source]
        records["place"][live] = offsets[:-1]
        self._pool, self._used = pool, total


def _count(counts: dict[tuple[int, str], int], keep: Mask, type_: int, rows: Indices, verdicts: Array) -> None:
    """Add up what becomes of the points ``rows``, and note which are kept."""
    keep[rows] = verdicts <= Verdict.UNCHANGED
    for verdict, number in enumerate(np.bincount(verdicts).tolist()):
        if number:
            reason = "" if verdict <= Verdict.UNCHANGED else Verdict(verdict).name.lower()
            counts[type_, reason] = counts.get((type_, reason), 0) + number


def _set_numbers(edit: PointEdit, kinds: I64, rows: Indices, results: Records) -> None:
    edit.set_fixed64(_START, results["start_time"].copy(), rows, column="start_time")
    is_double = kinds == VALUE_DOUBLE
    edit.set_fixed64(_AS_DOUBLE, results["value"][is_double], rows[is_double], column="double_value")
    edit.set_fixed64(_AS_INT, results["int_value"][~is_double], rows[~is_double], column="int_value")


def _set_histograms(
    edit: PointEdit, points: Records, rows: Indices, results: Records, buckets: U64, temporality: int
) -> None:
    edit.set_fixed64(_START, results["start_time"].copy(), rows, column="start_time")
    edit.set_fixed64(_COUNT, results["count"].copy(), rows, column="count")
    has_buckets = results["bucket_count"] > 0
    edit.set_bytes(
        _BUCKETS,
        buckets.tobytes(),
        8 * results["place"][has_buckets],
        8 * results["bucket_count"][has_buckets],
        rows[has_buckets],
    )
    if temporality == TEMPORALITY_DELTA:
        has_sum = (points["present"] & PRESENT_SUM != 0) & ~np.isnan(results["value"])
        edit.set_fixed64(_SUM, results["value"][has_sum], rows[has_sum], column="sum")
        edit.remove(_HISTOGRAM_MIN, rows)
        edit.remove(_HISTOGRAM_MAX, rows)
        return
    for number, bit, name in (
        (_SUM, PRESENT_SUM, "value"),
        (_HISTOGRAM_MIN, PRESENT_MIN, "min"),
        (_HISTOGRAM_MAX, PRESENT_MAX, "max"),
    ):
        is_present = results["present"] & bit != 0
        column = "sum" if number == _SUM else name
        edit.set_fixed64(number, results[name][is_present], rows[is_present], column=column)
        edit.remove(number, rows[~is_present])
