"""KeyTable against a dict, through inserts, removals and growth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from collector.model.keytable import KeyTable


def keys_of(numbers):
    """Few low words and few high words, so that keys share one of them."""
    numbers = np.array(list(numbers), np.uint64)
    return (
        np.stack([numbers % np.uint64(7), numbers // np.uint64(7)], axis=1)
        if len(numbers)
        else np.zeros((0, 2), np.uint64)
    )


class Machine(RuleBasedStateMachine):
    """The table and a dict of number → slot; the column holds number + 1."""

    def __init__(self):
        super().__init__()
        self.table = KeyTable({"value": np.int64, "pair": (np.float64, (2,))}, capacity=1)
        self.slots = {}

    @rule(numbers=st.lists(st.integers(0, 200), max_size=60), limit=st.sampled_from([0, 0, 10, 60]))
    def insert(self, numbers, limit):
        slots, is_new = self.table.insert(keys_of(numbers), limit)
        for number, slot, new in zip(numbers, slots.tolist(), is_new.tolist(), strict=True):
            if number in self.slots:
                assert (slot, new) == (self.slots[number], False)
            elif limit and len(self.slots) >= limit:
                assert (slot, new) == (-1, False)
            else:
                assert new
                assert slot not in self.slots.values()
                self.slots[number] = slot
                assert self.table.column("value")[slot] == 0
                assert not self.table.column("pair")[slot].any()
                self.table.column("value")[slot] = number + 1
                self.table.column("pair")[slot] = number

    @rule(numbers=st.sets(st.integers(0, 200)), twice=st.booleans())
    def remove(self, numbers, twice):
        slots = [self.slots.pop(number) for number in numbers if number in self.slots]
        self.table.remove(np.array(slots * (1 + twice) + [-1], np.int32))

    @rule()
    def compact(self):
        moved = self.table.compact()
        self.slots = {number: int(moved[slot]) for number, slot in self.slots.items()}
        assert sorted(moved[moved >= 0].tolist()) == list(range(len(self.slots)))

    @invariant()
    def agrees(self):
        assert len(self.table) == len(self.slots)
        assert self.table.live().tolist() == sorted(self.slots.values())
        assert self.table.find(keys_of(range(201))).tolist() == [self.slots.get(number, -1) for number in range(201)]
        numbers = list(self.slots)
        slots = np.array([self.slots[number] for number in numbers], np.int32)
        assert np.array_equal(self.table.keys(slots), keys_of(numbers))
        assert self.table.column("value")[slots].tolist() == [number + 1 for number in numbers]


TestMachine = Machine.TestCase


def test_a_table_that_is_mostly_empty_gives_its_memory_back():
    """It is called sparse then, and a small one never is."""
    table = KeyTable({"value": np.int64})
    slots, _ = table.insert(keys_of(range(100_000)))
    table.column("value")[slots] = np.arange(100_000)
    before = table.memory_bytes
    assert not table.is_sparse
    table.remove(slots[500:])
    assert table.is_sparse
    moved = table.compact()
    assert moved[slots[:500]].tolist() == list(range(500))
    assert (moved[slots[500:]] == -1).all()
    assert table.column("value")[:500].tolist() == list(range(500))
    assert table.memory_bytes < before / 20
    assert not table.is_sparse


def test_a_key_twice_in_one_call_is_new_once():
    slots, is_new = KeyTable().insert(keys_of([5, 6, 5]))
    assert slots.tolist() == [0, 1, 0]
    assert is_new.tolist() == [True, True, False]


@given(st.integers(100, 20000))
def test_max_bytes_holds_and_turns_keys_away(max_bytes):
    table = KeyTable({"a": np.float64, "b": (np.uint8, 3)}, capacity=1, max_bytes=max_bytes)
    slots, is_new = table.insert(keys_of(range(1000)))
    assert table.memory_bytes <= max_bytes + 16 * 4
    assert len(table) == is_new.sum() == (slots >= 0).sum()
    assert 0 < len(table) < 1000
    assert len(table.column("a")) >= len(table)
    table.remove(slots[:1])
    assert table.insert(keys_of([5000]))[0].tolist() == [0]


def test_removal_of_what_never_was_removes_nothing():
    table = KeyTable()
    slots, _ = table.insert(keys_of([1, 2]))
    with pytest.raises(IndexError, match="slot 2 was never in use"):
        table.remove(np.array([0, 2], np.int32))
    assert len(table) == 2
    table.remove(slots[:1])
    with pytest.raises(IndexError, match="in use"):
        table.keys(slots)


def test_a_table_that_cannot_hold_one_slot_is_refused():
    with pytest.raises(ValueError, match="max_bytes must be at least 37"):
        KeyTable(max_bytes=10)
    with pytest.raises(ValueError, match="capacity"):
        KeyTable(capacity=0)


def test_fields_of_a_record_are_columns():
    """In a table of records the values of a slot are adjacent, each is a column too, and a reused slot is zero."""
    table = KeyTable(np.dtype([("a", "<i8"), ("b", "u1")], align=True), capacity=1)
    slots, _ = table.insert(keys_of(range(5)))
    table.column("a")[slots] = [10, 11, 12, 13, 14]
    table.column("b")[slots[2]] = 7
    assert table.records[slots[2]].tolist() == (12, 7)
    table.remove(slots[2:3])
    reused, _ = table.insert(keys_of([99]))
    assert reused.tolist() == slots[2:3].tolist()
    assert table.records[reused[0]].tolist() == (0, 0)


def test_memory_counts_table_and_columns():
    small, large = KeyTable(capacity=16), KeyTable({"a": np.float64}, capacity=16)
    assert large.memory_bytes - small.memory_bytes == 16 * 8
    before = small.memory_bytes
    small.insert(keys_of(range(100)))
    assert small.memory_bytes > before
