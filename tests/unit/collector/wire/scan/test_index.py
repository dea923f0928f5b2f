"""The index of bytes that passed before: find_field, hostile rows, and the C structs against the numpy dtypes."""

import contextlib
import ctypes
import re
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import collector.wire
from collector.testing import generate
from collector.wire import layout
from collector.wire.errors import MalformedBatch
from collector.wire.scan import check as scan
from collector.wire.scan import index as scan_index

C_TYPES = {
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "double": ctypes.c_double,
}


def traces() -> bytes:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for i in range(20):
        span = spans.add(name=f"s{i}", trace_state="a=b" if i % 2 else "")
        for k in range(i % 4):
            span.attributes.add(key=f"key {k}").value.int_value = k
        for _ in range(i % 3):
            span.events.add(name="event").attributes.add(key="key 0").value.string_value = "v"
    return request.SerializeToString()


@pytest.mark.parametrize("name", [n for n in layout.__all__ if isinstance(getattr(layout, n), np.dtype)])
def test_rows_are_the_c_structs(name):
    """The struct of layout.pxd has the size and offsets, on this platform, of the dtype of the same name."""
    source = (Path(collector.wire.__path__[0]) / "layout.pxd").read_text()
    struct = name.capitalize() + "Row"
    body = re.search(rf"ctypedef struct {struct}:.*\n((?:    .*\n)+)", source)
    assert body
    fields = [
        (column.strip(), C_TYPES[kind])
        for kind, columns in re.findall(r"^    (\w+) ([^#\n]*)", body[1], re.MULTILINE)
        for column in columns.split(",")
    ]
    c_struct = type(struct, (ctypes.Structure,), {"_fields_": fields})
    dtype = getattr(layout, name)
    assert dtype.names == tuple(column for column, _ in fields)
    assert dtype.itemsize == ctypes.sizeof(c_struct)
    assert [dtype.fields[column][1] for column, _ in fields] == [
        getattr(c_struct, column).offset for column, _ in fields
    ]


def test_constants_are_those_of_layout():
    """The enums of layout.pxd have the names and values of the constants of layout.py."""
    source = (Path(collector.wire.__path__[0]) / "layout.pxd").read_text()
    constants = {name: int(value) for name, value in re.findall(r"^    ([A-Z]+_[A-Z_]+) = (\d+)", source, re.MULTILINE)}
    assert constants == {
        name: getattr(layout, name) for name in layout.__all__ if isinstance(getattr(layout, name), int)
    }


def test_find_field_gives_the_last_occurrence():
    """The extent of the last field with the number, from its tag on; -1 where a message has none."""
    wire = b"\x2a\x01a\x2a\x01b\x30\x05"
    starts, ends = scan_index.find_field(wire, np.array([0, 0, 6, 8], "i4"), np.array([8, 3, 8, 8], "i4"), 5)
    assert starts.tolist() == [3, 0, -1, -1]
    assert ends.tolist() == [6, 3, -1, -1]
    assert scan_index.find_field(wire, np.array([0], "i4"), np.array([8], "i4"), 6)[0].tolist() == [6]


def test_find_field_of_nothing():
    """Without messages there are no offsets."""
    starts, ends = scan_index.find_field(b"", np.empty(0, "i4"), np.empty(0, "i4"), 1)
    assert len(starts) == len(ends) == 0


@pytest.mark.parametrize(("body", "end"), [(-1, 2), (0, 100), (3, 2), (2**31 - 1, -(2**31))])
def test_find_field_refuses_messages_outside_the_buffer(body, end):
    """Offsets are checked before anything is read."""
    with pytest.raises(MalformedBatch):
        scan_index.find_field(b"\x2a\x01a", np.array([body], "i4"), np.array([end], "i4"), 5)


def test_find_field_refuses_columns_of_different_length():
    """Bodies and ends must have the same length."""
    with pytest.raises(ValueError, match="got 2 bodies but 1 ends"):
        scan_index.find_field(b"", np.zeros(2, "i4"), np.zeros(1, "i4"), 1)


def test_keys_are_distinct_in_order_of_appearance():
    """However many keys there are and whatever their order, each has one code."""
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    wanted = [f"key {(i * 7919) % 997} {'x' * (i % 40)}" for i in range(5000)] + ["", "k"]
    for key in wanted:
        span.attributes.add(key=key)
    wire = request.SerializeToString()
    rows, keys = scan_index.index_attributes("spans", wire, scan.scan("traces", wire)[2])
    assert [keys[code].decode() for code in rows["key_code"]] == wanted
    assert [key.decode() for key in keys] == list(dict.fromkeys(wanted))


def test_rows_of_a_subset_are_owners_by_position():
    """Owners and parents count within the rows given."""
    wire = traces()
    spans = np.ascontiguousarray(scan.scan("traces", wire)[2][7:8])
    assert scan_index.index_attributes("spans", wire, spans)[0]["owner"].tolist() == [0, 0, 0]
    assert scan_index.index_children("events", wire, spans)["parent"].tolist() == [0]


