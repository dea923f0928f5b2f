"""Groups against a dict of tuples."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.model.groups import groups


@dataclass
class Column:
    codes: np.ndarray


DTYPES = ["u1", "i4", "i8", "u8", "f8", "f4", "?", "u2", "codes", "key"]


@st.composite
def columns(draw):
    count = draw(st.integers(0, 30))
    out, reference = [], []
    for dtype in draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=6)):
        values = draw(st.lists(st.integers(-1, 2), min_size=count, max_size=count))
        if dtype == "codes":
            out.append(Column(np.array(values, np.int32)))
            reference.append(values)
        elif dtype == "key":
            others = draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
            key = np.array([values, others], np.int64).T.reshape(-1, 2).astype(np.uint64)
            out.append(key)
            reference.append([tuple(row) for row in key.tolist()])
        else:
            array = np.array(values, np.int64).astype(dtype)
            out.append(array)
            reference.append([value.tobytes() for value in array])
    return out, list(zip(*reference, strict=True))


@given(columns())
def test_groups_agree_with_a_dict(case):
    arrays, rows = case
    seen = {}
    codes = [seen.setdefault(row, len(seen)) for row in rows]
    result = groups(*arrays)
    assert result.codes.tolist() == codes
    assert result.count == len(seen)
    assert result.first.tolist() == [rows.index(row) for row in seen]
    assert result.counts.tolist() == [rows.count(row) for row in seen]


def test_columns_of_record_arrays_are_grouped():
    rows = np.zeros(3, [("a", "i4"), ("b", "f8")])
    rows["b"] = [np.nan, 1.0, np.nan]
    assert groups(rows["a"], rows["b"]).codes.tolist() == [0, 1, 0]


def test_a_float_is_grouped_by_its_bits():
    assert groups(np.array([0.0, -0.0, np.nan, np.nan])).codes.tolist() == [0, 1, 2, 2]


def test_the_result_is_read_only():
    result = groups(np.array([1, 1]))
    with pytest.raises(ValueError, match="read-only"):
        result.codes[0] = 5


def test_columns_that_cannot_be_grouped_are_named():
    with pytest.raises(ValueError, match="at least one"):
        groups()
    with pytest.raises(ValueError, match="1, 2"):
        groups(np.zeros(1, np.int32), np.zeros(2, np.int32))
    for bad in (np.zeros(1, "U3"), np.zeros((1, 2), np.int32), np.zeros(1, np.longdouble)):
        with pytest.raises(TypeError, match="cannot group"):
            groups(bad)
