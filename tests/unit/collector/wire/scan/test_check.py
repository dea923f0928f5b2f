"""The scan agrees with a slow reference through protobuf, on whole requests and on damaged ones."""

import contextlib
import random
import struct
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from collector.wire import layout
from collector.wire.errors import MalformedBatch
from collector.wire.scan import check as scan
from collector.wire.scan import index as scan_index
from protobuf_wire import padded_varint, tag, varint, varints

REQUESTS = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
SIGNALS = tuple(REQUESTS)
TEXTS = (
    "",
    "a",
    "service.name",
    "http.request.method",
    "grüße",
    "日本語のとても長いキー",
    "x" * 200,
    "emoji 🎉 inside",
    "1234567",
    "12345678",
)
U64S = (0, 1, 127, 128, 10**18, 2**63, 2**64 - 1)
DOUBLES = (0.0, -0.0, 1.5, -2e300, float("inf"), float("nan"), 5e-324)
KINDS = {
    "string_value": layout.KIND_STRING,
    "bool_value": layout.KIND_BOOL,
    "int_value": layout.KIND_INT,
    "double_value": layout.KIND_DOUBLE,
    "array_value": layout.KIND_ARRAY,
    "kvlist_value": layout.KIND_MAP,
    "bytes_value": layout.KIND_BYTES,
    None: layout.KIND_EMPTY,
}


def scalar(rng: random.Random, field: Any) -> Any:
    if field.name in {"trace_id", "span_id", "parent_span_id"}:
        return rng.choice((b"", rng.randbytes(16 if field.name == "trace_id" else 8)))
    if field.type == field.TYPE_STRING:
        return rng.choice(TEXTS)
    if field.type == field.TYPE_BYTES:
        return rng.randbytes(rng.randrange(20))
    if field.type == field.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type == field.TYPE_DOUBLE:
        return rng.choice(DOUBLES)
    if field.type in {field.TYPE_INT64, field.TYPE_SFIXED64}:
        return rng.choice((0, 1, -1, 300, 2**63 - 1, -(2**63)))
    if field.type in {field.TYPE_INT32, field.TYPE_SINT32, field.TYPE_ENUM}:
        return rng.choice((0, 1, 2, -1, 300, 2**31 - 1, -(2**31)))
    if field.type in {field.TYPE_UINT32, field.TYPE_FIXED32}:
        return rng.choice((0, 1, 256, 2**32 - 1))
    return rng.choice(U64S)


def fill(rng: random.Random, message: Message, depth: int = 0) -> Message:
    """Sets any fields of the message to values that the door accepts."""
    for field in message.DESCRIPTOR.fields:
        if field.name.endswith("strindex") or (
            rng.random() < 0.25 and field.full_name != "opentelemetry.proto.metrics.v1.Metric.name"
        ):
            continue
        if field.message_type is None:
            if field.is_repeated:
                getattr(message, field.name).extend(scalar(rng, field) for _ in range(rng.randrange(4)))
            elif field.full_name == "opentelemetry.proto.metrics.v1.Metric.name":
                setattr(message, field.name, rng.choice(TEXTS[1:]))
            else:
                setattr(message, field.name, scalar(rng, field))
            continue
        nested = field.message_type.name in {"ArrayValue", "KeyValueList"}
        if (nested and depth > 3) or (field.containing_oneof and rng.random() < 0.5):
            continue
        if field.is_repeated:
            for _ in range(rng.choice((0, 1, 1, 2, 3)) if depth < 2 else rng.randrange(3)):
                fill(rng, getattr(message, field.name).add(), depth + nested)
        else:
            child = getattr(message, field.name)
            child.SetInParent()
            fill(rng, child, depth + nested)
    return message


def request(signal: str, seed: int) -> Message:
    return fill(random.Random(seed), REQUESTS[signal]())


def same(a: float, b: float) -> bool:
    return struct.pack("<d", a) == struct.pack("<d", b)


def inside(wire: bytes, row: np.void, name: str) -> bytes:
    return wire[row[name] : row[name] + row[name + "_len"]]


