"""``filter`` by conditions: what is dropped, what is counted, and what an error does.

The language itself is tested in tests/unit/collector/ottl and tests/e2e/test_filter_peer.py.
"""

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from collector.api import PermanentError
from collector.model import MetricsBuilder, Signal, Traces
from collector.testing import FakeClock, RecordingTelemetry, make_settings
from collector.testing import batch as make_batch
from config.validation import settings_with_warnings
from processors.filter import factory
from processors.filter.config import FilterConfig


def make(signal, telemetry=None, clock=None, **config):
    settings = make_settings(
        factory,
        signals={signal},
        **{key: value for key, value in {"telemetry": telemetry, "clock": clock}.items() if value},
    )
    return factory.create(settings, FilterConfig.model_validate(config))


def spans_with_events():
    message = ExportTraceServiceRequest()
    for service in ("a", "b"):
        resource = message.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        for scope_name in ("x", "y"):
            scope = resource.scope_spans.add(scope={"name": scope_name})
            for name in ("one", "two"):
                span = scope.spans.add(trace_id=b"\1" * 16, span_id=b"\2" * 8, name=name)
                for event in ("start", "stop"):
                    span.events.add(name=event)
    return Traces.from_wire(message.SerializeToString())


def shown(batch):
    """The remaining spans as service/scope/span:events, in order."""
    if batch is None:
        return []
    return [
        f"{resource.resource.attributes[0].value.string_value}/{scope.scope.name}/{span.name}:{','.join(event.name for event in span.events)}"
        for resource in ExportTraceServiceRequest.FromString(batch.wire).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


ALL = [f"{service}/{scope}/{span}:start,stop" for service in "ab" for scope in "xy" for span in ("one", "two")]


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"traces": {"resource": ['attributes["service.name"] == "a"']}}, [line for line in ALL if line[0] == "b"]),
        ({"trace_conditions": ['scope.name == "x"']}, [line for line in ALL if "/y/" in line]),
        ({"traces": {"span": ['name == "one"', 'name == "none"']}}, [line for line in ALL if "two" in line]),
        ({"traces": {"spanevent": ['name == "stop"']}}, [line.removesuffix(",stop") for line in ALL]),
        ({"traces": {"spanevent": ["true"]}}, [line.partition(":")[0] + ":" for line in ALL]),
        (
            {"traces": {"resource": ['attributes["service.name"] == "b"'], "span": ['name == "two"'],
            "spanevent": ['name == "start"']}},
            ["a/x/one:stop", "a/y/one:stop"],
        ),
        (
            {"trace_conditions": ['spanevent.name == "start" and span.name == "two"',
            'resource.attributes["service.name"] == "b"']},
            ["a/x/one:start,stop", "a/x/two:stop", "a/y/one:start,stop", "a/y/two:stop"],
        ),
        (
            {"trace_conditions": [{"context": "span", "conditions": ['name == "one"']},
            {"conditions": ['spanevent.name == "stop"', 'scope.name == "x"']}]},
            ["a/y/two:start", "b/y/two:start"],
        ),
        ({"trace_conditions": ["span.kind == 0"]}, []),
        ({"traces": {"span": ["false"]}}, ALL),
    ],
)  # fmt: skip
def test_what_goes_with_what(config, wanted):
    """A parent is dropped with everything below it, an event leaves its span, and groups are applied in order."""
    assert shown(make(Signal.TRACES, **config).transform(spans_with_events())) == wanted


def test_metrics_go_with_their_points_and_without_them():
    """A metric is dropped with all its points, or after its last point."""
    builder = MetricsBuilder()
    scope = builder.scope(builder.resource())
    for name in ("a", "b", "c"):
        builder.gauge(
            scope, name, times=np.arange(3, dtype=np.uint64), values=np.arange(3), attributes=[{"of": name}] * 3
        )
    conditions = {"metric": ['name == "a"'], "datapoint": ["value_int == 1", 'attributes["of"] == "b"']}
    left = make(Signal.METRICS, metrics=conditions).transform(builder.build())
    metrics = ExportMetricsServiceRequest.FromString(left.wire).resource_metrics[0].scope_metrics[0].metrics
    assert [(metric.name, [point.as_int for point in metric.gauge.data_points]) for metric in metrics] == [
        ("c", [0, 2])
    ]


