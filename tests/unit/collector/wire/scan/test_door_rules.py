"""The rules of the door, one by one."""

from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.wire.errors import MalformedBatch
from collector.wire.scan import check as scan
from collector.wire.scan import index as scan_index
from protobuf_wire import tag, varint

REQUESTS: dict[str, Any] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
TRACE_ID = bytes(range(16))
SPAN_ID = bytes(range(8))


def field(number: int, *contents: bytes) -> bytes:
    body = b"".join(contents)
    return tag(number) + varint(len(body)) + body


def text(value: bytes) -> bytes:
    return field(1, value)


def attribute(key: bytes, any_value: bytes, number: int = 1) -> bytes:
    return field(number, field(1, key), field(2, any_value))


def in_item(*contents: bytes) -> bytes:
    """A request with one span, metric or record of these fields."""
    return field(1, field(2, field(2, *contents)))


def in_point(*contents: bytes, data: int = 5) -> bytes:
    return in_item(field(1, b"m"), field(data, field(1, *contents)))


def refused(signal: str, wire: bytes) -> MalformedBatch:
    with pytest.raises(MalformedBatch) as caught:
        scan.check(signal, wire)
    return caught.value


def let_in(signal: str, wire: bytes) -> Any:
    """The request that passed, which must be plain: passing again changes nothing."""
    kept, tables, rejected, message, repaired = scan.check(signal, wire)
    assert scan.check(signal, kept)[0] is kept
    return REQUESTS[signal].FromString(kept), tables, rejected, message, repaired


def test_empty_request_passes():
    """A request of no bytes is valid OTLP and has no rows."""
    for signal in REQUESTS:
        kept, tables, *rest = scan.check(signal, b"")
        assert kept == b""
        assert [len(rows) for rows in tables] == [0] * (4 if signal == "metrics" else 3)
        assert rest == [0, "", 0]


def test_unknown_signal_is_a_programming_error():
    """A signal that does not exist is an error of the caller, not of the request."""
    with pytest.raises(ValueError, match="profiles"):
        scan.check("profiles", b"")


@pytest.mark.parametrize(
    ("signal", "wire", "path"),
    [
        ("traces", tag(1, 0) + b"\x01", ""),
        ("traces", field(1, tag(2, 0) + b"\x01"), "resource_spans"),
        ("traces", field(1, field(2, tag(2, 0) + b"\x01")), "resource_spans.scope_spans"),
        ("traces", in_item(tag(7, 0) + b"\x01"), "resource_spans.scope_spans.spans"),
        ("traces", in_item(tag(16, 0) + b"\x01"), "resource_spans.scope_spans.spans"),
        ("traces", in_item(field(11, tag(1, 0) + b"\x01")), "resource_spans.scope_spans.spans.events"),
        ("traces", in_item(field(13, tag(6, 0) + b"\x01")), "resource_spans.scope_spans.spans.links"),
        ("traces", in_item(field(15, field(3, b""))), "resource_spans.scope_spans.spans.status"),
        ("traces", in_item(field(9, tag(1, 0) + b"\x01")), "resource_spans.scope_spans.spans.attributes"),
        (
            "traces",
            in_item(attribute(b"k", tag(3, 1) + bytes(8), 9)),
            "resource_spans.scope_spans.spans.attributes.value",
        ),
        ("traces", field(1, tag(1000, 0) + b"\x01"), "resource_spans"),
        ("logs", in_item(tag(5, 0) + b"\x01"), "resource_logs.scope_logs.log_records"),
        ("logs", in_item(field(5, tag(1, 0) + b"\x01")), "resource_logs.scope_logs.log_records.body"),
        ("metrics", in_item(field(1, b"m"), tag(5, 0) + b"\x01"), "resource_metrics.scope_metrics.metrics"),
        ("metrics", in_point(tag(3, 0) + b"\x01"), "resource_metrics.scope_metrics.metrics.gauge.data_points"),
        (
            "metrics",
            in_point(field(5, tag(2, 0) + b"\x01")),
            "resource_metrics.scope_metrics.metrics.gauge.data_points.exemplars",
        ),
        (
            "metrics",
            in_point(field(8, tag(1, 1) + bytes(8)), data=10),
            "resource_metrics.scope_metrics.metrics.exponential_histogram.data_points.positive",
        ),
        (
            "metrics",
            in_point(field(6, tag(1, 0) + b"\x01"), data=11),
            "resource_metrics.scope_metrics.metrics.summary.data_points.quantile_values",
        ),
        ("metrics", field(1, field(1, field(3, tag(1, 0) + b"\x01"))), "resource_metrics.resource.entity_refs"),
    ],
)
def test_known_field_with_wrong_wire_type_is_refused(signal, wire, path):
    """A known field must have its wire type: upb would treat it as unknown, pdata refuses it."""
    error = refused(signal, wire)
    assert error.path == path
    assert "wrong wire type" in error.reason
    assert path in str(error)


