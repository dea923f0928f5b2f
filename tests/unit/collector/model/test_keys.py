"""Keys made from columns."""

from dataclasses import dataclass

import numpy as np
import pytest

from collector.model.keys import combine_keys, hash_text


@dataclass
class Column:
    codes: np.ndarray
    distinct_bytes: list


COLUMN = Column(np.array([1, -1, 0, 1], np.int32), [b"", b"tenant-a"])


def test_equal_texts_have_equal_hashes_and_absent_is_zero():
    hashes = hash_text(COLUMN)
    assert np.array_equal(hashes[0], hashes[3])
    assert hashes[1].tolist() == [0, 0]
    assert len({tuple(row) for row in hashes.tolist()}) == 3
    assert hash_text(Column(np.full(2, -1, np.int32), [])).tolist() == [[0, 0], [0, 0]]


def test_a_salt_gives_a_hash_that_others_can_repeat():
    assert np.array_equal(
        hash_text(COLUMN, b"salt"), hash_text(Column(np.array([0, -1, 1, 0], np.int32), [b"tenant-a", b""]), b"salt")
    )
    assert not np.array_equal(hash_text(COLUMN, b"salt"), hash_text(COLUMN, b"pepper"))
    assert not np.array_equal(hash_text(COLUMN), hash_text(COLUMN, b"salt"))


def test_a_salted_hash_stays_what_it_is():
    """Persisted and routed keys depend on these values: changing them is a breaking change."""
    assert hash_text(COLUMN, b"salt")[0].tolist() == GOLDEN


GOLDEN = [14902897808864903554, 18262923851737988540]


def test_the_order_of_combined_columns_matters():
    a, b = np.array([1, 2], np.int64), np.array([2, 1], np.uint64)
    assert not np.array_equal(combine_keys(a, b), combine_keys(b, a))
    assert np.array_equal(
        combine_keys(a, b)[0], combine_keys(b.astype(np.int64)[::-1].copy(), a[::-1].astype(np.uint64))[0]
    )


def test_columns_of_every_kind_are_combined():
    key = hash_text(COLUMN)
    parts = [
        key,
        np.array([-1, 0, 1, 2], np.int8),
        np.array([0.5, 1, 2, 3], np.float32),
        np.array([True, False, True, False]),
    ]
    combined = combine_keys(*parts)
    assert combined.shape == (4, 2)
    assert len({tuple(row) for row in combined.tolist()}) == 4
    assert np.array_equal(combine_keys(*parts, key=b"k" * 16), combine_keys(*parts, key=b"k" * 16))


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError):
        combine_keys(np.zeros(1, np.int64), np.zeros(2, np.int64))
