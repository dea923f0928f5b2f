"""The errors of the kernel that writes rows; its output is tested through the builders."""

import numpy as np
import pytest

from collector.wire import encode
from collector.wire.encode import MessageField, Pool, encode_rows


@pytest.mark.parametrize(
    ("codes", "offsets"),
    [([1], [0, 3]), ([-2], [0, 3]), ([0], [0, 4]), ([0], [-1, 3]), ([0], [0, 3, 1]), ([0], []), ([0], [[0, 3]])],
)
def test_a_pool_never_points_outside_its_bytes(codes, offsets):
    with pytest.raises(ValueError):
        Pool(codes, b"abc", offsets)


def test_a_pool_cannot_be_changed_after_it_was_checked():
    codes, offsets = np.zeros(1, np.int32), np.array([0, 3])
    pool = Pool(codes, b"abc", offsets)
    codes[0], offsets[1] = 99, 99
    assert encode_rows(1, 1, [MessageField(encode.TEXT, 1, pool)]).blob == b"\x0a\x05\x0a\x03abc"
    with pytest.raises(ValueError, match="read-only"):
        pool.codes[0] = 1
    assert len(pool) == 1
    assert pool.bytes_of(0) == b"abc"


@pytest.mark.parametrize("splits", [[0, 4], [-1, 3], [2, 1], [[0, 3]], []])
def test_row_splits_stay_within_the_values(splits):
    with pytest.raises(ValueError):
        MessageField(encode.PACKED64, 1, np.zeros(3), splits)


def test_fields_must_fit():
    for call in (
        lambda: MessageField(11, 1, np.zeros(1)),
        lambda: MessageField(encode.FIXED64, 0, np.zeros(1)),
        lambda: MessageField(encode.FIXED64, 1, np.zeros((1, 2))),
        lambda: MessageField(encode.ID16, 1, np.zeros((1, 3))),
        lambda: MessageField(encode.VALUE64, 1, np.zeros(2), np.ones(1, bool)),
        lambda: encode_rows(1, 2, [MessageField(encode.FIXED64, 1, np.zeros(1))]),
        lambda: encode_rows(1, 1, [MessageField(encode.FIXED64, 1, np.zeros(1))] * 25),
        lambda: encode_rows(0, 1, []),
    ):
        with pytest.raises(ValueError):
            call()


def test_an_empty_message_is_written_or_skipped():
    assert encode_rows(2, 2, [None]).blob == b"\x12\x00\x12\x00"
    pool = encode_rows(2, 2, [MessageField(encode.NUMBER, 1, np.array([0, -1]))], skip_empty=True)
    assert pool.blob == b"\x12\x0b\x08" + b"\xff" * 9 + b"\x01"
    assert pool.offsets.tolist() == [0, 0, 13]