@pytest.mark.parametrize(
    "place", [lambda x: x, lambda x: field(1, x), lambda x: in_item(x), lambda x: in_item(attribute(b"k", x, 9))]
)
def test_groups_are_refused(place):
    """Groups, even unknown ones, are read differently by different parsers."""
    assert "groups" in refused("traces", place(tag(99, 3) + tag(99, 4))).reason
    assert "groups" in refused("traces", place(tag(99, 4))).reason


def test_field_zero_is_refused():
    """The field number 0 is invalid."""
    refused("traces", b"\x00\x00")
    refused("traces", in_item(b"\x02\x00"))
    refused("traces", b"\x80\x00\x01")


def test_wire_types_6_and_7_are_refused():
    """Two of the eight wire types do not exist."""
    assert "wire type" in refused("logs", tag(99, 6)).reason
    assert "wire type" in refused("logs", in_item(tag(99, 7))).reason


def nested(depth: int, through: int = 6) -> bytes:
    """The content of an AnyValue that nests ``depth`` values."""
    value = text(b"x")
    for _ in range(depth - 1):
        value = field(6, field(1, field(1, b"k"), field(2, value))) if through == 6 else field(5, field(1, value))
    return value


@pytest.mark.parametrize("through", [5, 6])
@pytest.mark.parametrize(
    ("signal", "wrap"),
    [
        ("traces", lambda value: in_item(attribute(b"k", value, 9))),
        ("traces", lambda value: in_item(field(11, attribute(b"k", value, 3)))),
        ("logs", lambda value: in_item(field(5, value))),
        ("metrics", lambda value: in_point(field(5, attribute(b"k", value, 7)))),
    ],
)
def test_values_nest_30_deep_and_no_deeper(signal, wrap, through):
    """30 nested values pass and upb parses them; 31 are refused."""
    let_in(signal, wrap(nested(30, through)))
    assert "deeper than 30" in refused(signal, wrap(nested(31, through))).reason
    refused(signal, wrap(nested(500, through)))


@pytest.mark.parametrize(
    "wire",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a\x80\x80\x80\x80\x80\x00",
        b"\x8a\x80\x80\x80\x80\x00\x00",
        b"\xff\xff\xff\xff\xff\x01\x00",
        in_item(b"\x2a\x05abc"),
        in_item(b"\x39\x00"),
        in_item(b"\x85\x01\x00"),
        in_item(b"\x30" + b"\x80" * 10 + b"\x00"),
        in_item(b"\x30" + b"\xff" * 9 + b"\x02"),
        in_item(b"\x30\x80"),
        in_item(field(9, b"\x0a\x7f")),
        *(
            in_item(attribute(b"k", value, 9))
            for value in (b"\x18\x80", b"\x18\x80\x80", b"\x10\xff", b"\x21123", b"\x0a\x05a", b"\x0a", b"\x3a\x02a")
        ),
        in_item(tag(99, 1) + b"1234567"),
        in_item(tag(99, 5) + b"123"),
        in_item(tag(99) + b"\x02x"),
        in_item(tag(99, 0) + b"\x80" * 10 + b"\x01"),
    ],
)
def test_truncated_and_overlong_is_refused(wire):
    """Lengths stay within the enclosing message, tags and lengths within 5 bytes, varints within 64 bits."""
    refused("traces", wire)


