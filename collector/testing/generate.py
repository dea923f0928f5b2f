"""Batches such as an embedding platform sends, identical for the same seed.

Built from protobuf messages: slow, but obvious.
"""

import random

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from collector.model import EMPTY_CONTEXT, Batch, Context, Logs, Metrics, Signal, Traces

__all__ = ["batch", "logs", "logs_request", "metrics", "metrics_request", "request", "traces", "traces_request"]

START_UNIX_NANO = 1_700_000_000_000_000_000
_SERVICES = ("backend-api", "embedding-server", "vector-db", "training-job", "etl")
_TENANTS = ("acme", "globex", "initech")
_MODELS = ("bge-small-en-v1.5", "e5-large-v2")
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ERROR_SHARE = 0.05
_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_SECOND = 1_000_000_000


def _attributes(**values: str | bool | float | list[str]) -> list[KeyValue]:
    """Attributes with ``__`` in names as dots."""
    return [KeyValue(key=key.replace("__", "."), value=_any(value)) for key, value in values.items()]


def _any(value: str | bool | float | list[str]) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=text) for text in value]))
    return AnyValue(string_value=value)


def _resource(index: int) -> Resource:
    name = _SERVICES[index] if index < len(_SERVICES) else f"service-{index}"
    return Resource(
        attributes=_attributes(
            service__name=name,
            service__instance__id=f"{name}-0",
            host__name=f"node-{index % 2}",
            service__version="1.4.2",
        )
    )


