"""Prepares the points of a batch for an encoder of Prometheus series: cached label bytes, order and runs.

The label bytes are what the exporter's :class:`LabelFormat` makes of a name and a value: protobuf for remote-write,
text for exposition.

A *source* is an OTLP series (``Metrics.series_key``). A *series* is what Prometheus sees: sources with equal final
labels (int 1 and "1", ``a.b`` and ``a_b``) are one series, so the final label bytes determine order, shard and
duplicates. Everything in the caches can be rebuilt. What is idle is forgotten (``expire``), and everything is when the
caches exceed their limit nevertheless.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from collector.model import METRIC_HISTOGRAM, METRIC_SUMMARY, KeyTable, Metrics, groups
from collector.model.arrays import I32, U8, Indices, Mask, Records
from collector.prometheus import _labels as kernel
from collector.prometheus.attributes import LabelFormat, exemplar_labels
from collector.prometheus.encodable import Encodable
from collector.prometheus.families import FAMILY_REASONS, VARIANTS, Families
from collector.prometheus.label_sets import LabelSets
from collector.prometheus.labels import LABELS_MAX_BYTES, SeriesLabels
from collector.prometheus.merge import SERIES_COLUMNS, SOURCE_COLUMNS, StreamMerger
from collector.prometheus.naming import TranslationStrategy
from collector.prometheus.source_labels import SourceLabels, WrittenLabels
from collector.wire.hash import dictionary
from collector.wire.layout import EXEMPLAR, QUANTILE

__all__ = ["FUTURE_MAX_NS", "SeriesCache"]

_CACHES_MAX_BYTES = 512 * 1024 * 1024
_LABEL_SETS_MAX_BYTES = 32 * 1024 * 1024  # at an expiry; sets of bounds have no time of their own
_NAME_CONFLICT, _LARGE_LABELS = 1, 2
_SOURCE_REASONS = {_NAME_CONFLICT: "name_conflict", _LARGE_LABELS: "label_size"}
_NAMED_MAX = 3
_NAMED_MAX_CHARS = 200
_IDLE_S = 300.0  # Prometheus' lookback: a series without samples ends after it
# A stream that returns to its series after this long counts as new, with all of its value.
_SHARED_IDLE_S = 3600.0
_EXPIRY_INTERVAL_S = 30.0
_COMPACT_FROM_BYTES = 1024 * 1024
_COMPACT_FROM_FAMILIES = 1024

# Senders choose names, labels and buckets. What exceeds these limits is dropped and not cached.
_LABEL_COUNT_MAX = 10_000  # of ``le`` or ``quantile`` of one series
_TOO_MANY = -2  # in place of the number of a set

FUTURE_MAX_NS = 600_000_000_000
"""How far ahead of our clock the time of a point is believed, in nanoseconds; Prometheus' own limit."""


