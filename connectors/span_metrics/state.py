"""Everything that ``span_metrics`` has counted: what a reload hands over and a storage keeps."""

import secrets
from typing import Final

import numpy as np

from collector.model import KeyTable
from connectors.span_metrics.config import SpanMetricsConfig
from connectors.span_metrics.report import Report
from connectors.span_metrics.series import Budget, MetricFamily, Resources

__all__ = ["State"]

_MILLISECOND: Final = 1_000_000


class State:
    """What has been counted."""

    def __init__(self, config: SpanMetricsConfig, now: int, instance_id: str) -> None:
        self.instance_id = instance_id
        """The value of the dimension collector.instance.id, which stays the same over a restart with a storage."""
        self.resources = Resources()
        self.families: dict[str, MetricFamily] = {}
        bounds, exponential_size = None, 0
        if not config.histogram.disable:
            if config.histogram.exponential is not None:
                exponential_size = config.histogram.exponential.size
            else:
                bounds = np.array(config.histogram.bounds, np.float64)
        if config.calls_dimensions or config.histogram.dimensions:
            self.families["calls"] = MetricFamily("calls")
            if not config.histogram.disable:
                self.families["duration"] = MetricFamily("duration", bounds, exponential_size)
        else:
            self.families["red"] = MetricFamily("red", bounds, exponential_size)
        if config.events.enabled:
            self.families["events"] = MetricFamily("events")
        if config.is_delta:
            for family in self.families.values():
                family.flush_times = KeyTable({"time": np.uint64, "seen": np.float64}, capacity=64)
        self.budget = Budget(config.aggregation_cardinality_limit, config.max_series)
        self.report = Report(self.families, config.histogram.nanoseconds / _MILLISECOND, now)
        self.last_flush = now
        self.random = np.random.default_rng(secrets.randbits(128))
