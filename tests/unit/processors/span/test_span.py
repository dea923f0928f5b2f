"""Names, attributes and status of spans."""

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Signal, Traces
from collector.testing import make_settings, traces
from processors.span import factory


def spans(*rows):
    """A batch of spans, each given as (name, attributes)."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for name, attributes in rows:
        span = scope.spans.add(name=name)
        for key, value in attributes.items():
            any_value = span.attributes.add(key=key).value
            match value:
                case bool():
                    any_value.bool_value = value
                case int():
                    any_value.int_value = value
                case float():
                    any_value.double_value = value
                case list():
                    any_value.array_value.SetInParent()
                case None:
                    pass
                case _:
                    any_value.string_value = value
    return Traces.from_wire(request.SerializeToString())


def run(batch, **options):
    settings = make_settings(factory, signals={Signal.TRACES})
    return factory.create(settings, factory.config_type.model_validate(options)).transform(batch)


def names(batch):
    return batch.field("name").fill("").to_list()


def test_names_from_attributes():
    """Values of every type, as the Collector writes them; a span that lacks one keeps its name."""
    batch = spans(
        ("a", {"x": "GET", "y": "/b"}),
        ("b", {"x": "GET"}),
        ("c", {"x": 7, "y": True}),
        ("d", {"x": 1.0, "y": 1e21}),
        ("e", {"x": 0.1, "y": [1]}),
        ("f", {"x": "GET", "y": "/b"}),
        ("g", {"x": float("nan"), "y": float("-inf")}),
        ("h", {"x": None, "y": ""}),
    )
    out = run(batch, name={"from_attributes": ["x", "y"], "separator": "::"})
    assert names(out) == [
        "GET::/b",
        "b",
        "7::true",
        "1::1000000000000000000000",
        "0.1::<unknown-attribute-type>",
        "GET::/b",
        "NaN::-Inf",
        "<unknown-attribute-type>::",
    ]
    assert names(batch) == list("abcdefgh")


def test_attributes_from_names():
    """Each rule works on the name that the rule before it left."""
    rules = [r"^/api/(?P<version>v\d+)/doc/(?P<doc>[^/]+)", r"doc/(?P<twice>[^/]+)/(?P<tail>é.*)$"]
    batch = spans(("/api/v1/doc/42/éx", {"doc": "old"}), ("/api/v2/doc/7", {}), ("other", {}), ("", {}))
    out = run(batch, name={"to_attributes": {"rules": rules}})
    assert names(out) == ["/api/{version}/doc/{twice}/{tail}", "/api/{version}/doc/{doc}", "other", ""]
    assert out.attribute("version").text.to_list() == ["v1", "v2", None, None]
    assert out.attribute("doc").text.to_list() == ["42", "7", None, None]
    assert out.attribute("twice").text.to_list() == ["{doc}", None, None, None]
    assert out.attribute("tail").text.to_list() == ["éx", None, None, None]


@pytest.mark.parametrize(("breaks", "keeps"), [(True, False), (False, True), (True, True)])
def test_break_after_match_and_keep_original_name(breaks, keeps):
    """Later rules are skipped for spans that matched; names stay."""
    rules = [r"^(?P<a>\d)", r"(?P<b>\d)$"]
    options = {"rules": rules, "break_after_match": breaks, "keep_original_name": keeps}
    out = run(spans(("1x2", {}), ("x3", {})), name={"to_attributes": options})
    assert out.attribute("a").text.to_list() == ["1", None]
    assert out.attribute("b").text.to_list() == [None if breaks else "2", "3"]
    assert names(out) == (["1x2", "x3"] if keeps else ["{a}x2", "x{b}"])


def test_groups_that_are_unnamed_nested_or_unmatched():
    """They leave the name as it is; a nested group yields its attribute all the same."""
    rule = r"^(x)(?P<outer>y(?P<inner>z))(?P<none>q)?"
    out = run(spans(("xyz!", {})), name={"to_attributes": {"rules": [rule]}})
    assert names(out) == ["x{outer}!"]
    assert out.attribute("inner").text.to_list() == ["z"]
    assert not out.attribute("none").present.any()


@pytest.mark.parametrize(("code", "number"), [("Unset", 0), ("Ok", 1), ("Error", 2)])
def test_status(code, number):
    """The message of a failed span is the description, that of others is empty."""
    status = {"code": code} | ({"description": "why"} if code == "Error" else {})
    out = run(traces(spans=50), status=status)
    assert (out.field("status_code") == number).all()
    assert set(out.field("status_message").fill("").to_list()) == {"why" if code == "Error" else ""}


def test_only_matching_spans_are_changed():
    """include and exclude select spans; the others keep name, attributes and status."""
    batch = spans(("a1", {}), ("b2", {}), ("a3", {}))
    out = run(
        batch,
        include={"match_type": "regexp", "span_names": ["^a"]},
        exclude={"match_type": "strict", "span_names": ["a3"]},
        name={"to_attributes": {"rules": [r"(?P<n>\d)"]}},
        status={"code": "Ok"},
    )
    assert names(out) == ["a{n}", "b2", "a3"]
    assert out.field("status_code").tolist() == [1, 0, 0]
    assert out.attribute("n").text.to_list() == ["1", None, None]


def test_from_attributes_comes_first():
    """Rules see the new name, also on large batches of few names."""
    batch = traces(spans=300)
    out = run(
        batch,
        name={"from_attributes": ["http.request.method"], "to_attributes": {"rules": ["^(?P<m>[A-Z]+)$"]}},
    )
    has_method = batch.attribute("http.request.method").present
    renamed = np.array(names(out)) == "{m}"
    assert has_method.any()
    assert (renamed == has_method).all()
    assert out.attribute("m").text.to_list() == batch.attribute("http.request.method").text.to_list()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of name::from_attributes, name::to_attributes and status is required"),
        ({"status": {"code": "ok"}}, "'Unset', 'Ok' or 'Error'"),
        ({"status": {"code": "Ok", "description": "x"}}, "only for the code Error"),
        ({"name": {"to_attributes": {"rules": ["("]}}}, "invalid pattern"),
        ({"name": {"to_attributes": {"rules": []}}}, "at least 1"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    """Each message says what is expected."""
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate(options)
