"""Compression round-trips, stays within its bound while decompressing, and refuses what is corrupt."""

import contextlib
import gzip
import os
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.transport.compression import DECODERS, ENCODERS, BadEncoding, TooLarge, compress, decompress

NAMES = sorted(set(ENCODERS) & set(DECODERS))
REAL = [name for name in NAMES if name not in ("", "identity")]


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=4000), repeat=st.integers(1, 50))
def test_what_is_compressed_comes_back(name, data, repeat):
    body = data * repeat
    assert decompress(name, compress(name, body), len(body)) == body


@pytest.mark.parametrize("name", ["gzip", "zlib", "zstd"])
@pytest.mark.parametrize("level", [-1, 0, 1, 3, 6, 9])
def test_every_level_round_trips(name, level):
    body = os.urandom(100) * 100
    assert decompress(name, compress(name, body, level), len(body)) == body


@pytest.mark.parametrize("name", REAL)
def test_one_byte_over_the_bound_is_too_large(name):
    body = os.urandom(1000) * 200
    packed = compress(name, body)
    assert decompress(name, packed, len(body)) == body
    with pytest.raises(TooLarge):
        decompress(name, packed, len(body) - 1)


@pytest.mark.parametrize("name", REAL)
def test_a_bomb_never_takes_its_full_size(name):
    packed = compress(name, bytes(100_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            decompress(name, packed, 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("damage", ["truncated", "half", "garbage", "trailing"])
def test_damaged_input_is_refused(name, damage):
    packed = compress(name, os.urandom(1000) * 5)
    bad = {
        "truncated": packed[:-1],
        "half": packed[: len(packed) // 2],
        "garbage": b"\x01garbage, not an encoding",
        "trailing": packed + b"\x01xx",
    }[damage]
    with pytest.raises(BadEncoding):
        decompress(name, bad, 100_000)


@pytest.mark.parametrize("name", REAL)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(name, data):
    with contextlib.suppress(BadEncoding, TooLarge):
        assert len(decompress(name, data, 10_000)) <= 10_000


def test_several_gzip_members_are_one_body():
    assert decompress("gzip", gzip.compress(b"one") + gzip.compress(b"two") + b"\0" * 8, 100) == b"onetwo"
    with pytest.raises(TooLarge):
        decompress("gzip", gzip.compress(b"one") + gzip.compress(b"two"), 5)


def test_a_body_of_many_empty_members_is_refused_in_linear_time():
    with pytest.raises(BadEncoding, match="gzip members"):
        decompress("gzip", gzip.compress(b"") * 500_000, 100)


def test_other_implementations_read_what_we_write():
    assert gzip.decompress(compress("gzip", b"abc" * 99)) == b"abc" * 99
    assert zlib.decompress(compress("deflate", b"abc" * 99)) == b"abc" * 99


def test_a_zstd_frame_that_lies_about_its_size_is_refused_without_allocating():
    lie = b"\x28\xb5\x2f\xfd" + bytes([0xC0 | 0x20]) + (2**40).to_bytes(8, "little") + b"\x01\x00\x00"
    tracemalloc.start()
    try:
        with pytest.raises((BadEncoding, TooLarge)):
            decompress("zstd", lie, 2**35)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_a_snappy_header_that_lies_is_refused_without_allocating():
    with pytest.raises(BadEncoding, match="declared length"):
        decompress("snappy", b"\xff\xff\xff\xff\x0f\x00", 2**33)


def test_an_unknown_encoding_names_the_known_ones():
    with pytest.raises(BadEncoding, match=r"unsupported Content-Encoding: br, supported: \[deflate, gzip"):
        decompress("br", b"", 10)
    with pytest.raises(BadEncoding):
        compress("br", b"")