def test_every_truncation_of_a_request_is_refused_or_whole():
    """Cut anywhere inside its one resource, a request is refused."""
    wire = in_item(field(1, TRACE_ID), field(5, b"name"), attribute(b"k", text(b"v"), 9))
    for size in range(1, len(wire)):
        refused("traces", wire[:size])


def test_unknown_fields_survive():
    """Unknown fields are kept after their structure was checked, whatever bytes they contain."""
    unknown = field(99, b"\xff\xfe\x00") + tag(98, 0) + b"\x07" + tag(97, 1) + bytes(8) + tag(96, 5) + bytes(4)
    wire = unknown + field(
        1, unknown, field(1, unknown), field(2, unknown, field(1, unknown), field(2, unknown, field(11, unknown)))
    )
    kept, _, rejected, _, repaired = scan.check("traces", wire)
    assert kept is wire
    assert rejected == repaired == 0
    kept = scan.check("traces", in_item(field(5, b"a"), unknown, field(5, b"b")))[0]
    assert unknown[:6] in kept


LONG = tag(15, 0) + b"\xff" * 9 + b"\x7f"  # a varint of 70 bits in a field that no message has
SHORT = tag(15, 0) + varint(2**64 - 1)


@pytest.mark.parametrize(
    ("signal", "request_of"),
    [
        ("traces", lambda unknown: unknown),
        ("traces", lambda unknown: field(1, unknown)),
        ("traces", lambda unknown: field(1, field(1, unknown))),
        ("traces", lambda unknown: field(1, field(1, field(3, unknown)))),
        ("traces", lambda unknown: field(1, field(2, unknown))),
        ("traces", lambda unknown: field(1, field(2, field(1, unknown)))),
        ("traces", lambda unknown: in_item(field(5, b"n"), tag(18, 0) + unknown[1:])),
        ("traces", lambda unknown: in_item(field(11, unknown))),
        ("traces", lambda unknown: in_item(field(13, unknown))),
        ("traces", lambda unknown: in_item(field(15, unknown))),
        ("logs", lambda unknown: in_item(unknown)),
        ("logs", lambda unknown: in_item(field(5, unknown))),
        ("logs", lambda unknown: in_item(field(6, field(1, b"k"), unknown))),
        ("logs", lambda unknown: in_item(field(5, field(5, unknown)))),
        ("logs", lambda unknown: in_item(field(5, field(6, unknown)))),
        ("metrics", lambda unknown: in_item(field(1, b"m"), unknown)),
        ("metrics", lambda unknown: in_item(field(1, b"m"), field(5, unknown))),
        ("metrics", lambda unknown: in_point(unknown)),
        ("metrics", lambda unknown: in_point(unknown, data=9)),
        ("metrics", lambda unknown: in_point(unknown, data=10)),
        ("metrics", lambda unknown: in_point(unknown, data=11)),
        ("metrics", lambda unknown: in_point(field(5, unknown))),
        ("metrics", lambda unknown: in_point(field(8, unknown), data=10)),
        ("metrics", lambda unknown: in_point(field(9, unknown), data=10)),
        ("metrics", lambda unknown: in_point(field(6, unknown), data=11)),
    ],
)
def test_a_varint_of_more_than_64_bits_in_an_unknown_field_is_cut(signal, request_of):
    """upb and gogo skip it, other decoders refuse it: what goes on is what all of them read."""
    wire = request_of(LONG)
    REQUESTS[signal].FromString(wire)
    kept, _, rejected_count, _, repaired_count = scan.check(signal, wire)
    assert kept == request_of(SHORT)
    assert (rejected_count, repaired_count) == (0, 0)
    assert scan.check(signal, kept)[0] is kept


def test_a_varint_of_more_than_ten_bytes_is_refused():
    refused("logs", tag(15, 0) + b"\xff" * 10 + b"\x01")
    refused("logs", tag(15, 0) + b"\x80" * 10 + b"\x00")


