"""Invalid conditions: each is a configuration error that states the position and the fault."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.model import Signal
from collector.ottl import OttlError, compile_conditions, infer_context
from collector.ottl.statements import compile_group

WRONG = [
    ("", "span", "column 1: the condition is empty"),
    ("name", "span", "column 1: a value by itself is not a condition"),
    ('name == "a', "span", "column 9: the string is not closed"),
    ('name == "\\d"', "span", "column 10: '\\\\d' is not a valid escape"),
    ('name = "a"', "span", "column 6: unexpected '='"),
    ('name == "a" and', "span", "column 16: unexpected end"),
    ("name == 0x123", "span", "an odd number of digits"),
    ("kind == 9223372036854775808", "span", "does not fit into a signed 64-bit integer"),
    ("kind == 1.0e999", "span", "too large"),
    ("kind == §", "span", "unexpected character '§'"),
    ('IsMach(name, "a")', "span", "unknown function IsMach; did you mean IsMatch?"),
    ('set(name, "a")', "span", "only converters can be called"),
    ("kind == SPAN_KIND_SEVER", "span", "did you mean SPAN_KIND_SERVER?"),
    ("kind == STATUS_CODE_OK", "resource", "the context 'resource' does not have a path 'kind'"),
    ('attributes["a"] == STATUS_CODE_OK', "resource", "the context 'resource' does not define symbols"),
    ('nme == "a"', "span", "the context 'span' does not have a path 'nme'; did you mean 'name'?"),
    ('metric.name == "a"', "span", "'metric' cannot be read in the context 'span'"),
    ('name["a"] == "a"', "span", "does not accept keys"),
    ("attributes[1] == 1", "span", "an attribute key must be a string"),
    ('attributes[1.5] == "a"', "span", "a key must be a string or an integer"),
    ('trace_state["a"]["b"] == "a"', "span", "'trace_state' accepts a single key"),
    ("status == 1", "span", "'status' of 'span' cannot be read"),
    ('IsMatch(name, "[")', "span", "IsMatch: invalid pattern"),
    ('IsMatch(name, "(?=a)")', "span", "IsMatch: invalid pattern"),
    ("IsMatch(name, 1)", "span", "IsMatch: pattern must be a string"),
    ("IsMatch(name)", "span", "IsMatch takes (target, pattern)"),
    ('IsMatch(name, patern="a")', "span", "did you mean 'pattern'?"),
    ('IsMatch(target=name, "a")', "span", "a positional argument follows a named argument"),
    ("IsRootSpan(1)", "span", "IsRootSpan takes no arguments"),
    ("IsRootSpan()", "spanevent", "IsRootSpan cannot be called in the context 'spanevent'"),
    ('Concat(name, "") == "a"', "span", "Concat: vals must be a list"),
    ('ConvertCase(name, "kebab") == "a"', "span", "'kebab' is not a case"),
    ('IsInCIDR(name, ["10.0.0.0"])', "span", "'10.0.0.0' is not a valid network"),
    ("trace_id == TraceID(0x01)", "span", "is not a valid trace id"),
    ('("a") == "a"', "span", "only numbers, paths and converters are allowed"),
    ('name + "a" == "b"', "span", "only numbers, paths and converters are allowed"),
    ('(name == "a") == true', "span", "only numbers, paths and converters are allowed"),
    ("(" * 100 + "true" + ")" * 100, "span", "nested deeper than 64 levels"),
    ("true" + " or true" * 5000, "span", "at most 16384 are allowed"),
]


@pytest.mark.parametrize(("text", "context", "message"), WRONG)
def test_says_where_and_what(text, context, message):
    """Every mistake raises OttlError, with a message that states the position and how to correct it."""
    with pytest.raises(OttlError) as caught:
        compile_conditions([text], context)
    assert message in str(caught.value)
    assert str(caught.value).startswith(("column ", "line "))


def test_names_the_condition_it_is_about():
    """The message shows the condition that is wrong."""
    with pytest.raises(OttlError, match=r"in 'kind == X'"):
        compile_conditions(["true", "kind == X"], "span")


def test_counts_lines():
    """For a condition of several lines the message states the line."""
    with pytest.raises(OttlError, match=r"line 2, column 5: the context 'span' does not have a path 'nme'"):
        compile_conditions(['name == "a"\nor  nme == "b"'], "span")


def test_needs_a_condition_and_not_too_many():
    """An empty list and one that is too long are refused."""
    with pytest.raises(OttlError, match="is empty"):
        compile_conditions([], "span")
    with pytest.raises(OttlError, match="at most 1000"):
        compile_conditions(["true"] * 1001, "span")


@pytest.mark.parametrize(
    ("text", "signal", "context"),
    [
        ('span.name == "a"', Signal.TRACES, "span"),
        ('resource.attributes["a"] == "b"', Signal.TRACES, "resource"),
        ('resource.attributes["a"] == "b" and scope.name == "c"', Signal.LOGS, "scope"),
        ('instrumentation_scope.name == "c"', Signal.LOGS, "scope"),
        ('spanevent.name == "a" and span.name == "b"', Signal.TRACES, "spanevent"),
        ('metric.name == "a" and datapoint.attributes["b"] == "c"', Signal.METRICS, "datapoint"),
        ('metric.name == "a"', Signal.METRICS, "metric"),
        ('IsMatch(log.body, "a") and resource.attributes["a"] == "b"', Signal.LOGS, "log"),
        ('resource.attributes["a"] == "b" and IsRootSpan()', Signal.TRACES, "span"),
        ('resource.attributes["a"] == SEVERITY_NUMBER_INFO', Signal.LOGS, "log"),
        ('resource.attributes["a"] == "b" and HasAttrKeyOnDatapoint("k")', Signal.METRICS, "metric"),
    ],
)
def test_infers_the_context(text, signal, context):
    """The context is the lowest one that a path names, or one below it that has the converter or the symbol."""
    assert infer_context(text, signal) == context


@pytest.mark.parametrize(
    ("text", "signal", "message"),
    [
        ("true", Signal.TRACES, "the context cannot be inferred"),
        ('name == "a"', Signal.TRACES, "start a path with it, for example span.name"),
        ('log.body == "a"', Signal.TRACES, "'log' is not a context of traces"),
    ],
)
def test_infers_no_context(text, signal, message):
    """Without a prefix, or with that of another signal, no context can be inferred."""
    with pytest.raises(OttlError, match=message):
        infer_context(text, signal)


def test_wants_prefixes_where_the_context_is_inferred():
    """A path without a prefix is refused, with a message that says what to write."""
    with pytest.raises(OttlError, match=r"must start with its context: write span\.kind"):
        compile_conditions(['span.name == "a" and kind == 1'], "span", prefixed=True)


WORDS = st.sampled_from([
    "name", "span.", "attributes", '["k"]', "[0]", "[", "]", "(", ")", "{", "}", ",", ":", "==", "!=", "<", "=", "+",
    "-", "*", "/", "and", "or", "not",
    "nil", "true", "0x0", "0x", "1", "1.5", ".", '"a"', '"', "\\", "IsMatch", "Len", "Concat", "SPAN_KIND_SERVER", "_",
    "=>", "\n", "é", "\x00",
])  # fmt: skip


@given(st.lists(WORDS, max_size=12).map(" ".join) | st.lists(WORDS, max_size=12).map("".join) | st.text())
def test_any_text_is_a_condition_or_an_error(text):
    """Any text is either a condition or raises OttlError."""
    try:
        conditions = compile_conditions([text], "span")
    except OttlError as error:
        shown = str(error)
    else:
        assert conditions.table == "spans"
        return
    assert shown.startswith(("column ", "line "))


@given(st.text(alphabet="set(atrbuesnil)[]{}<>=\"'\\., 01wher+-*/AZ_:", max_size=40) | st.text(max_size=30))
def test_any_text_is_a_statement_or_an_error(text):
    """Whatever is configured, the only exception is OttlError."""
    with contextlib.suppress(OttlError):
        compile_group([text], Signal.TRACES, context="span")