@pytest.mark.parametrize("signal", list(Signal))
def test_nothing_that_matches_is_the_same_batch(signal):
    """If nothing is dropped the batch is the same object."""
    batch = make_batch(signal)
    names = {Signal.TRACES: "trace", Signal.METRICS: "metric", Signal.LOGS: "log"}
    assert (
        make(signal, **{f"{names[signal]}_conditions": ['resource.attributes["service.name"] == "none"']}).transform(
            batch
        )
        is batch
    )


@pytest.mark.parametrize(
    ("signal", "name", "config"),
    [
        (Signal.TRACES, "spans", {"trace_conditions": ["span.kind == SPAN_KIND_SERVER"]}),
        (Signal.METRICS, "datapoints", {"metric_conditions": ["metric.type == METRIC_DATA_TYPE_SUM"]}),
        (Signal.LOGS, "logs", {"log_conditions": ["log.severity_number < SEVERITY_NUMBER_WARN"]}),
        (Signal.TRACES, "spans", {"spans": {"exclude": {"match_type": "strict", "span_kinds": ["SPAN_KIND_SERVER"]}}}),
    ],
)
def test_counts_what_it_drops(signal, name, config):
    """Dropped items are counted under the Collector's name, with the processor's id."""
    telemetry = RecordingTelemetry()
    batch = make_batch(signal)
    left = make(signal, telemetry, **config).transform(batch)
    assert 0 < left.item_count < batch.item_count
    assert (
        telemetry.value(f"otelcol_processor_filter_{name}_filtered", filter="filter")
        == batch.item_count - left.item_count
    )


FAILS = "name + 1 == 2"


@pytest.mark.parametrize(("mode", "lines"), [("ignore", 2), ("silent", 0)])
async def test_what_cannot_be_evaluated_stays_and_is_counted(mode, lines):
    """``ignore`` logs at most once per minute, ``silent`` never; the next condition is still evaluated."""
    telemetry, clock = RecordingTelemetry(), FakeClock()
    processor = make(Signal.TRACES, telemetry, clock, error_mode=mode, traces={"span": [FAILS, 'name == "one"']})
    batch = spans_with_events()
    for _ in range(3):
        assert shown(processor.transform(batch)) == [line for line in ALL if "two" in line]
    await clock.advance(61)
    processor.transform(batch)
    assert telemetry.value("tailrace_filter_failed_conditions", context="span") == 32
    warnings = telemetry.log.of_level("warning")
    assert len(warnings) == lines
    assert not lines or [event.fields["rows"] for event in warnings] == [8, 24]


def test_propagate_refuses_the_batch():
    """``propagate`` refuses the batch, unless the rows had already been dropped with their resource."""
    dropped_before = {
        "resource": ['attributes["service.name"] == "a"'],
        "span": ['resource.attributes["service.name"] == "a" and name + 1 == 2'],
    }
    assert (
        len(shown(make(Signal.TRACES, error_mode="propagate", traces=dropped_before).transform(spans_with_events())))
        == 4
    )
    with pytest.raises(PermanentError, match="condition of the context 'span' could not be evaluated for 8 rows"):
        make(Signal.TRACES, error_mode="propagate", traces={"span": [FAILS]}).transform(spans_with_events())


