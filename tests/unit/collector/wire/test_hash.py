"""The dictionaries and keyed hashes against slow, obvious references."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.wire import hash as wire_hash
from collector.wire.layout import ATTRIBUTE, KIND_BOOL, KIND_BYTES, KIND_DOUBLE, KIND_EMPTY, KIND_INT, KIND_STRING

MASK = 2**64 - 1
KEY = bytes(range(16))


def turn(word, bits):
    return ((word << bits) | (word >> (64 - bits))) & MASK


def sip13_128(key, message):
    """SipHash-1-3 with 128 bits of output, written down from the paper."""
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def sip_round():
        v[0] = (v[0] + v[1]) & MASK
        v[1] = turn(v[1], 13) ^ v[0]
        v[0] = turn(v[0], 32)
        v[2] = (v[2] + v[3]) & MASK
        v[3] = turn(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & MASK
        v[3] = turn(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & MASK
        v[1] = turn(v[1], 17) ^ v[2]
        v[2] = turn(v[2], 32)

    padded = message + bytes((7 - len(message)) % 8) + bytes([len(message) & 0xFF])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        sip_round()
        v[0] ^= word
    v[2] ^= 0xEE
    for _ in range(3):
        sip_round()
    low = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    for _ in range(3):
        sip_round()
    return low, v[0] ^ v[1] ^ v[2] ^ v[3]


def laid_out(values):
    """Slices, some absent (None), as ``(wire, starts, lengths)`` with a byte of junk between."""
    wire, starts, lengths = bytearray(), [], []
    for value in values:
        wire += b"\xa5"
        starts.append(-1 if value is None else len(wire))
        lengths.append(0 if value is None else len(value))
        wire += value or b""
    return bytes(wire), np.array(starts, np.int32), np.array(lengths, np.int32)


def coded(values):
    """The reference dictionary: ``(codes, first)``."""
    seen, codes, first = {}, [], []
    for row, value in enumerate(values):
        if value is None:
            codes.append(-1)
            continue
        if value not in seen:
            seen[value] = len(seen)
            first.append(row)
        codes.append(seen[value])
    return codes, first


short = st.one_of(
    st.none(),
    st.binary(max_size=3),
    st.binary(max_size=40),
    st.sampled_from([b"", b"GET", b"\0", b"\0\0", b"x" * 16, b"x" * 17]),
)


@given(st.lists(short, max_size=60))
def test_dictionary_agrees_with_a_dict(values):
    codes, first = wire_hash.dictionary(*laid_out(values))
    assert (codes.tolist(), first.tolist()) == coded(values)
    assert codes.dtype == first.dtype == np.int32


@pytest.mark.parametrize("distinct", [63, 64, 65, 5000, 20000])
def test_dictionary_grows_and_keeps_codes(distinct):
    """Also past the number of rows from which the GIL is released."""
    values = [b"value-%d" % (i % distinct) for i in range(2 * distinct)]
    codes, first = wire_hash.dictionary(*laid_out(values))
    assert codes.tolist() == [i % distinct for i in range(2 * distinct)]
    assert first.tolist() == list(range(distinct))


@pytest.mark.parametrize(("start", "length"), [(0, 4), (3, 1), (1, -1), (2**31 - 1, 2**31 - 1)])
def test_slices_outside_the_buffer_are_refused(start, length):
    args = (b"abc", np.array([start], np.int32), np.array([length], np.int32))
    with pytest.raises(ValueError, match="outside"):
        wire_hash.dictionary(*args)
    with pytest.raises(ValueError, match="outside"):
        wire_hash.hash_slices(*args)


def test_columns_of_record_arrays_are_taken_as_they_are():
    rows = np.zeros(2, ATTRIBUTE)
    rows["key"], rows["key_len"] = [0, 1], [1, 2]
    assert wire_hash.dictionary(b"abc", rows["key"], rows["key_len"])[0].tolist() == [0, 1]


def test_arrays_of_different_length_are_refused():
    one, two = np.zeros(1, np.int32), np.zeros(2, np.int32)
    for call in (
        lambda: wire_hash.dictionary(b"", one, two),
        lambda: wire_hash.hash_slices(b"", one, two),
        lambda: wire_hash.pair_codes(one.astype(np.uint64), two.astype(np.uint64)),
        lambda: wire_hash.sum_by_owner(np.zeros((1, 2), np.uint64), two, 1, np.zeros(1, ATTRIBUTE)),
        lambda: wire_hash.combine(np.zeros(1, np.uint64), np.zeros(2, np.uint64)),
        lambda: wire_hash.combine(),
    ):
        with pytest.raises(ValueError):
            call()


@given(st.lists(short, max_size=30), st.binary(max_size=3))
def test_find_slice_is_index(values, wanted):
    """The first equal slice is found; an absent slice is not an empty one."""
    for sought in {wanted, *(value for value in values if value is not None)}:
        assert wire_hash.find_slice(*laid_out(values), sought) == (values.index(sought) if sought in values else -1)


@pytest.mark.parametrize(("starts", "lengths"), [([2], [2]), ([0, 1], [1]), ([2**31 - 1], [2])])
def test_find_slice_reads_nothing_outside(starts, lengths):
    """Arrays of different lengths are refused."""
    with pytest.raises(ValueError, match=r"outside|length"):
        wire_hash.find_slice(b"abc", np.array(starts, np.int32), np.array(lengths, np.int32), b"bc")


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 2**63, 2**64 - 1])), max_size=50))
def test_pair_codes_agree_with_a_dict(pairs):
    a, b = (np.array([pair[i] for pair in pairs], np.uint64) for i in (0, 1))
    codes, first = wire_hash.pair_codes(a, b)
    assert (codes.tolist(), first.tolist()) == coded(pairs)


def test_pair_codes_of_many_pairs():
    a = np.arange(30000, dtype=np.uint64) % np.uint64(10007)
    codes, first = wire_hash.pair_codes(a, np.broadcast_to(np.uint64(7), a.shape))
    assert np.array_equal(codes, a)
    assert len(first) == 10007


@given(st.lists(short, max_size=20))
def test_hash_slices_is_siphash_1_3_128(values):
    hashes = wire_hash.hash_slices(*laid_out(values), KEY)
    assert [tuple(row) for row in hashes.tolist()] == [
        (0, 0) if value is None else sip13_128(KEY, value) for value in values
    ]


def test_the_key_of_this_process_is_secret_and_a_key_has_16_bytes():
    args = laid_out([b"text"])
    assert not np.array_equal(wire_hash.hash_slices(*args), wire_hash.hash_slices(*args, KEY))
    assert np.array_equal(wire_hash.hash_slices(*args), wire_hash.hash_slices(*args, wire_hash.process_key()))
    for bad in (b"short", "x" * 16):
        with pytest.raises(ValueError, match="16 bytes"):
            wire_hash.hash_slices(*args, bad)


def padded(value):
    return value + bytes(-len(value) % 8)


attribute = st.tuples(
    st.binary(max_size=20),
    st.one_of(
        st.tuples(st.sampled_from([KIND_STRING, KIND_BYTES]), st.binary(max_size=30)),
        st.tuples(st.just(KIND_INT), st.integers(-(2**63), 2**63 - 1)),
        st.tuples(st.just(KIND_BOOL), st.integers(0, 1)),
        st.tuples(st.just(KIND_DOUBLE), st.floats()),
        st.tuples(st.just(KIND_EMPTY), st.none()),
    ),
)


def attribute_rows(attributes):
    """Rows of layout.ATTRIBUTE for ``(key, (kind, value))`` pairs, with their wire."""
    wire, rows = bytearray(), np.zeros(len(attributes), ATTRIBUTE)
    rows["key"] = rows["value"] = rows["any"] = -1
    for row, (key, (kind, value)) in zip(rows, attributes, strict=True):
        row["key"], row["key_len"], row["kind"] = len(wire), len(key), kind
        wire += key
        if isinstance(value, bytes):
            row["value"], row["value_len"] = len(wire), len(value)
            wire += value
        elif isinstance(value, int):
            row["int_value"] = value
        elif isinstance(value, float):
            row["double_value"] = value
    return bytes(wire), rows


@given(st.lists(attribute, max_size=20))
def test_hash_attributes_is_siphash_of_key_kind_and_value(attributes):
    wire, rows = attribute_rows(attributes)
    expected = []
    for key, (kind, value) in attributes:
        if value is None:
            encoded = b""
        elif isinstance(value, bytes):
            encoded = value
        else:
            encoded = struct.pack("<d" if isinstance(value, float) else "<q", value)
        expected.append(
            sip13_128(KEY, struct.pack("<II", len(key), len(encoded)) + padded(key) + padded(encoded) + bytes([kind]))
        )
    assert [tuple(row) for row in wire_hash.hash_attributes(wire, rows, KEY).tolist()] == expected


@pytest.mark.parametrize(
    ("field", "length", "at"), [("key", "key_len", 3), ("value", "value_len", 2), ("key", "key_len", -1)]
)
def test_attribute_rows_that_point_outside_are_refused(field, length, at):
    wire, rows = attribute_rows([(b"k", (KIND_STRING, b"v"))])
    rows[field], rows[length] = at, 5
    with pytest.raises(ValueError, match="outside"):
        wire_hash.hash_attributes(wire, rows)
    rows[length] = -1
    with pytest.raises(ValueError, match="outside"):
        wire_hash.hash_attributes(wire, rows)


def test_only_attribute_rows_are_taken():
    with pytest.raises(ValueError, match=r"layout\.ATTRIBUTE"):
        wire_hash.hash_attributes(b"", np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="contiguous"):
        wire_hash.hash_attributes(b"", np.zeros(6, ATTRIBUTE)[::2])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 2**128 - 1)), max_size=30))
def test_sum_by_owner_adds_mod_2_128_and_the_last_duplicate_counts(triples):
    triples.sort(key=lambda triple: triple[0])
    rows = np.zeros(len(triples), ATTRIBUTE)
    rows["owner"] = [owner for owner, _, _ in triples]
    rows["key_code"] = [code for _, code, _ in triples]
    hashes = np.array([(value & MASK, value >> 64) for _, _, value in triples], np.uint64).reshape(-1, 2)
    last = {(owner, code): value for owner, code, value in triples}
    expected = [sum(value for (owner, _), value in last.items() if owner == row) % 2**128 for row in range(6)]
    sums = wire_hash.sum_by_owner(hashes, rows["owner"], 6, rows)
    assert [low | (high << 64) for low, high in sums.tolist()] == expected


@pytest.mark.parametrize(
    ("owners", "codes"), [([1, 0], [0, 0]), ([0, 2], [0, 0]), ([-1, 0], [0, 0]), ([0, 1], [0, -1])]
)
def test_owners_out_of_order_or_range_are_refused(owners, codes):
    rows = np.zeros(2, ATTRIBUTE)
    rows["owner"], rows["key_code"] = owners, codes
    with pytest.raises(ValueError, match="owners"):
        wire_hash.sum_by_owner(np.zeros((2, 2), np.uint64), rows["owner"], 2, rows)


@given(st.lists(st.tuples(*[st.integers(0, MASK)] * 3), min_size=1, max_size=10))
def test_combine_is_siphash_of_the_words_in_order(rows):
    table = np.array(rows, np.uint64)
    hashes = wire_hash.combine(table[:, :2], table[:, 2], key=KEY)
    assert [tuple(row) for row in hashes.tolist()] == [sip13_128(KEY, struct.pack("<3Q", *row)) for row in rows]


@given(st.lists(st.integers(-3, 12), max_size=30), st.integers(0, 9))
def test_clear_rows_is_assigning_zero(slots, count):
    """Rows are cleared in every column; slots outside a column are ignored."""
    slots = np.array(slots, np.int32)
    columns = [
        np.ones(count, np.uint8),
        np.ones((count, 2), np.float64),
        np.ones((count, 3, 1), np.int32),
        np.ones(9, np.int64),
    ]
    expected = [column.copy() for column in columns]
    for column in expected:
        column[slots[(slots >= 0) & (slots < len(column))]] = 0
    wire_hash.clear_rows(columns, slots)
    assert [column.tolist() for column in columns] == [column.tolist() for column in expected]


@pytest.mark.parametrize(
    "column", [np.ones(8)[::2], np.ones(3, object), np.broadcast_to(np.float64(1), 3), np.ones(())]
)
def test_clear_rows_refuses_what_it_cannot_clear(column):
    """Arrays that are strided, of objects, read-only or without dimensions are refused."""
    with pytest.raises(ValueError, match="column"):
        wire_hash.clear_rows([column], np.zeros(1, np.int32))


def test_slot_table_refuses_keys_of_another_shape():
    table = wire_hash.SlotTable(1)
    for call in (table.find, lambda keys: table.insert(keys, 1, 1)):
        with pytest.raises(ValueError, match=r"U64\[n,2\]"):
            call(np.zeros((1, 3), np.uint64))
    with pytest.raises(ValueError, match="capacity"):
        wire_hash.SlotTable(0)


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(0, 2**32 - 1))
def test_fnv_equals_the_loop(values, state):
    """Byte for byte as the published algorithm; absent slices keep the state."""

    def slow(value):
        result = state
        for byte in value:
            result = ((result ^ byte) * 0x01000193) & 0xFFFFFFFF
        return result

    lengths = np.array([len(value) for value in values], np.int32)
    starts = (np.cumsum(lengths) - lengths).astype(np.int32)
    assert wire_hash.fnv1a_32(b"".join(values), starts, lengths, state).tolist() == [slow(value) for value in values]
    assert wire_hash.fnv1a_32(b"", np.array([-1], np.int32), np.array([0], np.int32), state).tolist() == [state]


def test_fnv_of_a_known_text():
    """The algorithm's own test vector."""
    assert wire_hash.fnv1a_32(b"foobar", np.array([0], np.int32), np.array([6], np.int32), 0x811C9DC5).tolist() == [
        0xBF9CF968
    ]


@pytest.mark.parametrize(("start", "length"), [(0, 3), (1, 2), (0, -1), (2**31 - 1, 1)])
def test_fnv_never_reads_outside(start, length):
    """A slice beyond the bytes is refused."""
    with pytest.raises(ValueError, match="outside"):
        wire_hash.fnv1a_32(b"ab", np.array([start], np.int32), np.array([length], np.int32), 1)
