"""Globs match like gobwas/glob with a dot as separator."""

import pytest

from connectors.span_metrics.globs import compile_glob


@pytest.mark.parametrize(
    ("glob", "key", "matches"),
    [
        ("k8s.*.name", "k8s.pod.name", True),
        ("k8s.*.name", "k8s.pod.label.name", False),
        ("db.**.name", "db.a.b.name", True),
        ("db.**.name", "db.name", False),
        ("a?c", "abc", True),
        ("a?c", "a.c", False),
        ("a.{b,c*}", "a.cd", True),
        ("a.{b,c*}", "a.d", False),
        ("[a-c]x", "bx", True),
        ("[!a-c]x", "bx", False),
        ("[!a-c]x", "dx", True),
        (r"a\*", "a*", True),
        (r"a\*", "ab", False),
        ("a.b", "a.b", True),
        ("a.b", "axb", False),
        ("a.b", "a.b.c", False),
        ("*", "", True),
        ("a,b}", "a,b}", True),
    ],
)
def test_matches(glob, key, matches):
    """A pattern matches whole keys only."""
    assert compile_glob(glob)(key) is matches
