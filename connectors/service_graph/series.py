"""The series of the graph: cumulative counts and latencies of each edge, and the metrics that are written of them.

Counts are sums of adjusted counts and are rounded when they are written. So they are exact over any number of sampled
spans, and they never fall.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from collector.model import TEMPORALITY_CUMULATIVE, Attributes, KeyTable, MetricsBuilder, combine_keys
from collector.model.arrays import F64, I32, I64, U64, Mask
from collector.model.checkpoint import Part, Parts, nested, within
from collector.otlp.exponential_histogram import ExponentialHistogramColumns
from connectors.service_graph.config import ServiceGraphConfig
from connectors.service_graph.pairing import VIRTUAL_NODES, Edges
from connectors.service_graph.spans import CONNECTION_TYPES
from connectors.service_graph.text_codes import TextCodes

__all__ = ["STALE_S", "Series", "shift_times", "zero_times"]


_DEFAULT_BOUNDS_S: Final = (0.002, 0.004, 0.006, 0.008, 0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.4, 2.0, 5.0, 10.0, 15.0)
STALE_S: Final = 15 * 60.0  # as in the Collector: series without an edge for so long are removed
_SIDES: Final = ("server", "client")
_COUNT_MAX: Final = float(2**62)
_MS: Final = np.uint64(1_000_000)
_OVERFLOW_KEY: Final = np.zeros((1, 2), np.uint64)


class Series:
    """A table of series; each is an edge with its labels."""

    def __init__(self, config: ServiceGraphConfig, labels: dict[str, str]) -> None:
        """``labels`` are on every point."""
        self._config = config
        self._labels = labels
        size = config.exponential_histogram_max_size
        bounds = config.latency_histogram_buckets
        self._bounds = np.array(_DEFAULT_BOUNDS_S if bounds is None else bounds, np.float64)
        columns: dict[str, Any] = {
            "requests": np.float64,
            "failures": np.float64,
            "updated": np.float64,
            "start": np.uint64,
            "began": np.uint64,
            "is_new": np.bool_,
            "is_failing": np.bool_,
        }
        for side in _SIDES:
            columns[f"{side}_sum"] = np.float64
            if size:
                columns |= ExponentialHistogramColumns.columns(f"{side}_", size, np.float64)
            else:
                columns[f"{side}_buckets"] = (np.float64, (len(self._bounds) + 1,))
        self._table = KeyTable(columns, capacity=64)
        self._exponential = (
            {side: ExponentialHistogramColumns(self._table, f"{side}_", size) for side in _SIDES} if size else {}
        )
        self._attributes: dict[int, Attributes] = {}
        self._has_overflow = False
        self._last_write = 0

    def __len__(self) -> int:
        return len(self._table)

    def add(
        self, edges: Edges, texts: TextCodes, *, now_s: float, now_unix_nano: int, start_unix_nano: int, limit: int
    ) -> int:
        """Count edges; returns how many of them went into the overflow series.

        Args:
            edges: The edges.
            texts: Their texts.
            now_s: Monotonic clock.
            now_unix_nano: Wall clock.
            start_unix_nano: The start time of new series.
            limit: How many series there may be; 0: any number.
        """
        if not len(edges):
            return 0
        flags = (
            (edges.connection.astype(np.uint64) << np.uint64(8))
            | (edges.virtual.astype(np.uint64) << np.uint64(1))
            | edges.failed
        )
        labels = [texts.hashes(codes) for codes in (edges.client, edges.server, *edges.dimensions.T)]
        room = limit + self._has_overflow if limit else 0
        slots, is_new = self._table.insert(combine_keys(*labels, flags), room)
        for row in np.flatnonzero(is_new).tolist():
            self._attributes[int(slots[row])] = self._labels_of(edges, row, texts)
        self._begin(slots[is_new], now_unix_nano, start_unix_nano)
        is_over = slots < 0
        overflow_count = int(np.count_nonzero(is_over))
        if overflow_count:
            slots = np.where(is_over, self._overflow(now_unix_nano, start_unix_nano), slots)
        self._table.column("updated")[slots] = now_s
        np.add.at(self._table.column("requests"), slots, edges.weight)
        np.add.at(self._table.column("failures"), slots, np.where(edges.failed, edges.weight, 0.0))
        for side, seconds in (("server", edges.server_seconds), ("client", edges.client_seconds)):
            np.add.at(self._table.column(f"{side}_sum"), slots, edges.weight * seconds)
            if self._exponential:
                self._exponential[side].add(slots, seconds, edges.weight)
            else:
                # A bound is part of the bucket below it: "le".
                np.add.at(
                    self._table.column(f"{side}_buckets"),
                    (slots, np.searchsorted(self._bounds, seconds, "left")),
                    edges.weight,
                )
        return overflow_count

    def expire(self, now_s: float) -> int:
        """Remove the series that had no edge for 15 minutes; returns how many."""
        live = self._table.live()
        stale = live[self._table.column("updated")[live] < now_s - STALE_S]
        for slot in stale.tolist():
            del self._attributes[slot]
        if self._has_overflow and len(stale):
            self._has_overflow = int(self._table.find(_OVERFLOW_KEY)[0]) not in stale.tolist()
        self._table.remove(stale)
        return len(stale)

    def parts(self) -> dict[str, Part]:
        """The series, for a checkpoint."""
        slots = self._table.live().tolist()
        return {
            "last_write": self._last_write,
            "attributes": [self._attributes[slot].encoded for slot in slots],
            **nested("table", self._table.snapshot()),
        }

    def restore(self, parts: Parts, elapsed_s: float) -> None:
        """Continue from ``parts``; ``elapsed_s`` is added to monotonic times.

        Raises:
            CheckpointError, KeyError, TypeError, ValueError: They are not those of such an object.
        """
        self._last_write = int(parts["last_write"])
        self._table.restore(within("table", parts))
        slots = self._table.live()
        self._attributes = {
            slot: Attributes.from_encoded(encoded)
            for slot, encoded in zip(slots.tolist(), parts["attributes"], strict=True)
        }
        self._has_overflow = bool(self._table.find(_OVERFLOW_KEY)[0] >= 0)
        self._table.column("updated")[slots] += elapsed_s

    def write(self, builder: MetricsBuilder, scope: int, *, now_unix_nano: int, offset_nano: int) -> None:
        """Add every metric with a point for each series, and before it a zero for each new one."""
        slots = self._table.live()
        if not len(slots):
            return
        column = self._table.column
        failing = slots[column("failures")[slots] > 0]
        is_new = column("is_new")[slots]
        # The overflow series may be older than its first failure: until the flush before, it had none.
        began_failing = np.where(column("is_new")[failing], column("began")[failing], np.uint64(self._last_write))
        all_points = self._points(slots, is_new, column("began")[slots], now_unix_nano)
        failing_points = self._points(failing, ~column("is_failing")[failing], began_failing, now_unix_nano)
        for name, points, values in (
            ("traces_service_graph_request_total", all_points, "requests"),
            ("traces_service_graph_request_failed_total", failing_points, "failures"),
        ):
            if len(points.slots):
                builder.sum(
                    scope,
                    name,
                    monotonic=True,
                    values=_rounded(column(values)[points.slots]) * points.is_value,
                    **self._common(points, offset_nano),
                )
        for side in _SIDES:
            self._write_latency(builder, scope, side, all_points, offset_nano)
        column("is_new")[slots], column("is_failing")[failing] = False, True
        self._last_write = now_unix_nano

    def _points(self, slots: I32, needs_zero: Mask, began: U64, now_unix_nano: int) -> "_Points":
        """First a zero for each series that needs one, then the values of all."""
        times, fits = zero_times(began, self._table.column("start")[slots], now_unix_nano)
        zeros = np.flatnonzero(needs_zero & fits)
        return _Points(
            slots=np.concatenate((slots[zeros], slots)),
            times=np.concatenate((times[zeros], np.full(len(slots), now_unix_nano, np.uint64))),
            is_value=np.arange(len(zeros) + len(slots)) >= len(zeros),
        )

    def _common(self, points: "_Points", offset_nano: int) -> dict[str, Any]:
        return {
            "temporality": TEMPORALITY_CUMULATIVE,
            "times": shift_times(points.times, offset_nano),
            "start_times": shift_times(self._table.column("start")[points.slots], offset_nano),
            "attributes": self._attributes_of(points.slots),
        }

    def _write_latency(
        self, builder: MetricsBuilder, scope: int, side: str, written: "_Points", offset_nano: int
    ) -> None:
        slots, is_value = written.slots, written.is_value
        common = self._common(written, offset_nano) | {
            "unit": "s",
            "sums": self._table.column(f"{side}_sum")[slots] * is_value,
        }
        name = f"traces_service_graph_request_{side}"
        if self._exponential:
            points = self._exponential[side].points(slots)
            has_buckets = points.counts > points.zero_counts
            bucket_counts = points.bucket_counts * np.repeat(is_value, np.diff(points.splits))
            builder.exponential_histogram(
                scope,
                name,
                counts=points.counts * is_value,
                scales=np.where(has_buckets, points.scales, 0),  # as in the Collector
                zero_counts=points.zero_counts * is_value,
                positive=(points.offsets, (bucket_counts, points.splits)),
                **common,
            )
            return
        buckets = _rounded(self._table.column(f"{side}_buckets")[slots]) * is_value[:, None]
        builder.histogram(scope, name, counts=buckets.sum(axis=1), bucket_counts=buckets, bounds=self._bounds, **common)

    def _attributes_of(self, slots: I32) -> tuple[I32, list[Attributes]]:
        return np.arange(len(slots), dtype=np.int32), [self._attributes[slot] for slot in slots.tolist()]

    def _labels_of(self, edges: Edges, row: int, texts: TextCodes) -> Attributes:
        """The labels of an edge as the Collector writes them; an absent dimension does not become a label."""
        labels: dict[str, Any] = {
            "client": texts[int(edges.client[row])] or "",
            "server": texts[int(edges.server[row])] or "",
            "connection_type": CONNECTION_TYPES[int(edges.connection[row])],
            "failed": bool(edges.failed[row]),
        }
        if self._config.virtual_node_extra_label:
            labels["virtual_node"] = VIRTUAL_NODES[int(edges.virtual[row])]
        names = [f"{side}_{name}" for side in ("client", "server") for name in self._config.dimensions]
        for name, code in zip(names, edges.dimensions[row].tolist(), strict=True):
            if (text := texts[code]) is not None:
                labels[name] = text
        return Attributes(labels | self._labels)

    def _begin(self, slots: I32, now_unix_nano: int, start_unix_nano: int) -> None:
        """Initialise new series."""
        column = self._table.column
        column("start")[slots], column("began")[slots], column("is_new")[slots] = start_unix_nano, now_unix_nano, True

    def _overflow(self, now_unix_nano: int, start_unix_nano: int) -> int:
        """The slot of the series in which edges beyond the limit are counted."""
        slots, is_new = self._table.insert(_OVERFLOW_KEY)
        slot = int(slots[0])
        if is_new[0]:
            self._has_overflow = True
            self._begin(slots, now_unix_nano, start_unix_nano)
            self._attributes[slot] = Attributes({"otel.metric.overflow": True} | self._labels)
        return slot


@dataclass(frozen=True, slots=True)
class _Points:
    """Points to be written, one per row."""

    slots: I32
    times: U64
    is_value: Mask
    """Not a zero."""


def zero_times(began: U64, starts: U64, now_unix_nano: int) -> tuple[U64, Mask]:
    """Times for the zeros with which series begin, and which of them are possible.

    A zero is when the first span was seen, and not before the start of the series. Within the same millisecond as the
    value it would be a second value for one time.
    """
    now = np.uint64(now_unix_nano)
    times = np.maximum(np.minimum(began, now - _MS), starts)
    return times, times + _MS <= now


def _rounded(counts: F64) -> I64:
    """Whole requests. Rounding keeps the order, so a sum that never falls still never falls."""
    return np.rint(np.minimum(counts, _COUNT_MAX)).astype(np.int64)


def shift_times(times: U64, offset_nano: int) -> U64:
    """Times minus the offset, which may be negative; never before 1970."""
    return np.maximum(times.astype(np.int64) - offset_nano, 0).astype(np.uint64)
