"""JSON is parsed as Python's json module does, whatever the text."""

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from log_operator_rig import Report, run

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
PARSE = [{"type": "json_parser", "parse_ints": True}]


@given(st.dictionaries(TEXTS, VALUES, max_size=30), st.booleans(), st.sampled_from([None, 1]))
def test_objects_are_as_in_python(value, ascii_only, indent):
    """Every object that json.dumps writes is read back, integers and doubles apart."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    (record,) = run(PARSE, [text])
    assert record["attributes"] == value
    assert json.dumps(record["attributes"], sort_keys=True) == json.dumps(value, sort_keys=True)


@given(st.text('{}[]":,0123456789.eE+-truefalsn\\u \n\t\x00é', max_size=40))
@example('{"a":1}x')
@example('{"a":01}')
@example('{"a":1.}')
@example('{"a":.5}')
@example('{"a":"\\uZZZZ"}')
@example('{"a":"\t"}')
@example('{"a":tru}')
@example("{,}")
def test_invalid_texts_fail_as_in_python(text):
    """A text is an object here if and only if it is one for Python."""

    def no_constant(_):
        raise ValueError

    try:
        expected = json.loads(text, parse_constant=no_constant)
    except (ValueError, RecursionError):
        expected = None
    report = Report()
    (record,) = run([{"type": "json_parser", "parse_to": "attributes.made"}], [text.encode()], report=report)
    if isinstance(expected, dict) and math.inf not in map(abs, (v for v in expected.values() if isinstance(v, float))):
        assert not report.failures
        assert record["attributes"].get("made", {}).keys() == expected.keys()
    elif expected is None and text.strip(" \t\n\r") != "null":
        assert report.failures


@given(st.binary(max_size=60))
def test_no_bytes_do_harm(data):
    """Any bytes become one record."""
    assert len(run(PARSE, [b'{"a":' + data])) == 1


def test_the_last_of_equal_keys_counts():
    """As in a Go map, a key that comes again replaces the earlier one, in small and in large objects."""
    for count in (3, 200):
        pairs = ",".join(f'"k{number % (count // 2 + 1)}":{number}' for number in range(count))
        (record,) = run(PARSE, ["{" + pairs + "}"])
        assert record["attributes"] == json.loads("{" + pairs + "}")


@pytest.mark.parametrize(("depth", "is_parsed"), [(24, True), (25, False), (100_000, False)])
def test_depth_is_limited(depth, is_parsed):
    """Objects that nest deeper than 24 are not parsed."""
    report = Report()
    run(PARSE, ['{"a":' * depth + "1" + "}" * depth], report=report)
    assert (not report.failures) is is_parsed


def test_lone_surrogates_are_replaced():
    """A surrogate without its other half becomes U+FFFD, as in Go."""
    (record,) = run(PARSE, ['{"a":"\\ud800x\\udc00","b":"\\ud83d\\ude00"}'])
    assert record["attributes"] == {"a": "\ufffdx\ufffd", "b": "😀"}


def test_large_numbers():
    """Integers that do not fit become doubles, and doubles that do not fit texts; without parse_ints they fail."""
    text = '{"a":9223372036854775807,"b":9223372036854775808,"c":-9223372036854775808,"d":1e999,"e":-0,"f":1E2}'
    (record,) = run(PARSE, [text])
    assert record["attributes"] == {"a": 2**63 - 1, "b": 2.0**63, "c": -(2**63), "d": "1e999", "e": 0, "f": 100.0}
    report = Report()
    run([{"type": "json_parser"}], [text], report=report)
    assert report.failures