@pytest.mark.parametrize("wrong", [1, 7, 8, 15, 17, 32])
def test_trace_id_of_wrong_length_costs_its_item(wrong):
    """Trace ids have 16 bytes or none; items with others are dropped and counted, and the rest passes."""
    good, bad = field(2, field(1, TRACE_ID), field(5, b"good")), field(2, field(1, bytes(wrong)), field(5, b"bad"))
    request, tables, rejected, message, _ = let_in("traces", field(1, field(2, bad, good, bad), field(2, bad)))
    assert rejected == 3
    assert message == "3 spans rejected: trace_id must be empty or 16 bytes"
    assert [span.name for span in request.resource_spans[0].scope_spans[0].spans] == ["good"]
    assert [len(rows) for rows in tables] == [1, 2, 1]


@pytest.mark.parametrize(
    ("signal", "bad"),
    [
        ("traces", field(2, b"1234567")),
        ("traces", field(4, bytes(16))),
        ("traces", field(13, field(1, bytes(15)))),
        ("traces", field(13, field(2, bytes(9)))),
        ("logs", field(9, bytes(8))),
        ("logs", field(10, bytes(16))),
    ],
)
def test_other_ids_of_wrong_length_cost_their_item(signal, bad):
    """Ids of spans, parents, links and records have 0 or 8 or 16 bytes."""
    request, tables, rejected, message, _ = let_in(signal, field(1, field(2, field(2, bad), field(2, b""))))
    assert rejected == 1
    assert "1 span rejected" in message or "1 log record rejected" in message
    assert len(tables[2]) == 1
    assert request.ByteSize() > 0


def test_empty_and_zero_ids_pass():
    """An unset id is allowed."""
    kept, tables, *_ = scan.check("traces", in_item(field(1, b""), field(2, b""), field(4, bytes(8))))
    assert kept == in_item(field(1, b""), field(2, b""), field(4, bytes(8)))
    assert tables[2][0]["trace_id_hi"] == tables[2][0]["parent_span_id"] == 0


def test_exemplar_id_of_wrong_length_costs_its_point():
    """The point is the item: it is dropped with its exemplar, and its siblings stay."""
    bad, good = field(1, field(5, field(5, bytes(4)))), field(1, tag(6, 1) + bytes(8))
    request, tables, rejected, message, _ = let_in("metrics", in_item(field(1, b"m"), field(5, good, bad, good)))
    assert rejected == 1
    assert message == "1 data point rejected: trace_id must be empty or 16 bytes"
    assert len(request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points) == 2
    assert tables[2][0]["point_count"] == 2


