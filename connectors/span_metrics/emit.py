"""What has been counted, as a batch of metrics: a resource of its own for each resource of the spans, and in it the metrics.

Source: opentelemetry-collector-contrib connector/spanmetricsconnector, buildMetrics: names, scope and units.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from collector.model import Metrics, MetricsBuilder
from collector.model.arrays import Array
from collector.wire.layout import TEMPORALITY_CUMULATIVE, TEMPORALITY_DELTA
from connectors.span_metrics.config import SpanMetricsConfig
from connectors.span_metrics.exemplars import Chosen
from connectors.span_metrics.series import Family, Resources

__all__ = ["Emitter"]

_SCOPE: Final = "spanmetricsconnector"
_CALLS_FAMILIES: Final = ("red", "calls")


class Emitter:
    """Writes families as the configuration names them."""

    def __init__(self, config: SpanMetricsConfig, version: str) -> None:
        self._config, self._version = config, version
        http = config.names == "http"
        prefix = f"{config.namespace}." if config.namespace else ""
        self._calls = "http_requests_total" if http else f"{prefix}calls"
        self._duration = "http_request_duration_seconds" if http else f"{prefix}duration"
        self._events = "http_request_events_total" if http else f"{prefix}events"
        self._temporality = TEMPORALITY_DELTA if config.is_delta else TEMPORALITY_CUMULATIVE

    def build(
        self, families: Mapping[str, Family], resources: Resources, exemplars: Mapping[str, Chosen | None], now: int
    ) -> Metrics:
        """All series of the families, at the time ``now``."""
        builder = MetricsBuilder()
        parts: list[tuple[Family, Array, Array]] = []
        for family in families.values():
            live = family.table.live()
            owner = family.table.column("resource")[live]
            order = np.argsort(owner, kind="stable")
            parts.append((family, live[order], owner[order]))
        for resource in np.unique(np.concatenate([owners for _, _, owners in parts])).tolist():
            scope = builder.scope(builder.resource(resources.known[resource].attributes), _SCOPE, self._version)
            for family, slots, owners in parts:
                mine = slots[np.searchsorted(owners, resource, "left") : np.searchsorted(owners, resource, "right")]
                if len(mine):
                    self._family(builder, scope, family, mine, exemplars.get(family.name), now)
        for family, slots, _ in parts:
            family.table.column("is_fresh")[slots] = False
        return builder.build()

    def _family(
        self, builder: MetricsBuilder, scope: int, family: Family, slots: Array, chosen: Chosen | None, now: int
    ) -> None:
        table = family.table
        starts = np.minimum(table.column("start")[slots], np.uint64(now))
        zeros = np.zeros(0, np.intp)
        if self._config.initial_zero and not self._config.is_delta:
            # A point at the flush's own millisecond would be a second value for one time.
            zeros = np.flatnonzero(
                table.column("is_fresh")[slots] & (starts + np.uint64(_MILLISECOND) <= np.uint64(now))
            )
        rows = np.concatenate([zeros, np.arange(len(slots))])
        times = np.full(len(rows), now, np.uint64)
        times[: len(zeros)] = starts[zeros]
        is_value = np.arange(len(rows)) >= len(zeros)
        head: dict[str, Any] = {
            "temporality": self._temporality,
            "times": times,
            "start_times": starts[rows],
            "attributes": (rows.astype(np.int32), [family.attributes[slot] for slot in slots.tolist()]),
            "exemplars": chosen.of(slots, len(zeros)) if chosen is not None else None,
        }
        counts = table.column("count")[slots][rows] * is_value
        if family.name in _CALLS_FAMILIES:
            builder.sum(scope, self._calls, monotonic=True, values=counts, **head)
        elif family.name == "events":
            builder.sum(scope, self._events, monotonic=True, values=counts, **head)
        if family.has_histogram:
            self._histogram(builder, scope, family, slots[rows], is_value, head | {"counts": counts})

    def _histogram(
        self, builder: MetricsBuilder, scope: int, family: Family, slots: Array, is_value: Array, head: dict[str, Any]
    ) -> None:
        table, unit = family.table, self._config.histogram.unit
        sums = table.column("sum")[slots] * is_value
        if family.bounds is not None:
            buckets = table.column("buckets")[slots] * is_value[:, None]
            builder.histogram(
                scope, self._duration, unit=unit, bounds=family.bounds, bucket_counts=buckets, sums=sums, **head
            )
            return
        assert family.exponential is not None
        points = family.exponential.points(table, slots)
        counts = points.counts * np.repeat(is_value, np.diff(points.splits))
        builder.exponential_histogram(
            scope, self._duration, unit=unit, scales=points.scales, positive=(points.offsets, (counts, points.splits)), sums=sums,
            zero_counts=table.column("zero")[slots] * is_value, **head,
            mins=np.ma.masked_array(table.column("min")[slots], ~is_value), maxs=np.ma.masked_array(table.column("max")[slots], ~is_value),
        )  # fmt: skip


_MILLISECOND: Final = 1_000_000
