"""Streams that end as one Prometheus series: additive data is added up, so that no stream hides another.

That happens when the attributes that tell streams apart do not become labels (two hosts without an instance id, two
scopes without ``otel_scope_…`` labels, keys with one name after escaping). Counters, histograms and up-down counters
are additive: the series is the sum of what its streams gained, with the resets of each. For other types the latest
value stands.

A stream that was sent alone before it shared its series has no state; its value is a baseline then, not a gain.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from collector.model import METRIC_EXPONENTIAL_HISTOGRAM, METRIC_HISTOGRAM, METRIC_SUM, KeyTable
from collector.model.arrays import F64, I32, U8, U64, Array, Indices, Mask, Records
from collector.otlp.semantics import NO_RECORDED_VALUE
from collector.prometheus import _exponential as exponential

__all__ = ["SERIES_COLUMNS", "SOURCE_COLUMNS", "Merged", "StreamMerger", "additive_kind"]

SOURCE_COLUMNS = {"born": np.int32}
SERIES_COLUMNS = {"source_count": np.int32, "kind": np.uint8, "merging": np.uint8}
_STREAM_COLUMNS = {
    "born": np.int32, "series": np.int32, "tracked": np.uint8, "last": np.float64, "last_count": np.float64,
    "last_time": np.uint64, "last_seen": np.uint64, "last_row": np.int32,
}  # fmt: skip
_SUM_COLUMNS = {
    "kind": np.uint8, "merging": np.uint8, "total": np.float64, "total_count": np.float64, "total_row": np.int32,
    "bounds": np.int32, "bounds_seen": np.uint64, "emitted": np.uint64,
}  # fmt: skip

_NOT_ADDITIVE, _COUNTER, _LEVEL, _HISTOGRAM, _EXPONENTIAL, _MIXED = 0, 1, 2, 3, 4, 255
_SOURCE_EXPIRY_NS = np.uint64(300_000_000_000)  # Prometheus' lookback: a series without samples ends after it
_EXPIRY_INTERVAL_NS = np.uint64(60_000_000_000)
_MILLISECOND = np.uint64(1_000_000)
_COMPACT_FROM_BYTES = 1024 * 1024


def additive_kind(metric_type: int, kind: str) -> int:
    """The code for the column ``kind`` of a series, from the OTLP and the Prometheus type."""
    if metric_type == METRIC_SUM:
        return _COUNTER if kind == "counter" else _LEVEL
    if metric_type == METRIC_EXPONENTIAL_HISTOGRAM:
        return _EXPONENTIAL
    return _HISTOGRAM if metric_type == METRIC_HISTOGRAM else _NOT_ADDITIVE


@dataclass(slots=True)
class Merged:
    """The points with merged values, the bytes that their buckets point into, and the points that are not sent."""

    points: Records
    wire: bytes
    folded: Indices
    """Points whose values are part of others."""
    conflicting: Indices
    """Histogram points whose buckets cannot be added to those of their series."""


class StreamMerger:
    """Keeps what each stream of a shared series had last, and the sums; of other series it keeps nothing.

    Both are found by the keys that the series cache has for its sources and series.
    """

    def __init__(self, sources: KeyTable, series: KeyTable) -> None:
        """The tables of the series cache."""
        self._sources = sources
        self._series = series
        self._streams = KeyTable(_STREAM_COLUMNS, capacity=16)
        self._sums = KeyTable(_SUM_COLUMNS, capacity=16)
        self._buckets: dict[int, _Rows] = {}
        self._exponential = _Rows(np.zeros(16, exponential.RECORD))
        self._expired_at = np.uint64(0)

    @property
    def memory_bytes(self) -> int:
        """The size of what is kept; the series cache that owns the merger bounds it."""
        buckets = sum(rows.values.nbytes for rows in (self._exponential, *self._buckets.values()))
        return buckets + self._streams.memory_bytes + self._sums.memory_bytes

    def note_sources(self, slots: I32, series: I32, is_new: Mask, kinds: U8, number: int) -> Indices:
        """Count new sources towards their series; returns the positions of those whose series had another one already.

        ``number`` is that of the batch.
        """
        column = self._series.column
        self._sources.column("born")[slots] = number
        column("kind")[series[is_new]] = kinds[is_new]
        column("kind")[series[column("kind")[series] != kinds]] = _MIXED
        np.add.at(column("source_count"), series, 1)
        return np.flatnonzero(~is_new)

    def shared(self, rows: Indices, series: I32) -> Indices:
        """Those of the rows whose series has, or had, several additive sources."""
        column = self._series.column
        kind = column("kind")[series]
        is_shared = (column("source_count")[series] > 1) | (column("merging")[series] != 0)
        shared: Indices = rows[is_shared & (kind >= _COUNTER) & (kind <= _EXPONENTIAL)]
        return shared

    def is_merging(self, series: I32) -> Mask:
        """Whether the streams of each series are added up."""
        merging: Mask = self._series.column("merging")[series] != 0
        return merging

    def forget(self, sources: I32, series: I32) -> None:
        """Forget streams and sums, before their sources and series are removed from the cache."""
        if len(self._streams):
            self._streams.remove(self._streams.find(self._sources.keys(sources)))
            self._sums.remove(self._sums.find(self._series.keys(series)))

    def compact(self) -> None:
        """Give back the memory of streams and series that are gone."""
        if self._streams.is_sparse:
            self._streams.compact()
        if self._sums.is_sparse:
            moved = self._sums.compact()
            streams = self._streams.live()
            self._streams.column("series")[streams] = moved[self._streams.column("series")[streams]]
        streams, sums = self._streams.live(), self._sums.live()
        sum_of = self._streams.column("series")[streams]
        kind, bounds = self._sums.column("kind"), self._sums.column("bounds")
        rows_of = self._streams.column("last_row"), self._sums.column("total_row")
        for number, table in [(-1, self._exponential), *self._buckets.items()]:
            if not table.may_be_sparse:
                continue
            if number < 0:
                chosen = streams[kind[sum_of] == _EXPONENTIAL], sums[kind[sums] == _EXPONENTIAL]
            else:
                chosen = streams[bounds[sum_of] == number + 1], sums[bounds[sums] == number + 1]
            table.keep_only([(rows, slots) for rows, slots in zip(rows_of, chosen, strict=True)])
            if number >= 0 and table.is_empty:
                del self._buckets[number]

    def merge(
        self, rows: Indices, points: Records, wire: bytes, slot: I32, series: I32, bounds: I32,
        now_unix_nano: int, number: int, future_max_ns: int, width_of: Callable[[int], int],
    ) -> Merged:  # fmt: skip
        """Merge the points of ``rows``, all of shared series. ``slot``, ``series`` and ``bounds`` are per point."""
        streams, sums = self._slots_of(rows, slot, series)
        merged = self._merge(rows, points, wire, streams, sums, bounds, now_unix_nano, number, future_max_ns, width_of)
        self._series.column("merging")[series[rows]] = self._sums.column("merging")[sums[rows]]
        return merged

    def _slots_of(self, rows: Indices, slot: I32, series: I32) -> tuple[I32, I32]:
        """(points,) where the stream and the sum of each point in ``rows`` are kept; they are added if they are new."""
        stream_slots, sum_slots = np.full(len(slot), -1, np.int32), np.full(len(slot), -1, np.int32)
        stream_slots[rows], is_new = self._streams.insert(self._sources.keys(slot[rows]))
        sum_slots[rows], _ = self._sums.insert(self._series.keys(series[rows]))
        new = rows[is_new]
        self._streams.column("born")[stream_slots[new]] = self._sources.column("born")[slot[new]]
        self._streams.column("series")[stream_slots[new]] = sum_slots[new]
        for name in ("kind", "merging"):
            self._sums.column(name)[sum_slots[rows]] = self._series.column(name)[series[rows]]
        return stream_slots, sum_slots

    def _merge(
        self, rows: Indices, points: Records, wire: bytes, slot: I32, series: I32, bounds: I32,
        now_unix_nano: int, number: int, future_max_ns: int, width_of: Callable[[int], int],
    ) -> Merged:  # fmt: skip
        """``slot`` and ``series`` are those of streams and sums from here on."""
        points = points.copy()
        now = np.uint64(now_unix_nano)
        self._expire(now)
        times = np.where(points["time"] > np.uint64(now_unix_nano + future_max_ns), now, points["time"])
        kind = self._sums.column("kind")[series[rows]]
        is_level = kind == _LEVEL
        is_stale = points["flags"][rows] & NO_RECORDED_VALUE != 0
        tracked = self._streams.column("tracked")[slot[rows]] != 0
        is_late = tracked & (times[rows] <= self._streams.column("last_time")[slot[rows]])
        # A counter that ends leaves its part in the sum.
        is_used = ~is_late & (is_level | ~is_stale)
        folded = [rows[~is_used]]
        conflicting: list[Indices] = []
        numbers = rows[is_used & (kind < _HISTOGRAM)]
        if len(numbers):
            self._merge_numbers(numbers, points, times, slot, series, now, number, folded)
        histograms = rows[is_used & (kind == _HISTOGRAM)]
        added: list[bytes] = []
        end = len(wire)
        for set_number in np.unique(bounds[histograms]).tolist():
            chosen = histograms[bounds[histograms] == set_number]
            usable = self._claim_bounds(set_number, series[chosen], now)
            conflicting.append(chosen[~usable])
            chosen = chosen[usable]
            if len(chosen):
                content = self._merge_histograms(
                    chosen,
                    points,
                    wire,
                    times,
                    slot,
                    series,
                    now,
                    number,
                    set_number,
                    width_of(set_number),
                    end,
                    folded,
                )
                added.append(content)
                end += len(content)
        natives = rows[is_used & (kind == _EXPONENTIAL)]
        if len(natives):
            content = self._merge_exponential(
                natives, points, wire, times, slot, series, now, number, end, folded, conflicting
            )
            added.append(content)
        return Merged(
            points,
            wire + b"".join(added) if added else wire,
            np.concatenate(folded),
            np.concatenate(conflicting) if conflicting else np.empty(0, np.intp),
        )

    def _merge_numbers(
        self, rows: Indices, points: Records, times: U64, slot: I32, series: I32, now: np.uint64,
        number: int, folded: list[Indices],
    ) -> None:  # fmt: skip
        rows = rows[np.lexsort((rows, times[rows], slot[rows]))]
        found = points[rows]
        values = np.where(found["value_kind"] == 1, found["int_value"].astype(np.float64), found["double_value"])
        is_level = self._sums.column("kind")[series[rows]] == _LEVEL
        values = np.where(is_level & (found["flags"] & NO_RECORDED_VALUE != 0), 0.0, values)
        source, column = slot[rows], self._streams.column
        first, last = _edges(source)
        before = _shifted(values, first, column("last")[source])
        is_restart = self._restarted(found, times[rows], source, first)
        is_known, counts_whole = self._joining(source, series[rows], first, number)
        gain = np.where((values >= before) & ~is_restart, values - before, values)
        gain = np.where(is_level, values - np.where(is_known, before, 0.0), gain)
        gain = np.where(is_known | is_level, gain, np.where(counts_whole, values, 0.0))
        self._remember(source[last], values[last], times[rows][last], now)
        at, emitted, sums = self._totals(rows, series, times, gain[:, None], ("total",), folded)
        points["double_value"][at] = sums[emitted, 0]
        points["value_kind"][at] = 2
        points["flags"][at] &= ~np.uint32(NO_RECORDED_VALUE)

    def _merge_histograms(
        self, rows: Indices, points: Records, wire: bytes, times: U64, slot: I32, series: I32,
        now: np.uint64, number: int, set_number: int, width: int, end: int, folded: list[Indices],
    ) -> bytes:  # fmt: skip
        """Returns the merged bucket counts, which the points refer to as if they followed the wire bytes."""
        rows = rows[np.lexsort((rows, times[rows], slot[rows]))]
        found = points[rows]
        table = self._buckets.setdefault(set_number, _Rows(np.zeros((16, width))))
        counts = _bucket_counts(wire, found, width)
        whole = np.column_stack((found["sum"], found["count"].astype(np.float64), counts))
        source, column = slot[rows], self._streams.column
        first, last = _edges(source)
        table.ensure(column("last_row"), source)
        earlier = np.column_stack(
            (column("last")[source], column("last_count")[source], table.values[column("last_row")[source]])
        )
        before = np.empty_like(whole)
        before[1:] = whole[:-1]
        before[first] = earlier[first]
        is_reset = self._restarted(found, times[rows], source, first) | np.any(whole[:, 1:] < before[:, 1:], axis=1)
        is_known, counts_whole = self._joining(source, series[rows], first, number)
        gain = np.where(is_reset[:, None], whole, whole - before)
        gain = np.where(is_known[:, None], gain, np.where(counts_whole[:, None], whole, 0.0))
        self._remember(source[last], whole[last, 0], times[rows][last], now)
        column("last_count")[source[last]] = whole[last, 1]
        table.values[column("last_row")[source[last]]] = whole[last, 2:]
        at, emitted, sums = self._totals(rows, series, times, gain, ("total", "total_count"), folded, table)
        sums = sums[emitted]
        points["sum"][at] = sums[:, 0]
        points["count"][at] = np.rint(sums[:, 1]).astype(np.uint64)
        points["buckets"][at] = end + 8 * width * np.arange(len(at))
        points["buckets_len"][at] = 8 * width
        return np.rint(sums[:, 2:]).astype("<u8").tobytes()

    def _merge_exponential(
        self, rows: Indices, points: Records, wire: bytes, times: U64, slot: I32, series: I32,
        now: np.uint64, number: int, end: int, folded: list[Indices], conflicting: list[Indices],
    ) -> bytes:  # fmt: skip
        """Returns the merged bucket counts, which the points refer to as if they were at ``end``."""
        rows = rows[np.lexsort((rows, times[rows], series[rows]))]
        source, at, column = slot[rows], series[rows], self._sums.column
        stream_of, sum_of = self._streams.column("last_row"), column("total_row")
        self._exponential.ensure(stream_of, source)
        self._exponential.ensure(sum_of, at)
        is_baseline = (column("merging")[at] != 0) & (self._streams.column("born")[source] != number)
        written, states = exponential.merge(
            wire, points.view(np.uint8), self._exponential.values.view(np.uint8), rows.astype(np.int64),
            stream_of[source], sum_of[at], source, times[rows], is_baseline.astype(np.uint8), column("emitted")[at],
            self._streams.column("last_time"), end,
        )  # fmt: skip
        is_lost, is_sent = states & exponential.LOST != 0, states & exponential.SENT != 0
        known = source[states & exponential.KNOWN != 0]
        self._streams.column("tracked")[known] = 1
        self._streams.column("last_seen")[known] = now
        column("merging")[at[~is_lost]] = 1
        column("emitted")[at[is_sent]] = times[rows[is_sent]]  # ascending: the last one of a series stands
        folded.append(rows[~is_lost & ~is_sent])
        conflicting.append(rows[is_lost])
        return written

    def _restarted(self, found: Records, times: U64, source: I32, first: Mask) -> Mask:
        """Whether the stream began after its last point. An earlier start proves overlap, not a restart."""
        before = np.zeros(len(found), np.uint64)
        before[1:] = times[:-1]
        before[first] = self._streams.column("last_time")[source[first]]
        restarted: Mask = (found["start_time"] >= before) & (found["start_time"] != 0) & (before != 0)
        return restarted

    def _joining(self, source: I32, series: I32, first: Mask, number: int) -> tuple[Mask, Mask]:
        """Whether a point's stream has an earlier value, and if not, whether all of its value is a gain."""
        is_known = ~first | (self._streams.column("tracked")[source] != 0)
        is_new = self._streams.column("born")[source] == number
        return is_known, is_new | (self._sums.column("merging")[series] == 0)

    def _remember(self, source: I32, values: F64, times: U64, now: np.uint64) -> None:
        column = self._streams.column
        column("last")[source] = values
        column("last_time")[source] = times
        column("last_seen")[source] = now
        column("tracked")[source] = 1

    def _totals(
        self, rows: Indices, series: I32, times: U64, gain: F64, names: tuple[str, ...], folded: list[Indices],
        table: "_Rows | None" = None,
    ) -> tuple[Indices, Indices, F64]:  # fmt: skip
        """Add the gains to the totals of their series. Returns the rows to send, their places in the sums, the sums."""
        column = self._sums.column
        order = np.lexsort((rows, times[rows], series[rows]))
        rows, gain = rows[order], gain[order]
        at, when = series[rows], times[rows]
        first, last = _edges(at)
        if table is not None:
            table.ensure(column("total_row"), at)
        totals = [column(name)[at] for name in names]
        base = np.column_stack(totals if table is None else (*totals, table.values[column("total_row")[at]]))
        sums = np.cumsum(gain, axis=0)
        starts = np.flatnonzero(first)
        lengths = np.diff(np.append(starts, len(rows)))
        sums += base - np.repeat(sums[starts] - gain[starts], lengths, axis=0)
        for number, name in enumerate(names):
            column(name)[at[last]] = sums[last, number]
        if table is not None:
            table.values[column("total_row")[at[last]]] = sums[last, len(names) :]
        # One sample per millisecond, and none before one that was sent.
        is_sent = when // _MILLISECOND > column("emitted")[at] // _MILLISECOND
        is_sent[:-1] &= (at[1:] != at[:-1]) | (when[1:] // _MILLISECOND != when[:-1] // _MILLISECOND)
        folded.append(rows[~is_sent])
        emitted = np.flatnonzero(is_sent)
        column("emitted")[at[emitted]] = when[emitted]
        column("merging")[at] = 1
        return rows[emitted], emitted, sums

    def _claim_bounds(self, set_number: int, series: I32, now: np.uint64) -> Mask:
        """Whether a point has the bounds of its series. After a pause, a series takes other bounds and starts anew."""
        column = self._sums.column
        bounds = column("bounds")[series]
        is_free = (bounds == 0) | (column("bounds_seen")[series] + _SOURCE_EXPIRY_NS < now)
        changed = series[is_free & (bounds != set_number + 1)]
        if len(changed):
            column("bounds")[changed] = set_number + 1
            for name in ("merging", "total", "total_count", "total_row"):
                column(name)[changed] = 0
            sources = self._streams.live()
            sources = sources[np.isin(self._streams.column("series")[sources], changed)]
            for name in ("tracked", "last", "last_count", "last_row"):
                self._streams.column(name)[sources] = 0
        usable: Mask = column("bounds")[series] == set_number + 1
        column("bounds_seen")[series[usable]] = now
        return usable

    def _expire(self, now: np.uint64) -> None:
        """Take streams that have ended out of the sums of up-down counters."""
        if now < self._expired_at + _EXPIRY_INTERVAL_NS:
            return
        self._expired_at = now
        column = self._streams.column
        sources = self._streams.live()
        sources = sources[(column("tracked")[sources] != 0) & (column("last_seen")[sources] + _SOURCE_EXPIRY_NS < now)]
        series = column("series")[sources]
        is_level = self._sums.column("kind")[series] == _LEVEL
        sources, series = sources[is_level], series[is_level]
        np.subtract.at(self._sums.column("total"), series, column("last")[sources])
        column("last")[sources] = 0
        column("tracked")[sources] = 0


class _Rows:
    """A row per stream or series. Row 0 stays zero: it belongs to those that have no row yet."""

    def __init__(self, values: Array) -> None:
        """``values`` are the first rows, all zero."""
        self.values = values
        self._used = 1

    @property
    def may_be_sparse(self) -> bool:
        """Whether there are enough rows for it to matter how many of them are used."""
        return self.values.nbytes > _COMPACT_FROM_BYTES

    @property
    def is_empty(self) -> bool:
        """Whether no slot has a row."""
        return self._used == 1

    def keep_only(self, users: list[tuple[I32, I32]]) -> None:
        """Leave out the rows that no slot has, if they are most rows.

        ``users`` are all columns that have rows, and those of their slots that are in use.
        """
        used = np.unique(np.concatenate([rows[slots] for rows, slots in users]))
        used = used[used > 0]
        if 2 * len(used) >= self._used:
            return
        values = np.zeros((max(16, len(used) + 1), *self.values.shape[1:]), self.values.dtype)
        values[1 : len(used) + 1] = self.values[used]
        moved = np.zeros(self._used, np.int32)
        moved[used] = np.arange(1, len(used) + 1)
        for rows, slots in users:
            rows[slots] = moved[rows[slots]]
        self.values, self._used = values, len(used) + 1

    def ensure(self, rows: I32, slots: I32) -> None:
        """Give each of the slots a row if it has none."""
        missing = np.unique(slots[rows[slots] == 0])
        rows[missing] = np.arange(self._used, self._used + len(missing))
        self._used += len(missing)
        while self._used > len(self.values):
            self.values = np.concatenate((self.values, np.zeros_like(self.values)))


def _edges(keys: I32) -> tuple[Mask, Mask]:
    """Whether each row is the first, and whether it is the last, of those with its key; the keys are sorted."""
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    return first, np.append(first[1:], True)


def _shifted(values: F64, first: Mask, earlier: F64) -> F64:
    """The value before each one."""
    before = np.empty_like(values)
    before[1:] = values[:-1]
    before[first] = earlier[first]
    return before


def _bucket_counts(wire: bytes, points: Records, width: int) -> F64:
    """(n, width): the bucket counts as they are; missing ones are 0."""
    if not width or not len(points):
        return np.zeros((len(points), width))
    offsets = np.arange(8 * width)
    is_there = offsets < points["buckets_len"][:, None]
    taken = np.frombuffer(wire, np.uint8)[np.where(is_there, points["buckets"][:, None] + offsets, 0)]
    return np.ascontiguousarray(np.where(is_there, taken, 0).astype(np.uint8)).view("<u8").astype(np.float64)
