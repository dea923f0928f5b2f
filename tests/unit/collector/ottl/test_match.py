"""``include`` and ``exclude`` on columns agree with a reference that works item by item."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from collector.model import Logs, Metrics, Signal, Traces
from collector.ottl.match import MatchConfig, Matcher

KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")


def attribute(key, value):
    if isinstance(value, bool):
        return {"key": key, "value": {"bool_value": value}}
    if isinstance(value, int):
        return {"key": key, "value": {"int_value": value}}
    if isinstance(value, float):
        return {"key": key, "value": {"double_value": value}}
    if isinstance(value, list):
        return {"key": key, "value": {"array_value": {"values": [{"string_value": item} for item in value]}}}
    return {"key": key, "value": {"string_value": value}}


def attributes(values):
    return [attribute(key, value) for key, value in values.items()]


def resource(values):
    return {"attributes": attributes(values)}


def rows(batch, include=None, exclude=None):
    load = MatchConfig.model_validate
    matcher = Matcher(
        None if include is None else load(include), None if exclude is None else load(exclude), batch.signal
    )
    mask = matcher.rows(batch)
    return [True] * batch.item_count if mask is None else mask.tolist()


values = st.one_of(
    st.sampled_from(["api", "api-2", "", "5", "true"]), st.integers(4, 6), st.sampled_from([5.0, 1.5]), st.booleans()
)
attribute_sets = st.dictionaries(st.sampled_from(["a", "service.name"]), values, max_size=2)
spans = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["", "GET /", "POST /"]),
        "kind": st.integers(0, 5),
        "attributes": attribute_sets,
        "resource": attribute_sets,
        "scope": st.tuples(st.sampled_from(["", "lib", "lib2"]), st.sampled_from(["", "1"])),
    }
)
words = st.sampled_from(
    ["api", "GET", "^GET /$", "2$", "", "lib", "1", "SPAN_KIND_SERVER", "SPAN_KIND_CLIENT", "nil", "5", "true"]
)
attribute_matches = st.lists(
    st.builds(
        lambda key, value: {"key": key} if value is None else {"key": key, "value": value},
        st.sampled_from(["a", "service.name"]),
        st.none() | values,
    ),
    max_size=2,
)


@st.composite
def match_configs(draw):
    strict = draw(st.booleans())
    config = {"match_type": "strict" if strict else "regexp"}
    config["services"] = draw(st.lists(words, max_size=2))
    config["span_names"] = draw(st.lists(words, max_size=2))
    config["span_kinds"] = draw(st.lists(st.sampled_from(["SPAN_KIND_SERVER", "SPAN_KIND_INTERNAL"]), max_size=2))
    for name in ("attributes", "resources"):
        config[name] = [
            match if strict or "value" not in match else {**match, "value": str(match["value"])}
            for match in draw(attribute_matches)
        ]
    config["libraries"] = draw(
        st.lists(
            st.builds(lambda n, v: {"name": n, "version": v}, words, st.none() | st.sampled_from(["", "1"])), max_size=1
        )
    )
    if not any(value for key, value in config.items() if key != "match_type"):
        config["attributes"] = [{"key": "a"}]
    return config


def ref_text(value):
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def reference(span, config):
    strict = config["match_type"] == "strict"

    def one_of(text, wanted):
        return any(text == word if strict else re.search(word, text) for word in wanted)

    def all_there(found, wanted):
        for match in wanted:
            if match["key"] not in found:
                return False
            value = found[match["key"]]
            if "value" in match:
                if strict and (type(value), value) != (type(match["value"]), match["value"]):
                    return False
                if not strict and not re.search(match["value"], ref_text(value)):
                    return False
        return True

    service = ref_text(span["resource"]["service.name"]) if "service.name" in span["resource"] else "<nil-service-name>"
    return (
        (not config["services"] or one_of(service, config["services"]))
        and (not config["span_names"] or one_of(span["name"], config["span_names"]))
        and (not config["span_kinds"] or one_of(f"SPAN_KIND_{KINDS[span['kind']]}", config["span_kinds"]))
        and all_there(span["attributes"], config["attributes"])
        and all_there(span["resource"], config["resources"])
        and all(
            one_of(span["scope"][0], [library["name"]])
            and (library["version"] is None or one_of(span["scope"][1], [library["version"]]))
            for library in config["libraries"]
        )
    )


@settings(max_examples=300, deadline=None)
@given(
    items=st.lists(spans, min_size=1, max_size=5),
    include=st.none() | match_configs(),
    exclude=st.none() | match_configs(),
)
def test_matching_agrees_with_one_span_after_the_other(items, include, exclude):
    """Any properties give the reference's result on any spans."""
    message = ExportTraceServiceRequest()
    for item in items:
        scope = {"name": item["scope"][0], "version": item["scope"][1]}
        span = {
            "name": item["name"],
            "kind": item["kind"],
            "attributes": attributes(item["attributes"]),
            "trace_id": b"a" * 16,
            "span_id": b"b" * 8,
        }
        message.resource_spans.add(resource=resource(item["resource"]), scope_spans=[{"scope": scope, "spans": [span]}])
    batch = Traces.from_wire(message.SerializeToString())
    expected = [
        (include is None or reference(item, include)) and not (exclude is not None and reference(item, exclude))
        for item in items
    ]
    assert rows(batch, include, exclude) == expected


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"log_bodies": ["hello"]}, [True, False, False, False]),
        ({"match_type": "regexp", "log_bodies": ["^h", "^4"]}, [True, False, True, False]),
        ({"log_bodies": [""]}, [False, True, False, False]),
        ({"log_severity_texts": ["WARN"]}, [False, True, False, False]),
        ({"log_severity_number": {"min": 13}}, [False, True, False, True]),
        ({"log_severity_number": {"min": 17, "match_undefined": True}}, [False, False, True, True]),
        ({"attributes": [{"key": "k", "value": ["x", "y"]}]}, [False, False, False, True]),
        ({"attributes": [{"key": "k"}], "log_severity_number": {"min": 13}}, [False, False, False, True]),
    ],
)
def test_logs(match, expected):
    """Log records match by body text, severity and structured values."""
    records = [
        {"body": {"string_value": "hello"}, "severity_number": 9, "severity_text": "INFO"},
        {"severity_number": 13, "severity_text": "WARN"},
        {"body": {"int_value": 42}, "attributes": attributes({"k": ["x"]})},
        {"body": {"string_value": "bye"}, "severity_number": 17, "attributes": attributes({"k": ["x", "y"]})},
    ]
    batch = Logs.from_wire(
        ExportLogsServiceRequest(resource_logs=[{"scope_logs": [{"log_records": records}]}]).SerializeToString()
    )
    if match.keys() != {"log_severity_number"}:  # which needs no match_type
        match = {"match_type": "strict", **match}
    assert rows(batch, match) == expected
    assert rows(batch, None, match) == [not found for found in expected]


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"metric_names": ["cpu"]}, [True, True, False]),
        ({"match_type": "regexp", "metric_names": ["^m"]}, [False, False, True]),
        ({"attributes": [{"key": "k", "value": "v"}]}, [False, True, False]),
        ({"metric_names": ["cpu"], "attributes": [{"key": "k"}]}, [False, True, False]),
        ({"resources": [{"key": "r", "value": 1}]}, [True, True, True]),
        ({"resources": [{"key": "r", "value": "1"}]}, [False, False, False]),
    ],
)
def test_metrics(match, expected):
    """Metrics match by their name and by the attributes of their points."""
    metrics = [
        {"name": "cpu", "gauge": {"data_points": [{"as_int": 1}, {"as_int": 2, "attributes": attributes({"k": "v"})}]}},
        {"name": "mem", "sum": {"aggregation_temporality": 2, "data_points": [{"as_int": 1}]}},
    ]
    message = ExportMetricsServiceRequest(
        resource_metrics=[{"resource": resource({"r": 1}), "scope_metrics": [{"metrics": metrics}]}]
    )
    assert rows(Metrics.from_wire(message.SerializeToString()), {"match_type": "strict", **match}) == expected


