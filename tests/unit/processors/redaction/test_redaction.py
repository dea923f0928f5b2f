"""Deleted and masked attributes, bodies and names, and what is said of them."""

import json

import pytest
import re2
import redaction_cases
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError
from redaction_reference import redacted

from collector.model import Logs, Metrics, Traces
from collector.testing import RecordingTelemetry, logs, make_settings, traces
from processors.redaction import factory
from processors.redaction.values import Policy

CARD = "4111111111111111"


def run(batch, *, telemetry=None, **options):
    settings = make_settings(factory, signals={batch.signal}, telemetry=telemetry or RecordingTelemetry())
    return factory.create(settings, factory.config_type.model_validate(options)).transform(batch)


def spans(*attributes):
    """A batch with one span for each dictionary of texts and integers."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for values in attributes:
        scope.spans.add(attributes=redaction_cases._attributes(values))
    return Traces.from_wire(request.SerializeToString())


def plain(batch):
    return redaction_cases.rows(batch.signal.value, batch.wire)


@pytest.mark.parametrize(("signal", "name"), redaction_cases.CASES)
def test_does_what_the_collector_does(signal, name):
    """The recorded results are those of its processor."""
    found = redaction_cases.ours(signal, redaction_cases.CONFIGS[name])
    assert redaction_cases.digest(found) == redaction_cases.golden()[f"{signal}: {name}"]


def test_returns_the_same_batch_if_nothing_changes():
    """Neither allowed keys nor values that do not match cost a copy."""
    batch = traces(spans=8)
    assert run(batch, allow_all_keys=True, blocked_values=["no such text"]) is batch


def test_links_and_exemplars_are_redacted():
    """The Collector leaves them out; their attributes are as much data of the sender as any other."""
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(name="s")
    span.links.add(attributes=redaction_cases._attributes({"card": CARD, "k": "v"}))
    out = run(Traces.from_wire(request.SerializeToString()), allowed_keys=["card"], blocked_values=["4[0-9]{15}"])
    assert out.attribute("card", "links").text.to_list() == ["****"]
    assert out.attributes("links").row_count == 1

    points = ExportMetricsServiceRequest()
    metric = points.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    point = metric.gauge.data_points.add(as_int=1)
    point.exemplars.add(as_int=1, filtered_attributes=redaction_cases._attributes({"card": CARD}))
    out = run(Metrics.from_wire(points.SerializeToString()), allow_all_keys=True, blocked_values=["4[0-9]{15}"])
    assert out.attribute("card", "exemplars").text.to_list() == ["****"]


def test_fields_that_otlp_does_not_define_are_dropped():
    """Nothing can check what is in them; ``drop_unknown_fields: false`` keeps them, as the Collector does."""
    batch = spans({"k": "v"})
    wire = batch.wire + b"\xfa\x01\x04" + b"card"  # field 31 of the request
    batch = Traces.from_wire(wire)
    assert b"card" not in run(batch, allow_all_keys=True).wire
    assert b"card" in run(batch, allow_all_keys=True, drop_unknown_fields=False).wire


def test_statements_of_opensearch_and_elasticsearch_are_sanitized():
    """The Collector accepts the attributes of these two and ignores them."""
    query = '{"query": {"match": {"name": "Ada"}}}'
    batch = spans({"db.system": "elasticsearch", "q": query}, {"db.system.name": "OpenSearch", "q": query})
    enabled = {"enabled": True, "attributes": ["q"]}
    out = run(batch, allow_all_keys=True, db_sanitizer={"es": enabled, "opensearch": enabled})
    assert out.attribute("q").text.to_list() == ['{"query":{"match":{"name":"?"}}}'] * 2


def test_statements_that_are_cut_off_keep_no_values():
    """SDKs limit the length of attributes, so the end of a statement is often missing."""
    batch = spans(
        {"db.system": "mongodb", "q": '{"find": "users", "filter": {"name": "Ad'},
        {"db.system": "mysql", "q": 'SELECT * FROM t WHERE name = "Ad'},
        {"db.system": "postgresql", "q": "SELECT $tag$Ad"},
    )
    enabled = {"enabled": True, "attributes": ["q"]}
    out = run(batch, allow_all_keys=True, db_sanitizer={"mongo": enabled, "sql": enabled})
    assert out.attribute("q").text.to_list() == [
        '{"find":"?","filter":{"name":...', "SELECT * FROM t WHERE name = ?", "SELECT ?",
    ]  # fmt: skip


def test_what_happened_is_counted():
    """Deleted attributes and masked values, whatever the summary says."""
    telemetry = RecordingTelemetry()
    batch = spans({"a": CARD, "b": "x"}, {"a": "y", "b": CARD})
    run(batch, telemetry=telemetry, allowed_keys=["a"], blocked_values=[CARD])
    assert telemetry.value("tailrace_redaction_deleted_attributes") == 2
    assert telemetry.value("tailrace_redaction_masked_values") == 1


def test_nothing_of_a_value_is_logged():
    """Not even of statements and values that cannot be read."""
    telemetry = RecordingTelemetry()
    batch = spans({"db.system": "mongodb", "q": "{" + CARD}, {"a": CARD})
    run(
        batch, telemetry=telemetry, allow_all_keys=True, blocked_values=[CARD], summary="debug",
        db_sanitizer={"mongo": {"enabled": True, "attributes": ["q"]}},
    )  # fmt: skip
    assert CARD not in json.dumps(telemetry.log.events, default=str)


def test_a_record_without_a_body_keeps_having_none():
    """There is nothing to hide in it, whatever the patterns match."""
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(severity_number=9)
    out = run(Logs.from_wire(request.SerializeToString()), allow_all_keys=True, blocked_values=[".*"])
    assert not out.field("body").present.any()


def test_many_keys_chosen_by_senders_cost_what_their_attributes_cost():
    """Thousands of keys on thousands of rows are one pass."""
    batch = spans(*({f"key {row}": CARD} for row in range(4000)))
    out = run(batch, allow_all_keys=True, blocked_values=[CARD], summary="debug")
    assert out.attribute("key 3999").text.to_list()[-1] == "****"
    assert out.attribute("redaction.masked.keys").text.to_list()[:2] == ["key 0", "key 1"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"blocked_values": ["(?=x)"]}, "no look-around"),
        ({"hash_function": "sha256"}, "hash_function"),
        ({"hash_function": "hmac-sha256", "hmac_key": "short"}, "at least 32 bytes, got 5"),
        ({"hash_function": "hmac-sha512", "hmac_key": "x" * 63}, "at least 64 bytes, got 63"),
        ({"db_sanitizer": {"sql": {"enable": True}}}, "enable"),
    ],
)
def test_refuses(options, reason):
    """The message says what is wrong, without the key."""
    with pytest.raises(ValidationError, match=reason) as refused:
        factory.config_type.model_validate(options)
    assert "x" * 63 not in str(refused.value)


def test_warns_about_an_empty_list_of_keys():
    """The list fails closed, which surprises."""
    assert [key for key, _ in factory.config_type().warnings()] == ["allowed_keys"]
    assert not list(factory.config_type(allow_all_keys=True).warnings())


_KEYS = ["a", "b", "password", "safe.x", "redaction.masked.keys"]
_TEXTS = st.sampled_from(["", "x", CARD, f"a {CARD}\nb", "ok", "ünï 12", "12", "true"])
_VALUES = st.one_of(_TEXTS, st.integers(0, 99), st.booleans(), st.just([1, CARD]), st.just({"a": CARD, "n": [1]}))
_ATTRIBUTES = st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=4)
_OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "allow_all_keys": st.booleans(),
        "allowed_keys": st.lists(st.sampled_from(_KEYS), max_size=3, unique=True),
        "ignored_keys": st.lists(st.sampled_from(_KEYS), max_size=1),
        "ignored_key_patterns": st.sampled_from([[], ["^safe"]]),
        "blocked_key_patterns": st.sampled_from([[], ["pass", "^b$"]]),
        "blocked_values": st.lists(st.sampled_from(["4[0-9]{15}", "x+", "1", "(?m)^o", "y*"]), max_size=3, unique=True),
        "allowed_values": st.sampled_from([[], ["^ok$"], ["1"]]),
        "redact_all_types": st.booleans(),
        "hash_function": st.sampled_from(["", "sha1", "md5"]),
        "summary": st.sampled_from(["debug", "info", "silent"]),
    },
)


@given(st.lists(_ATTRIBUTES, min_size=1, max_size=5), st.lists(_VALUES, max_size=5), _OPTIONS)
def test_agrees_with_a_slow_reference(attributes, bodies, options):
    """Attribute by attribute and record by record, over protobuf messages."""
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add()
    group.resource.attributes.extend(redaction_cases._attributes(attributes[0]))
    scope = group.scope_logs.add()
    for row, values in enumerate(attributes):
        record = scope.log_records.add(attributes=redaction_cases._attributes(values))
        if row < len(bodies):
            record.body.CopyFrom(redaction_cases._value(bodies[row]))
    out = run(Logs.from_wire(request.SerializeToString()), **options)
    Logs.from_wire(out.wire)
    assert plain(out) == plain(Logs.from_wire(redacted(request, options, re2).SerializeToString()))


_PATTERNS = st.sampled_from(
    [
        "a",
        "^b",
        "c$",
        "[^a]b",
        r"\\^",
        r"\bab",
        "[$^]",
        r"[\]^]",
        "x|^y",
        r"\Aa",
        r"b\z",
        "(?m)^c",
        "a.c",
        "(?s)a.c",
        r"\Qa^\E",
        "[[:^alpha:]]b",
        "",
    ]
)


@given(
    st.lists(_PATTERNS, min_size=1, max_size=3),
    st.lists(st.text(alphabet="abcxy^$\n]ü ", max_size=6), max_size=40, unique=True),
)
def test_many_texts_are_searched_as_if_one_by_one(patterns, texts):
    """Texts that are searched together are not taken for one text: no match is missed."""
    policy = Policy(factory.config_type.model_validate({"allow_all_keys": True, "blocked_values": patterns}))
    found = policy.suspicious([text.encode() for text in texts])
    expected = [place for place, text in enumerate(texts) if any(re2.search(pattern, text) for pattern in patterns)]
    assert sorted(found) == expected


def test_generated_data_of_all_signals_stays_valid():
    """What is written passes the door again."""
    for batch in (traces(spans=64), logs(records=64)):
        out = run(batch, allow_all_keys=True, redact_all_types=True, blocked_values=["[0-9a-e]+"], summary="debug")
        assert type(batch).from_wire(out.wire).item_count == batch.item_count
        assert out.attributes().row_count == type(batch).from_wire(out.wire).attributes().row_count
        assert (out.table("item").rows["attribute_count"] > 0).all()
