"""Prepares the points of a batch for an encoder of Prometheus series: cached label bytes, order and runs.

The label bytes are what the exporter's ``encode_label`` makes of a name and a value: protobuf for remote-write, text
for exposition.

A *source* is an OTLP series (``Metrics.series_key``). A *series* is what Prometheus sees: sources with equal final
labels (int 1 and "1", ``a.b`` and ``a_b``) are one series, so the final label bytes determine order, shard and
duplicates. Everything in the caches can be rebuilt; they are cleared when they exceed their limit.
"""

import hashlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from collector.model import METRIC_HISTOGRAM, METRIC_SUM, METRIC_SUMMARY, KeyTable, Metrics, groups
from collector.model.arrays import I32, U64, Indices, Mask, Records
from collector.prometheus.attributes import LabelEncoder, ParentAttributes, exemplar_labels
from collector.prometheus.encodable import Encodable, Family
from collector.prometheus.labels import LABELS_MAX_BYTES, SeriesLabels
from collector.prometheus.merge import SERIES_COLUMNS, SOURCE_COLUMNS, StreamMerger, additive_kind
from collector.prometheus.naming import UP_DOWN_COUNTER, TranslationStrategy, metric_name, prometheus_type
from collector.wire.hash import dictionary
from collector.wire.layout import EXEMPLAR, QUANTILE

__all__ = ["FUTURE_MAX_NS", "SeriesCache", "format_bound"]

_CACHES_MAX_BYTES = 512 * 1024 * 1024
_ENTRY_BYTES = 400  # estimate for a name or a set of bounds in the dictionaries and lists
_NO_TYPE, _NO_NAME, _LONG_NAME = -1, -2, -3
_FAMILY_REASONS = {_NO_TYPE: "temporality", _NO_NAME: "metric_name", _LONG_NAME: "label_size"}
_NAME_CONFLICT, _LARGE_LABELS = 1, 2
_SOURCE_REASONS = {_NAME_CONFLICT: "name_conflict", _LARGE_LABELS: "label_size"}
_VARIANTS = ("", "_bucket", "_sum", "_count")
_NAMED_MAX = 3
_NAMED_MAX_CHARS = 200

# Senders choose names, labels and buckets. What exceeds these limits is dropped and not cached.
_NAME_MAX_CHARS = 4096  # of the name and the unit of a metric
_LABEL_COUNT_MAX = 10_000  # of ``le`` or ``quantile`` of one series
_TOO_MANY = -2  # in place of the number of a set
_DESCRIPTION_MAX_CHARS = 1024  # longer ones are cut; Mimir's limit

FUTURE_MAX_NS = 600_000_000_000
"""How far ahead of our clock the time of a point is believed, in nanoseconds; Prometheus' own limit."""


def format_bound(value: float) -> str:
    """A bound as Go formats it: the shortest decimal without an exponent."""
    if np.isposinf(value):
        return "+Inf"
    if np.isneginf(value):
        return "-Inf"
    return "NaN" if np.isnan(value) else np.format_float_positional(value, trim="-")


