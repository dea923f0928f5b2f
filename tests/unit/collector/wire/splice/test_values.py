"""The encoding of what a rewrite inserts, and the reading of values, against protobuf and plain Python."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from collector.wire.layout import (
    ATTRIBUTE,
    KIND_ABSENT,
    KIND_BOOL,
    KIND_BYTES,
    KIND_DOUBLE,
    KIND_EMPTY,
    KIND_INT,
    KIND_STRING,
)
from collector.wire.splice.values import (
    compact_values,
    content_starts,
    decimal_texts,
    encode_length_delimited,
    encode_texts,
    encode_varints,
    find_key,
    find_texts,
    gather_rows,
    overlay_rows,
    read_values,
    slice_bytes,
)

VALUES = [
    (AnyValue(string_value="grün"), KIND_STRING),
    (AnyValue(bool_value=True), KIND_BOOL),
    (AnyValue(int_value=-5), KIND_INT),
    (AnyValue(double_value=2.5), KIND_DOUBLE),
    (AnyValue(bytes_value=b"\xff"), KIND_BYTES),
    (AnyValue(), KIND_EMPTY),
]


def attributes(*rows):
    """Attribute rows from (owner, key code) pairs."""
    table = np.zeros(len(rows), ATTRIBUTE)
    table["owner"] = [owner for owner, _ in rows]
    table["key_code"] = [code for _, code in rows]
    return table


def values():
    contents = [value.SerializeToString() for value, _ in VALUES]
    lengths = np.array([len(content) for content in contents], np.int32)
    source = b"".join(contents)
    return source, read_values(source, (np.cumsum(lengths) - lengths).astype(np.int32), lengths)


def test_values_are_read_by_kind():
    """Kind, and number or slice, of each value; absent where the start is negative."""
    source, rows = values()
    assert rows["kind"].tolist() == [kind for _, kind in VALUES]
    assert rows["int_value"].tolist() == [0, 1, -5, 0, 0, 0]
    assert rows["double_value"].tolist() == [0, 0, 0, 2.5, 0, 0]
    text = rows[0]
    assert source[text["value"] : text["value"] + text["value_len"]] == "grün".encode()
    assert read_values(source, np.array([-1], np.int32), np.array([0], np.int32))["kind"].tolist() == [KIND_ABSENT]


@settings(max_examples=200)
@given(content=st.binary(max_size=40))
def test_values_of_any_bytes_stay_within_them(content):
    """Whatever the bytes contain, the slice of a value is inside them."""
    row = read_values(content, np.array([0], np.int32), np.array([len(content)], np.int32))[0]
    assert row["value"] < 0 or 0 <= row["value"] <= row["value"] + row["value_len"] <= len(content)


def test_slices_outside_their_source_are_refused():
    """Every function that takes slices checks them."""
    one, far = np.array([0], np.int32), np.array([9], np.int32)
    for function in (read_values, slice_bytes, lambda *args: encode_length_delimited(b"\x0a", *args)):
        with pytest.raises(ValueError, match="outside"):
            function(b"abc", one, far)
    row = gather_rows(np.empty(0, ATTRIBUTE), np.array([-1], np.int32))
    row["any"], row["any_len"] = 2, 5
    with pytest.raises(ValueError, match="outside"):
        compact_values(row, b"abc", 0)
    with pytest.raises(ValueError, match="outside"):
        content_starts(b"\x0a", np.array([0], np.int32), np.array([5], np.int32))
    with pytest.raises(ValueError, match="not a length-delimited field"):
        content_starts(b"\x0a\x80", np.array([0], np.int32), np.array([2], np.int32))


@given(numbers=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_numbers_as_fields_and_as_text(numbers):
    """Varints are read by protobuf, and decimals equal Python's."""
    column = np.array(numbers, np.int64)
    payload, starts, lengths = encode_varints(b"\x18", column.view(np.uint64))
    assert [AnyValue.FromString(payload[s : s + n]).int_value for s, n in zip(starts, lengths, strict=True)] == numbers
    assert [text.decode() for text in slice_bytes(*decimal_texts(column))] == [str(number) for number in numbers]


def test_the_last_of_a_repeated_key_counts():
    """The last attribute of each owner, or -1; also for a code that no row has."""
    rows = attributes((0, 1), (0, 2), (0, 1), (2, 1), (2, 3))
    assert find_key(rows, 1, 4).tolist() == [2, -1, 3, -1]
    assert find_key(rows, -1, 4).tolist() == [-1] * 4


def test_rows_gathered_and_laid_over_each_other():
    """-1 is an absent row; a present row is not replaced."""
    _, rows = values()
    column = gather_rows(rows, np.array([2, -1, -1, 99], np.int32))
    assert column["kind"].tolist() == [KIND_INT, KIND_ABSENT, KIND_ABSENT, KIND_ABSENT]
    filled = overlay_rows(column, rows, np.array([3, 3, -1, 99], np.int32))
    assert filled["kind"].tolist() == [KIND_INT, KIND_DOUBLE, KIND_ABSENT, KIND_ABSENT]
    assert filled["owner"].tolist() == [0, 1, 2, 3]


def test_compacted_values_are_the_same_values():
    """Only the bytes of the rows are kept, with slices relative to the base."""
    source, rows = values()
    joined, moved = compact_values(rows[[3, 0]], source, 10)
    back = read_values(bytes(10) + joined, moved["any"].copy(), moved["any_len"].copy())
    assert back["kind"].tolist() == [KIND_DOUBLE, KIND_STRING]
    assert back["value"].tolist() == moved["value"].tolist()
    assert struct.unpack("<d", joined[1:9]) == (2.5,)


@given(
    texts=st.lists(st.binary(max_size=200), min_size=1, max_size=4),
    chosen=st.lists(st.integers(0, 3), max_size=9),
    inner_tag=st.sampled_from([b"", b"\x0a"]),
)
def test_texts_are_encoded_once_and_found_for_each_code(texts, chosen, inner_tag):
    """A field for each code, with the text itself or in a message; a text that is used twice is written once."""
    codes = np.array([code % len(texts) for code in chosen], np.int32)
    source, starts, lengths, sizes = encode_texts(b"\x2a", inner_tag, texts, codes)

    def field(tag, content):
        joined, _, _ = encode_length_delimited(tag, content, np.zeros(1, np.int32), np.array([len(content)], np.int32))
        return joined

    expected = [field(b"\x2a", field(inner_tag, text) if inner_tag else text) for text in texts]
    found = [source[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    assert found == [expected[code] for code in codes]
    assert sizes.tolist() == [len(texts[code]) for code in codes]
    assert len(source) == sum(len(expected[code]) for code in set(codes.tolist()))


def test_codes_of_no_text_are_refused():
    """A code outside the list raises instead of being read."""
    for code in (-1, 1):
        with pytest.raises(ValueError, match="expected codes from 0 to 0"):
            encode_texts(b"\x2a", b"", [b"a"], np.array([code], np.int32))
    with pytest.raises(TypeError):
        encode_texts(b"\x2a", b"", ["a"], np.array([0], np.int32))


def test_texts_of_a_size_are_found():
    """Only texts count, and those of at least the size."""
    rows = np.zeros(4, ATTRIBUTE)
    rows["kind"] = [KIND_STRING, KIND_BYTES, KIND_STRING, KIND_STRING]
    rows["value_len"] = [3, 9, 9, 2]
    assert find_texts(rows, 3).tolist() == [0, 2]
    assert find_texts(rows, 0).tolist() == [0, 2, 3]
    assert find_texts(rows, 10).tolist() == []
