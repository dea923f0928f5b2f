"""The series of the graph: cumulative counts and latencies of each edge, and the metrics that are written of them.

Counts are sums of adjusted counts and are rounded when they are written. So they are exact over any number of sampled
spans, and they never fall.
"""

from typing import Any, Final

import numpy as np

from collector.model import TEMPORALITY_CUMULATIVE, Attributes, KeyTable, MetricsBuilder, combine_keys
from collector.model.arrays import F64, I32, I64, U64
from collector.otlp.exponential_histogram import ExponentialHistogramColumns
from connectors.service_graph.config import ServiceGraphConfig
from connectors.service_graph.pairing import VIRTUAL_NODES, Edges
from connectors.service_graph.spans import CONNECTION_TYPES
from connectors.service_graph.text_codes import TextCodes

__all__ = ["STALE_S", "Series", "shift_times"]


_DEFAULT_BOUNDS_S: Final = (0.002, 0.004, 0.006, 0.008, 0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.4, 2.0, 5.0, 10.0, 15.0)
STALE_S: Final = 15 * 60.0  # as in the Collector: series without an edge for so long are removed
_SIDES: Final = ("server", "client")
_COUNT_MAX: Final = float(2**62)
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

    def __len__(self) -> int:
        return len(self._table)

    def add(self, edges: Edges, texts: TextCodes, *, now_s: float, start_unix_nano: int, limit: int) -> int:
        """Count edges; returns how many of them went into the overflow series.

        Args:
            edges: The edges.
            texts: Their texts.
            now_s: Monotonic clock.
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
        self._table.column("start")[slots[is_new]] = start_unix_nano
        is_over = slots < 0
        overflow_count = int(np.count_nonzero(is_over))
        if overflow_count:
            slots = np.where(is_over, self._overflow(start_unix_nano), slots)
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

    def write(self, builder: MetricsBuilder, scope: int, *, time_unix_nano: int, offset_nano: int) -> None:
        """Add every metric with a point for each series."""
        slots = self._table.live()
        if not len(slots):
            return
        column = self._table.column
        failing = slots[column("failures")[slots] > 0]
        for name, written, values in (
            ("traces_service_graph_request_total", slots, "requests"),
            ("traces_service_graph_request_failed_total", failing, "failures"),
        ):
            if len(written):
                builder.sum(
                    scope,
                    name,
                    temporality=TEMPORALITY_CUMULATIVE,
                    monotonic=True,
                    times=np.full(len(written), time_unix_nano, np.uint64),
                    start_times=shift_times(column("start")[written], offset_nano),
                    values=_rounded(column(values)[written]),
                    attributes=self._attributes_of(written),
                )
        for side in _SIDES:
            self._write_latency(builder, scope, side, slots, time_unix_nano, offset_nano)

    def _write_latency(
        self, builder: MetricsBuilder, scope: int, side: str, slots: I32, time_unix_nano: int, offset_nano: int
    ) -> None:
        common: dict[str, Any] = {
            "temporality": TEMPORALITY_CUMULATIVE,
            "unit": "s",
            "times": np.full(len(slots), time_unix_nano, np.uint64),
            "start_times": shift_times(self._table.column("start")[slots], offset_nano),
            "sums": self._table.column(f"{side}_sum")[slots],
            "attributes": self._attributes_of(slots),
        }
        name = f"traces_service_graph_request_{side}"
        if self._exponential:
            points = self._exponential[side].points(slots)
            has_buckets = points.counts > points.zero_counts
            builder.exponential_histogram(
                scope,
                name,
                counts=points.counts,
                scales=np.where(has_buckets, points.scales, 0),  # as in the Collector
                zero_counts=points.zero_counts,
                positive=(points.offsets, (points.bucket_counts, points.splits)),
                **common,
            )
            return
        buckets = _rounded(self._table.column(f"{side}_buckets")[slots])
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

    def _overflow(self, start_unix_nano: int) -> int:
        """The slot of the series in which edges beyond the limit are counted."""
        slots, is_new = self._table.insert(_OVERFLOW_KEY)
        slot = int(slots[0])
        if is_new[0]:
            self._has_overflow = True
            self._table.column("start")[slot] = start_unix_nano
            self._attributes[slot] = Attributes({"otel.metric.overflow": True} | self._labels)
        return slot


def _rounded(counts: F64) -> I64:
    """Whole requests. Rounding keeps the order, so a sum that never falls still never falls."""
    return np.rint(np.minimum(counts, _COUNT_MAX)).astype(np.int64)


def shift_times(times: U64, offset_nano: int) -> U64:
    """Times minus the offset, which may be negative; never before 1970."""
    return np.maximum(times.astype(np.int64) - offset_nano, 0).astype(np.uint64)
