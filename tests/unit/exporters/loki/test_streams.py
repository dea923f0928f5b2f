"""What the Loki exporter pushes, as read by protobuf's own runtime."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from collector.model import Logs, Signal
from collector.testing import make_settings
from exporters.loki import factory
from exporters.loki.config import LokiConfig

SECOND = 1_000_000_000


def exporter(**keys):
    config = LokiConfig.model_validate({"endpoint": "http://localhost:3100", **keys})
    return factory.create(make_settings(factory, signals={Signal.LOGS}), config)


def resource(made, **attributes):
    logs = made.resource_logs.add()
    for key, value in attributes.items():
        logs.resource.attributes.add(key=key.replace("__", ".")).value.string_value = value
    scope = logs.scope_logs.add()
    scope.scope.name = "lib"
    return scope.log_records


def pushed(push_request, sut, made):
    parts = sut.encode(Logs.from_wire(made.SerializeToString()))
    found = {}
    for part in parts:
        tenant, body = part.payload
        for stream in push_request.FromString(body).streams:
            found.setdefault((tenant, stream.labels), []).extend(
                (
                    entry.timestamp.seconds * SECOND + entry.timestamp.nanos,
                    entry.line,
                    {pair.name: pair.value for pair in entry.metadata},
                )
                for entry in stream.entries
            )
    return found, parts


def test_streams_by_service_environment_and_level_in_time_order(push_request):
    """Labels are an allow-list, everything else is structured metadata, and ids are in hex."""
    made = ExportLogsServiceRequest()
    records = resource(made, service__name="api", deployment__environment="prod", host__name="h1")
    for time_s, number in ((3, 9), (1, 9), (2, 17)):
        record = records.add(
            time_unix_nano=time_s * SECOND + 5,
            severity_number=number,
            trace_id=bytes(range(16)),
            span_id=bytes(range(8)),
        )
        record.body.string_value = f"line {time_s}"
        record.attributes.add(key="user.id").value.string_value = "u"
        record.attributes.add(key="n").value.int_value = 4
    found, parts = pushed(push_request, exporter(), made)
    assert sum(part.item_count for part in parts) == 3
    info = found["", '{environment="prod", level="info", service="api"}']
    assert [(time, line) for time, line, _ in info] == [(SECOND + 5, "line 1"), (3 * SECOND + 5, "line 3")]
    assert info[0][2] == {
        "trace_id": bytes(range(16)).hex(), "span_id": bytes(range(8)).hex(), "host_name": "h1", "scope_name": "lib",
        "user_id": "u", "n": "4", "severity_number": "9",
    }  # fmt: skip
    assert [line for _, line, _ in found["", '{environment="prod", level="error", service="api"}']] == ["line 2"]


@pytest.mark.parametrize(
    ("number", "text", "level"),
    [
        (1, "", "trace"),
        (4, "", "trace"),
        (5, "", "debug"),
        (12, "", "info"),
        (13, "", "warn"),
        (24, "", "fatal"),
        (0, "Warning", "warn"),
        (0, "CRITICAL", "fatal"),
        (9, "ERROR", "info"),
    ],
)
def test_levels(push_request, number, text, level):
    """By severity number, or by severity text if there is no number."""
    made = ExportLogsServiceRequest()
    resource(made).add(time_unix_nano=1, severity_number=number, severity_text=text).body.string_value = "x"
    found, _ = pushed(push_request, exporter(), made)
    assert list(found) == [("", f'{{level="{level}"}}')]


def test_bodies_that_are_not_strings_and_unusual_labels(push_request):
    """Maps become JSON, label values Go literals, no labels an empty set, and a missing time the exporter's."""
    made = ExportLogsServiceRequest()
    records = resource(made, service__name='a"b\\c\nd')
    record = records.add(observed_time_unix_nano=7)
    record.body.kvlist_value.values.add(key="k").value.int_value = 1
    records.add(time_unix_nano=8).body.int_value = 42
    records.add(time_unix_nano=9)
    found, _ = pushed(push_request, exporter(), made)
    ((labels, entries),) = found.items()
    assert labels == ("", '{service="a\\"b\\\\c\\nd"}')
    assert [(time, line) for time, line, _ in entries] == [(7, '{"k":1}'), (8, "42"), (9, "")]


def test_label_values_are_capped_and_kept_in_metadata(push_request):
    """Beyond the limit a label is ``__other__``, and its value is in structured metadata."""
    made = ExportLogsServiceRequest()
    for i in range(4):
        resource(made, service__name=f"s{i}").add(time_unix_nano=1).body.string_value = "x"
    found, _ = pushed(push_request, exporter(label_values_limit=2), made)
    assert {labels for _, labels in found} == {'{service="s0"}', '{service="s1"}', '{service="__other__"}'}
    assert sorted(metadata["service_name"] for _, _, metadata in found["", '{service="__other__"}']) == ["s2", "s3"]


