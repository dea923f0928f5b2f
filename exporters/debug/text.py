"""A batch as text: counts, one line per item, or every field. Decoded through protobuf, which is simple but slow.

Each line is escaped as a whole before it is shown, so that no text of a sender can write a line of its own or control
the terminal, whichever field it is in.

Source: the formats of the Collector's exporter/debugexporter/internal/{normal,otlptext}.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Batch, Signal
from collector.otlp.semantics import SEVERITIES, SPAN_KINDS, STATUS_CODES, TEMPORALITIES
from collector.text.printable import printable

__all__ = ["detailed_text", "item_counts", "normal_text"]

_SCOPES: Final = {Signal.TRACES: "scope_spans", Signal.METRICS: "scope_metrics", Signal.LOGS: "scope_logs"}
_ITEMS: Final = {Signal.TRACES: "spans", Signal.METRICS: "metrics", Signal.LOGS: "log_records"}
_TYPES: Final = {
    "gauge": "Gauge",
    "sum": "Sum",
    "histogram": "Histogram",
    "exponential_histogram": "ExponentialHistogram",
    "summary": "Summary",
    None: "Empty",
}


def item_counts(batch: Batch) -> dict[str, int]:
    """The numbers of resources and items in the batch, taken from its index."""
    match batch.signal:
        case Signal.TRACES:
            return {"resource spans": batch.table("resources").row_count, "spans": batch.item_count}
        case Signal.METRICS:
            return {
                "resource metrics": batch.table("resources").row_count,
                "metrics": batch.table("metrics").row_count,
                "data points": batch.item_count,
            }
        case _:
            return {"resource logs": batch.table("resources").row_count, "log records": batch.item_count}


def normal_text(batch: Batch) -> str:
    """One line per item, below a line for each resource and scope."""
    return "".join(printable(line) + "\n" for line in _normal_lines(batch))


def detailed_text(batch: Batch) -> str:
    """Every field of every item."""
    return "".join(printable(line) + "\n" for line in _detailed_lines(batch))


def _resource_messages(batch: Batch) -> Iterable[Any]:
    """The ResourceSpans, ResourceMetrics or ResourceLogs messages of the batch."""
    match batch.signal:
        case Signal.TRACES:
            return ExportTraceServiceRequest.FromString(batch.wire).resource_spans
        case Signal.METRICS:
            return ExportMetricsServiceRequest.FromString(batch.wire).resource_metrics
        case _:
            return ExportLogsServiceRequest.FromString(batch.wire).resource_logs


def _scopes(resource_message: Any, signal: Signal) -> Iterable[Any]:
    scopes: Iterable[Any] = getattr(resource_message, _SCOPES[signal])
    return scopes


def _items(scope: Any, signal: Signal) -> Iterable[Any]:
    items: Iterable[Any] = getattr(scope, _ITEMS[signal])
    return items


def _normal_lines(batch: Batch) -> Iterator[str]:
    signal = batch.signal
    title = {Signal.TRACES: "Traces", Signal.METRICS: "Metrics", Signal.LOGS: "Log"}[signal]
    for index, resource_message in enumerate(_resource_messages(batch)):
        yield " ".join(
            filter(
                None,
                (
                    f"Resource{title} #{index}",
                    resource_message.schema_url and f"[{resource_message.schema_url}]",
                    _pairs(resource_message.resource.attributes),
                ),
            )
        )
        for scope_index, scope in enumerate(_scopes(resource_message, signal)):
            name = f"{scope.scope.name}@{scope.scope.version}" if scope.scope.version else scope.scope.name
            yield " ".join(filter(None, (f"Scope{title} #{scope_index}", name, _pairs(scope.scope.attributes))))
            for item in _items(scope, signal):
                if signal is Signal.TRACES:
                    yield " ".join(
                        filter(None, (item.name, item.trace_id.hex(), item.span_id.hex(), _pairs(item.attributes)))
                    )
                elif signal is Signal.LOGS:
                    yield " ".join(filter(None, (_plain(item.body), _pairs(item.attributes))))
                else:
                    yield from _metric_lines_normal(item)


def _metric_lines_normal(metric: Any) -> Iterator[str]:
    kind = metric.WhichOneof("data")
    for point in getattr(metric, kind).data_points if kind else ():
        labels = ",".join(f"{pair.key}={_plain(pair.value)}" for pair in point.attributes)
        yield f"{metric.name}{{{labels}}} {_normal_value(kind, point)}"


def _normal_value(kind: str, point: Any) -> str:
    if kind in {"gauge", "sum"}:
        which = point.WhichOneof("value")
        return str(getattr(point, which)) if which else ""
    parts = [f"count={point.count}"]
    for name in ("sum", "min", "max"):
        if kind == "summary":
            if name == "sum":
                parts.append(f"sum={point.sum:g}")
        elif point.HasField(name):
            parts.append(f"{name}={getattr(point, name):g}")
    if kind == "histogram":
        bounds = [*(f"le{bound:g}" for bound in point.explicit_bounds), "+Inf"]
        parts += [f"{bound}={count}" for bound, count in zip(bounds, point.bucket_counts, strict=False)]
    elif kind == "summary":
        parts += [f"q{value.quantile:g}={value.value:g}" for value in point.quantile_values]
    return " ".join(parts)


def _detailed_lines(batch: Batch) -> Iterator[str]:
    signal = batch.signal
    title = {Signal.TRACES: "Spans", Signal.METRICS: "Metrics", Signal.LOGS: "Log"}[signal]
    for index, resource_message in enumerate(_resource_messages(batch)):
        yield f"Resource{title} #{index}"
        yield f"Resource SchemaURL: {resource_message.schema_url}"
        yield from _attributes("Resource attributes:", resource_message.resource.attributes)
        for scope_index, scope in enumerate(_scopes(resource_message, signal)):
            yield f"Scope{title} #{scope_index}"
            yield f"Scope{title} SchemaURL: {scope.schema_url}"
            yield f"InstrumentationScope {scope.scope.name} {scope.scope.version}"
            yield from _attributes("InstrumentationScope attributes:", scope.scope.attributes)
            for item_index, item in enumerate(_items(scope, signal)):
                if signal is Signal.TRACES:
                    yield from _span(item_index, item)
                elif signal is Signal.LOGS:
                    yield from _record(item_index, item)
                else:
                    yield from _metric(item_index, item)


def _span(index: int, span: Any) -> Iterator[str]:
    yield f"Span #{index}"
    rows = {
        "Trace ID": span.trace_id.hex(),
        "Parent ID": span.parent_span_id.hex(),
        "ID": span.span_id.hex(),
        "Name": span.name,
        "Kind": _named(SPAN_KINDS, span.kind),
        "TraceState": span.trace_state,
        "Start time": _time(span.start_time_unix_nano),
        "End time": _time(span.end_time_unix_nano),
        "Status code": _named(STATUS_CODES, span.status.code),
        "Status message": span.status.message,
    }
    for name, value in rows.items():
        if value or name != "TraceState":
            yield f"    {name:<15}: {value}".rstrip()
    yield from _dropped(span, "    DroppedAttributesCount: ", "dropped_attributes_count")
    yield from _attributes("Attributes:", span.attributes)
    if span.events:
        yield "Events:"
    for event_index, event in enumerate(span.events):
        yield f"SpanEvent #{event_index}"
        yield f"     -> Name: {event.name}"
        yield f"     -> Timestamp: {_time(event.time_unix_nano)}"
        yield from _dropped(event, "     -> DroppedAttributesCount: ", "dropped_attributes_count")
        yield from _attributes("     -> Attributes:", event.attributes, "          ")
    if span.links:
        yield "Links:"
    for link_index, link in enumerate(span.links):
        yield f"SpanLink #{link_index}"
        yield f"     -> Trace ID: {link.trace_id.hex()}"
        yield f"     -> ID: {link.span_id.hex()}"
        yield f"     -> TraceState: {link.trace_state}"
        yield from _attributes("     -> Attributes:", link.attributes, "          ")


def _record(index: int, record: Any) -> Iterator[str]:
    yield f"LogRecord #{index}"
    yield f"ObservedTimestamp: {_time(record.observed_time_unix_nano)}"
    yield f"Timestamp: {_time(record.time_unix_nano)}"
    yield f"SeverityText: {record.severity_text}"
    yield f"SeverityNumber: {_named(SEVERITIES, record.severity_number)}({record.severity_number})"
    if record.event_name:
        yield f"EventName: {record.event_name}"
    yield f"Body: {_typed(record.body)}"
    yield from _attributes("Attributes:", record.attributes)
    yield f"Trace ID: {record.trace_id.hex()}"
    yield f"Span ID: {record.span_id.hex()}"
    yield f"Flags: {record.flags}"


def _metric(index: int, metric: Any) -> Iterator[str]:
    kind = metric.WhichOneof("data")
    yield f"Metric #{index}"
    yield "Descriptor:"
    yield f"     -> Name: {metric.name}"
    yield f"     -> Description: {metric.description}"
    yield f"     -> Unit: {metric.unit}"
    yield f"     -> DataType: {_TYPES[kind]}"
    if kind is None:
        return
    points = getattr(metric, kind)
    if kind == "sum":
        yield f"     -> IsMonotonic: {str(points.is_monotonic).lower()}"
    if kind in {"sum", "histogram", "exponential_histogram"}:
        yield f"     -> AggregationTemporality: {_named(TEMPORALITIES, points.aggregation_temporality)}"
    for point_index, point in enumerate(points.data_points):
        yield f"{'Number' if kind in {'gauge', 'sum'} else _TYPES[kind]}DataPoints #{point_index}"
        yield from _attributes("Data point attributes:", point.attributes)
        yield f"StartTimestamp: {_time(point.start_time_unix_nano)}"
        yield f"Timestamp: {_time(point.time_unix_nano)}"
        if point.flags:
            yield f"Flags: {point.flags}"
        yield from _point(kind, point)
        for exemplar_index, exemplar in enumerate(() if kind == "summary" else point.exemplars):
            which = exemplar.WhichOneof("value")
            yield f"Exemplar #{exemplar_index}"
            yield f"     -> Trace ID: {exemplar.trace_id.hex()}"
            yield f"     -> Span ID: {exemplar.span_id.hex()}"
            yield f"     -> Timestamp: {_time(exemplar.time_unix_nano)}"
            yield f"     -> Value: {getattr(exemplar, which) if which else ''}"


def _point(kind: str, point: Any) -> Iterator[str]:
    if kind in {"gauge", "sum"}:
        which = point.WhichOneof("value")
        yield f"Value: {getattr(point, which) if which else ''}"
        return
    yield f"Count: {point.count}"
    if kind == "summary":
        yield f"Sum: {point.sum:f}"
        for index, value in enumerate(point.quantile_values):
            yield f"QuantileValue #{index}: Quantile {value.quantile:f}, Value {value.value:f}"
        return
    for name in ("sum", "min", "max"):
        if point.HasField(name):
            yield f"{name.capitalize()}: {getattr(point, name):f}"
    if kind == "histogram":
        for index, bound in enumerate(point.explicit_bounds):
            yield f"ExplicitBounds #{index}: {bound:f}"
        for index, count in enumerate(point.bucket_counts):
            yield f"Buckets #{index}, Count: {count}"
        return
    yield f"Scale: {point.scale}"
    yield f"ZeroCount: {point.zero_count}"
    for name in ("negative", "positive"):
        buckets = getattr(point, name)
        for index, count in enumerate(buckets.bucket_counts):
            yield f"{name.capitalize()} bucket {buckets.offset + index}, Count: {count}"


def _attributes(title: str, attributes: Iterable[Any], indent: str = "     ") -> Iterator[str]:
    for index, pair in enumerate(attributes):
        if not index:
            yield title
        yield f"{indent}-> {pair.key}: {_typed(pair.value)}"


def _dropped(message: Any, title: str, name: str) -> Iterator[str]:
    if getattr(message, name):
        yield f"{title}{getattr(message, name)}"


def _pairs(attributes: Iterable[Any]) -> str:
    return " ".join(f"{pair.key}={_plain(pair.value)}" for pair in attributes)


def _typed(value: Any) -> str:
    """The value with its type, such as ``Str(x)``, as in the Collector."""
    names = {
        "string_value": "Str",
        "bool_value": "Bool",
        "int_value": "Int",
        "double_value": "Double",
        "bytes_value": "Bytes",
        "array_value": "Slice",
        "kvlist_value": "Map",
        None: "Empty",
    }
    return f"{names.get(value.WhichOneof('value'), 'Unknown')}({_plain(value)})"


def _plain(value: Any) -> str:
    """The value on one line. Validation on receipt has bounded its nesting."""
    match value.WhichOneof("value"):
        case None:
            return ""
        case "bool_value":
            return str(value.bool_value).lower()
        case "bytes_value":
            return str(value.bytes_value.hex())
        case "array_value":
            return "[" + ",".join(_plain(item) for item in value.array_value.values) + "]"
        case "kvlist_value":
            return "{" + ",".join(f"{pair.key}:{_plain(pair.value)}" for pair in value.kvlist_value.values) + "}"
        case name:
            return str(getattr(value, name))


def _time(unix_nano: int) -> str:
    seconds, nanos = divmod(unix_nano, 1_000_000_000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{nanos:09} +0000 UTC"
    except (ValueError, OverflowError, OSError):
        return str(unix_nano)


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number].capitalize() if 0 <= number < len(names) else str(number)