def assert_row(wire: bytes, row: np.void, message: Message, parent: int) -> None:
    """A row's frame holds the message; its numbers, ids and slices are the message's fields of the same name."""
    assert row["parent"] == parent
    assert type(message).FromString(wire[row["body"] : row["end"]]).SerializeToString() == message.SerializeToString()
    assert row["start"] < row["body"] <= row["end"]
    renamed = {
        "time_unix_nano": "time",
        "start_time_unix_nano": "start_time",
        "end_time_unix_nano": "end_time",
        "observed_time_unix_nano": "observed_time",
        "as_int": "int_value",
        "as_double": "double_value",
        "is_monotonic": "monotonic",
        "aggregation_temporality": "temporality",
        "bucket_counts": "buckets",
        "explicit_bounds": "bounds",
    }
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        column = renamed.get(field.name, field.name)
        if field.name == "trace_id":
            assert (int(row["trace_id_hi"]) << 64 | int(row["trace_id_lo"])) == int.from_bytes(value, "big")
        elif field.name in {"span_id", "parent_span_id"}:
            assert int(row[field.name]) == int.from_bytes(value, "big")
        elif field.name in {"attributes", "filtered_attributes"}:
            assert row["attribute_count"] == len(value)
        elif field.name in {"events", "links", "exemplars"}:
            assert row[field.name[:-1] + "_count"] == len(value)
        elif field.name == "quantile_values":
            assert row["quantile_count"] == len(value)
        elif field.name in {"positive", "negative"}:
            assert row[field.name + "_offset"] == value.offset
            assert varints(inside(wire, row, field.name)) == list(value.bucket_counts)
        elif field.name == "bucket_counts":
            assert list(np.frombuffer(inside(wire, row, column), "<u8")) == list(value)
        elif field.name == "explicit_bounds":
            assert inside(wire, row, column) == struct.pack(f"<{len(value)}d", *value)
        elif field.type == field.TYPE_STRING:
            assert inside(wire, row, column) == value.encode()
            if value:
                assert row[column] > 0
        elif column in (row.dtype.names or ()) and field.message_type is None:
            expected = np.array(value, row.dtype[column])
            assert same(row[column], value) if field.type == field.TYPE_DOUBLE else row[column] == expected


def content(field: bytes) -> bytes:
    """The content of a field whose extent, from its tag on, is in a row."""
    at = 0
    for _ in range(2):  # tag, length
        while field[at] >= 0x80:
            at += 1
        at += 1
    return field[at:]


def assert_attributes(wire: bytes, found: tuple[np.ndarray, list[bytes]], lists: list[Any]) -> None:
    rows, keys = found
    assert len(set(keys)) == len(keys)
    flat = [(owner, attribute) for owner, attributes in enumerate(lists) for attribute in attributes]
    assert len(rows) == len(flat)
    for row, (owner, attribute) in zip(rows, flat, strict=True):
        assert row["owner"] == owner
        key = attribute.key.encode()
        assert keys[row["key_code"]] == inside(wire, row, "key") == key
        assert (
            type(attribute).FromString(content(wire[row["start"] : row["end"]])).SerializeToString()
            == attribute.SerializeToString()
        )
        member = attribute.value.WhichOneof("value")
        assert row["kind"] == KINDS[member]
        assert (row["any"] >= 0) == attribute.HasField("value")
        assert AnyValue.FromString(inside(wire, row, "any")).SerializeToString() == attribute.value.SerializeToString()
        value = getattr(attribute.value, member) if member else None
        assert row["int_value"] == (int(value) if member in {"int_value", "bool_value"} else 0)
        assert same(row["double_value"], value if member == "double_value" else 0.0)
        if member == "string_value":
            assert inside(wire, row, "value") == value.encode()
        elif member == "bytes_value":
            assert inside(wire, row, "value") == value
        elif member in {"array_value", "kvlist_value"}:
            assert type(value).FromString(inside(wire, row, "value")).SerializeToString() == value.SerializeToString()
        else:
            assert row["value"] == -1


def assert_children(table: str, wire: bytes, parents: np.ndarray, lists: list[Any], attributes: str | None) -> None:
    rows = scan_index.index_children(table, wire, parents)
    assert not rows.flags.writeable
    flat = [(parent, child) for parent, children in enumerate(lists) for child in children]
    assert len(rows) == len(flat)
    for row, (parent, child) in zip(rows, flat, strict=True):
        assert_row(wire, row, child, parent)
        if table == "exemplars":
            assert row["value_kind"] == {None: 0, "as_int": 1, "as_double": 2}[child.WhichOneof("value")]
    if attributes:
        assert_attributes(
            wire, scan_index.index_attributes(table, wire, rows), [getattr(child, attributes) for _, child in flat]
        )