def _shares(count: int, parts: int) -> list[int]:
    parts = max(1, min(parts, count))
    return [count // parts + (part < count % parts) for part in range(parts)]


def traces_request(*, spans: int = 16, services: int = 2, seed: int = 0) -> ExportTraceServiceRequest:
    """``spans`` spans of ``services`` services.

    Traces of four spans, 5 % errors, events, links, durations of 1 ms to 4 s.
    """
    rng = random.Random(seed)  # noqa: S311 - test data
    message = ExportTraceServiceRequest()
    traces_ = [rng.randbytes(16) for _ in range(spans // 4 + 1)]
    made = 0
    for index, share in enumerate(_shares(spans, services)):
        scope = message.resource_spans.add(resource=_resource(index)).scope_spans.add()
        scope.scope.name, scope.scope.version = "opentelemetry.instrumentation.fastapi", "0.51b0"
        for _ in range(share):
            start = START_UNIX_NANO + made * 1_000_000
            is_error = rng.random() < _ERROR_SHARE
            span = scope.spans.add(
                trace_id=traces_[made // 4],
                span_id=rng.randbytes(8),
                parent_span_id=b"" if made % 4 == 0 else rng.randbytes(8),
                name=rng.choice(("POST /embed", "encode", "vector_search", "GET /documents/{id}")),
                kind=rng.choice((1, 2, 3)),
                start_time_unix_nano=start,
                end_time_unix_nano=start + int(rng.lognormvariate(17, 1.5)),
                attributes=_attributes(
                    http__request__method="POST",
                    http__response__status_code=500 if is_error else 200,
                    tenant_id=rng.choice(_TENANTS),
                    user_id=f"user-{rng.randrange(10_000)}",
                    gen_ai__request__model=rng.choice(_MODELS),
                    batch_size=rng.randrange(1, 129),
                    score=rng.random(),
                    cached=rng.random() < 0.5,
                    tags=["prod", "eu"],
                ),
                flags=0x101,
            )
            if is_error:
                span.status.code, span.status.message = Status.STATUS_CODE_ERROR, "CUDA out of memory"
                span.events.add(
                    time_unix_nano=start + 500_000,
                    name="exception",
                    attributes=_attributes(exception__type="RuntimeError", exception__message="CUDA out of memory"),
                )
            if made % 8 == 7:
                span.links.add(trace_id=traces_[0], span_id=rng.randbytes(8))
            made += 1
    return message


def metrics_request(
    *, points: int = 20, services: int = 2, seed: int = 0, tick: int = 0
) -> ExportMetricsServiceRequest:
    """``points`` points over all five types.

    Sums and histograms are cumulative since ``START_UNIX_NANO`` and grow with ``tick``.
    """
    rng = random.Random(seed)  # noqa: S311 - test data
    message = ExportMetricsServiceRequest()
    now = START_UNIX_NANO + (tick + 1) * 15 * _SECOND
    for index, share in enumerate(_shares(points, services)):
        scope = message.resource_metrics.add(resource=_resource(index)).scope_metrics.add()
        scope.scope.name = "platform"
        for kind, count in enumerate(_shares(share, 5)):
            metric = scope.metrics.add()
            for row in range(count):
                _point(metric, kind, now, row, rng, tick)
    return message


def _point(metric: Metric, kind: int, now: int, row: int, rng: random.Random, tick: int) -> None:
    """One more point of the ``kind``-th type."""
    labels = _attributes(
        method="POST", endpoint=f"/v1/collections/{row}/embed", status="200", tenant_id=_TENANTS[row % len(_TENANTS)]
    )
    times = {"start_time_unix_nano": START_UNIX_NANO, "time_unix_nano": now}
    grown = (tick + 1) * rng.randrange(1, 2000)
    if kind == 0:
        metric.name, metric.sum.is_monotonic = "http_requests_total", True
        metric.sum.aggregation_temporality = _CUMULATIVE
        metric.sum.data_points.add(attributes=labels, as_int=grown, **times)
    elif kind == 1:
        metric.name, metric.unit = "http_request_duration_seconds", "s"
        metric.histogram.aggregation_temporality = _CUMULATIVE
        counts = [rng.randrange(5) * (tick + 1) for _ in range(len(_BOUNDS) + 1)]
        point = metric.histogram.data_points.add(
            attributes=labels,
            count=sum(counts),
            sum=sum(counts) * 0.05,
            bucket_counts=counts,
            explicit_bounds=_BOUNDS,
            **times,
        )
        point.exemplars.add(time_unix_nano=now, as_double=0.04, trace_id=rng.randbytes(16), span_id=rng.randbytes(8))
    elif kind == 2:
        metric.name, metric.unit = "cuda_memory_usage_bytes", "By"
        metric.gauge.data_points.add(
            attributes=_attributes(device=f"GPU-{row}"), as_double=rng.random() * 8e10, time_unix_nano=now
        )
    elif kind == 3:
        metric.name, metric.unit = "embedding_latency", "s"
        metric.exponential_histogram.aggregation_temporality = _CUMULATIVE
        counts = [rng.randrange(5) * (tick + 1) for _ in range(8)]
        exponential = metric.exponential_histogram.data_points.add(
            attributes=labels, count=sum(counts), sum=1.5, scale=3, **times
        )
        exponential.positive.offset = -4
        exponential.positive.bucket_counts.extend(counts)
    else:
        metric.name = "etl_batch_seconds"
        summary = metric.summary.data_points.add(attributes=labels, count=grown, sum=grown * 0.2, **times)
        for quantile in (0.5, 0.99):
            summary.quantile_values.add(quantile=quantile, value=0.1 + quantile)


def logs_request(*, records: int = 16, services: int = 2, seed: int = 0) -> ExportLogsServiceRequest:
    """``records`` records of all severities, half of them with trace ids, one in eight with a structured body."""
    rng = random.Random(seed)  # noqa: S311 - test data
    message = ExportLogsServiceRequest()
    made = 0
    for index, share in enumerate(_shares(records, services)):
        scope = message.resource_logs.add(resource=_resource(index)).scope_logs.add()
        scope.scope.name = "app.embedding"
        for _ in range(share):
            number, text = rng.choice(((5, "DEBUG"), (9, "INFO"), (9, "INFO"), (13, "WARN"), (17, "ERROR")))
            record = scope.log_records.add(
                time_unix_nano=START_UNIX_NANO + made * 1_000_000,
                observed_time_unix_nano=START_UNIX_NANO + made * 1_000_000 + 1_000,
                severity_number=number,
                severity_text=text,
                attributes=_attributes(
                    tenant_id=rng.choice(_TENANTS),
                    request_id=f"req-{rng.randrange(1_000_000):06d}",
                    code__line__number=rng.randrange(500),
                ),
            )
            if made % 8 == 7:
                record.body.kvlist_value.values.extend(_attributes(msg="embedded", count=rng.randrange(64)))
            else:
                record.body.string_value = f"embedded {rng.randrange(64)} texts in {rng.randrange(900)} ms"
            if made % 2:
                record.trace_id, record.span_id = rng.randbytes(16), rng.randbytes(8)
            made += 1
    return message


def traces(*, spans: int = 16, services: int = 2, seed: int = 0, context: Context = EMPTY_CONTEXT) -> Traces:
    """The batch of ``traces_request``."""
    return Traces.from_wire(traces_request(spans=spans, services=services, seed=seed).SerializeToString(), context)


def metrics(
    *, points: int = 20, services: int = 2, seed: int = 0, tick: int = 0, context: Context = EMPTY_CONTEXT
) -> Metrics:
    """The batch of ``metrics_request``."""
    return Metrics.from_wire(
        metrics_request(points=points, services=services, seed=seed, tick=tick).SerializeToString(), context
    )


def logs(*, records: int = 16, services: int = 2, seed: int = 0, context: Context = EMPTY_CONTEXT) -> Logs:
    """The batch of ``logs_request``."""
    return Logs.from_wire(logs_request(records=records, services=services, seed=seed).SerializeToString(), context)


def batch(
    signal: Signal, *, items: int = 16, services: int = 2, seed: int = 0, context: Context = EMPTY_CONTEXT
) -> Batch:
    """A batch of ``items`` items of any signal."""
    match signal:
        case Signal.TRACES:
            return traces(spans=items, services=services, seed=seed, context=context)
        case Signal.METRICS:
            return metrics(points=items, services=services, seed=seed, context=context)
        case Signal.LOGS:
            return logs(records=items, services=services, seed=seed, context=context)


def request(signal: Signal, *, items: int = 16, services: int = 2, seed: int = 0) -> bytes:
    """The bytes of a request with ``items`` items of any signal."""
    match signal:
        case Signal.TRACES:
            return traces_request(spans=items, services=services, seed=seed).SerializeToString()
        case Signal.METRICS:
            return metrics_request(points=items, services=services, seed=seed).SerializeToString()
        case Signal.LOGS:
            return logs_request(records=items, services=services, seed=seed).SerializeToString()
