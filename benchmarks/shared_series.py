"""How long exponential histograms take that share series, next to as many that do not, and to the same in Python.

Run: ``PYTHONPATH=.:tests/support python benchmarks/shared_series.py``. The reference is the slow one of the tests.
"""

import time
from collections.abc import Callable
from typing import Any

from exponential_reference import Merger
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics, Signal
from collector.testing import make_settings
from exporters.prometheus_remote_write import factory

SERIES, HOSTS, BUCKETS, BATCHES = 500, 4, 40, 8
BASE_NS = 1_700_000_000_000_000_000


def request(batch: int, *, has_host_label: bool) -> ExportMetricsServiceRequest:
    """A point of every series from every host; counts grow from batch to batch."""
    made = ExportMetricsServiceRequest()
    for host in range(HOSTS):
        resource = made.resource_metrics.add()
        resource.resource.attributes.add(key="host.name").value.string_value = str(host)
        metric = resource.scope_metrics.add().metrics.add(name="m")
        metric.exponential_histogram.aggregation_temporality = 2
        for series in range(SERIES):
            point = metric.exponential_histogram.data_points.add(
                time_unix_nano=BASE_NS + batch * 10_000_000_000, scale=3, sum=1.0
            )
            point.count = BUCKETS * (batch + 1)
            point.positive.offset = host
            point.positive.bucket_counts.extend([batch + 1] * BUCKETS)
            point.attributes.add(key="i").value.int_value = series
            if has_host_label:
                point.attributes.add(key="host").value.int_value = host
    return made


def encode_us(*, has_host_label: bool) -> float:
    """Microseconds per point of the exporter, once all series are known."""
    config = factory.config_type.model_validate({"endpoint": "http://localhost:1/", "disable_scope_info": True})
    sut = factory.create(make_settings(factory, signals={Signal.METRICS}), config)
    batches = [
        Metrics.from_wire(request(i, has_host_label=has_host_label).SerializeToString()) for i in range(BATCHES + 1)
    ]
    sut.encode(batches[0])
    return best_us([lambda batch=batch: sut.encode(batch) for batch in batches[1:]])  # type: ignore[misc]


def reference_us() -> float:
    """Microseconds per point of adding them up in Python."""
    merger = Merger()

    def merge(made: ExportMetricsServiceRequest) -> None:
        points: list[Any] = []
        for host, resource in enumerate(made.resource_metrics):
            for series, point in enumerate(resource.scope_metrics[0].metrics[0].exponential_histogram.data_points):
                points.append((host * SERIES + series, series, False, 0, point))
        points.sort(key=lambda point: point[1])
        for begin in range(0, len(points), HOSTS):  # a series at a time
            merger.merge(points[begin : begin + HOSTS])

    requests = [request(i, has_host_label=False) for i in range(BATCHES + 1)]
    merge(requests[0])
    return best_us([lambda made=made: merge(made) for made in requests[1:]])  # type: ignore[misc]


def best_us(calls: list[Callable[[], object]]) -> float:
    times = []
    for call in calls:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times) * 1e6 / (SERIES * HOSTS)


def main() -> None:
    shared, apart, reference = encode_us(has_host_label=False), encode_us(has_host_label=True), reference_us()
    print(f"{SERIES * HOSTS} points of {BUCKETS} buckets, {HOSTS} streams per series, microseconds per point")
    print(f"  encoded, streams apart         {apart:8.2f}")
    print(f"  encoded, streams share series  {shared:8.2f}   {shared / apart:.1f} times as long")
    print(f"  added up in Python             {reference:8.2f}   {reference / shared:.0f} times as long as all of that")


if __name__ == "__main__":
    main()
