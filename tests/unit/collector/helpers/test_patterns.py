"""Go's regular expressions in Python."""

import pytest

from collector.helpers.patterns import compile_pattern


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"(?<name>\d+)", "a12", "12"),
        (r"(?P<name>\d+)", "a12", "12"),
        (r"(?<=a)\d+", "a12", "12"),
        (r"(?<!a)2", "a12", "2"),
        (r"\(?<b", "(<b", "(<b"),
        (r"\\(?<n>x)", r"\x", r"\x"),
        (r"b\z", "ab", "b"),
        (r"(?i)B", "ab", "b"),
    ],
)
def test_go_forms(pattern, text, found):
    """Named groups as Go 1.22 writes them; look-behind is left alone."""
    match = compile_pattern(pattern).search(text)
    assert match is not None
    assert match.group() == found


@pytest.mark.parametrize("pattern", ["(", "[", "a{99999999999999999999}", "(?P<1>a)", "\\"])
def test_invalid_pattern_says_so(pattern):
    """With the pattern."""
    with pytest.raises(ValueError, match="invalid pattern"):
        compile_pattern(pattern)
