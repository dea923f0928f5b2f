"""Expressions have the values that expr-lang gives them, per row and as masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.log_operators.conditions import Condition
from collector.log_operators.entries import Entries
from collector.log_operators.expressions import ExpressionError, parse_expression

BODY = {"level": "INFO", "n": 3, "list": [1, "x"], "map": {"k": None}, "flag": True, "text": "abc def"}
ATTRIBUTES = {"a.b": "dotted", "code": 200}


def entries_of(bodies, attributes=ATTRIBUTES):
    entries = Entries()
    rows = [
        entries.import_row((body, attributes, {"r": "s"}, 0, 0, 0, b"", b"", 0, bytes(16), bytes(8))) for body in bodies
    ]
    return entries, np.array(rows, np.int32)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('body.level == "INFO"', True),
        ('body["level"] != "INFO"', False),
        ("body.level == 'INFO' and body.n > 2", True),
        ("body.level == 'x' or body.n >= 3 && body.flag", True),
        ("not (body.n < 3)", True),
        ("!body.flag", False),
        ("body.n == 3.0", True),
        ("body.n + 1 == 4 and body.n * 2 - 1 == 5", True),
        ("body.n % 2 == 1 and 7 / 2 == 3.5 and 2 ** 3 == 8", True),
        ('body.level in ["INFO", "WARN"]', True),
        ('body.level not in ["INFO"]', False),
        ('"k" in body.map', True),
        ('"z" in body', False),
        ('body.level matches "^IN"', True),
        ('body.level not matches "^IN"', False),
        ('body.none matches "x"', False),
        ('body.none contains "x"', False),
        ('body.text contains "c d" and body.text startsWith "abc" and body.text endsWith "def"', True),
        ("body.none == nil and body.map.k == nil", True),
        ("(body.none ?? 5) == 5", True),
        ("body.list[0] == 1 and body.list[-1] == 'x' and len(body.list) == 2", True),
        ("body.text[0:3] == 'abc' and body.text[4:] == 'def' and body.text[:3] == 'abc'", True),
        ("body.flag ? body.n == 3 : false", True),
        ('attributes["a.b"] == "dotted" and attributes.code == 200', True),
        ("resource.r == 's'", True),
        ("$.n == 3", True),
        ("unknown == nil", True),
        ("len(body.text) == 7 and upper(body.level) == 'INFO' and lower('A') == 'a'", True),
        ("trim('  x ') == 'x' and split('a,b', ',')[1] == 'b' and join(['a', 'b'], '-') == 'a-b'", True),
        ("indexOf(body.text, 'def') == 4 and hasPrefix(body.text, 'a') and replace('aa', 'a', 'b') == 'bb'", True),
        ("int('5') + 1 == 6 and float('1.5') == 1.5 and string(5) == '5' and max(1, 3) == 3", True),
        ("body?.map?.k?.x == nil", True),
        ("-body.n == -3 and 0x10 == 16 and 1_000 == 1000", True),
        ("'it\\'s' == \"it's\" and `raw\\n` == 'raw\\\\n'", True),
        ("body.text | upper() == 'ABC DEF'", True),
        ("{'a': 1}.a == 1", True),
    ],
)
def test_values(text, expected):
    """Conditions hold or not."""
    entries, rows = entries_of([BODY])
    holds, failed = Condition(text).test(entries, rows)
    assert (holds.tolist(), failed.tolist()) == ([expected], [False])


@pytest.mark.parametrize(
    "text",
    [
        "body.n matches 'x'", "body.level < 5", "len(nil) == 1", "body.none.deeper == 1", "body.n and true", "body.level",
        "body.list[9] == 1", "1 % 0 == 1", "body.n / 0 == 1", "int('x') == 1", "body.n contains 'x'",
    ],
)  # fmt: skip
def test_values_that_there_are_not(text):
    """Where the Collector's expression fails, there is no value."""
    entries, rows = entries_of([BODY])
    holds, failed = Condition(text).test(entries, rows)
    assert (holds.tolist(), failed.tolist()) == ([False], [True])


def test_fields_of_a_text_are_no_value():
    """A body that is a text has no fields; it is an error to ask for one, as in the Collector."""
    entries, rows = entries_of(["text", {"level": "x"}, None])
    for text in ('body.level == "x"', "body.level != nil", 'body.level matches "x"', "len(body.level) == 1"):
        holds, failed = Condition(text).test(entries, rows)
        assert (holds.tolist(), failed.tolist()) == ([False, True, False], [True, False, True]), text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "too early"), ("body ==", "too early"), ("body == 'x", "is not expected"), ("body.level = 1", "not expected"),
        ("nope(body)", "no function"), ("body matches body", "in quotes"), ("body matches '('", "invalid pattern"),
        ("(" * 100, "too deep"), ("a b", "not expected"), ("timestamp > 1", "not available"), ("body." , "a name"),
    ],
)  # fmt: skip
def test_mistakes_are_explained(text, message):
    """An expression that is not valid is refused with the reason."""
    with pytest.raises(ValueError, match=message):
        parse_expression(text)


LEAVES = st.sampled_from(
    [
        'body.a == "x"', 'body.a != "x"', 'body.a contains "x"', 'body.a startsWith "x"', 'body.a endsWith "y"',
        'body.a matches "^x\\\\S"', "body.a == nil", "body.n > 1", "body.n == 2", 'body.a in ["x", "xy", 2]', "body.flag",
        "len(body.a) > 1", "true", "nil == body.n", '"x" == body.a',
    ]
)  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})")
        | inner.map(lambda t: f"not ({t})")
    ),
    max_leaves=6,
)
VALUES = st.sampled_from(["x", "xy", "y", "", None, 2, True, "é", ["x"], {"k": "x"}])


@given(TREES, st.lists(st.fixed_dictionaries({}, optional={"a": VALUES, "n": VALUES, "flag": VALUES}), max_size=8))
def test_masks_are_what_each_row_says(text, bodies):
    """The masks over many rows are the values of the expression for each of them."""
    bodies = [*bodies, "text"]
    entries, rows = entries_of(bodies)
    expression = parse_expression(text)
    expected = []
    for body in bodies:
        environment = {
            path: (body.get(path[1]) if isinstance(body, dict) else ...) if len(path) == 2 else body
            for path in expression.fields
        }
        try:
            value = expression.evaluate(environment)
        except ExpressionError:
            value = None
        expected.append(value if isinstance(value, bool) else "failed")
    holds, failed = Condition(text).test(entries, rows)
    made = ["failed" if bad else bool(good) for good, bad in zip(holds, failed, strict=True)]
    assert made == expected