def test_rows_that_are_not_contiguous_are_taken():
    """A strided selection of rows works like its copy."""
    wire = traces()
    spans = scan.scan("traces", wire)[2]
    strided, copied = spans[::2], np.ascontiguousarray(spans[::2])
    assert (
        scan_index.index_attributes("spans", wire, strided)[0].tobytes()
        == scan_index.index_attributes("spans", wire, copied)[0].tobytes()
    )
    assert (
        scan_index.index_children("events", wire, strided).tobytes()
        == scan_index.index_children("events", wire, copied).tobytes()
    )


def test_rows_of_another_table_are_refused():
    """The row size is that of the table, or every offset would be read from the wrong place."""
    wire = traces()
    resources, scopes, spans = scan.scan("traces", wire)
    for call in (
        lambda: scan_index.index_attributes("spans", wire, scopes),
        lambda: scan_index.index_children("events", wire, resources),
        lambda: scan_index.index_children("exemplars", wire, spans),
    ):
        with pytest.raises(ValueError, match="belong to another table"):
            call()
    with pytest.raises(ValueError, match="expected events, links, exemplars or quantiles"):
        scan_index.index_children("spans", wire, spans)
    with pytest.raises(ValueError, match="table 'metrics' has no attributes"):
        scan_index.index_attributes("metrics", wire, spans)


def test_points_need_their_types():
    """The number of a point's attribute field depends on the metric's type."""
    wire = b""
    points = np.empty(0, layout.POINT)
    with pytest.raises(ValueError, match="types of the metrics are required"):
        scan_index.index_attributes("points", wire, points)
    with pytest.raises(ValueError, match="expected the types of 0 points, got 1"):
        scan_index.index_attributes("points", wire, points, np.zeros(1, "i4"))


@pytest.mark.parametrize("column", ["body", "end"])
def test_rows_that_point_outside_are_refused(column):
    """Rows of other bytes raise an error instead of reading outside the buffer."""
    wire = traces()
    spans = scan.scan("traces", wire)[2].copy()
    for value in (-5, 2**31 - 1, -(2**31)):
        spans[column][3] = value
        with pytest.raises(MalformedBatch):
            scan_index.index_attributes("spans", wire, spans)
        spans["event_count"][3] = 1
        with pytest.raises(MalformedBatch):
            scan_index.index_children("events", wire, spans)


def test_rows_of_other_bytes_never_crash():
    """Rows shifted against the bytes give arbitrary values or MalformedBatch."""
    wire = traces()
    spans = scan.scan("traces", wire)[2]
    for shift in range(-40, 40):
        moved = spans.copy()
        for column in ("start", "body", "end"):
            moved[column] += shift
        for call in (
            lambda m=moved: scan_index.index_attributes("spans", wire, m),
            lambda m=moved: scan_index.index_children("events", wire, m),
        ):
            with contextlib.suppress(MalformedBatch):
                call()


def test_scan_refuses_what_check_would_have_changed():
    """The index refuses bytes that did not pass the door: ids of a wrong length and old fields."""
    for wire in (b"\x0a\x07\x12\x05\x12\x03\x0a\x01x", b"\x0a\x03\xc2\x3e\x00", b"\x0a\x05abc"):
        with pytest.raises(MalformedBatch):
            scan.scan("traces", wire)


@pytest.mark.parametrize(
    ("signal", "count", "make"), [("traces", "spans", generate.traces), ("logs", "records", generate.logs)]
)
def test_frames_are_the_begin_of_every_row(signal, count, make):
    """The same extents of resources, scopes and items as ``scan`` finds, without the contents of items."""
    for seed in range(20):
        wire = make(**{count: seed + 1}, seed=seed).wire
        tables, framed = scan.scan(signal, wire), scan.frames(signal, wire)
        assert [table.dtype for table in framed] == [layout.RESOURCE, layout.SCOPE, layout.FRAME]
        assert framed[0].tobytes() == tables[0].tobytes()
        assert framed[1].tobytes() == tables[1].tobytes()
        for column in layout.FRAME.names:
            assert framed[2][column].tolist() == tables[2][column].tolist()


def test_frames_refuse_what_they_cannot_frame():
    """Points are not directly below scopes; old fields and broken lengths are refused."""
    with pytest.raises(ValueError, match="metrics"):
        scan.frames("metrics", b"")
    for wire in (b"\x0a\x03\xc2\x3e\x00", b"\x0a\x05abc", b"\x0a\x04\x12\x02\x12\x09"):
        with pytest.raises(MalformedBatch):
            scan.frames("traces", wire)


def test_exemplars_are_found_in_every_type_of_point():
    """The field of the exemplars is found from the other fields of the point."""
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    for member in ("gauge", "sum", "histogram", "exponential_histogram"):
        data = getattr(metrics.add(name=member), member)
        for count in (0, 2):
            point = data.data_points.add()
            if member == "exponential_histogram":
                point.positive.bucket_counts.append(1)
                point.negative.offset = 3
                point.sum = 1.0
            elif member == "histogram":
                point.min = point.max = point.sum = 1.0
            for i in range(count):
                point.exemplars.add(as_int=i)
    wire = request.SerializeToString()
    rows = scan_index.index_children("exemplars", wire, scan.check("metrics", wire)[1][3])
    assert rows["parent"].tolist() == [1, 1, 3, 3, 5, 5, 7, 7]
    assert rows["int_value"].tolist() == [0, 1] * 4
