"""OTLP/JSON against protobuf's own JSON mapping with hex ids, and each rule of the specification."""

import base64
import json
import math

import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.wire.errors import MalformedBatch
from collector.wire.json import NESTING_MAX, from_json, to_json
from collector.wire.scan.check import check

REQUESTS = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
ID_KEYS = {"traceId", "spanId", "parentSpanId"}
INTEGER_RANGES = {
    1: None,
    3: (-(2**63), 2**63 - 1),
    4: (0, 2**64 - 1),
    5: (-(2**31), 2**31 - 1),
    6: (0, 2**64 - 1),
    7: (0, 2**32 - 1),
} | {
    13: (0, 2**32 - 1),
    16: (-(2**63), 2**63 - 1),
    17: (-(2**31), 2**31 - 1),
}


def text(draw):
    return draw(
        st.one_of(
            st.sampled_from(["", "GET", 'a"\\\n\r\t\x00\x1f\x7f', "é€😀"]),
            st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
        )
    )


def scalar(draw, field):
    """A value for a scalar field."""
    if field.name in ("trace_id", "span_id", "parent_span_id"):
        return draw(st.sampled_from([b"", bytes(range(1, 17 if field.name == "trace_id" else 9))]))
    if field.type == field.TYPE_STRING:
        return text(draw)
    if field.type == field.TYPE_BYTES:
        return draw(st.binary(max_size=8))
    if field.type == field.TYPE_BOOL:
        return draw(st.booleans())
    if field.type == field.TYPE_ENUM:
        return draw(st.sampled_from([value.number for value in field.enum_type.values]))
    if field.type == field.TYPE_DOUBLE:
        return draw(st.one_of(st.floats(allow_nan=False), st.sampled_from([0.0, 1e22, 5e-324, math.inf, -math.inf])))
    low, high = INTEGER_RANGES[field.type]
    return draw(st.one_of(st.integers(low, high), st.sampled_from([0, low, high])))


def fill(draw, message, depth):
    """Sets some fields of a message, at most one of each oneof."""
    chosen = {
        oneof.name: draw(st.sampled_from([*(field.name for field in oneof.fields), None]))
        for oneof in message.DESCRIPTOR.oneofs
    }
    for field in message.DESCRIPTOR.fields:
        is_message = field.type == field.TYPE_MESSAGE
        if field.containing_oneof:
            if chosen[field.containing_oneof.name] != field.name:
                continue
        elif draw(st.integers(0, 3)) == 0:
            continue
        if is_message and depth > 8:
            continue
        if field.is_repeated:
            for _ in range(draw(st.sampled_from([1, 1, 2, 0]))):
                if is_message:
                    fill(draw, getattr(message, field.name).add(), depth + 1)
                else:
                    getattr(message, field.name).append(scalar(draw, field))
        elif is_message:
            getattr(message, field.name).SetInParent()
            fill(draw, getattr(message, field.name), depth + 1)
        else:
            setattr(message, field.name, scalar(draw, field))


# A whole request is a large example; on a busy machine drawing it is slow, not wrong.
whole_requests = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    deadline=None,
)


@st.composite
def requests(draw):
    signal = draw(st.sampled_from(sorted(REQUESTS)))
    message = REQUESTS[signal]()
    fill(draw, message, 0)
    return signal, message


def with_hex_ids(value):
    """protobuf's JSON with ids in hex, as OTLP has them."""
    if isinstance(value, dict):
        return {
            key: base64.b64decode(item).hex() if key in ID_KEYS else with_hex_ids(item) for key, item in value.items()
        }
    return [with_hex_ids(item) for item in value] if isinstance(value, list) else value


def reference(message):
    """The message as OTLP/JSON."""
    return with_hex_ids(json_format.MessageToDict(message, use_integers_for_enums=True))


def same_numbers(value):
    """Doubles and integers alike, so that 1 and 1.0 compare; both are the same JSON number."""
    return json.loads(json.dumps(value), parse_int=float)


