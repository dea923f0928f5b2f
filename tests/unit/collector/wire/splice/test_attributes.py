"""The kernels of attribute changes: protobuf reads what they write, and rows of other bytes are refused."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from collector.wire.layout import ATTRIBUTE, SCOPE, SPAN
from collector.wire.splice.attribute_log import DELETE, INSERT, UPDATE, UPSERT, AttributeLog
from collector.wire.splice.attributes import attribute_patches
from collector.wire.splice.values import read_values


def spans(*counts):
    """Span rows with these many attributes, ten bytes each."""
    rows = np.zeros(len(counts), SPAN)
    rows["attribute_count"] = counts
    rows["body"] = np.cumsum([0, *counts[:-1]]) * 10
    owners = np.repeat(np.arange(len(counts)), counts)
    attributes = np.zeros(len(owners), ATTRIBUTE)
    attributes["owner"] = owners
    attributes["start"] = np.arange(len(owners)) * 10
    attributes["end"] = attributes["start"] + 10
    return rows, attributes


def written(rows, attributes, known, keys, changes, tag=0x4A):
    made = attribute_patches(AttributeLog(rows, attributes, known, keys, changes), tag)
    if made is None:
        return []
    offsets, deleted, sources, lengths, payload = made.columns()
    return [
        (o, d, payload[s : s + n])
        for o, d, s, n in zip(*(c.tolist() for c in (offsets, deleted, sources, lengths)), strict=True)
    ]


def fields(payload):
    """KeyValue fields one after the other, each with a length of one byte."""
    found = []
    while payload:
        assert payload[0] == 0x4A
        found.append(KeyValue.FromString(payload[2 : 2 + payload[1]]))
        payload = payload[2 + payload[1] :]
    return found


def test_new_attributes_of_a_row_are_one_patch_behind_its_last():
    """New attributes are in the order of the changes; in a row without attributes they come first."""
    rows, attributes = spans(2, 0)
    changes = [
        (0, UPSERT, None, ("texts", [b"t", "ü".encode()], np.array([1, -1], np.int32))),
        (1, INSERT, None, ("numbers", np.array([-1, 300], np.int64), None)),
        (2, INSERT, np.array([1, 0], np.uint8), ("numbers", np.array([1, 0], np.uint8), None)),
        (3, UPDATE, None, ("numbers", np.array([0.5, 0.5]), None)),
        (4, UPSERT, None, ("values", [b""], None)),
    ]
    patches = written(rows, attributes, [b"known"], [b"a", b"b", b"c", b"d", b"e"], changes)
    assert [(offset, deleted) for offset, deleted, _ in patches] == [(20, 0), (20, 0)]
    first, second = (fields(payload) for _, _, payload in patches)
    assert [(f.key, f.value.WhichOneof("value")) for f in first] == [
        ("a", "string_value"),
        ("b", "int_value"),
        ("c", "bool_value"),
        ("e", None),
    ]
    assert (first[0].value.string_value, first[1].value.int_value) == ("ü", -1)
    assert [(f.key, f.value.int_value) for f in second] == [("b", 300), ("e", 0)]


def test_neighbours_that_change_are_one_patch():
    """A deletion, a replacement and an addition; of a repeated key the last is replaced and the other deleted."""
    rows, attributes = spans(4)
    attributes["key_code"] = [1, 0, 1, 2]
    changes = [
        (0, UPSERT, None, ("values", [b"\x18\x05"], None)),
        (1, DELETE, None, None),
        (2, UPSERT, None, ("values", [b"\x18\x06"], None)),
    ]
    patches = written(rows, attributes, [b"x", b"y", b"z"], [b"y", b"z", b"new"], changes)
    assert [(offset, deleted) for offset, deleted, _ in patches] == [(0, 10), (20, 20)]
    assert [(f.key, f.value.int_value) for f in fields(patches[1][2])] == [("y", 5), ("new", 6)]


def test_text_that_is_no_utf8_is_repaired():
    """Invalid UTF-8 is replaced with U+FFFD, as at the door."""
    ((_, _, payload),) = written(*spans(0), [], [b"k"], [(0, UPSERT, None, ("texts", [b"a\xff"], None))])
    assert fields(payload)[0].value.string_value == "a\ufffd"


def test_a_message_inside_is_made_with_its_length():
    """An attribute of a scope without an InstrumentationScope adds that message."""
    rows = np.zeros(1, SCOPE)
    rows["inner_start"] = -1
    changes = [(0, UPSERT, None, ("texts", [b"t" * 200], None))]
    made = attribute_patches(AttributeLog(rows, np.empty(0, ATTRIBUTE), [], [b"k"], changes), 0x1A)
    payload = made.columns()[4]
    assert payload[:3] == b"\x0a\xd4\x01"
    assert len(payload) == 3 + 0xD4
    assert made.inner_messages().tolist() == [[0, 0, 3]]


@pytest.mark.parametrize("counts", [[5, 0, 0], [3, 0, 9], [-1, 4, 2], [2**31 - 1] * 3, [1, 0, 2]])
def test_attributes_of_another_table_are_refused(counts):
    """Counts that do not add up, or attributes of other owners, are refused."""
    rows, attributes = spans(3, 0, 2)
    rows["attribute_count"] = counts
    with pytest.raises(ValueError, match="another table"):
        written(rows, attributes, [b"x"], [b"x"], [(0, UPSERT, None, ("values", [b""], None))])


def test_values_that_do_not_fit_are_refused():
    """Lengths, codes, dtypes, modes and slices are checked before anything is written."""
    rows, attributes = spans(1, 0)
    far = read_values(b"\x18\x01", np.zeros(2, np.int32), np.full(2, 2, np.int32))
    far["any"] = 7
    for change, error in (
        ((0, UPSERT, np.ones(3, np.uint8), ("values", [b""], None)), TypeError),
        ((0, UPSERT, None, ("numbers", np.zeros(3), None)), TypeError),
        ((0, UPSERT, None, ("numbers", np.zeros(2, np.int32), None)), TypeError),
        ((0, UPSERT, None, ("texts", [b""], np.array([0, 1], np.int32))), ValueError),
        ((0, UPSERT, None, ("texts", [b"", b""], None)), ValueError),
        ((0, UPSERT, None, ("rows", far[:1], b"\x18\x01")), ValueError),
        ((0, UPSERT, None, ("rows", far, b"\x18\x01")), ValueError),
        ((1, UPSERT, None, ("values", [b""], None)), ValueError),
        ((0, 9, None, ("values", [b""], None)), ValueError),
        ((-1, UPSERT, None, ("values", [b""], None)), ValueError),
        ((0, UPSERT, None, ("other", [b""], None)), ValueError),
    ):
        with pytest.raises(error):
            written(rows, attributes, [b"x"], [b"x"], [change])


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_rows_that_say_anything_are_refused_or_written(seed):
    """Whatever the rows contain, nothing is read or written outside the buffers."""
    source = random.Random(seed)
    rows, attributes = spans(*(source.randrange(3) for _ in range(4)))
    for table in (rows, attributes):
        for _ in range(source.randrange(3)):
            if len(table):
                table[source.choice(table.dtype.names)][source.randrange(len(table))] = source.randrange(5)
    attributes["key_code"] = [
        source.randrange(-1, 4) if source.random() < 0.1 else source.randrange(3) for _ in attributes
    ]
    changes = []
    for _ in range(source.randrange(1, 6)):
        mode = source.choice((UPSERT, DELETE, INSERT, UPDATE))
        where = np.array([source.randrange(2) for _ in rows], np.uint8) if source.random() < 0.5 else None
        codes = np.array([source.randrange(-1, 1) for _ in rows], np.int32)
        changes.append((source.randrange(3), mode, where, ("texts", [b"t"], codes)))
    log = AttributeLog(rows, attributes, [b"a", b"b", b"c"], [b"b", b"new", b"c"], changes)
    tags = np.full(4, 0x4A, np.uint8)
    for function in (lambda: log.winners(source.randrange(3)), lambda: attribute_patches(log, tags)):
        try:
            function()
        except ValueError:
            continue
