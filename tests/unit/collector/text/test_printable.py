"""Text from outside that is shown: nothing that is not printable remains, and ordinary text is unchanged."""

import sys

import pytest

from collector.text.printable import printable


@pytest.mark.parametrize("text", ["", "plain text", "größe 大きさ 😀", "C:\\new", "a=b c[d]"])
def test_ordinary_text_is_unchanged(text):
    assert printable(text) is text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x00\x1b[31m\x7f", r"\x00\x1b[31m\x7f"),
        ("\x85\x9b31m", r"\x85\x9b31m"),
        ("\u202eevil\u2066\u200b\ufeff", r"\u202eevil\u2066\u200b\ufeff"),
        ("a\u2028b\u2029\xa0c", r"a\u2028b\u2029\xa0c"),
        ("\ud800 \U000e0041", r"\ud800 \U000e0041"),
    ],
)
def test_other_characters_are_escaped(text, shown):
    assert printable(text) == shown


def test_every_character_is_shown_by_printable_ones():
    assert printable("".join(map(chr, range(sys.maxunicode + 1)))).isprintable()
