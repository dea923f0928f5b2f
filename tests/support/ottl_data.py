"""Requests with values of all types, odd ones included, for OTTL beside the Go collector."""

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

START = 1_700_000_000_000_000_000


def any_value(value):
    if value is None:
        return AnyValue()
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=map(any_value, value)))
    if isinstance(value, dict):
        return AnyValue(kvlist_value=KeyValueList(values=pairs(value)))
    return AnyValue(string_value=value)


def pairs(values):
    return [KeyValue(key=key, value=any_value(value)) for key, value in values.items()]


VALUES = [
    {}, {"k": None}, {"k": "text"}, {"k": ""}, {"k": 5}, {"k": -3}, {"k": 5.0}, {"k": 2.5}, {"k": float("nan")}, {"k": True}, {"k": False},
    {"k": b"\x01\x02"}, {"k": b""}, {"k": [1, "a", 2.5]}, {"k": []}, {"k": {"x": {"y": 1}, "l": [1, 2, 3], "s": "<v>"}}, {"k": {}},
    {"k": "10", "other": 10}, {"k": "-7.5e1"}, {"k": "10.1.2.3"}, {"k": "::ffff:10.9.9.9"}, {"k": "fe80::1"}, {"k": "true"}, {"k": "1h30m"},
    {"k": "ÄÖß straße"}, {"k": "a,b,,c"}, {"k": '{"x": [1, 2], "y": "z"}'}, {"k": "text", "other": "text"}, {"k": 2**62, "other": 2**62},
    {"k": "0102030405060708090a0b0c0d0e0f10"}, {"k": -(2**63)}, {"k": 1e300}, {"k": "  pad "}, {"k": [True, None, {"x": 1}]}, {"k": 10, "other": "10"},
]  # fmt: skip
STATES = ["", "a=1,b=2", "rojo=00f067aa0ba902b7", "a=1,a=2", "bad", "x@y=z, a=9"]


def traces_data():
    message = ExportTraceServiceRequest()
    resources = [
        message.resource_spans.add(schema_url=f"https://schema/{index}", resource={"attributes": pairs(values)})
        for index, values in enumerate(({"service.name": "front", "n": 1}, {"service.name": "back", "k": "text"}, {}))
    ]
    scopes = [resource.scope_spans.add() for resource in resources for _ in range(2)]
    for index, scope in enumerate(scopes):
        if index != 5:
            scope.scope.name, scope.scope.version = f"lib{index % 2}", f"1.{index}"
            scope.scope.attributes.extend(pairs({"level": index}))
    for index, values in enumerate(VALUES * 2):
        span = scopes[index % 6].spans.add(
            trace_id=bytes([index + 1] * 16),
            span_id=index.to_bytes(8),
            parent_span_id=b"" if index % 4 == 0 else bytes([index + 1] * 8),
            name=("GET /health", "GET /a", "POST /b", "")[index % 4],
            kind=index % 6,
            flags=index % 3,
            trace_state=STATES[index % len(STATES)],
            start_time_unix_nano=START + index * 1_000_000,
            end_time_unix_nano=START + index * 1_000_000 + (index % 7) * 250_500_000,
            attributes=pairs(values),
        )
        span.span_id = (index + 1).to_bytes(8)
        if index % 5:
            span.status.code, span.status.message = index % 3, ("", "boom", "deadline")[index % 3]
        for event in range(index % 4):
            span.events.add(
                name=("exception", "log", "")[event], time_unix_nano=START + event, attributes=pairs(values)
            )
        if index % 9 == 0:
            span.links.add(trace_id=bytes([9] * 16), span_id=bytes([9] * 8))
    return message


def metrics_data():
    message = ExportMetricsServiceRequest()
    for name in ("front", "back"):
        resource = message.resource_metrics.add(resource={"attributes": pairs({"service.name": name})})
        metrics = resource.scope_metrics.add(scope={"name": f"lib.{name}", "version": "2"}).metrics
        gauge = metrics.add(name="g", unit="1", description="a gauge").gauge
        total = metrics.add(name="requests", unit="{request}").sum
        total.aggregation_temporality, total.is_monotonic = 2, True
        delta = metrics.add(name="delta").sum
        delta.aggregation_temporality = 1
        for index, values in enumerate(VALUES):
            for points in (gauge.data_points, total.data_points, delta.data_points)[: 1 + index % 3]:
                point = points.add(
                    time_unix_nano=START + index, start_time_unix_nano=START, flags=index % 2, attributes=pairs(values)
                )
                point.attributes.extend(pairs({"id": f"{name}{index}{len(points)}"}))
                if index % 2:
                    point.as_int = index
                else:
                    point.as_double = index / 2
                if index % 5 == 0:
                    point.exemplars.add(as_int=1, time_unix_nano=START)
        histogram = metrics.add(name="latency", unit="s").histogram
        histogram.aggregation_temporality = 1
        exponential = metrics.add(name="size").exponential_histogram
        exponential.aggregation_temporality = 2
        summary = metrics.add(name="old").summary
        for index in range(6):
            attributes = pairs({"id": f"{name}{index}", "k": "text"} if index % 2 else {"id": f"{name}{index}"})
            point = histogram.data_points.add(time_unix_nano=START + index, count=index, attributes=attributes)
            point.bucket_counts.extend([index, 0])
            point.explicit_bounds.append(1.0)
            if index % 3:
                point.sum = index * 1.5
            point = exponential.data_points.add(
                time_unix_nano=START, count=index, scale=index - 3, zero_count=index % 2, attributes=attributes
            )
            point.positive.offset = index - 2
            point.negative.offset = index
            point = summary.data_points.add(time_unix_nano=START, count=index, sum=index * 2.0, attributes=attributes)
            point.quantile_values.add(quantile=0.5, value=1)
    return message


def logs_data():
    message = ExportLogsServiceRequest()
    for name in ("front", "back"):
        scope = message.resource_logs.add(resource={"attributes": pairs({"service.name": name})}).scope_logs.add(
            scope={"name": name}
        )
        for index, values in enumerate(VALUES):
            record = scope.log_records.add(
                time_unix_nano=START + index,
                observed_time_unix_nano=START + 10,
                severity_number=index % 25,
                severity_text=("", "INFO", "error")[index % 3],
                attributes=pairs({**values, "id": f"{name}{index}"}),
                flags=index % 2,
                trace_id=bytes([index + 1] * 16) if index % 2 else b"",
                span_id=bytes([index + 1] * 8) if index % 2 else b"",
                event_name=("", "login")[index % 2],
            )
            if "k" in values:
                record.body.CopyFrom(any_value(values["k"]))
    return message