@whole_requests
@given(requests())
def test_out_agrees_with_protobufs_json(case):
    signal, message = case
    written = to_json(signal, message.SerializeToString())
    assert b"\n" not in written
    assert same_numbers(json.loads(written)) == same_numbers(reference(message))


@whole_requests
@given(requests())
def test_in_agrees_with_protobuf(case):
    signal, message = case
    read = REQUESTS[signal].FromString(from_json(signal, json.dumps(reference(message)).encode()))
    # Compared by their JSON: all-zero ids and present empty messages are equal there, NaN is not drawn.
    assert read.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)


@whole_requests
@given(requests())
def test_there_and_back_again(case):
    signal, message = case
    again = from_json(signal, to_json(signal, message.SerializeToString()))
    assert REQUESTS[signal].FromString(again) == message


def span(**fields):
    """The span read from a body with these fields."""
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [fields]}]}]}).encode()
    return ExportTraceServiceRequest.FromString(from_json("traces", body)).resource_spans[0].scope_spans[0].spans[0]


def value(**fields):
    """The attribute value read from a body with this AnyValue."""
    return span(attributes=[{"key": "k", "value": fields}]).attributes[0].value


def number_point(**fields):
    body = json.dumps(
        {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"gauge": {"dataPoints": [fields]}}]}]}]}
    ).encode()
    return (
        ExportMetricsServiceRequest.FromString(from_json("metrics", body))
        .resource_metrics[0]
        .scope_metrics[0]
        .metrics[0]
        .gauge.data_points[0]
    )


def refused(call, path, reason=""):
    with pytest.raises(MalformedBatch) as caught:
        call()
    assert caught.value.path == path
    assert reason in caught.value.reason
    return caught.value


SPAN = "resourceSpans[0].scopeSpans[0].spans[0]"
POINT = "resourceMetrics[0].scopeMetrics[0].metrics[0].gauge.dataPoints[0]"


def test_ids_are_hex_of_either_case():
    ids = span(traceId="0AF7651916CD43DD8448EB211C80319C", spanId="b7ad6b7169203331", parentSpanId="")
    assert (ids.trace_id.hex(), ids.span_id.hex(), ids.parent_span_id) == (
        "0af7651916cd43dd8448eb211c80319c",
        "b7ad6b7169203331",
        b"",
    )
    linked = span(links=[{"traceId": "0" * 31 + "1", "spanId": "0" * 15 + "2"}]).links[0]
    assert (linked.trace_id[-1], linked.span_id[-1]) == (1, 2)


def test_ids_are_written_in_lower_case():
    message = ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.add(trace_id=b"\xab" * 16, span_id=b"\xcd" * 8)
    assert b'"traceId":"' + b"ab" * 16 + b'","spanId":"' + b"cd" * 8 in to_json("traces", message.SerializeToString())


def test_an_id_that_is_not_text_is_refused_by_its_path():
    refused(lambda: span(spanId=5), f"{SPAN}.spanId", "got 5")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"traceId": "0af7651916cd43dd8448eb211c80319"}, "trace_id must be empty or 16 bytes"),
        ({"traceId": "CvdlGRbNQ92ESOshHIAxnA=="}, "trace_id must be empty or 16 bytes"),
        ({"traceId": "é" * 16}, "trace_id must be empty or 16 bytes"),
        ({"traceId": "0" * 31 + "x"}, "trace_id must be empty or 16 bytes"),
        ({"spanId": "b7ad6b71692033310"}, "span_id must be empty or 8 bytes"),
        ({"parentSpanId": "b7ad6b716920333g"}, "span_id must be empty or 8 bytes"),
        ({"links": [{"traceId": "1"}]}, "trace_id must be empty or 16 bytes"),
    ],
)
def test_a_bad_id_costs_its_own_span_alone(bad, message):
    """The door rejects the span, as over protobuf, and takes the others."""
    spans = [{"name": "before"}, {"name": "bad", **bad}, {"name": "after"}]
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()
    wire, _, rejected_count, reason, repaired_count = check("traces", from_json("traces", body))
    kept = ExportTraceServiceRequest.FromString(wire).resource_spans[0].scope_spans[0].spans
    assert [item.name for item in kept] == ["before", "after"]
    assert (rejected_count, reason, repaired_count) == (1, f"1 span rejected: {message}", 0)


