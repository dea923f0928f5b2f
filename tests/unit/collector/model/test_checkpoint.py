"""The format of checkpoints: what is written is read again, and nothing else is taken for a checkpoint."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from collector.model import Attributes, KeyTable
from collector.model.checkpoint import CheckpointError, decode_checkpoint, encode_checkpoint, nested, part_of, within

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
ARRAYS = st.sampled_from(["?", "<i4", "<u8", "<f4", "<f8", ">i8", "<u2"]).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
)
PARTS = st.dictionaries(
    st.text(max_size=6), ARRAYS | st.binary(max_size=20) | st.lists(st.binary(max_size=9), max_size=5) | JSON
)


def same(a, b):
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b, equal_nan=a.dtype.kind == "f") and a.shape == b.shape
    return a == b


@given(parts=PARTS)
def test_parts_are_read_as_they_were_written(parts):
    read = decode_checkpoint(encode_checkpoint("kind", 3, parts), "kind", 3)
    assert read.keys() == parts.keys()
    assert all(same(part, read[name]) for name, part in parts.items())


@given(parts=PARTS, data=st.data())
def test_damage_is_refused_or_harmless(parts, data):
    """Whatever the bytes are, reading ends with parts or with a CheckpointError."""
    value = bytearray(encode_checkpoint("kind", 1, parts))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(value) - 1))
        value[place] = data.draw(st.integers(0, 255))
    value = bytes(value[: data.draw(st.integers(0, len(value)))])
    with contextlib.suppress(CheckpointError):
        decode_checkpoint(value, "kind", 1)


@pytest.mark.parametrize(("kind", "version"), [("other", 1), ("kind", 2)])
def test_another_kind_or_version_is_refused(kind, version):
    with pytest.raises(CheckpointError, match=f"expected version {version} of the state of {kind}, got version 1"):
        decode_checkpoint(encode_checkpoint("kind", 1, {}), kind, version)


@pytest.mark.parametrize("dtype", [object, "U3", "M8[s]"])
def test_only_numbers_can_be_kept_in_arrays(dtype):
    with pytest.raises(TypeError, match="only numbers and bools"):
        encode_checkpoint("kind", 1, {"a": np.zeros(2, dtype)})


def test_a_header_that_claims_more_than_there_is_reads_nothing():
    value = encode_checkpoint("kind", 1, {"a": b"abc"})
    with pytest.raises(CheckpointError, match="not within it"):
        decode_checkpoint(value.replace(b'"bytes", 3]', b'"bytes",99]'), "kind", 1)


@given(data=st.data())
def test_a_table_is_restored_with_its_slots(data):
    """After any inserts and removals; it then gives free slots to new keys."""
    columns = {"count": np.int64, "pair": (np.float64, (2,))}
    table = KeyTable(columns, capacity=2)
    keys = data.draw(st.lists(st.integers(0, 30), max_size=30))
    for number, key in enumerate(keys):
        slots, _ = table.insert(np.array([[key, 7]], np.uint64))
        table.column("count")[slots], table.column("pair")[slots] = number, number / 2
        if data.draw(st.booleans()):
            table.remove(slots)
    restored = KeyTable(columns, capacity=2)
    restored.insert(np.array([[99, 99]], np.uint64))
    value = encode_checkpoint("kind", 1, nested("table", table.snapshot()))
    restored.restore(within("table", decode_checkpoint(value, "kind", 1)))
    live = table.live()
    assert restored.live().tolist() == live.tolist()
    assert restored.keys(live).tolist() == table.keys(live).tolist()
    for name in columns:
        assert restored.column(name)[live].tolist() == table.column(name)[live].tolist()
    slots, is_new = restored.insert(np.array([[1000, 0], [1001, 0]], np.uint64))
    assert is_new.all()
    assert not np.isin(slots, live).any()
    assert not restored.column("count")[slots].any()


@pytest.mark.parametrize(
    "damage",
    [
        {"slots": np.array([1, 0], np.int32)},
        {"slots": np.array([-1, 0], np.int32)},
        {"slots": np.array([0, 2**31 - 1], np.int32)},
        {"slots": np.array([0, 1], np.int64)},
        {"keys": np.zeros((2, 2), np.uint64)},
        {"keys": np.zeros((1, 2), np.uint64)},
        {"column count": np.zeros((2, 3), np.int64)},
        {"column count": 5},
    ],
)
def test_what_is_not_the_snapshot_of_a_table_is_refused(damage):
    """The table is empty then, and works."""
    table = KeyTable({"count": np.int64})
    table.insert(np.array([[1, 1], [2, 2]], np.uint64))
    with pytest.raises(CheckpointError):
        table.restore(table.snapshot() | damage)
    assert len(table) == 0
    assert table.insert(np.array([[5, 5]], np.uint64))[0].tolist() == [0]


@given(
    values=st.dictionaries(
        st.text(max_size=200), st.text(max_size=300) | st.integers(-9, 9) | st.booleans(), max_size=5
    )
)
def test_attributes_are_restored_from_their_encoding(values):
    attributes = Attributes(values)
    restored = Attributes.from_encoded(attributes.encoded)
    assert restored == attributes
    assert restored.tagged(7) == attributes.tagged(7)
    assert len(restored) == len(values)


@given(encoded=st.binary(max_size=30))
def test_other_bytes_are_not_taken_for_attributes_beyond_their_end(encoded):
    with contextlib.suppress(ValueError):
        Attributes.from_encoded(encoded)


def test_a_part_of_another_type_is_refused():
    with pytest.raises(CheckpointError, match="'a' is missing or has another type"):
        part_of({"a": np.zeros(2, np.int32)}, "a", np.int64)
    with pytest.raises(CheckpointError, match="2 rows, expected 3"):
        part_of({"a": np.zeros(2, np.int32)}, "a", np.int32, 3)
