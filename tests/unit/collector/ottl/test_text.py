"""Numbers, durations and JSON as Go reads and writes them. Expected values come from Go 1.26."""

import pytest

from collector.ottl.text import duration, lower, parse_bool, parse_double, parse_int, text_of, upper
from collector.ottl.values import Duration, EvaluationError, SpanId, Time

HOUR = 3600 * 10**9


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0), ("+0", 0), ("5ns", 5), ("1.5s", 1_500_000_000), ("-1.5h", -HOUR * 3 // 2), ("1h30m", HOUR * 3 // 2),
        ("3µs", 3_000), ("3μs", 3_000),
        (".5s", 500_000_000), ("1.s", 10**9), ("1h1m1s1ms1us1ns", HOUR + 60 * 10**9 + 10**9 + 10**6 + 10**3 + 1),
        ("9223372036854775807ns", 2**63 - 1),
        ("-9223372036854775808ns", -(2**63)), ("0.3333333333333333333h", 1_200_000_000_000),
    ],
)  # fmt: skip
def test_durations(text, nanoseconds):
    """Units may be combined and have fractions."""
    assert duration(text) == nanoseconds
    assert type(duration(text)) is Duration


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "s",
        ".s",
        "1 s",
        "1d",
        "--1s",
        "1s-",
        "9223372036854775808ns",
        "9" * 5000 + "s",
        "1." + "9" * 5000 + "s",
    ],
)
def test_no_durations(text):
    """A missing or unknown unit and a duration that is too long are refused."""
    with pytest.raises(EvaluationError):
        duration(text)


@pytest.mark.parametrize(
    ("text", "base", "value"),
    [
        ("10", 10, 10),
        ("-7", 10, -7),
        ("+7", 10, 7),
        ("ff", 16, 255),
        ("0x1f", 0, 31),
        ("017", 0, 15),
        ("0b11", 0, 3),
        ("zz", 36, 1295),
        ("12", 0, 12),
    ],
)
def test_integers(text, base, value):
    """Integers may have any base; with base 0 the prefix decides."""
    assert parse_int(text, base) == value


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("", 10),
        ("1.5", 10),
        (" 1", 10),
        ("1_0", 10),
        ("9223372036854775808", 10),
        ("1" * 200, 10),
        ("0x1f", 16),
        ("1", 1),
        ("1", 37),
        ("٣", 10),
    ],
)
def test_no_integers(text, base):
    """Texts that Python accepts and Go does not are refused as well."""
    with pytest.raises(EvaluationError):
        parse_int(text, base)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e3", 1000.0), (".5", 0.5), ("5.", 5.0), ("-Inf", float("-inf")), ("0x1p-2", 0.25), ("1e-400", 0.0)],
)
def test_doubles(text, value):
    """Doubles may be decimal, hexadecimal or infinite."""
    assert parse_double(text) == value


@pytest.mark.parametrize("text", ["", "a", "1e", "1e400", "1_0", " 1", "0x1", "\u0661", "+nan", "-NaN"])
def test_no_doubles(text):
    """Malformed texts, numbers that are too large, and NaN with a sign, as in Go."""
    with pytest.raises(EvaluationError):
        parse_double(text)


def test_bools():
    """Go's twelve words for bools are accepted, and no others."""
    assert [parse_bool(text) for text in ("1", "T", "True", "0", "f", "FALSE")] == [True] * 3 + [False] * 3
    with pytest.raises(EvaluationError):
        parse_bool("yes")


def test_letter_case_by_code_point():
    """Unlike in Python texts do not grow and there is no final sigma."""
    assert upper("straße ŉ äé") == "STRAßE ŉ ÄÉ"
    assert lower("ΟΔΟΣ İ Ä") == "οδοσ i ä"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None), ("a", "a"), (5, "5"), (True, "true"), (2.0, "2"), (1e21, "1e+21"), (b"\x01\xff", "01ff"),
        ([1, None, "<"], '[1,null,"\\u003c"]'),
        ({"b": 1.5, "a": b"\x01"}, '{"a":"AQ==","b":1.5}'), (Duration(5), "5"),
        (Time(1_500_000_000), '"1970-01-01T00:00:01.5Z"'), (Time(0), '"1970-01-01T00:00:00Z"'),
        (SpanId(bytes(8)), "[0,0,0,0,0,0,0,0]"), (["\u2028 é"], '["\\u2028 é"]'),
    ],
)  # fmt: skip
def test_text_of_values(value, text):
    """Values have the texts that converters use."""
    assert text_of(value) == text


def test_no_text_of_what_json_cannot_say():
    """NaN and infinity have no text."""
    for value in (float("nan"), [float("inf")]):
        with pytest.raises(EvaluationError):
            text_of(value)