@pytest.mark.parametrize("name", [b"", field(1, b"")])
def test_metric_without_name_costs_its_points(name):
    """A metric without a name is dropped as a whole; points with other errors are counted once."""
    bad_point = field(1, field(5, field(5, bytes(4))))
    nameless = field(2, name, field(5, field(1), bad_point, field(1)))
    fine = field(2, field(1, b"fine"), field(5, field(1)))
    request, tables, rejected, message, _ = let_in("metrics", field(1, field(2, nameless, fine, nameless)))
    assert rejected == 6
    assert message == "6 data points rejected: a metric must have a name"
    assert [metric.name for metric in request.resource_metrics[0].scope_metrics[0].metrics] == ["fine"]
    assert [len(rows) for rows in tables] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("signal", "wire", "repaired"),
    [
        ("traces", in_item(field(5, b"caf\xe9")), 1),
        ("traces", in_item(attribute(b"k\xff", text(b"\xc3\x28\xa0"), 9)), 2),
        ("traces", in_item(attribute(b"k", nested(3).replace(b"x", b"\x80"), 9)), 1),
        ("traces", in_item(field(11, field(2, b"\xed\xa0\x80")), field(15, field(2, b"\xf4\x90\x80\x80"))), 2),
        ("traces", in_item(field(3, b"\xc0\xaf"), field(13, field(3, b"\xe0\x80\xaf"))), 2),
        (
            "traces",
            field(
                1,
                field(3, b"\xff"),
                field(1, attribute(b"\xff", b"")),
                field(2, field(1, b"", field(1, b"\xff")), field(3, b"\xff")),
            ),
            4,
        ),
        ("logs", in_item(field(5, text(b"line \xff")), field(3, b"\xff"), field(12, b"\xff")), 3),
        ("metrics", in_item(field(1, b"m\xff"), field(2, b"\xff"), field(3, b"\xff"), field(12, field(1, b"\xff"))), 4),
        ("metrics", in_point(attribute(b"\xff", b"", 9), field(8, attribute(b"\xfe", b"", 7)), data=9), 2),
        ("metrics", field(1, field(1, field(3, field(1, b"\xff"), field(3, b"\xff"), field(4, b"\xfe")))), 3),
    ],
)
def test_invalid_utf8_is_repaired_and_counted(signal, wire, repaired):
    """Every text field is repaired with U+FFFD, as Python's decoder replaces, and counted."""
    request, _, rejected, message, count = let_in(signal, wire)
    assert (rejected, message, count) == (0, "", repaired)
    assert "\ufffd" in request.SerializeToString().decode("utf-8", "ignore")


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff" * 200,
        b"a\xf0\x9f\x8e",
        b"\xf0\x80\x80\x80",
        b"ok\xc2",
        b"\xe2\x82\xe2\x82\xac",
        b"12345678\x80",
        bytes(range(256)),
    ],
)
def test_repair_replaces_like_the_unicode_standard(raw):
    """One U+FFFD for each maximal ill-formed part, lengths of all enclosing messages corrected."""
    request, *_ = let_in("traces", in_item(field(5, raw)))
    assert request.resource_spans[0].scope_spans[0].spans[0].name == raw.decode("utf-8", "replace")


def test_invalid_utf8_in_bytes_is_left_alone():
    """bytes_value may contain any bytes."""
    wire = in_item(attribute(b"k", field(7, b"\xff\xfe"), 9))
    assert scan.check("traces", wire)[0] is wire


@pytest.mark.parametrize("signal", list(REQUESTS))
def test_instrumentation_library_fields_become_scopes(signal):
    """Field 1000, which old decoders read as data, does not bypass the pipeline: its items are items."""
    item = field(2, field(1, b"m")) if signal == "metrics" else field(2, b"")
    wire = field(
        1, field(1000, field(1, field(1, b"lib"), field(2, b"1.0")), item, field(3, b"url")), field(1000, item)
    )
    request, tables, rejected, _, _ = let_in(signal, wire)
    assert b"\xc2\x3e" not in request.SerializeToString()
    assert [len(rows) for rows in tables[:3]] == [1, 2, 2]
    assert rejected == 0
    assert b"lib" in request.SerializeToString()


def test_instrumentation_library_fields_beside_scopes_are_ignored():
    """If scopes are present, the old field repeats the same data (opentelemetry-proto 0.15: "SHOULD be ignored")."""
    request, tables, *_ = let_in(
        "traces", field(1, field(1000, field(2, field(5, b"old"))), field(2, field(2, field(5, b"new"))))
    )
    assert [span.name for span in request.resource_spans[0].scope_spans[0].spans] == ["new"]
    assert len(tables[2]) == 1


def test_instrumentation_library_fields_are_validated():
    """An old field that becomes a scope is read as one."""
    assert refused("traces", field(1, field(1000, field(2, b"\x0a\x05")))).path == "resource_spans.scope_spans.spans"


