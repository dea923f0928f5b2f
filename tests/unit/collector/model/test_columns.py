"""Text columns: work is done once per distinct value, and absent is not empty."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.model import StringColumn

TEXTS = st.lists(st.none() | st.sampled_from(["", "a", "b", "grün"]), max_size=8)


@given(values=TEXTS, other=TEXTS)
def test_columns_are_their_values(values, other):
    """Making, taking and filling columns equals the same with lists."""
    column = StringColumn.of(values)
    assert column.to_list() == values
    assert column.present.tolist() == [value is not None for value in values]
    assert column.equals("a").tolist() == [value == "a" for value in values]
    assert column.isin(["a", ""]).tolist() == [value in {"a", ""} for value in values]
    assert column.where(lambda text: text > "a").tolist() == [value is not None and value > "a" for value in values]
    assert column.fill("z").to_list() == ["z" if value is None else value for value in values]
    assert column.take(np.arange(len(values))[::-1]).to_list() == values[::-1]
    assert column.take(column.present).to_list() == [value for value in values if value is not None]
    assert column.only(column.equals("a")).to_list() == [value if value == "a" else None for value in values]


@given(values=TEXTS, sought=st.sets(st.sampled_from(["", "a", "b", "c", "grün", *"0123456789"])))
def test_slices_are_compared_where_they_lie(values, sought):
    """Few or many texts give the same result as with a list."""
    encoded = [b"" if value is None else value.encode() for value in values]
    lengths = np.array([len(value) for value in encoded], np.int32)
    starts = np.where([value is None for value in values], -1, np.cumsum(lengths) - lengths)
    for text in sought:
        assert StringColumn.from_slices(b"".join(encoded), starts, lengths).equals(text).tolist() == [
            value == text for value in values
        ]
    assert StringColumn.from_slices(b"".join(encoded), starts, lengths).isin(sought).tolist() == [
        value in sought for value in values
    ]


@given(values=TEXTS)
def test_slices_of_bytes_are_a_column(values):
    """Equal slices get one code."""
    lengths = np.array([len((value or "").encode()) for value in values], np.int32)
    starts = (np.cumsum(lengths) - lengths).astype(np.int32)
    starts[[value is None for value in values]] = -1
    column = StringColumn.from_slices("".join(value or "" for value in values).encode(), starts, lengths)
    assert column.to_list() == values
    assert column.distinct_count == len(set(values) - {None}) == len(column.distinct)
    assert column.distinct_bytes == [text.encode() for text in column.distinct]


def test_functions_run_once_per_distinct_value():
    """Once per distinct value; None makes a row absent, and equal results share a code."""
    seen = []

    def function(text):
        seen.append(text)
        return {"a": "x", "b": "x"}.get(text)

    mapped = StringColumn.of(["a", "b", "c", None] * 100).map(function)
    assert seen == ["a", "b", "c"]
    assert mapped.to_list() == ["x", "x", None, None] * 100
    assert mapped.codes[0] == mapped.codes[1]


def test_codes_made_elsewhere():
    """Values are text or bytes and may occur twice; codes must be indices."""
    column = StringColumn.from_codes(np.array([0, 2, -1, 1]), [b"a", b"b", b"a"])
    assert column.to_list() == ["a", "a", None, "b"]
    assert column.equals("a").tolist() == [True, True, False, False]
    assert StringColumn.from_codes(np.array([0]), ["x"]).distinct_bytes == [b"x"]
    for code in (1, -2):
        with pytest.raises(ValueError, match="codes"):
            StringColumn.from_codes(np.array([code]), ["x"])


def test_constants_and_memory():
    """One value for all rows; memory grows when it is decoded."""
    column = StringColumn.constant("x" * 100, 3)
    assert column.to_list() == ["x" * 100] * 3
    assert len(column) == 3
    before = column.memory_bytes
    assert column.distinct_bytes
    assert column.memory_bytes > before
    with pytest.raises(ValueError, match="read-only"):
        column.codes[0] = 1


def test_invalid_text_does_not_raise():
    """Invalid UTF-8 is replaced, in both directions."""
    assert StringColumn.from_codes(np.array([0]), [b"\xff"]).to_list() == ["\ufffd"]
    assert StringColumn.of(["\ud800"]).distinct_bytes == [b"?"]