def test_each_tenant_gets_its_own_requests(push_request):
    """The tenant is taken from an attribute, or is the default."""
    made = ExportLogsServiceRequest()
    records = resource(made, service__name="api")
    for tenant in ("a", "b", None, "a"):
        record = records.add(time_unix_nano=1)
        record.body.string_value = "x"
        if tenant:
            record.attributes.add(key="tenant_id").value.string_value = tenant
    found, parts = pushed(push_request, exporter(tenant={"attribute": "tenant_id", "default": "none"}), made)
    assert {tenant: len(entries) for (tenant, _), entries in found.items()} == {"a": 2, "b": 1, "none": 1}
    assert sum(part.item_count for part in parts) == 4


def test_long_lines_are_cut_between_characters(push_request):
    """Loki refuses lines above 256 KB, so they are cut and counted."""
    made = ExportLogsServiceRequest()
    resource(made).add(time_unix_nano=1).body.string_value = "é" * 10
    sut = exporter(max_line_size=5)
    found, _ = pushed(push_request, sut, made)
    assert next(iter(found.values()))[0][1] == "éé"


def test_opt_in_labels_and_static_labels(push_request):
    """Attributes become labels only if configured, those of records as well."""
    made = ExportLogsServiceRequest()
    record = resource(made, service__name="api").add(time_unix_nano=1)
    record.attributes.add(key="tenant_id").value.string_value = "t"
    found, _ = pushed(
        push_request, exporter(labels={"tenant": "tenant_id"}, level_label="", static_labels={"cluster": "c"}), made
    )
    ((_, labels),) = found
    assert labels == '{cluster="c", tenant="t"}'


@pytest.mark.parametrize(
    "keys",
    [
        {"endpoint": "localhost"},
        {"compression": "gzip"},
        {"labels": {"a.b": "x"}},
        {"labels": {f"l{i}": "x" for i in range(15)}},
    ],
)
def test_configuration_errors(keys):
    """Settings that Loki would refuse are configuration errors."""
    with pytest.raises(ValueError, match=r"endpoint|compression|label"):
        LokiConfig.model_validate({"endpoint": "http://x", **keys})


BODIES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300)), min_size=1, max_size=40)
"""Stream and line length of each record."""


def of_lengths(lengths):
    """Records in time order, numbered by their time."""
    made = ExportLogsServiceRequest()
    streams = [resource(made, service__name=f"s{i}") for i in range(4)]
    for time, (stream, length) in enumerate(lengths, 1):
        streams[stream].add(time_unix_nano=time).body.string_value = "x" * length
    return made


def entries(push_request, body):
    """(labels, time, line length) of each entry; no stream is empty."""
    streams = push_request.FromString(body).streams
    assert all(stream.entries for stream in streams)
    return [(stream.labels, entry.timestamp.nanos, len(entry.line)) for stream in streams for entry in stream.entries]


@given(BODIES, st.integers(1, 4000), st.booleans())
def test_each_part_knows_the_rows_of_its_records(push_request, lengths, limit, by_tenant):
    """Also of batches with several tenants; the times of the entries are those of the rows."""
    config = {"tenant": {"attribute": "service.name"}} if by_tenant else {}
    batch = Logs.from_wire(of_lengths(lengths).SerializeToString())
    parts = exporter(max_request_bytes=limit, **config).encode(batch)
    times = batch.field("time_unix_nano")
    for part in parts:
        assert [time for _, time, _ in entries(push_request, part.payload[1])] == times[part.rows].tolist()
    assert sorted(row for part in parts for row in part.rows.tolist()) == list(range(batch.item_count))


@given(BODIES, st.integers(1, 4000))
def test_requests_stay_below_the_limit(push_request, lengths, limit):
    """Only single records exceed the limit. The requests together equal a single one, in the same order."""
    made = of_lengths(lengths)
    (whole,) = exporter(max_request_bytes=0).encode(Logs.from_wire(made.SerializeToString()))
    parts = exporter(max_request_bytes=limit).encode(Logs.from_wire(made.SerializeToString()))
    found = [entries(push_request, part.payload[1]) for part in parts]
    assert [entry for one in found for entry in one] == entries(push_request, whole.payload[1])
    assert [part.item_count for part in parts] == [len(one) for one in found]
    assert all(
        part.size_bytes == len(part.payload[1]) and (part.size_bytes <= limit or part.item_count == 1) for part in parts
    )


@given(BODIES)
def test_a_request_can_be_cut_down_to_its_records(push_request, lengths):
    """Each cut keeps all entries in order with their labels; only a single record cannot be cut."""
    sut = exporter(max_request_bytes=0)
    parts = list(sut.encode(Logs.from_wire(of_lengths(lengths).SerializeToString())))
    expected = entries(push_request, parts[0].payload[1])
    while any(part.item_count > 1 for part in parts):
        for part in parts:
            halves = sut.cut(part)
            assert len(halves) == min(part.item_count, 2)
            assert all(half.item_count == len(entries(push_request, half.payload[1])) for half in halves)
        parts = [half for part in parts for half in sut.cut(part)]
    assert [entry for part in parts for entry in entries(push_request, part.payload[1])] == expected