def test_without_blocks_there_is_no_mask():
    """Without include and exclude nothing is computed."""
    assert Matcher(None, None, Signal.LOGS).rows(Logs(b"")) is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "nothing to match is configured"),
        ({"services": ["a"]}, "match_type is required with services; set it to strict or regexp"),
        ({"attributes": [{"key": "a", "value": 1}]}, "match_type is required with attributes"),
        ({"match_type": "strict"}, "nothing to match is configured"),
        ({"match_type": "expr", "metric_names": ["a"]}, "expr is not supported; use strict or regexp"),
        ({"match_type": "regexp", "services": ["("]}, "invalid pattern"),
        ({"match_type": "regexp", "attributes": [{"key": "a", "value": "["}]}, "invalid pattern"),
        ({"match_type": "regexp", "resources": [{"key": "a", "value": 5}]}, "must be a string with match_type: regexp"),
        (
            {"match_type": "strict", "span_kinds": ["server"]},
            "is not a valid span kind; expected one of SPAN_KIND_CLIENT",
        ),
        ({"match_type": "strict", "attributes": [{"key": ""}]}, "at least 1 character"),
        ({"match_type": "strict", "names": ["a"]}, "Extra inputs"),
    ],
)
def test_mistakes_are_told(config, message):
    """The message says what is wrong and what is allowed."""
    with pytest.raises(ValidationError, match=message):
        MatchConfig.model_validate(config)


@pytest.mark.parametrize(
    ("signal", "name", "value"),
    [
        (Signal.TRACES, "log_bodies", ["a"]),
        (Signal.TRACES, "metric_names", ["a"]),
        (Signal.LOGS, "services", ["a"]),
        (Signal.LOGS, "span_kinds", ["SPAN_KIND_SERVER"]),
        (Signal.METRICS, "span_names", ["a"]),
    ],
)
def test_property_of_another_signal_is_refused(signal, name, value):
    """A property of another signal is refused when the pipeline is built, as in the Collector."""
    with pytest.raises(ValueError, match=f"include: {name} cannot be used for {signal}"):
        Matcher(MatchConfig.model_validate({"match_type": "strict", name: value}), None, signal)