def test_a_metric_without_a_name_costs_its_own_points_alone():
    metrics = [{"gauge": {"dataPoints": [{"asInt": 1}, {"asInt": 2}]}}, {"name": "m", "gauge": {"dataPoints": [{}]}}]
    body = json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}).encode()
    wire, _, rejected_count, reason, _ = check("metrics", from_json("metrics", body))
    kept = ExportMetricsServiceRequest.FromString(wire).resource_metrics[0].scope_metrics[0].metrics
    assert [item.name for item in kept] == ["m"]
    assert (rejected_count, reason) == (2, "2 data points rejected: a metric must have a name")


@pytest.mark.parametrize(
    ("text", "expected", "repaired_count"),
    [
        (b"a\\ud83d", "a\ufffd", 1),
        (b"\\uDC00b", "\ufffdb", 1),
        (b"\\ud83d\\ud83d\\ude00", "\ufffd😀", 1),
        (b"\\ud83d\\u0041\\n", "\ufffdA\n", 1),
        (b"\\ud83d\\ude00\\u00e9", "😀é", 0),
        (b"\\\\ud83d", "\\ud83d", 0),
        (b"\xff\xfe!", "\ufffd\ufffd!", 1),
        (b"\xed\xa0\xbd", "\ufffd" * 3, 1),
        (b"\xf0\x9f\x98", "\ufffd", 1),
        (b"\xef\xbf\xbd", "\ufffd", 0),
    ],
)
@pytest.mark.parametrize("where", ["a value", "a key", "a name"])
def test_text_that_is_not_unicode_is_repaired_and_counted_as_over_protobuf(text, expected, repaired_count, where):
    """Half of an emoji that JavaScript has cut, and bytes that are not UTF-8: one bad text does not refuse the others."""
    texts = {"a value": b"v", "a key": b"k", "a name": b"n"} | {where: text}
    body = (
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"%s","attributes":[{"key":"%s","value":{"stringValue":"%s"}},'
        b'{"key":"fine","value":{"stringValue":"\xc3\xa9"}}]}]}]}]}'
    ) % (texts["a name"], texts["a key"], texts["a value"])
    wire, _, rejected_count, _, count = check("traces", from_json("traces", body))
    found = ExportTraceServiceRequest.FromString(wire).resource_spans[0].scope_spans[0].spans[0]
    read = {
        "a value": found.attributes[0].value.string_value,
        "a key": found.attributes[0].key,
        "a name": found.name,
    }
    assert read[where] == expected
    assert found.attributes[1].value.string_value == "é"
    assert (rejected_count, count) == (0, repaired_count)


@given(st.binary(max_size=30))
def test_any_bytes_in_a_text_are_repaired_as_python_decodes_them(raw):
    """Except for those that mean something in JSON."""
    raw = bytes(byte for byte in raw if byte >= 0x20 and byte not in b'"\\')
    wire, *_ = check("traces", from_json("traces", b'{"resourceSpans":[{"schemaUrl":"' + raw + b'"}]}'))
    assert ExportTraceServiceRequest.FromString(wire).resource_spans[0].schema_url == raw.decode("utf-8", "replace")


def test_an_all_zero_id_is_unset():
    assert span(traceId="0" * 32).trace_id == b""


def test_enums_are_integers_or_names():
    assert (span(kind=3).kind, span(kind="SPAN_KIND_CLIENT").kind, span(kind="2").kind) == (3, 3, 2)
    assert span(kind=77).kind == 77
    refused(lambda: span(kind="CLIENT"), f"{SPAN}.kind", "SPAN_KIND_CLIENT")
    refused(lambda: span(kind=2**31), f"{SPAN}.kind", "signed 32-bit integer")
    assert (span(kind=2.0).kind, span(kind="2.0").kind, span(kind=1e0).kind) == (2, 2, 1)
    refused(lambda: span(kind=1.5), f"{SPAN}.kind", "integer")


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        ("1700000000000000001", 1700000000000000001),
        (1700000000000000001, 1700000000000000001),
        ("007", 7),
        (1e3, 1000),
        (1.0, 1),
        (1.7e18, 1700000000000000000),
        ("1e3", 1000),
        ("1E+3", 1000),
        ("1.0", 1),
        ("1.700000000000000001e18", 1700000000000000001),
        ("12300e-2", 123),
        ("0e999", 0),
    ],
)
def test_64_bit_integers_are_text_or_numbers(given_value, expected):
    assert span(startTimeUnixNano=given_value).start_time_unix_nano == expected
    assert value(intValue=given_value).int_value == expected
    assert number_point(asInt=given_value).as_int == expected