class SeriesCache:
    """Caches the label bytes of every source, in tables that the encoder reads."""

    def __init__(
        self,
        labels: SeriesLabels,
        label_format: LabelFormat,
        strategy: TranslationStrategy,
        namespace: str,
        series_columns: Mapping[str, Any] | None = None,
        held_bytes: Callable[[], int] = lambda: 0,
        bucket_types: tuple[int, ...] = (METRIC_HISTOGRAM,),
        *,
        idle_s: float = _IDLE_S,
        max_series: int = 0,
    ) -> None:
        """Makes an empty cache.

        Args:
            labels: The rules of label names.
            label_format: How labels are encoded.
            strategy: How metric names are translated.
            namespace: The prefix of metric names.
            series_columns: Columns of the table ``series`` for state of the exporter. They are forgotten with their
                series. A column ``source`` is the slot of a source of the series.
            held_bytes: The size of what the exporter keeps besides, until the ``generation`` changes.
            bucket_types: The types whose series have ``le`` labels.
            idle_s: How long a source without points is remembered, at least.
            max_series: How many sources are remembered; points of further ones are dropped. 0: no limit.
        """
        self._sampled_types = (*bucket_types, METRIC_SUMMARY)
        self._held_bytes = held_bytes
        self._labels = labels
        self._series_columns = dict(series_columns or {})
        self._format = label_format
        self._strategy = strategy
        self._namespace = namespace
        self._source_labels = SourceLabels(labels, label_format, self._sampled_types)
        self._idle_s = max(idle_s, _IDLE_S)
        self._max_series = max_series
        self._expired_s = float("-inf")
        self.generation = 0
        """Changes when everything is forgotten."""
        self.slots_version = 0
        """Changes when slots of the tables may have been given to others."""
        self._clear()

    def _clear(self) -> None:
        self.generation += 1
        self.slots_version += 1
        self.sources = KeyTable(
            {
                "start": np.int64, "a": np.int32, "b": np.int32, "c": np.int32, "family": np.int32, "series": np.int32,
                "unusable": np.uint8, "seen_s": np.int32, **SOURCE_COLUMNS,
            }
        )  # fmt: skip
        self.series = KeyTable({**self._series_columns, **SERIES_COLUMNS})
        self._merger = StreamMerger(self.sources, self.series)
        self._batch_number = 0
        self.arena = bytearray()
        self._dead_bytes = 0
        self.families = Families(self._format.encode_label, self._strategy, self._namespace, self._sampled_types)
        self.label_sets = LabelSets(self._format.encode_label)

    @property
    def memory_bytes(self) -> int:
        """The size of the caches in bytes."""
        texts = len(self.arena) + self.families.memory_bytes + self.label_sets.memory_bytes
        tables = self.sources.memory_bytes + self.series.memory_bytes + self._merger.memory_bytes + self._held_bytes()
        return texts + tables

    def no_bounds(self) -> int:
        """The number of the set of bounds of a histogram without any, whose only bucket is ``+Inf``."""
        return self.label_sets.number("le", b"")

    def expire(self, now_s: float, *, idle_s: float | None = None) -> bool:
        """Forget the sources that are idle and the series that have no other, and give back their memory.

        Returns whether anything was done; it is at most every half minute, unless ``idle_s`` is given.
        """
        if idle_s is None and now_s < self._expired_s + _EXPIRY_INTERVAL_S:
            return False
        self._expired_s = now_s
        column = self.sources.column
        live = self.sources.live()
        is_shared = self._merger.is_merging(column("series")[live])
        longest = self._idle_s if idle_s is None else idle_s
        idle = live[now_s - column("seen_s")[live] > np.where(is_shared, max(_SHARED_IDLE_S, longest), longest)]
        if len(idle):
            self._forget(idle)
            if 2 * len(idle) > len(live):
                self._labels.forget()
        if self.label_sets.memory_bytes > _LABEL_SETS_MAX_BYTES:
            self._clear()
        else:
            self._compact()
        return True

    def _forget(self, slots: I32) -> None:
        """Remove sources, and the series that have no other."""
        column, source_count = self.sources.column, self.series.column("source_count")
        series = column("series")[slots]
        self._dead_bytes += sum(int(column(name)[slots].sum(dtype=np.int64)) for name in ("a", "b", "c"))
        np.subtract.at(source_count, series, 1)
        series = np.unique(series)
        series = series[source_count[series] <= 0]
        self._merger.forget(slots, series)
        self.series.remove(series)
        self.sources.remove(slots)
        self.slots_version += 1

    def _compact(self) -> None:
        """Give back memory, if most of it is not used any more."""
        column = self.sources.column
        if self._dead_bytes > max(_COMPACT_FROM_BYTES, len(self.arena) // 2):
            live = self.sources.live()
            slices = np.empty((len(live), 2), np.int64)
            slices[:, 0] = column("start")[live]
            slices[:, 1] = sum(column(name)[live] for name in ("a", "b", "c"))
            self.arena, column("start")[live] = kernel.gather(np.frombuffer(self.arena, np.uint8), slices)
            self._dead_bytes = 0
        if self.sources.is_sparse:
            moved = self.sources.compact()
            if "source" in self._series_columns:
                series = self.series.live()
                self.series.column("source")[series] = np.maximum(moved[self.series.column("source")[series]], 0)
        if self.series.is_sparse:
            moved = self.series.compact()
            live = self.sources.live()
            self.sources.column("series")[live] = moved[self.sources.column("series")[live]]
            self.slots_version += 1
        self._merger.compact()
        if self.families.known_count > _COMPACT_FROM_FAMILIES:
            live = self.sources.live()
            used, numbers = np.unique(self.sources.column("family")[live], return_inverse=True)
            if 2 * len(used) < self.families.known_count:
                self.families = self.families.only(used)
                self.sources.column("family")[live] = numbers

    def prepare(
        self, batch: Metrics, now_s: float, now_unix_nano: int, unusable: Mapping[str, Mask] | None = None
    ) -> Encodable:
        """Everything the encoder needs for this batch. The labels of new sources are built and cached.

        ``now_s`` is monotonic. ``unusable`` are points that are not sent, by reason; the first reason of a point
        counts.
        """
        if self.memory_bytes > _CACHES_MAX_BYTES:
            self._clear()
        self._batch_number += 1
        points, wire = batch.table("points").rows, batch.wire
        point_count = len(points)
        metrics = batch.table("metrics").rows
        types = metrics["type"][points["parent"]]
        family = self.families.numbers_of(batch)[points["parent"]]
        sendable = family >= 0
        dropped: dict[str, Indices] = {}

        def drop(reason: str, mask: Mask) -> None:
            """Do not send these points, unless another reason has excluded them already."""
            nonlocal sendable
            if mask.any():
                rows = np.flatnonzero(mask)
                dropped[reason] = np.concatenate((dropped[reason], rows)) if reason in dropped else rows
                sendable = sendable & ~mask

        for code, reason in FAMILY_REASONS.items():
            drop(reason, family == code)
        for reason, mask in (unusable or {}).items():
            drop(reason, sendable & mask)
        quantiles, quantile_first = self._children(batch, "quantiles", QUANTILE, types == METRIC_SUMMARY)
        extra_set = self._extra_set_of(wire, points, types, quantiles, quantile_first)
        drop("bucket_count", sendable & (extra_set == _TOO_MANY))
        slot, sharing = self._slots(batch, sendable, family, types)
        drop("series_limit", sendable & (slot < 0))
        self.sources.column("seen_s")[slot[sendable]] = int(now_s)
        source_state = np.where(sendable, self.sources.column("unusable")[slot], 0)
        for code, reason in _SOURCE_REASONS.items():
            drop(reason, source_state == code)
        series = self.sources.column("series")[slot]
        folded_count = 0
        rows = np.flatnonzero(sendable)
        if len(shared := self._merger.shared(rows, series[rows])):
            first = self.label_sets.first()
            merged = self._merger.merge(
                shared, points, wire, slot, series, extra_set, now_unix_nano, self._batch_number, FUTURE_MAX_NS,
                lambda number: int(first[number + 1] - first[number]),
            )  # fmt: skip
            points, wire = merged.points, merged.wire
            points["start_time"][shared] = 0  # the sum began with none of its streams
            sendable[merged.folded] = False
            sendable[merged.conflicting] = False
            folded_count = len(merged.folded)
            dropped["histogram_bounds"] = merged.conflicting
        order, dropped["duplicate_timestamp"] = self._order(points, sendable, series)
        ordered_series, ordered_set, ordered_type = series[order], extra_set[order], types[order]
        new_run = np.ones(len(order), bool)
        new_run[1:] = (
            (ordered_series[1:] != ordered_series[:-1])
            | (ordered_set[1:] != ordered_set[:-1])
            | (ordered_type[1:] != ordered_type[:-1])
        )
        exemplars, exemplar_first = self._children(batch, "exemplars", EXEMPLAR, points["exemplar_count"] > 0)
        exemplar_arena, exemplar_slices = exemplar_labels(batch, exemplars, self._labels, self._format.encode_label)
        shard_key = np.zeros(point_count, np.uint64)
        if len(order):
            shard_key[order] = self.series.keys(ordered_series)[:, 1]
        return Encodable(
            wire, points, types.astype(np.int32), order, np.cumsum(new_run, dtype=np.int32) - 1, slot, extra_set,
            shard_key, exemplars, exemplar_first, exemplar_arena, exemplar_slices, quantiles, quantile_first,
            {reason: rows for reason, rows in dropped.items() if len(rows)}, folded_count, sharing,
        )  # fmt: skip

    @staticmethod
    def describe(batch: Metrics, rows: Indices) -> str:
        """The first few metrics that have a point among ``rows``, with their services, for the log."""
        names, services = batch.field("name", "metrics"), batch.attribute("service.name", "resources").as_text()
        metric_of = batch.table("points").rows["parent"][rows]
        resource_of = batch.ancestor("resources", "points")[rows]
        found = groups(names.codes[metric_of], services.codes[resource_of])
        texts = []
        for row in found.first[:_NAMED_MAX].tolist():
            name, service = names.codes[metric_of[row]], services.codes[resource_of[row]]
            texts.append(
                (names.distinct[name] if name >= 0 else "''")
                + (f" of {services.distinct[service]}" if service >= 0 else "")
            )
        text = ", ".join(texts) + (", ..." if found.count > _NAMED_MAX else "")
        return "".join(char if char.isprintable() else " " for char in text[:_NAMED_MAX_CHARS])

    def _slots(self, batch: Metrics, sendable: Mask, family: I32, types: I32) -> tuple[I32, Indices]:
        """(points,) slot of each source, and the rows of new sources of series that have another one.

        The labels of new sources are built.
        """
        keys = batch.series_key()
        slot = np.where(sendable, self.sources.find(keys), np.int32(-1))
        missing = np.flatnonzero(sendable & (slot < 0))
        if not len(missing):
            return slot, missing
        new_slots, is_new = self.sources.insert(keys[missing], self._max_series)
        slot[missing] = new_slots
        is_new &= new_slots >= 0
        rows = missing[is_new]
        return slot, rows[self._build(batch, rows, new_slots[is_new], family, types)] if len(rows) else rows

    def _build(self, batch: Metrics, rows: Indices, slots: I32, family: I32, types: I32) -> Indices:
        """Build the label bytes of new sources, once per source and not per point.

        Returns the positions of those whose series has another source.
        """
        column = self.sources.column
        written = self._source_labels.write(batch, rows, family, types, self.families)
        pieces, encoded = written.pieces, written.encoded
        is_large = pieces[:, 1:].sum(axis=1) > LABELS_MAX_BYTES
        if is_large.any():
            column("unusable")[slots[is_large]] = _LARGE_LABELS
            pieces[is_large, 1:] = 0
            slices = np.column_stack((pieces[:, 0], pieces[:, 1:].sum(axis=1)))
            kept, pieces[:, 0] = kernel.gather(np.frombuffer(encoded, np.uint8), slices)
            written.encoded = encoded = bytes(kept)
        column("family")[slots] = family[rows]
        column("start")[slots] = len(self.arena) + pieces[:, 0]
        for i, name in enumerate(("a", "b", "c"), 1):
            column(name)[slots] = pieces[:, i]
        self.arena += encoded
        series, is_new = self.series.insert(written.identities)
        column("series")[slots] = series
        self._find_conflicts(slots, family[rows], written)
        return self._merger.note_sources(slots, series, is_new, self.families.kinds()[family[rows]], self._batch_number)

    def _find_conflicts(self, slots: I32, family: I32, written: WrittenLabels) -> None:
        """Mark sources that have the name and the labels of a sample of a histogram or summary, such as ``x_count``."""
        families, unusable = self.families, self.sources.column("unusable")
        if not families.has_conflicts:
            return
        for number in np.unique(family).tolist():
            name = families[number].name
            owner = families.owner_of(name)
            samples = [
                name + variant
                for variant in VARIANTS[1:]
                if families.owner_of(name + variant) == name and families.has(name + variant)
            ]
            if not owner and not samples:
                continue
            for row in np.flatnonzero(family == number).tolist():
                labels = written.labels(row)
                if owner and self._find_series(labels, owner) >= 0:
                    unusable[slots[row]] = _NAME_CONFLICT
                for sample in samples:
                    found = self._find_series(labels, sample)
                    if found >= 0:
                        sources = self.sources.live()
                        unusable[sources[self.sources.column("series")[sources] == found]] = _NAME_CONFLICT

    def _find_series(self, labels: U8, name: str) -> int:
        """The slot of the series with these labels and this name; -1 if there is none."""
        key = kernel.identity(labels, self._format.encode_label("__name__", name))
        return int(self.series.find(key[None, :])[0])

    @staticmethod
    def _order(points: Records, sendable: Mask, series: I32) -> tuple[I32, Indices]:
        """The rows to send, by series and time, and those that a later one of their series and millisecond replaces."""
        rows = np.flatnonzero(sendable)
        if len(rows) == 0 or groups(series[rows]).count == len(rows):
            return rows.astype(np.int32), rows[:0]
        times = points["time"][rows] // np.uint64(1_000_000)
        rows = rows[np.lexsort((np.arange(len(rows)), times, series[rows]))]
        times = points["time"][rows] // np.uint64(1_000_000)
        last = np.ones(len(rows), bool)
        last[:-1] = (series[rows][1:] != series[rows][:-1]) | (times[1:] != times[:-1])
        return rows[last].astype(np.int32), rows[~last]

    @staticmethod
    def _children(batch: Metrics, table: str, dtype: np.dtype[np.void], wanted: Mask) -> tuple[Records, I32]:
        """The rows of a child table, and the first child of each point."""
        if not wanted.any():
            return np.empty(0, dtype), np.zeros(len(wanted) + 1, np.int32)
        rows = batch.table(table).rows
        return rows, np.searchsorted(rows["parent"], np.arange(len(wanted) + 1)).astype(np.int32)

    def _extra_set_of(
        self,
        wire: bytes,
        points: Records,
        types: I32,
        quantiles: Records,
        quantile_first: I32,
    ) -> I32:
        """(points,) number of the point's set of bounds or quantiles, -1 for types that have none.

        It is ``_TOO_MANY`` instead for a set that is too large.
        """
        sets = np.full(len(points), -1, np.int32)
        for kind, label in ((METRIC_HISTOGRAM, "le"), (METRIC_SUMMARY, "quantile")):
            rows = np.flatnonzero(types == kind)
            if not len(rows):
                continue
            if label == "le":
                source, starts = wire, points["bounds"][rows]
                # There is one more bucket than bounds. Bounds beyond a shorter list of counts are ignored.
                lengths = (
                    np.minimum(points["bounds_len"][rows], np.maximum(points["buckets_len"][rows] - 8, 0)) // 8 * 8
                )
            else:
                source = quantiles["quantile"].astype("<f8").tobytes()
                starts = quantile_first[rows] * 8
                lengths = (quantile_first[rows + 1] - quantile_first[rows]) * 8
            is_too_large = lengths > 8 * _LABEL_COUNT_MAX
            starts = np.where((lengths > 0) & ~is_too_large, starts, -1).astype(np.int32)
            codes, first = dictionary(source, starts, lengths.astype(np.int32))
            numbers = [
                self.label_sets.number(label, source[starts[f] : starts[f] + lengths[f]]) for f in first.tolist()
            ]
            sets[rows] = np.array([*numbers, self.label_sets.number(label, b"")], np.int32)[codes]
            sets[rows[is_too_large]] = _TOO_MANY
        return sets
