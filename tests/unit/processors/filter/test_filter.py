"""``filter`` by include and exclude agrees with a slow reference over protobuf messages."""

import re

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from collector.model import Signal
from collector.testing import batch as make_batch
from collector.testing import check_component, make_settings
from processors.filter import factory
from processors.filter.config import FilterConfig

MESSAGES = {
    Signal.TRACES: (ExportTraceServiceRequest, "resource_spans", "scope_spans", "spans"),
    Signal.METRICS: (ExportMetricsServiceRequest, "resource_metrics", "scope_metrics", "metrics"),
    Signal.LOGS: (ExportLogsServiceRequest, "resource_logs", "scope_logs", "log_records"),
}


def make(signal, **config):
    return factory.create(make_settings(factory, signals={signal}), FilterConfig.model_validate(config))


def items(signal, wire):
    """(resource, item) of each span, metric or record."""
    message, resources, scopes, name = MESSAGES[signal]
    for resource in getattr(message.FromString(wire), resources):
        for scope in getattr(resource, scopes):
            for item in getattr(scope, name):
                yield resource.resource, item


def reference(signal, wire, keeps):
    """The remaining items, each as bytes."""
    return [item.SerializeToString() for resource, item in items(signal, wire) if keeps(resource, item)]


def found(signal, batch):
    return [] if batch is None else [item.SerializeToString() for _, item in items(signal, batch.wire)]


def attribute(owner, key):
    values = [pair.value for pair in owner.attributes if pair.key == key]
    return values[-1] if values else None


async def test_factory_keeps_the_contract():
    """The component contract holds and the README's examples are valid."""
    await check_component(factory)


@pytest.mark.parametrize("side", ["include", "exclude"])
def test_span_names(side):
    """Regular expressions match anywhere in the name."""
    batch = make_batch(Signal.TRACES)
    name = next(item.name for _, item in items(Signal.TRACES, batch.wire))
    pattern = re.escape(name[1:])
    out = make(Signal.TRACES, spans={side: {"match_type": "regexp", "span_names": [pattern]}}).transform(batch)
    wanted = reference(
        Signal.TRACES, batch.wire, lambda _, span: bool(re.search(pattern, span.name)) == (side == "include")
    )
    assert found(Signal.TRACES, out) == wanted
    assert 0 < len(wanted) < batch.item_count


def test_include_then_exclude_of_spans():
    """Spans match by service and kind."""
    batch = make_batch(Signal.TRACES)
    service = next(attribute(resource, "service.name").string_value for resource, _ in items(Signal.TRACES, batch.wire))
    out = make(
        Signal.TRACES,
        spans={
            "include": {"match_type": "strict", "services": [service]},
            "exclude": {"match_type": "strict", "span_kinds": ["SPAN_KIND_SERVER"]},
        },
    ).transform(batch)
    wanted = reference(
        Signal.TRACES,
        batch.wire,
        lambda resource, span: attribute(resource, "service.name").string_value == service and span.kind != 2,
    )
    assert found(Signal.TRACES, out) == wanted


@pytest.mark.parametrize("side", ["include", "exclude"])
def test_metric_names(side):
    """Metrics are kept or dropped as a whole."""
    batch = make_batch(Signal.METRICS)
    name = next(item.name for _, item in items(Signal.METRICS, batch.wire))
    out = make(Signal.METRICS, metrics={side: {"match_type": "strict", "metric_names": [name]}}).transform(batch)
    wanted = reference(Signal.METRICS, batch.wire, lambda _, metric: (metric.name == name) == (side == "include"))
    assert found(Signal.METRICS, out) == wanted
    assert wanted


@pytest.mark.parametrize(
    ("minimum", "number"), [("INFO", 9), ("warn", 13), (17, 17), ("ERROR2", 18), ("24", 24), ("TRACE", 1)]
)
@pytest.mark.parametrize("undefined", [False, True])
def test_severity_number(minimum, number, undefined):
    """Records match from a level up; those without a number match as configured."""
    batch = make_batch(Signal.LOGS)
    severity = {"min": minimum, "match_undefined": undefined}
    out = make(Signal.LOGS, logs={"include": {"match_type": "strict", "severity_number": severity}}).transform(batch)
    wanted = reference(
        Signal.LOGS,
        batch.wire,
        lambda _, record: record.severity_number >= number if record.severity_number else undefined,
    )
    assert found(Signal.LOGS, out) == wanted