@pytest.mark.parametrize(
    "bad",
    [
        1.5,
        1e300,
        "1.5",
        "1e-1",
        "1e999",
        "1e21",
        "1.",
        ".5",
        "1e",
        "",
        " 1",
        "+1",
        "1_0",
        "٣",
        "--1",
        "1" * 21,
        True,
        {},
        [],
        "0x1",
        "1e1_0",
        "1e٣",
    ],
)
def test_no_integer_is_refused(bad):
    refused(lambda: value(intValue=bad), f"{SPAN}.attributes[0].value.intValue", "integer")


@pytest.mark.parametrize("bad", ["9223372036854775808", "-9223372036854775809"])
def test_an_integer_outside_its_bits_is_refused(bad):
    refused(lambda: value(intValue=bad), f"{SPAN}.attributes[0].value.intValue", "signed 64-bit integer")
    refused(lambda: span(startTimeUnixNano="-1"), f"{SPAN}.startTimeUnixNano", "unsigned 64-bit integer")
    assert span(startTimeUnixNano=str(2**64 - 1)).start_time_unix_nano == 2**64 - 1


@pytest.mark.parametrize(
    ("name", "bad"),
    [("droppedAttributesCount", -1), ("droppedAttributesCount", 2**32), ("flags", -1), ("flags", 2**32)],
)
def test_an_unsigned_32_bit_field_takes_no_other(name, bad):
    refused(lambda: span(**{name: bad}), f"{SPAN}.{name}", "unsigned 32-bit integer")
    assert getattr(span(**{name: 2**32 - 1}), "flags" if name == "flags" else "dropped_attributes_count") == 2**32 - 1


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [(1.5, 1.5), (3, 3.0), ("2.5", 2.5), ("-1e-3", -0.001), ("Infinity", math.inf), ("-Infinity", -math.inf), (0, 0.0)],
)
def test_doubles_are_numbers_names_or_quoted(given_value, expected):
    point = number_point(asDouble=given_value)
    assert point.HasField("as_double")
    assert point.as_double == expected


