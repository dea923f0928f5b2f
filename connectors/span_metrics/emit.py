"""What has been counted, as a batch of metrics: a resource for each resource of the spans, and in it the metrics.

Source of names, scope and units: opentelemetry-collector-contrib connector/spanmetricsconnector, buildMetrics.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from collector.model import Metrics, MetricsBuilder
from collector.model.arrays import Array
from collector.wire.layout import TEMPORALITY_CUMULATIVE, TEMPORALITY_DELTA
from connectors.span_metrics.config import SpanMetricsConfig
from connectors.span_metrics.exemplars import FlushExemplars
from connectors.span_metrics.series import MetricFamily, Resources

__all__ = ["Emitter"]

_SCOPE: Final = "spanmetricsconnector"
_CALLS_FAMILIES: Final = ("red", "calls")
_MILLISECOND: Final = 1_000_000


class Emitter:
    """Writes families under the names of the configuration."""

    def __init__(self, config: SpanMetricsConfig, version: str) -> None:
        self._config, self._version = config, version
        is_http = config.names == "http"
        prefix = f"{config.namespace}." if config.namespace else ""
        self._calls = "http_requests_total" if is_http else f"{prefix}calls"
        self._duration = "http_request_duration_seconds" if is_http else f"{prefix}duration"
        self._events = "http_request_events_total" if is_http else f"{prefix}events"
        self._temporality = TEMPORALITY_DELTA if config.is_delta else TEMPORALITY_CUMULATIVE

    def build(
        self,
        families: Mapping[str, MetricFamily],
        resources: Resources,
        exemplars: Mapping[str, FlushExemplars | None],
        now: int,
    ) -> Metrics:
        """All series of the families at the time ``now``; from then on none of them is new."""
        builder = MetricsBuilder()
        parts: list[tuple[MetricFamily, Array, Array]] = []
        for family in families.values():
            live = family.table.live()
            owner = family.table.column("resource")[live]
            order = np.argsort(owner, kind="stable")
            parts.append((family, live[order], owner[order]))
        for resource in np.unique(np.concatenate([owners for _, _, owners in parts])).tolist():
            scope = builder.scope(builder.resource(resources.known[resource].attributes), _SCOPE, self._version)
            for family, slots, owners in parts:
                begin, end = np.searchsorted(owners, [resource, resource + 1]).tolist()
                if begin < end:
                    self._write(builder, scope, family, slots[begin:end], exemplars.get(family.name), now)
        for family, slots, _ in parts:
            family.table.column("is_new")[slots] = False
        return builder.build()

    def _write(
        self,
        builder: MetricsBuilder,
        scope: int,
        family: MetricFamily,
        slots: Array,
        exemplars: FlushExemplars | None,
        now: int,
    ) -> None:
        """The metrics of one family and resource: first a zero for each series that needs one, then all values."""
        table = family.table
        starts = np.minimum(table.column("start")[slots], np.uint64(now))
        zeros = np.zeros(0, np.intp)
        if self._config.initial_zero and not self._config.is_delta:
            # A zero in the same millisecond as the value would be a second value for one time.
            zeros = np.flatnonzero(table.column("is_new")[slots] & (starts + np.uint64(_MILLISECOND) <= np.uint64(now)))
        rows = np.concatenate([zeros, np.arange(len(slots))])
        times = np.full(len(rows), now, np.uint64)
        times[: len(zeros)] = starts[zeros]
        is_value = np.arange(len(rows)) >= len(zeros)
        common: dict[str, Any] = {
            "temporality": self._temporality,
            "times": times,
            "start_times": starts[rows],
            "attributes": (rows.astype(np.int32), [family.attributes[slot] for slot in slots.tolist()]),
            "exemplars": None if exemplars is None else exemplars.of_points(slots, len(zeros)),
        }
        counts = table.column("count")[slots][rows] * is_value
        if family.name in _CALLS_FAMILIES:
            builder.sum(scope, self._calls, monotonic=True, values=counts, **common)
        elif family.name == "events":
            builder.sum(scope, self._events, monotonic=True, values=counts, **common)
        if family.has_histogram:
            self._write_histogram(builder, scope, family, slots[rows], is_value, common | {"counts": counts})

    def _write_histogram(
        self,
        builder: MetricsBuilder,
        scope: int,
        family: MetricFamily,
        slots: Array,
        is_value: Array,
        common: dict[str, Any],
    ) -> None:
        table, unit = family.table, self._config.histogram.unit
        common["sums"] = table.column("sum")[slots] * is_value
        if family.bounds is not None:
            buckets = table.column("buckets")[slots] * is_value[:, None]
            builder.histogram(scope, self._duration, unit=unit, bounds=family.bounds, bucket_counts=buckets, **common)
            return
        assert family.exponential is not None
        points = family.exponential.points(slots)
        bucket_counts = points.bucket_counts * np.repeat(is_value, np.diff(points.splits))
        builder.exponential_histogram(
            scope,
            self._duration,
            unit=unit,
            scales=points.scales,
            zero_counts=points.zero_counts * is_value,
            positive=(points.offsets, (bucket_counts, points.splits)),
            mins=np.ma.masked_array(table.column("min")[slots], ~is_value),
            maxs=np.ma.masked_array(table.column("max")[slots], ~is_value),
            **common,
        )
