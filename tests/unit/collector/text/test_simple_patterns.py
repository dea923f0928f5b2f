"""Patterns that ``re`` matches in linear time match what RE2 matches."""

import re2
from hypothesis import given
from hypothesis import strategies as st

from collector.text.patterns import compile_pattern
from collector.text.simple_patterns import simple_pattern
from collector.text.substitute import Replacement, Template, replace_matches

ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "/",
        r"\d",
        r"\w",
        r"\s",
        r"\S",
        r"\D",
        r"\W",
        ".",
        r"\.",
        "[a-c]",
        "[^/]",
        r"[\d-]",
        r"[^\s&]",
        "é",
        r"\n",
    ]
)
ENDS = st.sampled_from(["", "", "+", "{2}", "{1,3}", "{2,}", "*", "?", "{0}"])
TEXTS = st.text(alphabet="ab/1 .-\n\t\x0b\x1céÉ_&0", max_size=12)


@given(st.lists(ATOMS, min_size=1, max_size=4).map("".join) | ATOMS.map("^{}".format), ENDS, TEXTS)
def test_replaces_what_re2_replaces(atoms, end, text):
    """Whatever counts as simple gives the same result as RE2."""
    pattern = atoms + end
    simple = simple_pattern(pattern)
    compiled = compile_pattern(pattern)
    expected = replace_matches(compiled, text, Template(compiled, "<$0>").expand)
    found = Replacement(pattern, "<$0>")(text)
    assert (text if found is None else found) == expected
    if simple is not None:
        assert [match.span() for match in simple.finditer(text)] == [match.span() for match in compiled.finditer(text)]


@given(st.text(alphabet="ab[](){}|+*?.\\^$-0d,", max_size=8))
def test_only_valid_patterns_without_repetition_inside_are_simple(pattern):
    """What RE2 refuses is not simple, nor is what can match nothing or has to go back."""
    simple = simple_pattern(pattern)
    if simple is not None:
        assert simple.search("") is None
        re2.compile(pattern)


def test_common_patterns_are_simple():
    """Those that configurations use most; the others are left to RE2."""
    assert all(
        simple_pattern(pattern) for pattern in ("[0-9]+", "^GET /", r"/users/\d+", r"password=\S+", r"token=[^&]*")
    )
    assert not any(
        simple_pattern(pattern) for pattern in (r"\d+/x", "a$", "a|b", "(a)", "a*", "a?", "", r"\b1", "a{0,2}")
    )
