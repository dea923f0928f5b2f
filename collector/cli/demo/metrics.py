"""The metrics that the simulated platform keeps: cumulative, under the names that such services use in practice.

The API puts a ``user_id`` on its request counter: this is the label whose values explode.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE

from collector.cli.demo.names import API, EMBEDDING_SERVER, SERVICES, VECTOR_DB

__all__ = ["MODELS", "PlatformMetrics", "attributes_of"]

MODELS: Final = ("BAAI/bge-small-en-v1.5", "intfloat/e5-large-v2", "jinaai/jina-embeddings-v2-base-en")
_BOUNDS_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 2.5, 5.0, 10.0, 30.0)
_REQUEST_LABELS: Final = ("method", "endpoint", "status", "tenant_id", "user_id")

Series = Mapping[tuple[str, ...], int]


def attributes_of(values: Mapping[str, Any]) -> list[KeyValue]:
    """The values as OTLP attributes."""
    attributes = []
    for key, value in values.items():
        if isinstance(value, bool):
            wrapped = AnyValue(bool_value=value)
        elif isinstance(value, int):
            wrapped = AnyValue(int_value=value)
        elif isinstance(value, float):
            wrapped = AnyValue(double_value=value)
        else:
            wrapped = AnyValue(string_value=value)
        attributes.append(KeyValue(key=key, value=wrapped))
    return attributes


@dataclass
class _Histogram:
    buckets: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS_S) + 1))
    count: int = 0
    total: float = 0.0

    def add(self, value: float) -> None:
        self.buckets[sum(value > bound for bound in _BOUNDS_S)] += 1
        self.count += 1
        self.total += value


class PlatformMetrics:
    """Counters and histograms of the three services."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._start_time_unix_nano = time.time_ns()
        self._requests: Counter[tuple[str, ...]] = Counter()
        self._durations: dict[tuple[str, str], _Histogram] = {}
        self._embeddings: Counter[tuple[str, ...]] = Counter()
        self._operations: Counter[tuple[str, ...]] = Counter()

    @property
    def series_count(self) -> int:
        """Series in an export."""
        counters = len(self._requests) + len(self._embeddings) + len(self._operations)
        return counters + len(self._durations) + 1 + len(MODELS)

    @property
    def user_count(self) -> int:
        """Distinct values of ``user_id``."""
        return len({user for *_, user in self._requests if user})

    def count_request(self, method: str, endpoint: str, status: int, tenant: str, user: str, duration_s: float) -> None:
        """Count a request to the API. ``user`` is empty for health checks."""
        self._requests[method, endpoint, str(status), tenant, user] += 1
        is_known = endpoint.startswith("/v1/e") or endpoint == "/health"
        key = (method, endpoint if is_known else "/v1/search")
        self._durations.setdefault(key, _Histogram()).add(duration_s)

    def count_embedding(self, model: str, *, failed: bool) -> None:
        """Count a request to the embedding server."""
        self._embeddings[model, "error" if failed else "success"] += 1

    def count_search(self, collection: str) -> None:
        """Count an operation of the vector database."""
        self._operations["search", collection, "success"] += 1

    def export(self, resource_of: Callable[[str], list[KeyValue]]) -> ExportMetricsServiceRequest:
        """The current values of all metrics, as an SDK exports them; ``resource_of`` returns a service's resource."""
        request = ExportMetricsServiceRequest()
        now = time.time_ns()
        scopes = {}
        for service in SERVICES:
            resource = request.resource_metrics.add()
            resource.resource.attributes.extend(resource_of(service))
            scope = resource.scope_metrics.add()
            scope.scope.name = "prometheus_client"
            scopes[service] = scope.metrics
        self._add_sum(scopes[API], "http_requests_total", now, _REQUEST_LABELS, self._requests)
        self._add_sum(scopes[EMBEDDING_SERVER], "embedding_requests_total", now, ("model", "status"), self._embeddings)
        self._add_sum(
            scopes[VECTOR_DB], "qdrant_operations_total", now, ("operation", "collection", "status"), self._operations
        )
        metric = scopes[API].add(name="http_request_duration_seconds", unit="s")
        metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        for (method, endpoint), histogram in self._durations.items():
            point = metric.histogram.data_points.add(
                start_time_unix_nano=self._start_time_unix_nano,
                time_unix_nano=now,
                count=histogram.count,
                sum=histogram.total,
                bucket_counts=histogram.buckets,
                explicit_bounds=_BOUNDS_S,
            )
            point.attributes.extend(attributes_of({"method": method, "endpoint": endpoint}))
        gauge = scopes[API].add(name="http_requests_in_progress")
        gauge.gauge.data_points.add(time_unix_nano=now, as_int=self._chance.randrange(1, 20))
        gauge = scopes[EMBEDDING_SERVER].add(name="cache_hit_rate")
        for model in MODELS:
            rate = gauge.gauge.data_points.add(time_unix_nano=now, as_double=round(self._chance.uniform(0.6, 0.9), 3))
            rate.attributes.extend(attributes_of({"model": model}))
        return request

    def _add_sum(self, metrics: Any, name: str, now: int, labels: tuple[str, ...], series: Series) -> None:
        metric = metrics.add(name=name)
        metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        metric.sum.is_monotonic = True
        for values, count in series.items():
            point = metric.sum.data_points.add(
                start_time_unix_nano=self._start_time_unix_nano, time_unix_nano=now, as_int=count
            )
            point.attributes.extend(
                attributes_of({label: value for label, value in zip(labels, values, strict=True) if value})
            )
