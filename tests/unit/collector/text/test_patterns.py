"""Go's regular expressions in Python."""

import pytest

from collector.text.patterns import compile_pattern


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"(?<name>\d+)", "a12", "12"),
        (r"(?P<name>\d+)", "a12", "12"),
        (r"[[:digit:]]+", "a12", "12"),
        (r"\p{Greek}", "aλb", "λ"),
        (r"\(?<b", "(<b", "(<b"),
        (r"\\(?<n>x)", r"\x", r"\x"),
        (r"b\z", "ab", "b"),
        (r"(?i)B", "ab", "b"),
    ],
)
def test_go_forms(pattern, text, found):
    """Named groups as Go 1.22 writes them, POSIX and Unicode classes."""
    match = compile_pattern(pattern).search(text)
    assert match is not None
    assert match.group() == found


@pytest.mark.parametrize("pattern", ["(", "[", "a{2000}", "\\", "(?=a)", r"(a)\1", "(?:a{1000}){1000}", "a" * 10_001])
def test_invalid_pattern_says_so(pattern):
    """The message contains the pattern."""
    with pytest.raises(ValueError, match="invalid pattern"):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$", r"(.*a){20}$"])
def test_time_is_linear(pattern):
    """Patterns that take exponential time with backtracking; with it this test would not end."""
    assert compile_pattern(pattern).search("a" * 50_000 + "b") is None