def test_a_group_has_its_own_error_mode():
    """The error mode of a group overrides that of the processor."""
    group = {"context": "span", "conditions": [FAILS], "error_mode": "silent"}
    assert (
        len(shown(make(Signal.TRACES, error_mode="propagate", trace_conditions=[group]).transform(spans_with_events())))
        == 8
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"traces": {"span": ["nme == 1"]}}, "the context 'span' does not have a path 'nme'"),
        ({"traces": {"spanevent": ["IsRootSpan()"]}}, "cannot be called in the context 'spanevent'"),
        ({"traces": {"spans": ["true"]}}, "spans"),
        ({"traces": {"span": [True]}}, "string"),
        ({"trace_conditions": ["name == 1"]}, "the context cannot be inferred"),
        ({"trace_conditions": ["span.name == nme"]}, "must start with its context: write span.nme"),
        ({"trace_conditions": ['metric.name == "a"']}, "'metric' is not a context of traces"),
        ({"trace_conditions": [{"context": "log", "conditions": ["true"]}]}, "context"),
        ({"trace_conditions": [{"context": "span"}]}, "conditions"),
        ({"trace_conditions": [{"context": "span", "conditions": []}]}, "at least one condition is required"),
        ({"trace_conditions": [{"context": "span", "conditions": ["true"], "error_mode": "x"}]}, "error_mode"),
        (
            {"trace_conditions": ["span.kind == 1", {"context": "span", "conditions": ["true"]}]},
            "either conditions or groups, not both",
        ),
        ({"trace_conditions": ["span.kind == 1"], "traces": {"span": ["true"]}}, "traces: use only one of"),
        (
            {"traces": {"span": ["true"]}, "spans": {"include": {"match_type": "strict", "span_names": ["a"]}}},
            "traces: use only one of",
        ),
        ({"metric_conditions": ["metric.type == 1"], "metrics": {"metric": ["true"]}}, "metrics: use only one of"),
        (
            {"logs": {"log_record": ["true"], "exclude": {"match_type": "strict", "bodies": ["a"]}}},
            "logs: use only one of",
        ),
        ({"logs": {"log_record": ['IsMatch(body, "(")']}}, "invalid pattern"),
        (
            {"metrics": {"include": {"match_type": "expr", "expressions": ["true"]}}},
            "expr is not supported; write OTTL conditions (metrics.metric, metrics.datapoint, metric_conditions) instead",
        ),
        (
            {"logs": {"exclude": {"match_type": "expr", "bodies": ["a"]}}},
            "expr is not supported; write OTTL conditions (logs.log_record, log_conditions) instead",
        ),
        (
            {"spans": {"include": {"match_type": "expr", "span_names": ["a"]}}},
            "expr is not supported; use strict or regexp",
        ),
        ({"error_mode": "never"}, "error_mode"),
    ],
)
def test_wrong_configuration_is_refused(config, message):
    """Invalid configurations are refused with a message that states the fault."""
    with pytest.raises(ValidationError) as caught:
        FilterConfig.model_validate(config)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ({}, []),
        ({"profiles": {}, "profile_conditions": [], "metrics": {"include": {"expressions": []}}}, []),
        ({"profile_conditions": ["true", {"context": "profile", "conditions": ["true"]}]}, [("profile_conditions",)]),
        ({"profiles": {"profile": ["true"]}}, [("profiles",)]),
        (
            {"metrics": {"include": {"match_type": "strict", "metric_names": ["a"], "expressions": ["true"]}}},
            [("metrics", "include", "expressions")],
        ),
    ],
)
def test_what_has_no_effect_is_accepted_with_a_warning(config, keys):
    """Keys of the Collector's files for profiles, and expressions that it ignores as well."""
    found = list(settings_with_warnings(FilterConfig.model_validate(config)))
    assert [path for path, _ in found] == keys
    assert all(sentence.startswith("this setting has no effect") for _, sentence in found)


def test_context_names_in_any_case():
    """Contexts may be written in upper case, as in the Collector."""
    group = {"context": "Span", "conditions": ['name == "one"']}
    assert len(shown(make(Signal.TRACES, trace_conditions=[group]).transform(spans_with_events()))) == 4
