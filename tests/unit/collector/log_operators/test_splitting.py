"""Bytes are cut into entries, however they arrive."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.log_operators import MultilineConfig, Splitter, TrimConfig

KEEP = TrimConfig(preserve_leading_whitespaces=True, preserve_trailing_whitespaces=True)


def texts_of(split):
    return [split.text[start:end] for start, end in zip(split.starts, split.ends, strict=True)]


def all_texts(splitter, data, sizes):
    """The entries of data that arrives in pieces of these sizes."""
    made, rest, at = [], b"", 0
    for size in [*sizes, len(data)]:
        part = data[at : at + size]
        at += size
        is_end = at >= len(data)
        split = splitter.split(rest + part, is_end=is_end)
        made += texts_of(split)
        rest = (rest + part)[split.consumed :]
        if is_end:
            assert rest == b""
            return made
    return made


@given(st.binary(max_size=200).map(lambda data: data.replace(b"\x00", b"\n")), st.lists(st.integers(0, 30), max_size=8))
def test_lines_are_the_same_in_any_pieces(data, sizes):
    """Lines are what bytes.split says, without a carriage return at their end."""
    expected = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    if data.endswith(b"\n") or not data:
        expected.pop()
    splitter = Splitter(trim=KEEP, keeps_empty=True, max_log_size=10_000)
    made = all_texts(splitter, data, sizes)
    assert made == expected


@given(st.text("ab\n é𝄞", max_size=60), st.sampled_from(["utf-16le", "utf-16be", "utf-32le", "latin-1", "utf-8"]))
def test_encodings(text, encoding):
    """Lines of any encoding become UTF-8."""
    if encoding == "latin-1":
        text = text.replace("𝄞", "")
    splitter = Splitter(encoding=encoding)
    codec = {"utf-16le": "utf-16-le", "utf-16be": "utf-16-be", "utf-32le": "utf-32-le"}.get(encoding, encoding)
    split = splitter.split(text.encode(codec), is_end=True)
    assert [item.decode() for item in texts_of(split)] == [line.strip() for line in text.split("\n") if line.strip()]


@given(st.text("S \nx", max_size=40))
def test_line_start_pattern(text):
    """An entry begins at each match and ends before the next."""
    splitter = Splitter(MultilineConfig(line_start_pattern="^S"), trim=KEEP, keeps_empty=True)
    places = [match.start() for match in re.finditer("^S", text, re.MULTILINE)]
    bounds = sorted({0, *places, len(text)})
    expected = [text[a:b].encode() for a, b in itertools.pairwise(bounds)]
    assert texts_of(splitter.split(text.encode(), is_end=True)) == expected


def test_line_end_pattern_and_omission():
    """An entry ends behind each match; the match can be left out."""
    data = b"one;two;three"
    splitter = Splitter(MultilineConfig(line_end_pattern=";"))
    assert texts_of(splitter.split(data, is_end=False)) == [b"one;", b"two;"]
    splitter = Splitter(MultilineConfig(line_end_pattern=";", omit_pattern=True))
    split = splitter.split(data, is_end=False)
    assert (texts_of(split), split.consumed) == ([b"one", b"two"], 8)


def test_long_entries_are_cut():
    """An entry has at most max_log_size bytes, complete or not; the rest follows."""
    splitter = Splitter(max_log_size=4)
    split = splitter.split(b"123456789\nab\nxxxxx", is_end=False)
    assert texts_of(split) == [b"1234", b"5678", b"9", b"ab", b"xxxx"]
    assert split.consumed == 17


def test_offsets_are_places_in_the_bytes():
    """The offset of an entry is where it begins in the bytes that were split."""
    data = "é\n\n  x\ny".encode("utf-16-le")
    split = Splitter(encoding="utf-16le").split(data, is_end=True)
    assert split.offsets.tolist() == [0, 6, 14]
    assert split.consumed == len(data)


def test_white_space_takes_linear_time():
    """A megabyte of white space is taken off at once."""
    split = Splitter(max_log_size=4 * 1024 * 1024).split(
        b" " * 1_000_000 + b"x" + b"\t" * 1_000_000 + b"\n", is_end=True
    )
    assert texts_of(split) == [b"x"]


@pytest.mark.parametrize("key", ["line_start_pattern", "line_end_pattern"])
def test_invalid_patterns_name_the_key(key):
    """A pattern that is not valid is refused with its key."""
    with pytest.raises(ValueError, match=key):
        MultilineConfig(**{key: "("})
