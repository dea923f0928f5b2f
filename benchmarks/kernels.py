"""Times of the scan's kernels next to protobuf's parser (upb), as the best of many runs on one core.

Run: ``python benchmarks/kernels.py``.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.wire.scan import check as scan
from collector.wire.scan import index as scan_index


def attributes(message: Any, i: int, count: int) -> None:
    for k in range(count):
        value = message.attributes.add(key=f"some.attribute.name.{k}").value
        if k % 3:
            value.string_value = f"value-{k}-{i}"
        else:
            value.int_value = i * k


def traces(count: int) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "embedding-api"
    scope = group.scope_spans.add()
    for i in range(count):
        span = scope.spans.add(
            trace_id=os.urandom(16),
            span_id=os.urandom(8),
            parent_span_id=os.urandom(8),
            name=f"GET /v1/{i % 7}",
            kind=2,
            start_time_unix_nano=10**18 + i,
            end_time_unix_nano=10**18 + 5000 + i,
        )
        attributes(span, i, 10)
    return request


def metrics(count: int) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    for i in range(count // 16):
        metric = scope.metrics.add(name=f"http.server.request.duration.{i}", unit="s")
        metric.histogram.aggregation_temporality = 2
        for k in range(16):
            point = metric.histogram.data_points.add(time_unix_nano=10**18, count=100, sum=5.0)
            point.bucket_counts.extend(range(15))
            point.explicit_bounds.extend([n / 10 for n in range(14)])
            attributes(point, k, 5)
    return request


def logs(count: int) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for i in range(count):
        record = scope.log_records.add(
            time_unix_nano=10**18 + i, severity_number=9, severity_text="INFO", trace_id=os.urandom(16)
        )
        record.body.string_value = f"request {i} done in {i % 97} ms, status 200, " + "x" * 60
        attributes(record, i, 5)
    return request


def best_us(function: Callable[[], object], seconds: float = 0.5) -> float:
    best, stop = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < stop:
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best * 1e6


def main() -> None:
    print(f"{'request':30} {'kernel':18} {'µs':>9} {'M items/s':>10} {'x upb parse':>12}")
    for signal, request, items in (
        ("traces", traces(512), "spans"),
        ("metrics", metrics(512), "points"),
        ("logs", logs(512), "records"),
    ):
        wire = request.SerializeToString()
        rows = scan.check(signal, wire)[1]
        types = rows[2]["type"][rows[3]["parent"]] if signal == "metrics" else None
        kernels: dict[str, Callable[[], object]] = {
            "upb parse": lambda r=request, w=wire: r.FromString(w),
            "check": lambda s=signal, w=wire: scan.check(s, w),
            "scan": lambda s=signal, w=wire: scan.scan(s, w),
            "index_attributes": lambda t=items, w=wire, r=rows[-1], k=types: scan_index.index_attributes(t, w, r, k),
        }
        upb = 0.0
        for name, kernel in kernels.items():
            took = best_us(kernel)
            upb = upb or took
            title = f"{signal}, 512 {items}, {len(wire) // 1000} KB"
            print(f"{title:30} {name:18} {took:9.1f} {512 / took:10.2f} {upb / took:12.1f}")


if __name__ == "__main__":
    main()