class SeriesCache:
    """Caches the label bytes of every source, in tables that the encoder reads."""

    def __init__(
        self,
        labels: SeriesLabels,
        encode_label: LabelEncoder,
        strategy: TranslationStrategy,
        namespace: str,
        series_columns: Mapping[str, Any] | None = None,
        held_bytes: Callable[[], int] = lambda: 0,
        bucket_types: tuple[int, ...] = (METRIC_HISTOGRAM,),
    ) -> None:
        """``series_columns`` add columns to the table ``series`` for state of the exporter, cleared with the caches.

        ``held_bytes`` returns the size of what the exporter keeps besides, until the ``generation`` changes.
        ``bucket_types`` are the types whose series have ``le`` labels.
        """
        self._sampled_types = (*bucket_types, METRIC_SUMMARY)
        self._held_bytes = held_bytes
        self._labels = labels
        self._series_columns = dict(series_columns or {})
        self._encode_label = encode_label
        self._strategy = strategy
        self._namespace = namespace
        self._clear()

    def _clear(self) -> None:
        self.generation = getattr(self, "generation", 0) + 1
        self.sources = KeyTable(
            {
                "start": np.int64, "a": np.int32, "b": np.int32, "c": np.int32, "family": np.int32, "series": np.int32,
                "unusable": np.uint8, **SOURCE_COLUMNS,
            }
        )  # fmt: skip
        self.series = KeyTable({**self._series_columns, **SERIES_COLUMNS})
        self._merger = StreamMerger(self.sources, self.series)
        self._batch_number = 0
        self.arena = bytearray()
        self.names = bytearray(b"\0")
        self._families: dict[tuple[str, str, int, int, int], int] = {}
        self.families: list[Family] = []
        self._name_slices: list[list[tuple[int, int]]] = []
        self.extras = bytearray(b"\0")
        self._extra_sets: dict[tuple[str, bytes], int] = {}
        self._extra_slices: list[tuple[int, int]] = []
        self._extra_first: list[int] = [0]
        self._frozen: dict[str, I32] = {}
        self._family_names: set[str] = set()
        self._sample_names: dict[str, str] = {}
        """Names of the samples of histograms and summaries, with that of their family."""
        self._key_bytes = 0
        """Of the texts in the dictionaries and in ``families``."""

    @property
    def memory_bytes(self) -> int:
        """The size of the caches in bytes."""
        texts = len(self.arena) + len(self.names) + len(self.extras) + self._key_bytes
        entries = len(self._families) + len(self._extra_sets) + len(self._extra_slices)
        tables = self.sources.memory_bytes + self.series.memory_bytes + self._merger.memory_bytes + self._held_bytes()
        return texts + entries * _ENTRY_BYTES + tables

    def name_slices(self) -> I32:
        """(families, 4, 2): start and size of each family's name labels in ``names``."""
        return self._array("name_slices", lambda: np.array(self._name_slices, np.int32).reshape(-1, 4, 2))

    def no_bounds(self) -> int:
        """The number of the set of bounds of a histogram without any, whose only bucket is ``+Inf``."""
        return self._extra_set("le", b"")

    def extra_slices(self) -> I32:
        """(labels, 2): start and size in ``extras``."""
        return self._array("extra_slices", lambda: np.array(self._extra_slices, np.int32).reshape(-1, 2))

    def extra_first(self) -> I32:
        """(sets + 1,): first row of ``extra_slices`` of each set."""
        return self._array("extra_first", lambda: np.array(self._extra_first, np.int32))

    def _array(self, name: str, make: Callable[[], I32]) -> I32:
        """The list as an array, which is rebuilt after the list has grown."""
        if name not in self._frozen:
            self._frozen[name] = make()
        return self._frozen[name]

    def _family(self, name: str, unit: str, metric_type: int, temporality: int, monotonic: int) -> int:
        """The number of the family; negative if the metric cannot be sent."""
        key = (name, unit, metric_type, temporality, monotonic)
        known = self._families.get(key)
        if known is not None:
            return known
        if len(name) + len(unit) > _NAME_MAX_CHARS:
            return _LONG_NAME
        kind = prometheus_type(metric_type, temporality, monotonic)
        suffixes = UP_DOWN_COUNTER if metric_type == METRIC_SUM and kind == "gauge" else kind
        text = metric_name(name, unit, suffixes, self._strategy, self._namespace) if kind else ""
        if not kind or not text:
            number = _NO_TYPE if not kind else _NO_NAME
        else:
            number = len(self._name_slices)
            slices: list[tuple[int, int]] = []
            for variant in _VARIANTS:
                encoded = self._encode_label("__name__", text + variant)
                slices.append((len(self.names), len(encoded)))
                self.names += encoded
            self._name_slices.append(slices)
            self.families.append(Family(text, kind))
            self._family_names.add(text)
            if metric_type in self._sampled_types:
                self._sample_names.update({text + variant: text for variant in _VARIANTS if variant})
            self._frozen.pop("name_slices", None)
        self._families[key] = number
        self._key_bytes += sum(map(sys.getsizeof, (name, unit, *(text + variant for variant in _VARIANTS))))
        return number

    def _extra_set(self, label: str, values: bytes) -> int:
        """The number of a set of ``le`` or ``quantile`` labels; ``values`` are little-endian doubles."""
        number = self._extra_sets.get((label, values))
        if number is not None:
            return number
        number = self._extra_sets[label, values] = len(self._extra_first) - 1
        self._key_bytes += len(values)
        numbers = np.frombuffer(values, "<f8")
        texts = [format_bound(value) for value in numbers]
        if label == "le":
            # The count is the last bucket; an explicit bound must not repeat it.
            texts = [*(text for text in texts if text != "+Inf"), "+Inf"]
        for text in texts:
            encoded = self._encode_label(label, text)
            self._extra_slices.append((len(self.extras), len(encoded)))
            self.extras += encoded
        self._extra_first.append(len(self._extra_slices))
        for name in ("extra_slices", "extra_first"):
            self._frozen.pop(name, None)
        return number

    def prepare(self, batch: Metrics, now_unix_nano: int, unusable: Mapping[str, Mask] | None = None) -> Encodable:
        """Everything the encoder needs for this batch. The labels of new sources are built and cached.

        ``unusable`` are points that are not sent, by reason; the first reason of a point counts.
        """
        if self.memory_bytes > _CACHES_MAX_BYTES:
            self._clear()
        self._batch_number += 1
        points, wire = batch.table("points").rows, batch.wire
        point_count = len(points)
        metrics = batch.table("metrics").rows
        types = metrics["type"][points["parent"]]
        family = self._families_of(batch)[points["parent"]]
        sendable = family >= 0
        dropped: dict[str, Indices] = {}

        def drop(reason: str, mask: Mask) -> None:
            """Do not send these points, unless another reason has excluded them already."""
            nonlocal sendable
            if mask.any():
                rows = np.flatnonzero(mask)
                dropped[reason] = np.concatenate((dropped[reason], rows)) if reason in dropped else rows
                sendable = sendable & ~mask

        for code, reason in _FAMILY_REASONS.items():
            drop(reason, family == code)
        for reason, mask in (unusable or {}).items():
            drop(reason, sendable & mask)
        quantiles, quantile_first = self._children(batch, "quantiles", QUANTILE, types == METRIC_SUMMARY)
        extra_set = self._extra_set_of(wire, points, types, quantiles, quantile_first)
        drop("bucket_count", sendable & (extra_set == _TOO_MANY))
        slot, sharing = self._slots(batch, sendable, family, types)
        source_state = np.where(sendable, self.sources.column("unusable")[slot], 0)
        for code, reason in _SOURCE_REASONS.items():
            drop(reason, source_state == code)
        series = self.sources.column("series")[slot]
        folded_count = 0
        rows = np.flatnonzero(sendable)
        if len(shared := self._merger.shared(rows, series[rows])):
            first = self.extra_first()
            merged = self._merger.merge(
                shared, points, wire, slot, series, extra_set, now_unix_nano, self._batch_number, FUTURE_MAX_NS,
                lambda number: int(first[number + 1] - first[number]),
            )  # fmt: skip
            points, wire = merged.points, merged.wire
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
        exemplar_arena, exemplar_slices = exemplar_labels(batch, exemplars, self._labels, self._encode_label)
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

    def _families_of(self, batch: Metrics) -> I32:
        """(metrics,) number of the family of each metric."""
        names, units = batch.field("name", "metrics"), batch.field("unit", "metrics")
        rows = batch.table("metrics").rows
        found = groups(names.codes, units.codes, rows["type"], rows["temporality"], rows["monotonic"])
        numbers = np.empty(found.count, np.int32)
        descriptions = batch.field("description", "metrics")
        for group, row in enumerate(found.first.tolist()):
            unit = units.distinct[units.codes[row]] if units.codes[row] >= 0 else ""
            number = numbers[group] = self._family(
                names.distinct[names.codes[row]] if names.codes[row] >= 0 else "",
                unit, int(rows["type"][row]), int(rows["temporality"][row]), int(rows["monotonic"][row]),
            )  # fmt: skip
            if number >= 0 and not self.families[number].description and descriptions.codes[row] >= 0:
                description = descriptions.distinct[descriptions.codes[row]][:_DESCRIPTION_MAX_CHARS]
                self.families[number].description = description
                self.families[number].unit = unit
                self._key_bytes += sys.getsizeof(description)
        return numbers[found.codes]

    def _slots(self, batch: Metrics, sendable: Mask, family: I32, types: I32) -> tuple[I32, Indices]:
        """(points,) slot of each source, and the rows of new sources of series that have another one.

        The labels of new sources are built.
        """
        keys = batch.series_key()
        slot = np.where(sendable, self.sources.find(keys), np.int32(-1))
        missing = np.flatnonzero(sendable & (slot < 0))
        if not len(missing):
            return slot, missing
        new_slots, is_new = self.sources.insert(keys[missing])
        slot[missing] = new_slots
        rows = missing[is_new]
        return slot, rows[self._build(batch, rows, new_slots[is_new], family, types)]

    def _build(self, batch: Metrics, rows: Indices, slots: I32, family: I32, types: I32) -> Indices:
        """Build the label bytes of new sources, once per source and not per point.

        Returns the positions of those whose series has another source.
        """
        attributes = batch.attributes("points")
        keys, texts = attributes.key, attributes.as_text()
        # Python lists: reading an array element by element costs several times as much.
        firsts = np.searchsorted(attributes.owner, rows).tolist()
        lasts = np.searchsorted(attributes.owner, rows, side="right").tolist()
        scope_rows = batch.ancestor("scopes", "points")[rows].tolist()
        resource_rows = batch.ancestor("resources", "points")[rows].tolist()
        row_families, row_types = family[rows].tolist(), types[rows].tolist()
        scopes, resources = ParentAttributes(batch, "scopes"), ParentAttributes(batch, "resources")
        column = self.sources.column
        layout = np.empty((len(rows), 4), np.int64)
        identities = np.empty((len(rows), 2), np.uint64)
        labels_of: list[bytes] = []
        for i, (first, last, number, metric_type) in enumerate(
            zip(firsts, lasts, row_families, row_types, strict=True)
        ):
            point_attributes = [
                (keys.distinct[keys.codes[j]], texts.distinct[texts.codes[j]] if texts.codes[j] >= 0 else "")
                for j in range(first, last)
            ]
            labels = self._labels.series(
                point_attributes, resources.attributes(resource_rows[i]), scopes.scope(scope_rows[i])
            )
            split = "quantile" if metric_type == METRIC_SUMMARY else "le"
            if metric_type in self._sampled_types:
                labels = [(name, value) for name, value in labels if name != split]
            pieces = [b"", b"", b""]
            for name, value in labels:
                pieces[0 if name < "__name__" else 1 if name < split else 2] += self._encode_label(name, value)
            labels_of.append(b"".join(pieces))
            if len(labels_of[-1]) > LABELS_MAX_BYTES:
                column("unusable")[slots[i]] = _LARGE_LABELS
                pieces = [b"", b"", b""]
            layout[i] = (len(self.arena), *map(len, pieces))
            self.arena += b"".join(pieces)
            identities[i] = _identity(labels_of[-1], self.families[number].name)
        column("family")[slots] = family[rows]
        for name, values in zip(("start", "a", "b", "c"), layout.T, strict=True):
            column(name)[slots] = values
        series, is_new = self.series.insert(identities)
        column("series")[slots] = series
        kinds = np.array(
            [
                additive_kind(metric_type, self.families[number].kind)
                for metric_type, number in zip(row_types, row_families, strict=True)
            ],
            np.uint8,
        )
        if not self._family_names.isdisjoint(self._sample_names):
            names = [self.families[number].name for number in row_families]
            self._find_conflicts(slots, names, labels_of)
        return self._merger.note_sources(slots, series, is_new, kinds, self._batch_number)

    def _find_conflicts(self, slots: I32, names: list[str], labels: list[bytes]) -> None:
        """Mark sources that have the name and the labels of a sample of a histogram or summary, such as ``x_count``."""
        unusable = self.sources.column("unusable")
        for slot, name, own in zip(slots.tolist(), names, labels, strict=True):
            if name in self._sample_names and self._has_series(own, self._sample_names[name]):
                unusable[slot] = _NAME_CONFLICT
            for variant in _VARIANTS[1:]:
                if self._sample_names.get(name + variant) == name and name + variant in self._family_names:
                    found = self.series.find(_identity(own, name + variant)[None, :])[0]
                    sources = self.sources.live()
                    if found >= 0:
                        unusable[sources[self.sources.column("series")[sources] == found]] = _NAME_CONFLICT

    def _has_series(self, labels: bytes, name: str) -> bool:
        return bool(self.series.find(_identity(labels, name)[None, :])[0] >= 0)

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
            numbers = [self._extra_set(label, source[starts[f] : starts[f] + lengths[f]]) for f in first.tolist()]
            sets[rows] = np.array([*numbers, self._extra_set(label, b"")], np.int32)[codes]
            sets[rows[is_too_large]] = _TOO_MANY
        return sets


def _identity(labels: bytes, name: str) -> U64:
    """The key of a series, U64[2]."""
    digest = hashlib.blake2b(labels, digest_size=16, salt=b"series")
    digest.update(name.encode())
    return np.frombuffer(digest.digest(), np.uint64)
