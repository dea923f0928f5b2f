"""Shared by the tests of span_metrics: spans, a connector with test doubles, and its points read back."""

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Signal, Traces
from collector.testing import FakeClock, RecordingTelemetry, Sink, hand_over, make_settings
from connectors.span_metrics import factory

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def set_attribute(attributes, key, value):
    entry = attributes.add(key=key)
    if isinstance(value, bool):
        entry.value.bool_value = value
    elif isinstance(value, int):
        entry.value.int_value = value
    elif isinstance(value, float):
        entry.value.double_value = value
    elif isinstance(value, list):
        for each in value:
            entry.value.array_value.values.add(string_value=each)
    else:
        entry.value.string_value = value


def span_of(**given):
    defaults = {
        "resource": {"service.name": "a"},
        "scope": ("", ""),
        "name": "op",
        "kind": 2,
        "status": 0,
        "start": START,
        "ns": 5_000_000,
        "attributes": {},
        "trace_state": "",
        "events": [],
        "trace": 1,
        "span": 1,
    }
    return defaults | given


def request_of(spans):
    """One ResourceSpans per span, so that the connector has to group the spans itself."""
    request = ExportTraceServiceRequest()
    for one in spans:
        resource = request.resource_spans.add()
        for key, value in one["resource"].items():
            set_attribute(resource.resource.attributes, key, value)
        scope = resource.scope_spans.add()
        scope.scope.name, scope.scope.version = one["scope"]
        span = scope.spans.add(
            name=one["name"],
            kind=one["kind"],
            start_time_unix_nano=one["start"],
            end_time_unix_nano=max(0, one["start"] + one["ns"]),
            trace_id=one["trace"].to_bytes(16, "big"),
            span_id=one["span"].to_bytes(8, "big"),
            trace_state=one["trace_state"],
        )
        span.status.code = one["status"]
        for key, value in one["attributes"].items():
            set_attribute(span.attributes, key, value)
        for name, attributes in one["events"]:
            event = span.events.add(name=name, time_unix_nano=one["start"])
            for key, value in attributes.items():
                set_attribute(event.attributes, key, value)
    return Traces.from_wire(request.SerializeToString())


def plain(attributes):
    values = {}
    for entry in attributes:
        which = entry.value.WhichOneof("value")
        value = getattr(entry.value, which)
        values[entry.key] = [each.string_value for each in value.values] if which == "array_value" else value
    return values


def frozen(values):
    return tuple(sorted((key, repr(value)) for key, value in values.items()))


def points_of(batches):
    """{(resource, metric, attributes): [point, …]} and the metrics by name."""
    points, metrics = defaultdict(list), {}
    for batch in batches:
        for resource in ExportMetricsServiceRequest.FromString(batch.wire).resource_metrics:
            for scope in resource.scope_metrics:
                assert scope.scope.name == "spanmetricsconnector"
                for metric in scope.metrics:
                    metrics[metric.name] = metric
                    data = getattr(metric, metric.WhichOneof("data"))
                    for point in data.data_points:
                        points[
                            frozen(plain(resource.resource.attributes)), metric.name, frozen(plain(point.attributes))
                        ].append(point)
    return points, metrics


class Gateway:
    """A connector with test doubles around it."""

    def __init__(self, config=None, previous=None, clock=None, component_id="", seed=1):
        self.clock = clock or FakeClock(START)
        self.telemetry = RecordingTelemetry()
        self.sink = Sink(Signal.METRICS)
        self.settings = make_settings(
            factory,
            clock=self.clock,
            telemetry=self.telemetry,
            outputs={Signal.METRICS: self.sink},
            component_id=component_id,
        )
        loaded = factory.config_type.model_validate(config or {})
        self.connector = hand_over(previous, factory.create(self.settings, loaded), loaded)
        self.connector.state.random = np.random.default_rng(seed)

    async def send(self, *spans):
        await self.connector.consume(request_of(spans))

    async def flush(self, after_s=1.0):
        self.clock.move(after_s)
        self.sink.batches.clear()
        await self.connector._flush()
        return points_of(self.sink.batches)

    async def values(self, metric="traces.span.metrics.calls", after_s=1.0):
        """{attributes: last value} of a metric after a flush."""
        points, _ = await self.flush(after_s)
        return {
            dict(key[2]).get("span.name", str(key[2])): found[-1].as_int
            for key, found in points.items()
            if key[1] == metric
        }


@pytest.fixture(scope="session")
def kit():
    """Everything above."""
    return SimpleNamespace(
        Gateway=Gateway,
        span_of=span_of,
        request_of=request_of,
        points_of=points_of,
        plain=plain,
        frozen=frozen,
        START=START,
        SECOND=SECOND,
    )
