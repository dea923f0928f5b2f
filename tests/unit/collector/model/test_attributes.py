"""Attribute columns and tables: values by kind, and all of them as text."""

import math

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import (
    KIND_ABSENT,
    KIND_ARRAY,
    KIND_BOOL,
    KIND_BYTES,
    KIND_DOUBLE,
    KIND_INT,
    KIND_MAP,
    KIND_STRING,
    AttributeColumn,
    StringColumn,
    Traces,
)

VALUES = [
    "text",
    7,
    1.0,
    True,
    b"\x01\x02",
    ["a", 1.5, None],
    {"b": 1, "a": {"n": "ü"}},
    None,
    "7",
    -(2**63),
    False,
    2.5,
]
TEXT = [
    "text",
    "7",
    "1",
    "true",
    "AQI=",
    '["a",1.5,null]',
    '{"a":{"n":"ü"},"b":1}',
    None,
    "7",
    str(-(2**63)),
    "false",
    "2.5",
]
KINDS = [
    KIND_STRING,
    KIND_INT,
    KIND_DOUBLE,
    KIND_BOOL,
    KIND_BYTES,
    KIND_ARRAY,
    KIND_MAP,
    KIND_ABSENT,
    KIND_STRING,
    KIND_INT,
    KIND_BOOL,
    KIND_DOUBLE,
]


@pytest.fixture
def column():
    return AttributeColumn.of(VALUES)


def test_each_kind_has_its_own_column(column):
    """Zero, False or absent elsewhere."""
    assert column.kind.tolist() == KINDS
    assert column.present.tolist() == [value is not None for value in VALUES]
    assert column.int.tolist() == [0, 7, 0, 0, 0, 0, 0, 0, 0, -(2**63), 0, 0]
    assert column.double.tolist() == [0, 0, 1.0, 0, 0, 0, 0, 0, 0, 0, 0, 2.5]
    assert column.bool.tolist() == [i == 3 for i in range(12)]
    assert column.text.to_list() == [value if isinstance(value, str) else None for value in VALUES]
    numeric = column.numeric()
    assert numeric[[1, 2, 11]].tolist() == [7, 1, 2.5]
    assert [math.isnan(value) for value in numeric].count(True) == 8


def test_everything_as_text(column):
    """Texts follow the specification; equal texts share a code, whatever kind they come from."""
    text = column.as_text()
    assert text.to_list() == TEXT
    assert text.codes[1] == text.codes[8]
    assert column.as_text() is text
    assert AttributeColumn.of(["a", None]).as_text().to_list() == ["a", None]
    assert AttributeColumn.of([]).as_text().to_list() == []


def test_rows_taken_keep_their_values(column):
    """``take`` accepts masks and indices."""
    assert column.take(np.array([2, 0])).as_text().to_list() == ["1", "text"]
    assert column.take(column.kind == KIND_INT).int.tolist() == [7, -(2**63)]


def test_a_column_fills_another():
    """Missing values are filled from a column with the same source or another one."""
    first, second = AttributeColumn.of(["a", None, None]), AttributeColumn.of([1, 2, None])
    assert first.fill(second).as_text().to_list() == ["a", "2", None]
    assert first.fill(first) is first or first.fill(first).as_text().to_list() == ["a", None, None]


def test_constants_and_other_sources():
    """One value for all rows, text columns and arrays."""
    assert AttributeColumn.constant([1], 2).as_text().to_list() == ["[1]", "[1]"]
    assert AttributeColumn.of_text(StringColumn.of(["a", None])).as_text().to_list() == ["a", None]
    assert AttributeColumn.of_numbers(np.array([1, -1])).int.tolist() == [1, -1]
    with pytest.raises(TypeError, match="expected an array of integers, floats or bools"):
        AttributeColumn.of_numbers(np.array(["x"]))
    with pytest.raises(ValueError, match="signed"):
        AttributeColumn.of_numbers(np.array([2**63], np.uint64))


def test_a_table_lists_all_attributes_of_all_rows():
    """Owner, key and value in document order, including repeated keys; the last one counts for the column."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for i in range(2):
        span = scope.spans.add()
        span.attributes.add(key="k").value.int_value = i
        span.attributes.add(key="k").value.string_value = "last"
        span.attributes.add(key="empty")
    batch = Traces.from_wire(request.SerializeToString())
    attributes = batch.attributes()
    assert attributes.row_count == 6
    assert attributes.owner.tolist() == [0, 0, 0, 1, 1, 1]
    assert attributes.key.to_list() == ["k", "k", "empty"] * 2
    assert attributes.as_text().to_list() == ["0", "last", "", "1", "last", ""]
    assert batch.attribute("k").text.to_list() == ["last", "last"]
    assert batch.attribute("empty").as_text().to_list() == ["", ""]
    assert batch.attributes() is attributes