def test_nan_is_a_name():
    assert math.isnan(number_point(asDouble="NaN").as_double)
    message = ExportMetricsServiceRequest()
    points = message.resource_metrics.add().scope_metrics.add().metrics.add(name="m").gauge.data_points
    for number in (math.nan, math.inf, -math.inf, 1.0, 1e300, -0.0):
        points.add(as_double=number)
    written = json.loads(to_json("metrics", message.SerializeToString()))
    written = written["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["gauge"]["dataPoints"]
    assert [str(point["asDouble"]) for point in written] == ["NaN", "Infinity", "-Infinity", "1", "1e+300", "-0.0"]


@pytest.mark.parametrize("bad", ["nan", "inf", "1_0", " 1", "", "1e999", "1e", True, None.__class__.__name__, [], {}])
def test_no_double_is_refused(bad):
    refused(lambda: number_point(asDouble=bad), f"{POINT}.asDouble", "number")


def test_bytes_are_base64_standard_or_url_safe():
    raw = bytes([0xFB, 0xEF, 0xFF, 0x01])
    assert value(bytesValue=base64.b64encode(raw).decode()).bytes_value == raw
    assert value(bytesValue=base64.urlsafe_b64encode(raw).decode()).bytes_value == raw
    assert value(bytesValue=base64.b64encode(raw).decode().rstrip("=")).bytes_value == raw
    assert value(bytesValue="").WhichOneof("value") == "bytes_value"
    for bad in ("a", "a b=", "@@@@", 5, "é"):
        refused(lambda bad=bad: value(bytesValue=bad), f"{SPAN}.attributes[0].value.bytesValue", "base64")


def test_keys_are_camel_case_or_snake_case():
    body = (
        b'{"resource_spans":[{"scope_spans":[{"spans":[{"start_time_unix_nano":"5","name":"n"}]}],"schema_url":"u"}]}'
    )
    resource = ExportTraceServiceRequest.FromString(from_json("traces", body)).resource_spans[0]
    assert (resource.schema_url, resource.scope_spans[0].spans[0].start_time_unix_nano) == ("u", 5)


def test_unknown_fields_are_ignored_and_null_is_unset():
    assert (
        span(
            name="n", nobody={"knows": [1, {}]}, attributes=None, events=None, startTimeUnixNano=None, status=None
        ).name
        == "n"
    )
    assert from_json("traces", b'{"resourceSpans":null,"x":1}') == b""
    assert value(stringValue=None).WhichOneof("value") is None
    assert [
        item.WhichOneof("value")
        for item in value(arrayValue={"values": [None, {"boolValue": False}]}).array_value.values
    ] == [
        None,
        "bool_value",
    ]


def test_zero_values_with_presence_are_kept_and_others_left_out():
    assert value(intValue="0").WhichOneof("value") == "int_value"
    assert value(stringValue="").WhichOneof("value") == "string_value"
    message = ExportTraceServiceRequest()
    made = message.resource_spans.add().scope_spans.add().spans.add(name="", kind=0)
    made.attributes.add(key="k").value.bool_value = False
    made.attributes.add(key="e").value.SetInParent()
    assert to_json("traces", message.SerializeToString()) == (
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":['
        b'{"key":"k","value":{"boolValue":false}},{"key":"e","value":{}}]}]}]}]}'
    )
    # Written out in full on the wire, an implicit zero is a zero all the same.
    assert to_json("logs", b"\x0a\x02\x1a\x00") == b'{"resourceLogs":[{}]}'


def test_the_wrong_shape_is_refused_by_its_path():
    for body, path in (
        (b"[]", ""),
        (b'"x"', ""),
        (b'{"resourceSpans":{}}', "resourceSpans"),
        (b'{"resourceSpans":[1]}', "resourceSpans[0]"),
        (
            b'{"resourceSpans":[{},{"scopeSpans":[{},{},{"spans":[{"name":7}]}]}]}',
            "resourceSpans[1].scopeSpans[2].spans[0].name",
        ),
        (b'{"resourceSpans":[{"resource":[]}]}', "resourceSpans[0].resource"),
    ):
        refused(lambda body=body: from_json("traces", body), path, "expected")
    refused(lambda: value(boolValue="true"), f"{SPAN}.attributes[0].value.boolValue", "true or false")


def test_an_element_of_a_packed_list_is_named():
    body = (
        b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":['
        b'{"histogram":{"dataPoints":[{"bucketCounts":["1",null]}]}}]}]}]}'
    )
    path = "resourceMetrics[0].scopeMetrics[0].metrics[0].histogram.dataPoints[0].bucketCounts[1]"
    refused(lambda: from_json("metrics", body), path, "integer")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{} {}", b'{"a":NaN}', b'{"a":"\x01"}', b"\xef\xbb\xbf{}", b'{"a":"\\', b'{"a":"\\ud8']
)
def test_what_is_no_json_is_refused(body):
    error = refused(lambda: from_json("logs", body), "", "JSON")
    assert 0 <= error.offset <= len(body)


@pytest.mark.parametrize("body", [b"\xff", b'{"a":"\xff}', b'{"a":\xff}', b'{"a":"\\ud800", x}', b'{"a":"\\ud800\\'])
def test_a_repaired_body_that_is_no_json_is_refused(body):
    """Without an offset, which would be that of the repaired body."""
    assert refused(lambda: from_json("logs", body), "", "JSON").offset == -1


def test_the_offset_counts_bytes():
    assert refused(lambda: from_json("logs", '{"é":x}'.encode()), "", "JSON").offset == 6


def test_nesting_is_limited_before_it_is_parsed():
    deep = b'{"x":' * NESTING_MAX + b"1" + b"}" * NESTING_MAX
    assert from_json("traces", deep) == b""
    for body in (b'{"x":' + deep + b"}", b"[" * 10_000_000, b'{"\\"[":' * 300):
        refused(lambda body=body: from_json("traces", body), "", "nested deeper")
    assert from_json("traces", b'{"x":"' + b"[\\\\" * 1000 + b'"}') == b""


def test_an_empty_object_is_an_empty_request():
    assert from_json("metrics", b"{}") == b""
    assert to_json("metrics", b"") == b"{}"


def test_elements_that_do_not_stand_together_are_one_list():
    first, second = (ExportTraceServiceRequest(), ExportTraceServiceRequest())
    first.resource_spans.add(schema_url="1")
    second.resource_spans.add(schema_url="2")
    unknown = b"\x9a\x06\x01x"
    wire = first.SerializeToString() + unknown + second.SerializeToString()
    assert json.loads(to_json("traces", wire)) == {"resourceSpans": [{"schemaUrl": "1"}, {"schemaUrl": "2"}]}
    inner = b"\x1a\x01a\x12\x00\x1a\x01b\x12\x02\x1a\x00"
    assert json.loads(to_json("traces", b"\x0a" + bytes([len(inner)]) + inner)) == {
        "resourceSpans": [{"scopeSpans": [{}, {}], "schemaUrl": "b"}]
    }


def test_numbers_of_a_list_may_be_packed_or_not():
    point = b"\x32\x08" + (7).to_bytes(8, "little") + b"\x31" + (8).to_bytes(8, "little")
    wire = point
    for tag in (b"\x0a", b"\x4a", b"\x12", b"\x12", b"\x0a"):
        wire = tag + bytes([len(wire)]) + wire
    found = json.loads(to_json("metrics", wire))["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["histogram"][
        "dataPoints"
    ][0]
    assert found == {"bucketCounts": ["7", "8"]}


@given(st.sampled_from(sorted(REQUESTS)), st.binary(max_size=60))
def test_bytes_that_are_no_request_are_refused_or_written(signal, wire):
    """Nothing is read outside the buffer, and no other error is raised."""
    try:
        written = to_json(signal, wire)
    except MalformedBatch:
        return
    assert written.startswith(b"{")


@whole_requests
@given(requests(), st.data())
def test_a_request_cut_short_or_changed_is_refused_or_written(case, data):
    signal, message = case
    wire = bytearray(message.SerializeToString())
    if wire:
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    try:
        to_json(signal, bytes(wire[: data.draw(st.integers(0, len(wire)))]))
    except MalformedBatch:
        return


@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(
                    ["resourceLogs", "scopeLogs", "logRecords", "attributes", "value", "key", "body", "traceId"]
                ),
                inner,
                max_size=3,
            ),
        ),
    )
)
def test_any_json_is_refused_or_read(body):
    try:
        wire = from_json("logs", json.dumps(body).encode())
    except MalformedBatch:
        return
    ExportLogsServiceRequest.FromString(wire)


def test_a_negative_zero_keeps_its_sign():
    """As -0.0: a reader takes -0 for an integer."""
    message = ExportMetricsServiceRequest()
    message.resource_metrics.add().scope_metrics.add().metrics.add().gauge.data_points.add(as_double=-0.0)
    body = to_json("metrics", message.SerializeToString())
    assert b'"asDouble":-0.0' in body
    assert ExportMetricsServiceRequest.FromString(from_json("metrics", body)) == message