@pytest.mark.parametrize(
    ("signal", "wire"),
    [
        ("traces", in_item(field(15, tag(1, 0) + b"\x02"))),
        ("logs", in_item(field(4, b"name"))),
        ("metrics", in_item(field(1, b"m"), field(4, field(1, b"")))),
        ("metrics", in_point(field(1, field(1, b"label")))),
        ("metrics", in_point(field(1, field(1, b"label")), data=9)),
        ("metrics", in_point(field(1, field(1, b"label")), data=11)),
        ("metrics", in_point(field(5, field(1, field(1, b"label"))))),
        ("traces", in_item(field(9, field(1, b"k"), tag(3, 0) + b"\x01"))),
        ("traces", in_item(attribute(b"k", tag(8, 0) + b"\x01", 9))),
    ],
)
def test_fields_that_only_some_decoders_know_are_left_out(signal, wire):
    """Fields reserved since OTLP 1.0 and those of profiles mean data to some receivers and nothing to others."""
    request, tables, *_ = let_in(signal, wire)
    assert len(request.SerializeToString()) < len(wire)
    assert len(tables[2]) == 1


@pytest.mark.parametrize(
    ("signal", "wire"),
    [
        ("traces", in_item(field(5, b"first"), field(5, b"last"))),
        ("traces", in_item(field(15, field(2, b"first")), field(15, field(2, b"last")))),
        ("traces", in_item(attribute(b"k", text(b"first") + text(b"last"), 9))),
        ("traces", in_item(attribute(b"k", tag(3, 0) + b"\x01" + text(b"last"), 9))),
        ("traces", in_item(field(9, field(1, b"first"), field(1, b"last")))),
        ("traces", field(1, field(1, attribute(b"first", b"")), field(1, attribute(b"last", b"")))),
        ("traces", field(1, field(2, field(1, field(1, b"first")), field(1, field(1, b"last"))))),
        ("traces", field(1, field(3, b"first"), field(3, b"last"))),
        ("traces", in_item(tag(16, 5) + bytes(4) + tag(16, 5) + b"last")),
        ("traces", in_item(field(11, field(2, b"first"), field(2, b"last")))),
        ("logs", in_item(field(5, text(b"first")), field(5, text(b"last")))),
        ("metrics", in_item(field(1, b"first"), field(1, b"last"))),
        ("metrics", in_item(field(1, b"last"), field(5, field(1)), field(7, field(1)))),
        ("metrics", in_item(field(1, b"last"), field(5, field(1)), field(5, field(1)))),
        ("metrics", in_point(tag(6, 1) + b"firstABC" + tag(4, 1) + b"ABCDlast")),
        ("metrics", in_point(field(5, tag(6, 1) + b"firstABC" + tag(3, 1) + b"ABCDlast"))),
        ("metrics", in_item(field(1, b"last"), field(7, tag(2, 0) + b"\x01" + tag(2, 0) + b"\x02"))),
        ("metrics", in_point(field(6, tag(1, 1) + bytes(8) + tag(1, 1) + b"ABCDlast"), data=11)),
    ],
)
def test_repeated_singular_fields_are_merged_once(signal, wire):
    """A singular field or a oneof that occurs twice is re-encoded the way protobuf merges it."""
    request, *_ = let_in(signal, wire)
    assert request.SerializeToString() == REQUESTS[signal].FromString(wire).SerializeToString()
    assert scan.check(signal, wire)[0] == request.SerializeToString() != wire
    if b"last" in wire:
        assert b"last" in request.SerializeToString()


def test_tags_and_lengths_longer_than_need_be_are_shortened():
    """Overlong varints, which in-place edits would have to preserve, are normalised."""
    span = field(2, field(5, b"n"))
    wire = b"\x8a\x00" + varint(len(field(2, span))) + field(2, span)
    assert scan.check("traces", wire)[0] == field(1, field(2, span))
    wire = b"\x0a" + bytes([len(field(2, span)) | 0x80, 0x80, 0x00]) + field(2, span)
    assert scan.check("traces", wire)[0] == field(1, field(2, span))