def assert_index(signal: str, wire: bytes, tables: tuple[np.ndarray, ...]) -> None:
    """All tables, child tables and attributes of the index equal what protobuf reads."""
    parsed: Any = REQUESTS[signal].FromString(wire)
    group_field, scope_field, item_field = {
        "traces": ("resource_spans", "scope_spans", "spans"),
        "metrics": ("resource_metrics", "scope_metrics", "metrics"),
        "logs": ("resource_logs", "scope_logs", "log_records"),
    }[signal]
    groups = list(getattr(parsed, group_field))
    scopes = [(i, scope) for i, group in enumerate(groups) for scope in getattr(group, scope_field)]
    items = [(i, item) for i, (_, scope) in enumerate(scopes) for item in getattr(scope, item_field)]
    assert [len(rows) for rows in tables[:3]] == [len(groups), len(scopes), len(items)]
    assert all(not rows.flags.writeable for rows in tables)
    for row, group in zip(tables[0], groups, strict=True):
        assert row["parent"] == -1
        assert inside(wire, row, "schema_url") == group.schema_url.encode()
        assert (row["inner_start"] >= 0) == group.HasField("resource")
        assert row["attribute_count"] == len(group.resource.attributes)
    for row, (parent, scope) in zip(tables[1], scopes, strict=True):
        assert row["parent"] == parent
        assert inside(wire, row, "name") == scope.scope.name.encode()
        assert inside(wire, row, "version") == scope.scope.version.encode()
        assert inside(wire, row, "schema_url") == scope.schema_url.encode()
        assert (row["inner_start"] >= 0) == scope.HasField("scope")
    for row, (parent, item) in zip(tables[2], items, strict=True):
        assert_row(wire, row, item, parent)
    assert_attributes(
        wire, scan_index.index_attributes("resources", wire, tables[0]), [g.resource.attributes for g in groups]
    )
    assert_attributes(
        wire, scan_index.index_attributes("scopes", wire, tables[1]), [s.scope.attributes for _, s in scopes]
    )
    if signal == "traces":
        assert_attributes(wire, scan_index.index_attributes("spans", wire, tables[2]), [s.attributes for _, s in items])
        assert [(r["status_code"], inside(wire, r, "status_message")) for r in tables[2]] == [
            (s.status.code, s.status.message.encode()) for _, s in items
        ]
        assert_children("events", wire, tables[2], [s.events for _, s in items], "attributes")
        assert_children("links", wire, tables[2], [s.links for _, s in items], "attributes")
    elif signal == "logs":
        assert_attributes(
            wire, scan_index.index_attributes("records", wire, tables[2]), [s.attributes for _, s in items]
        )
        for row, (_, record) in zip(tables[2], items, strict=True):
            member = record.body.WhichOneof("value")
            assert row["body_kind"] == (KINDS[member] if record.HasField("body") else layout.KIND_ABSENT)
            assert inside(wire, row, "text") == record.body.string_value.encode()
            assert AnyValue.FromString(inside(wire, row, "any")).SerializeToString() == record.body.SerializeToString()
    else:
        assert_points(wire, tables, [metric for _, metric in items])


def assert_points(wire: bytes, tables: tuple[np.ndarray, ...], metrics: list[Any]) -> None:
    members = {None: 0, "gauge": 1, "sum": 2, "histogram": 3, "exponential_histogram": 4, "summary": 5}
    points = []
    for i, (row, metric) in enumerate(zip(tables[2], metrics, strict=True)):
        member = metric.WhichOneof("data")
        assert row["type"] == members[member]
        message = getattr(metric, member) if member else None
        assert row["point_count"] == (len(message.data_points) if member else 0)
        assert row["temporality"] == getattr(message, "aggregation_temporality", 0)
        assert row["monotonic"] == getattr(message, "is_monotonic", False)
        if member:
            assert (
                type(message).FromString(wire[row["data_body"] : row["data_end"]]).SerializeToString()
                == message.SerializeToString()
            )
            points += [(i, point) for point in message.data_points]
        else:
            assert row["data_start"] == -1
    assert len(tables[3]) == len(points)
    for row, (parent, point) in zip(tables[3], points, strict=True):
        assert_row(wire, row, point, parent)
        names = {field.name for field in point.DESCRIPTOR.fields}
        if "as_int" in names:
            assert row["value_kind"] == {None: 0, "as_int": 1, "as_double": 2}[point.WhichOneof("value")]
        for bit, name in ((1, "sum"), (2, "min"), (4, "max")):
            if name in names and point.DESCRIPTOR.fields_by_name[name].has_presence:
                assert bool(row["present"] & bit) == point.HasField(name)
    types = tables[2]["type"][tables[3]["parent"]]
    assert_attributes(
        wire, scan_index.index_attributes("points", wire, tables[3], types), [p.attributes for _, p in points]
    )
    assert_children(
        "exemplars", wire, tables[3], [getattr(p, "exemplars", ()) for _, p in points], "filtered_attributes"
    )
    assert_children("quantiles", wire, tables[3], [getattr(p, "quantile_values", ()) for _, p in points], None)