def metadata_of(push_request, made):
    """Names and values of the structured metadata of the only record, in order."""
    ((_, body),) = [part.payload for part in exporter().encode(Logs.from_wire(made.SerializeToString()))]
    ((entry,),) = [stream.entries for stream in push_request.FromString(body).streams]
    return [(pair.name, pair.value) for pair in entry.metadata]


def test_each_name_occurs_once_in_the_structured_metadata(push_request):
    """The fields of the record take precedence over attributes of their names, then the first attribute stands."""
    made = ExportLogsServiceRequest()
    record = resource(made).add(time_unix_nano=SECOND, trace_id=bytes(range(16)), severity_text="odd")
    for key, value in (
        ("trace_id", "mine"), ("trace.id", "mine"), ("span_id", "kept"), ("severity_text", "mine"),
        ("a.b", "1"), ("a_b", "2"), ("a.b", "3"), ("scope_name", "mine"), ("empty", ""), ("empty", "4"),
    ):  # fmt: skip
        record.attributes.add(key=key).value.string_value = value
    assert sorted(metadata_of(push_request, made)) == [
        ("a_b", "1"), ("empty", "4"), ("scope_name", "lib"), ("severity_text", "odd"), ("span_id", "kept"),
        ("trace_id", bytes(range(16)).hex()),
    ]  # fmt: skip


def test_an_attribute_of_the_record_hides_those_of_its_scope_and_resource(push_request):
    """Each name occurs once: of the record, else of its scope, else of its resource; per record and per resource."""
    made = ExportLogsServiceRequest()
    first, second = resource(made, a__b="resource", c="resource", d="resource", flags="resource"), None
    first_scope = made.resource_logs[0].scope_logs[0].scope
    for key in ("c", "a_b"):
        first_scope.attributes.add(key=key).value.string_value = "scope"
    second = resource(made, e="other")
    one, two, three = first.add(time_unix_nano=1), first.add(time_unix_nano=2, flags=1), second.add(time_unix_nano=3)
    for record, key, value in ((one, "a.b", "record"), (one, "e", "record"), (two, "d", ""), (three, "a.b", "record")):
        record.attributes.add(key=key).value.string_value = value
    assert [pairs_of(push_request, made, row) for row in range(3)] == [
        [
            ("a_b", "record"),
            ("c", "scope"),
            ("d", "resource"),
            ("e", "record"),
            ("flags", "resource"),
            ("scope_name", "lib"),
        ],
        [("a_b", "scope"), ("c", "scope"), ("d", "resource"), ("flags", "1"), ("scope_name", "lib")],
        [("a_b", "record"), ("e", "other"), ("scope_name", "lib")],
    ]


NAMES = st.sampled_from(["a", "a.b", "a_b", "flags", "trace_id", "scope_name", "service.name"])
LEVEL = st.dictionaries(NAMES, st.sampled_from(["", "x", "y"]), max_size=4)


@given(st.lists(st.tuples(LEVEL, LEVEL, st.lists(st.tuples(LEVEL, st.booleans()), max_size=3)), max_size=3))
def test_names_are_unique_and_taken_from_the_nearest_level(push_request, levels):
    """Any attributes on any level: as a reference that looks at one record after the other."""
    made, expected = ExportLogsServiceRequest(), []
    for of_resource, of_scope, records in levels:
        logs = made.resource_logs.add()
        scope = logs.scope_logs.add()
        scope.scope.name = "lib"
        for target, attributes in ((logs.resource, of_resource), (scope.scope, of_scope)):
            for key, value in attributes.items():
                target.attributes.add(key=key).value.string_value = value
        for of_record, has_ids in records:
            record = scope.log_records.add(time_unix_nano=len(expected) + 1, flags=int(has_ids))
            pairs = {"scope_name": "lib"}
            if has_ids:
                record.trace_id = bytes(range(16))
                pairs |= {"flags": "1", "trace_id": bytes(range(16)).hex()}
            for key, value in of_record.items():
                record.attributes.add(key=key).value.string_value = value
            for attributes in (of_record, of_scope, of_resource):
                seen = {}
                for key, value in attributes.items():
                    if key != "service.name" and (value or attributes is not of_record):
                        seen.setdefault(key.replace(".", "_"), value)
                pairs = {name: value for name, value in seen.items() if value} | pairs
            expected.append(sorted(pairs.items()))
    assert [pairs_of(push_request, made, row) for row in range(len(expected))] == expected


def pairs_of(push_request, made, row):
    """All pairs of the structured metadata of the record with the ``row``-th time, sorted."""
    return sorted(
        (pair.name, pair.value)
        for part in exporter().encode(Logs.from_wire(made.SerializeToString()))
        for stream in push_request.FromString(part.payload[1]).streams
        for entry in stream.entries
        if entry.timestamp.nanos == row + 1
        for pair in entry.metadata
    )


def test_a_record_without_any_label_belongs_to_an_unknown_service(push_request):
    """Because Loki requires a label."""
    made = ExportLogsServiceRequest()
    resource(made).add(time_unix_nano=SECOND).body.string_value = "x"
    found, _ = pushed(push_request, exporter(), made)
    assert list(found) == [("", '{service_name="unknown_service"}')]