@pytest.mark.parametrize(
    ("severity", "keeps"),
    [
        ({"min": "INFO"}, lambda number: number >= 9),
        ({"min": "INFO", "match_undefined": True}, lambda number: number >= 9 or not number),
        ({"min": ""}, lambda number: number > 0),
        ({"match_undefined": True}, lambda number: True),
    ],
)
@pytest.mark.parametrize("match_type", [{}, {"match_type": ""}])
def test_severity_alone_needs_no_match_type(severity, keeps, match_type):
    """As in the Collector (checked with otelcol 0.156)."""
    batch = make_batch(Signal.LOGS)
    out = make(Signal.LOGS, logs={"include": match_type | {"severity_number": severity}}).transform(batch)
    wanted = reference(Signal.LOGS, batch.wire, lambda _, record: keeps(record.severity_number))
    assert found(Signal.LOGS, out) == wanted


@pytest.mark.parametrize("side", ["include", "exclude"])
def test_a_match_of_nothing_filters_nothing(side):
    """As in the Collector, for logs and metrics."""
    for signal, section in ((Signal.LOGS, "logs"), (Signal.METRICS, "metrics")):
        batch = make_batch(signal)
        assert make(signal, **{section: {side: {"match_type": "strict"}}}).transform(batch) is batch


def test_records_by_attribute_and_body():
    """All given properties must match."""
    batch = make_batch(Signal.LOGS)
    record = next(record for _, record in items(Signal.LOGS, batch.wire) if record.attributes)
    key = record.attributes[0].key
    exclude = {"match_type": "regexp", "record_attributes": [{"key": key}], "bodies": ["e"]}
    out = make(Signal.LOGS, logs={"exclude": exclude}).transform(batch)
    body = batch.field("body").as_text().fill("").to_list()
    rows = iter(body)
    wanted = reference(
        Signal.LOGS,
        batch.wire,
        lambda _, record: not ("e" in next(rows) and any(pair.key == key for pair in record.attributes)),
    )
    assert found(Signal.LOGS, out) == wanted


@pytest.mark.parametrize("signal", list(Signal))
def test_nothing_configured_is_the_same_batch(signal):
    """Without configuration for its signal a batch passes unchanged."""
    batch = make_batch(signal)
    assert make(signal).transform(batch) is batch
    other = (
        {"metrics": {"include": {"match_type": "strict", "metric_names": ["none"]}}}
        if signal is not Signal.METRICS
        else {}
    )
    assert make(signal, **other).transform(batch) is batch


def test_everything_dropped_is_none():
    """If nothing remains no batch is passed on."""
    include = {"match_type": "strict", "span_names": ["none"]}
    assert make(Signal.TRACES, spans={"include": include}).transform(make_batch(Signal.TRACES)) is None


def test_empty_conditions_are_as_if_not_written():
    """Empty keys, which generated configurations may contain, are accepted."""
    config = FilterConfig.model_validate({"error_mode": "propagate", "traces": {"span": []}, "log_conditions": []})
    assert config == FilterConfig(error_mode="propagate")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"logs": {"include": {"bodies": ["a"]}}}, "match_type is required with log_bodies"),
        ({"logs": {"include": {"match_type": "", "record_attributes": [{"key": "a", "value": 1}]}}}, "required"),
        ({"metrics": {"include": {"metric_names": ["a"]}}}, "match_type is required with metric_names"),
        ({"logs": {"include": {"match_type": "regexp", "bodies": ["("]}}}, "invalid pattern"),
        ({"logs": {"include": {"match_type": "strict", "severity_number": {"min": "LOUD"}}}}, "is not a severity"),
        ({"logs": {"include": {"match_type": "strict", "severity_number": {"min": 25}}}}, "is not a severity"),
    ],
)
def test_wrong_configuration_is_refused(config, message):
    """Invalid configurations are refused with a message that states the fault."""
    with pytest.raises(ValidationError, match=message):
        FilterConfig.model_validate(config)