@pytest.mark.parametrize("signal", SIGNALS)
@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_agrees_with_protobuf_on_whole_requests(signal, seed):
    """Messages written by protobuf pass unchanged, and all tables of the index equal what protobuf reads."""
    wire = request(signal, seed).SerializeToString()
    kept, tables, rejected, message, repaired = scan.check(signal, wire)
    assert kept is wire
    assert (rejected, message, repaired) == (0, "", 0)
    assert_index(signal, wire, tables)
    for checked, scanned in zip(tables, scan.scan(signal, wire), strict=True):
        assert checked.tobytes() == scanned.tobytes()


def damage(rng: random.Random, wire: bytes) -> bytes:
    out = bytearray(wire)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(6)
        if kind == 0 and out:
            out[at % len(out)] = rng.randrange(256)
        elif kind == 1 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del out[at : at + rng.choice((1, 2, 8, 1000))]
        elif kind == 3:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 4)))
        elif kind == 4:
            start = rng.randrange(len(out) + 1)
            out[at:at] = out[start : start + rng.randrange(40)]
        else:
            del out[at:]
    return bytes(out)


def duplicate(rng: random.Random, message: Message) -> bytes:
    """The request with pieces of other requests appended to its messages: repeated singular fields, merged messages."""
    parts = [message.SerializeToString()]
    for field, value in message.ListFields():
        if field.message_type is None or rng.random() < 0.5:
            continue
        for child in value if field.is_repeated else [value]:
            body = duplicate(rng, child)
            length = padded_varint(len(body)) if rng.random() < 0.3 else varint(len(body))
            parts.append(tag(field.number) + length + body)
    return b"".join(parts)


def plain(message: Any) -> bytes:
    copy = type(message)()
    copy.CopyFrom(message)
    copy.DiscardUnknownFields()
    return copy.SerializeToString(deterministic=True)


def assert_let_in_or_refused(signal: str, wire: bytes) -> bool:
    """The property of the door: upb parses what passes, with the content it read in the original; our index agrees."""
    try:
        kept, tables, rejected, message, repaired = scan.check(signal, wire)
    except MalformedBatch as error:
        assert 0 <= error.offset <= len(wire)  # noqa: PT017 - most damage is refused, some is let in
        return False
    again, tables_again, rejected_again, _, repaired_again = scan.check(signal, kept)
    assert again is kept
    assert rejected_again == repaired_again == 0
    assert [rows.tobytes() for rows in tables] == [rows.tobytes() for rows in tables_again]
    assert bool(message) or rejected == 0
    assert_index(signal, kept, tables)
    try:
        original = REQUESTS[signal].FromString(wire)
    except DecodeError:
        assert repaired  # what else upb refuses, we refuse
        return True
    if not rejected and not message and b"strindex" not in str(original).encode() and b"\xc2\x3e" not in wire:
        assert plain(original) == plain(REQUESTS[signal].FromString(kept))
    return True


@pytest.mark.parametrize("signal", SIGNALS)
@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=150)
def test_damaged_requests_are_refused_or_read_alike(signal, seed):
    """A damaged request raises MalformedBatch, or passes with the content that protobuf reads in it."""
    rng = random.Random(seed)
    wire = request(signal, seed % 50).SerializeToString()
    for _ in range(5):
        assert_let_in_or_refused(signal, damage(rng, wire))


@pytest.mark.parametrize("signal", SIGNALS)
@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_repeated_fields_are_merged_as_protobuf_merges_them(signal, seed):
    """Repeated singular fields and oneof members are accepted and normalised, with the content that protobuf reads."""
    rng = random.Random(seed)
    wire = duplicate(rng, fill(rng, REQUESTS[signal]()))
    assert assert_let_in_or_refused(signal, wire)
    kept = scan.check(signal, wire)[0]
    assert len(kept) == len(REQUESTS[signal].FromString(kept).SerializeToString())


@pytest.mark.parametrize("signal", SIGNALS)
@given(wire=st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_random_bytes_never_crash(signal, wire):
    """Bytes that are no request at all are refused or read as protobuf reads them."""
    assert_let_in_or_refused(signal, wire)
    with contextlib.suppress(MalformedBatch):
        scan.scan(signal, wire)