@pytest.mark.parametrize(
    ("data", "point", "column", "length"),
    [
        (9, tag(6, 1) + b"ABCDEFGH" + tag(6, 1) + b"IJKLMNOP", "buckets_len", 16),
        (9, field(6, b"ABCDEFGH") + field(6, b"IJKLMNOP"), "buckets_len", 16),
        (9, field(6, b"ABCDEFGH") + tag(6, 1) + b"IJKLMNOP", "buckets_len", 16),
        (9, tag(7, 1) + b"ABCDEFGH", "bounds_len", 8),
        (10, field(8, tag(2, 0) + b"\x05" + tag(2, 0) + b"\x85\x01"), "positive_len", 3),
        (10, field(9, tag(2, 0) + b"\x05" + field(2, b"\x01\x02")), "negative_len", 3),
    ],
)
def test_unpacked_and_split_numbers_are_packed(data, point, column, length):
    """Buckets and bounds become one packed field."""
    request, tables, *_ = let_in("metrics", in_point(point, data=data))
    assert tables[3][0][column] == length
    assert request == ExportMetricsServiceRequest.FromString(in_point(point, data=data))


def test_packed_numbers_of_odd_length_are_refused():
    """8-byte numbers fill their field exactly; packed varints end with it."""
    assert "multiple of 8" in refused("metrics", in_point(field(6, b"ABCDEFGHI"), data=9)).reason
    refused("metrics", in_point(field(7, b"1234"), data=9))
    refused("metrics", in_point(field(8, field(2, b"\x80")), data=10))


def test_all_faults_in_one_request():
    """Repair, merging and rejection work together in one result."""
    bad = field(2, field(1, b"short"), field(5, b"\xff"))
    good = field(2, field(5, b"a"), field(5, b"b\xff"))
    request, tables, rejected, message, repaired = let_in(
        "traces", field(1, field(1000, bad, good), field(99, b"kept"))
    )
    assert (rejected, repaired) == (1, 2)
    assert message.startswith("1 span rejected")
    assert [span.name for span in request.resource_spans[0].scope_spans[0].spans] == ["b\ufffd"]
    assert b"kept" in request.SerializeToString()
    assert len(tables[2]) == 1


def test_id_is_judged_after_merging():
    """The last of two ids counts, as for every parser."""
    assert let_in("traces", in_item(field(1, b"short"), field(1, TRACE_ID)))[2] == 0
    assert let_in("traces", in_item(field(1, TRACE_ID), field(1, b"short")))[2] == 1


def test_masses_of_empty_messages_are_refused():
    """Two bytes must not cost a row of 200 bytes: memory stays proportional to the request."""
    assert "empty messages" in refused("traces", field(1, field(2, b"\x12\x00" * 100_000))).reason
    assert "empty messages" in refused("metrics", in_item(field(1, b"m"), field(5, b"\x0a\x00" * 100_000))).reason
    assert len(scan.check("traces", field(1, field(2, b"\x12\x00" * 1000)))[1][2]) == 1000
    assert (
        len(scan.check("traces", field(1, field(2, field(2, field(1, TRACE_ID), field(2, SPAN_ID)) * 100_000)))[1][2])
        == 100_000
    )


def test_large_requests_release_the_gil_and_agree():
    """Above the size at which the GIL is released the result is the same."""
    span = field(2, field(1, TRACE_ID), field(5, b"n" * 100), attribute(b"k", text(b"v" * 50), 9))
    wire = field(1, field(2, span * 3000))
    assert len(wire) > 262144
    kept, tables, *_ = scan.check("traces", wire)
    assert kept is wire
    assert len(tables[2]) == 3000
    attributes, keys = scan_index.index_attributes("spans", wire, tables[2])
    assert (len(attributes), keys) == (3000, [b"k"])
    starts, ends = scan_index.find_field(wire, tables[2]["body"], tables[2]["end"], 5)
    assert np.all(ends - starts == 102)


def test_only_bytes_are_scanned():
    """The buffer must be immutable, because the kernels point into it."""
    with pytest.raises(TypeError):
        scan.check("traces", bytearray(b""))  # type: ignore[arg-type]


def test_malformed_batch_survives_pickling():
    """The error can be pickled with all its attributes."""
    import pickle

    error = pickle.loads(pickle.dumps(MalformedBatch("a.b", 7, "why")))
    assert (error.path, error.offset, error.reason) == ("a.b", 7, "why")
    assert str(error) == "a.b: why (byte 7)"
