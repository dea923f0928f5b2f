"""Attributes move to the resource, and what then has the same resource comes together."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Logs, Metrics, Signal, Traces
from collector.testing import RecordingTelemetry, make_settings, metrics
from collector.testing import batch as make_batch
from processors.group_by_attrs import factory

REQUESTS = {
    Signal.TRACES: (ExportTraceServiceRequest, "resource_spans", "scope_spans", "spans", Traces),
    Signal.METRICS: (ExportMetricsServiceRequest, "resource_metrics", "scope_metrics", "metrics", Metrics),
    Signal.LOGS: (ExportLogsServiceRequest, "resource_logs", "scope_logs", "log_records", Logs),
}


def run(batch, keys=(), telemetry=None):
    settings = make_settings(factory, signals={batch.signal}, telemetry=telemetry or RecordingTelemetry())
    return factory.create(settings, factory.config_type.model_validate({"keys": keys})).transform(batch)


def items(signal, wire, keys=()):
    """(resource, scope, metric, item) of every item, with the attributes of the keys moved: the slow reference."""
    request_type, resources, scopes, kinds, _ = REQUESTS[signal]
    found = []
    for resource in getattr(request_type.FromString(wire), resources):
        for scope in getattr(resource, scopes):
            for item in getattr(scope, kinds):
                data = getattr(item, item.WhichOneof("data")) if signal is Signal.METRICS else None
                head = b""
                if data is not None:
                    header = type(item)()
                    header.CopyFrom(item)
                    del getattr(header, item.WhichOneof("data")).data_points[:]
                    head = header.SerializeToString(deterministic=True)
                for row in [item] if data is None else data.data_points:
                    attributes = {
                        pair.key: pair.value.SerializeToString(deterministic=True)
                        for pair in resource.resource.attributes
                    }
                    moved = [pair for pair in row.attributes if pair.key in keys]
                    attributes |= {pair.key: pair.value.SerializeToString(deterministic=True) for pair in moved}
                    for pair in moved:
                        row.attributes.remove(pair)
                    found.append(
                        (
                            frozenset(attributes.items()),
                            resource.schema_url,
                            scope.scope.SerializeToString(deterministic=True),
                            scope.schema_url,
                            head,
                            row.SerializeToString(deterministic=True),
                        )
                    )
    return found


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize("keys", [[], ["route"], ["route", "batch_size", "missing"]])
def test_items_agree_with_the_slow_reference(signal, keys):
    """Every item has the resource it should have; equal resources, scopes and metrics are there once."""
    batch = make_batch(signal, items=200)
    keys = keys and [*keys, *sorted(set(batch.attributes().key.to_list()))[:2]]
    out = run(batch, keys)
    assert Counter(items(signal, out.wire)) == Counter(items(signal, batch.wire, keys))
    type(out).check(out.wire)
    resources = [item[:2] for item in items(signal, out.wire)]
    assert out.table("resources").row_count == len(set(resources))
    assert out.table("scopes").row_count == len({item[:4] for item in items(signal, out.wire)})
    if signal is Signal.METRICS:
        assert out.table("metrics").row_count == len({item[:5] for item in items(signal, out.wire)})


@given(data=st.data())
def test_any_small_request_agrees_with_the_slow_reference(data):
    """Also with repeated resources and scopes, and values of different types."""
    request = ExportTraceServiceRequest()
    value = st.sampled_from(["1", 1, True, 1.0, "x"])
    for _ in range(data.draw(st.integers(0, 3))):
        resource = request.resource_spans.add(schema_url=data.draw(st.sampled_from(["", "u"])))
        for key in data.draw(st.sets(st.sampled_from("ab"))):
            put(resource.resource.attributes.add(key=key).value, data.draw(value))
        for _ in range(data.draw(st.integers(1, 2))):
            scope = resource.scope_spans.add(schema_url=data.draw(st.sampled_from(["", "u"])))
            scope.scope.name = data.draw(st.sampled_from(["", "s"]))
            for number in range(data.draw(st.integers(1, 3))):
                span = scope.spans.add(name=f"n{number}")
                for key in data.draw(st.sets(st.sampled_from("abc"))):
                    put(span.attributes.add(key=key).value, data.draw(value))
    batch = Traces.from_wire(request.SerializeToString())
    out = run(batch, ["a", "b"])
    assert Counter(items(Signal.TRACES, out.wire)) == Counter(items(Signal.TRACES, batch.wire, ["a", "b"]))
    assert out.table("resources").row_count == len({item[:2] for item in items(Signal.TRACES, out.wire)})


def put(any_value, value):
    if isinstance(value, bool):
        any_value.bool_value = value
    elif isinstance(value, int):
        any_value.int_value = value
    elif isinstance(value, float):
        any_value.double_value = value
    else:
        any_value.string_value = value


def test_the_metrics_are_those_of_the_collector():
    """Items with and without any of the keys, and the number of groups."""
    batch, telemetry = metrics(points=40, services=2), RecordingTelemetry()
    key = batch.attributes().key.to_list()[0]
    present = batch.attribute(key).present
    out = run(batch, [key], telemetry)
    assert telemetry.value("otelcol_processor_groupbyattrs_num_grouped_metrics") == present.sum()
    assert telemetry.value("otelcol_processor_groupbyattrs_num_non_grouped_metrics") == (~present).sum()
    assert out.item_count == batch.item_count
    assert not out.attribute(key).present.any()


def test_nothing_to_do_returns_the_same_object():
    """Without keys and with different resources there is nothing to merge."""
    batch = run(metrics(points=20, services=3))
    assert run(batch) is batch
