"""Masks agree with a slow evaluator of single spans in protobuf messages, over generated conditions and data.

That the rules are those of the Collector is tested in tests/e2e/test_filter_peer.py.
"""

import math
import operator
import re
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from held_memory import assert_bounded
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from collector.model import Metrics, MetricsBuilder, StringColumn, Traces
from collector.ottl import compile_conditions
from collector.ottl.operations import apply
from collector.ottl.parser import parse
from collector.ottl.syntax import Chain, Compare, FunctionCall, ListOf, Literal, Logic, Not, Parenthesized, Path, Signed
from collector.ottl.values import Values
from collector.testing import traces
from collector.text.cache import TextCache

INT64 = 2**64
COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Failed(Exception):
    """The slow evaluator's error of a row."""


def any_value(value):
    match value:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=map(any_value, value)))
        case dict():
            return AnyValue(
                kvlist_value=KeyValueList(
                    values=[KeyValue(key=key, value=any_value(item)) for key, item in value.items()]
                )
            )
        case _:
            return AnyValue(string_value=value)


def decoded(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [decoded(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: decoded(pair.value) for pair in value.kvlist_value.values}
    return None if kind is None else getattr(value, kind)


def wrapped(number):
    return (number + 2**63) % INT64 - 2**63


class Slow:
    """Evaluates a tree for one span."""

    def __init__(self, resource, span):
        self.resource, self.span = resource, span

    def truth(self, node):
        match node:
            case Parenthesized():
                return self.truth(node.inner)
            case Not():
                return not self.truth(node.operand)
            case Logic():
                decides = node.operator == "or"
                if any(self.fixed(operand) is decides for operand in node.operands):
                    # literals decide before anything is evaluated that could fail, as in Go
                    return decides
                return (any if decides else all)(self.truth(operand) for operand in node.operands)
            case Compare():
                return self.compare(node.operator, self.value(node.left), self.value(node.right))
            case FunctionCall():
                return self.value(node)
            case Literal():
                return node.value

    def fixed(self, node):
        """The value of a condition that consists of literals; None for other conditions."""
        match node:
            case Parenthesized():
                return self.fixed(node.inner)
            case Not():
                inner = self.fixed(node.operand)
                return None if inner is None else not inner
            case Logic():
                decides = node.operator == "or"
                found = [self.fixed(operand) for operand in node.operands]
                return decides if decides in found else None if None in found else not decides
            case Compare():
                return self.truth(node) if self.written(node.left) and self.written(node.right) else None
            case Literal():
                return node.value
        return None

    def written(self, node):
        match node:
            case Literal():
                return True
            case Signed():
                return self.written(node.operand)
            case Parenthesized():
                return self.written(node.inner)
            case ListOf():
                return all(self.written(item) for item in node.items)
        return False

    def compare(self, symbol, left, right):
        empty = lambda value: value is None or value == b""  # noqa: E731
        if empty(left) or empty(right):
            return symbol in {"==", "<=", ">="} if empty(left) and empty(right) else symbol == "!="
        numbers = {int, float}
        if {type(left), type(right)} <= numbers and type(left) is not type(right):
            left, right = float(left), float(right)
        if type(left) is not type(right):
            return symbol == "!="
        if isinstance(left, list | dict):
            return self.same(left, right) == (symbol == "==") if symbol in {"==", "!="} else False
        return COMPARE[symbol](left, right)

    def same(self, left, right):
        if type(left) is not type(right):
            return False
        if isinstance(left, list):
            return len(left) == len(right) and all(map(self.same, left, right))
        if isinstance(left, dict):
            return left.keys() == right.keys() and all(self.same(left[key], right[key]) for key in left)
        return left == right

    def value(self, node):
        match node:
            case Literal():
                return node.value
            case Parenthesized():
                return self.value(node.inner)
            case ListOf():
                return [self.value(item) for item in node.items]
            case Path():
                return self.path(node)
            case Signed():
                number = self.value(node.operand)
                if type(number) not in {int, float}:
                    raise Failed
                return -number if type(number) is float else wrapped(-number)
            case Chain():
                left = self.value(node.first)
                for symbol, operand in node.operands:
                    left = self.computed(symbol, left, self.value(operand))
                return left
            case FunctionCall():
                return self.call(node.name, [self.value(argument) for _, argument in node.arguments])

    def path(self, node):
        *_, last = node.fields
        names = [field.name for field in node.fields]
        if last.name == "attributes":
            owner = self.resource if names[0] == "resource" else self.span
            found = [pair.value for pair in owner.attributes if pair.key == last.keys[0].value]
            if not found:
                return None
            value = decoded(found[-1])
            for key in last.keys[1:]:
                if isinstance(value, dict) and isinstance(key.value, str):
                    if key.value not in value:
                        return None
                    value = value[key.value]
                elif isinstance(value, list) and isinstance(key.value, int) and key.value < len(value):
                    value = value[key.value]
                else:
                    raise Failed
            return value
        if names[-2:] == ["trace_id", "string"]:
            return self.span.trace_id.hex()
        return getattr(self.span, last.name)

    def computed(self, symbol, left, right):
        if type(left) not in {int, float} or type(right) not in {int, float}:
            raise Failed
        if symbol == "/" and right == 0:
            raise Failed
        if type(left) is int and type(right) is int:
            if symbol == "/":
                return wrapped((abs(left) // abs(right)) * (1 if (left < 0) == (right < 0) else -1))
            return wrapped({"+": operator.add, "-": operator.sub, "*": operator.mul}[symbol](left, right))
        with np.errstate(all="ignore"):
            function = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}[symbol]
            return float(function(np.float64(left), np.float64(right)))

    def call(self, name, arguments):
        target = arguments[0] if arguments else None
        if name == "IsRootSpan":
            return not any(self.span.parent_span_id)
        if name in KINDS:
            return type(target) is KINDS[name]
        if name == "Len":
            if type(target) not in {str, list, dict, bytes}:
                raise Failed
            return len(target.encode() if type(target) is str else target)
        if name == "Int":
            return self.as_int(target)
        if not isinstance(target, str) or not all(isinstance(argument, str) for argument in arguments):
            raise Failed
        return {
            "HasPrefix": lambda: target.startswith(arguments[1]),
            "HasSuffix": lambda: target.endswith(arguments[1]),
            "ToUpperCase": lambda: target.upper(),
        }[name]()

    def as_int(self, target):
        if isinstance(target, str):
            return int(target) if re.fullmatch(r"[+-]?[0-9]+", target) and -(2**63) <= int(target) < 2**63 else None
        if target is None:
            return None
        if type(target) not in {int, float, bool}:
            raise Failed
        if isinstance(target, float) and not (math.isfinite(target) and -(2**63) <= target < 2**63):
            return -(2**63)  # the result of the Collector on x86
        return int(target)


KINDS = {"IsString": str, "IsInt": int, "IsDouble": float, "IsBool": bool, "IsMap": dict, "IsList": list}

NUMBERS = st.one_of(
    st.integers(-3, 6),
    st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1]),
    st.sampled_from([0.0, -0.0, 2.5, 5.0, 1e300, float("nan")]),
)
TEXTS = st.sampled_from(["", "a", "ab", "b", "AB", "ä", "5", "-7", "x y", "\U0001f600"])
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.sampled_from([b"", b"\x01", b"\x01\x02"]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
    max_leaves=4,
)
ATTRIBUTES = st.dictionaries(st.sampled_from("kmn"), VALUES, max_size=3)


@st.composite
def requests(draw):
    message = ExportTraceServiceRequest()
    for _ in range(draw(st.integers(1, 2))):
        resource = message.resource_spans.add()
        resource.resource.attributes.extend(
            KeyValue(key=key, value=any_value(item)) for key, item in draw(ATTRIBUTES).items()
        )
        spans = resource.scope_spans.add().spans
        for index in range(draw(st.integers(1, 5))):
            spans.add(
                trace_id=bytes([index + 1] * 16),
                span_id=bytes([index + 1] * 8),
                parent_span_id=draw(st.sampled_from([b"", bytes(8), b"\1" * 8])),
                name=draw(TEXTS),
                kind=draw(st.integers(0, 5)),
                start_time_unix_nano=draw(st.integers(0, 3)),
                attributes=[KeyValue(key=key, value=any_value(item)) for key, item in draw(ATTRIBUTES).items()],
            )
    return message


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


LITERALS = st.one_of(
    st.sampled_from(
        ["nil", "true", "false", "0x01", "0x0102", "0", "1", "5", "5.0", "2.5", "9223372036854775807", "[]", '[1, "a"]']
    ),
    TEXTS.map(quoted),
)
PATHS = st.sampled_from([
    'attributes["k"]', 'span.attributes["m"]', 'attributes["n"]', 'resource.attributes["k"]',
    'resource.attributes["m"]', "name", "kind",
    "start_time_unix_nano", "trace_id.string", 'attributes["k"]["a"]', 'attributes["m"][0]',
    'attributes["n"]["b"]["a"]',
])  # fmt: skip


def calls(values):
    one = st.builds("{}({})".format, st.sampled_from(["Len", "Int", "ToUpperCase"]), values)
    return one.filter(lambda text: not text.startswith("ToUpperCase(") or text[12] not in "0123456789[ntf(-")


OPERANDS = st.one_of(PATHS, PATHS, calls(PATHS), st.sampled_from(["1", "2.5", "9223372036854775807", "-3"]))
SUMS = st.builds("({} {} {})".format, OPERANDS, st.sampled_from("+-*/"), OPERANDS) | OPERANDS.filter(
    lambda text: text[0] != "-"
).map("-{}".format)
COMPARED = st.one_of(PATHS, PATHS, LITERALS, calls(PATHS), SUMS)
TESTS = st.one_of(
    st.builds("{} {} {}".format, COMPARED, st.sampled_from(list(COMPARE)), COMPARED),
    st.builds("{}({})".format, st.sampled_from(list(KINDS)), PATHS),
    st.builds(
        "{}({}, {})".format, st.sampled_from(["HasPrefix", "HasSuffix"]), PATHS, st.one_of(PATHS, TEXTS.map(quoted))
    ),
    st.just("IsRootSpan()"),
)


def logic(inner):
    return st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        inner.map(lambda text: f"not ({text})"),
    )


CONDITIONS = st.recursive(TESTS, logic, max_leaves=4)


def slow(texts, message):
    """(matched, failed) of each span."""
    for resource in message.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                failed = False
                for text in texts:
                    try:
                        if Slow(resource.resource, span).truth(parse(text)):
                            yield True, failed
                            break
                    except Failed:
                        failed = True
                else:
                    yield False, failed


@given(requests(), st.lists(CONDITIONS, min_size=1, max_size=3))
def test_says_of_each_span_what_the_slow_evaluator_says(message, texts):
    """Matched and failed rows agree with the slow evaluator."""
    matched, failed = compile_conditions(texts, "span").mask(Traces.from_wire(message.SerializeToString()))
    assert list(zip(matched.tolist(), failed.tolist(), strict=True)) == list(slow(texts, message))


@given(requests(), CONDITIONS)
def test_a_row_does_not_depend_on_its_neighbours(message, text):
    """A span alone in a batch gets the same result as among others, also from the caches."""
    batch = Traces.from_wire(message.SerializeToString())
    conditions = compile_conditions([text], "span")
    together = conditions.mask(batch)
    for row in range(batch.item_count):
        alone = conditions.mask(batch.select(np.arange(batch.item_count) == row))
        assert [part.tolist() for part in alone] == [[part[row]] for part in together]
    assert [part.tolist() for part in conditions.mask(batch)] == [part.tolist() for part in together]


def test_the_first_that_matches_ends_the_asking():
    """A condition that would fail after a match is not evaluated; one that fails before a match is reported."""
    batch = traces(spans=4)
    fails = "name + 1 == 2"
    matched, failed = compile_conditions(["true", fails], "span").mask(batch)
    assert matched.all()
    assert not failed.any()
    matched, failed = compile_conditions([fails, "true"], "span").mask(batch)
    assert matched.all()
    assert failed.all()


@pytest.mark.parametrize(
    ("text", "matched", "failed"),
    [
        ("name + 1 == 2 and false", False, False),
        ("name + 1 == 2 or true", True, False),
        ("name + 1 == 2 or kind >= 0", False, True),
        ("kind >= 0 or name + 1 == 2", True, False),
        ("kind < 0 and name + 1 == 2", False, False),
        ("not (name + 1 == 2)", False, True),
    ],
)
def test_short_circuits_from_left_to_right(text, matched, failed):
    """What literals decide is not evaluated; otherwise the left operand is first, and the row fails with it."""
    found = compile_conditions([text], "span").mask(traces(spans=3))
    assert [part.tolist() for part in found] == [[matched] * 3, [failed] * 3]


def test_a_batch_without_rows():
    """Spans without events have no result for events."""
    message = ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.add(trace_id=b"\1" * 16, span_id=b"\1" * 8)
    matched, failed = compile_conditions(['name == "a"', "Len(attributes) > 1"], "spanevent").mask(
        Traces.from_wire(message.SerializeToString())
    )
    assert len(matched) == len(failed) == 0


def test_points_of_one_metric_decide_for_it():
    """HasAttrOnDatapoint tests the first point that has the key."""
    builder = MetricsBuilder()
    scope = builder.scope(builder.resource())
    for name, values in (("a", ["x", "y"]), ("b", ["y", "x"]), ("c", [None, "x"])):
        attributes = [{} if value is None else {"k": value} for value in values]
        builder.gauge(scope, name, times=np.arange(2, dtype=np.uint64), values=np.arange(2), attributes=attributes)
    batch = builder.build()
    assert isinstance(batch, Metrics)
    assert compile_conditions(['HasAttrOnDatapoint("k", "x")'], "metric").mask(batch)[0].tolist() == [True, False, True]
    assert compile_conditions(['HasAttrKeyOnDatapoint("k")'], "metric").mask(batch)[0].tolist() == [True] * 3


@pytest.mark.parametrize("condition", ['IsMatch(name, "e+")', 'IsMatch(name, "e+") == true'])
def test_text_is_worked_on_once_for_each_distinct_value(monkeypatch, condition):
    """A thousand spans of four names: the function runs at most four times, and not at all for the next batch."""
    from collector.ottl import direct, functions

    seen = []
    pattern = SimpleNamespace(search=lambda text: seen.append(text) or re.search("e+", text))
    monkeypatch.setattr(direct, "search_pattern", lambda _: pattern)
    monkeypatch.setattr(functions, "search_pattern", lambda _: pattern)
    batch = traces(spans=1000)
    names = set(batch.field("name").to_list())
    conditions = compile_conditions([condition], "span")
    first = conditions.mask(batch)
    assert sorted(seen) == sorted(names)
    assert conditions.mask(traces(spans=1000))[0].tolist() == first[0].tolist()
    assert len(seen) == len(names)


def test_results_of_texts_are_cached():
    """A text of an earlier batch is not computed again."""
    calls = []
    cache = TextCache()
    for _ in range(3):
        texts = Values.of_text(StringColumn.of(["a", "b", "a"]))
        assert apply(lambda text: calls.append(text) or text == "a", [texts], cache).number.tolist() == [1, 0, 1]
    assert calls == ["a", "b"]


def test_results_of_one_pattern_are_not_those_of_another():
    """The pattern may be data that is the same in all rows of a batch, and another in the next batch."""
    condition = compile_conditions(['IsMatch(name, resource.attributes["pattern"])'], "span")
    for pattern, matched in (("^a", True), ("^b", False), ("^a", True)):
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add()
        group.resource.attributes.add(key="pattern", value=any_value(pattern))
        spans = group.scope_spans.add().spans
        for _ in range(3):
            spans.add(name="ab", trace_id=bytes(range(16)), span_id=bytes(range(1, 9)))
        assert condition.mask(Traces.from_wire(request.SerializeToString()))[0].tolist() == [matched] * 3


def test_what_is_kept_of_text_from_outside_is_bounded():
    """No function keeps more than some megabytes of texts, patterns or results, however many and long they are."""
    conditions = compile_conditions(
        [
            'IsMatch(name, "^never")',
            'IsMatch("x", attributes["pattern"])',
            'ToLowerCase(name) == "x" or ToUpperCase(name) == "x"',
            'Duration(name) == Duration("1s")',
        ],
        "span",
    )

    def feed(text):
        message = ExportTraceServiceRequest()
        spans = message.resource_spans.add().scope_spans.add().spans
        for name in (text, text[:-1]):
            spans.add(name=name).attributes.add(key="pattern").value.string_value = f"^n{name[:500]}"
        conditions.mask(Traces.from_wire(message.SerializeToString()))

    assert_bounded(feed, short_texts=200)


def test_compiled_patterns_of_the_data_are_not_kept():
    """A sender cannot fill the memory with patterns that compile to megabytes each."""
    conditions = compile_conditions(['IsMatch("x", attributes["pattern"])'], "span")
    process = psutil.Process()
    before = 0
    for number in range(60):
        message = ExportTraceServiceRequest()
        spans = message.resource_spans.add().scope_spans.add().spans
        spans.add().attributes.add(
            key="pattern"
        ).value.string_value = rf"{number}\pL{{1,60}}"  # compiles to some 600 KB
        conditions.mask(Traces.from_wire(message.SerializeToString()))
        if number == 10:
            before = process.memory_info().rss
    assert process.memory_info().rss - before < 15 * 1024 * 1024


EVERY = [
    None, "", "a", "b", "5", True, False, 0, 1, 5, -3, 2**63 - 1, -(2**63), 0.0, 1.0, 5.0, 2.5, 1e300, float("nan"),
    b"", b"\x01", b"\x01\x02",
    [], [1], [1.0], [1, "a"], {}, {"a": 1}, {"a": 1.0}, {"a": {"b": [None]}},
]  # fmt: skip


@pytest.mark.parametrize("symbol", list(COMPARE))
def test_compares_every_type_with_every_other(symbol):
    """All pairs of values compare like the reference, as columns and with a constant on either side."""
    from collector.ottl.operations import compare
    from collector.ottl.values import Values

    slow_compare = Slow(None, None).compare
    pairs = [(left, right) for left in EVERY for right in EVERY]
    wanted = [slow_compare(symbol, left, right) for left, right in pairs]
    assert (
        compare(symbol, Values.of([left for left, _ in pairs]), Values.of([right for _, right in pairs])).tolist()
        == wanted
    )
    for value in EVERY:
        assert compare(symbol, Values.of(EVERY), Values.constant(value)).tolist() == [
            slow_compare(symbol, each, value) for each in EVERY
        ]
        assert compare(symbol, Values.constant(value), Values.of(EVERY)).tolist() == [
            slow_compare(symbol, value, each) for each in EVERY
        ]


@pytest.mark.parametrize("symbol", "+-*/")
def test_computes_every_type_with_every_other(symbol):
    """Numbers wrap, divide toward zero and fail on zero; other types fail."""
    from collector.ottl.operations import compute
    from collector.ottl.values import Kind, Values

    def slow_compute(left, right):
        try:
            return repr(Slow(None, None).computed(symbol, left, right))
        except Failed:
            return "failed"

    pairs = [(left, right) for left in EVERY for right in EVERY]
    found = compute(symbol, Values.of([left for left, _ in pairs]), Values.of([right for _, right in pairs]))
    shown = [
        "failed" if kind == Kind.FAILED else repr(double if kind == Kind.DOUBLE else number)
        for kind, number, double in zip(found.kind.tolist(), found.number.tolist(), found.double.tolist(), strict=True)
    ]
    assert shown == [slow_compute(left, right) for left, right in pairs]


def test_times_and_durations():
    """Times and durations can be added and subtracted where that makes sense, and saturate; anything else fails."""
    from collector.ottl.operations import compute
    from collector.ottl.values import Duration, Kind, Time, Values

    largest = 2**63 - 1
    cases = [
        (Time(5), "-", Time(2), (Kind.DURATION, 3)),
        (Time(largest), "-", Time(-2), (Kind.DURATION, largest)),
        (Time(-largest), "-", Time(9), (Kind.DURATION, -largest - 1)),
        (Time(5), "+", Duration(2), (Kind.TIME, 7)),
        (Duration(2), "+", Time(5), (Kind.TIME, 7)),
        (Time(largest), "+", Duration(2), (Kind.TIME, largest)),
        (Time(5), "-", Duration(7), (Kind.TIME, -2)),
        (Duration(5), "-", Duration(7), (Kind.DURATION, -2)),
        (Duration(5), "-", Time(7), (Kind.FAILED, None)),
        (Time(5), "+", Time(7), (Kind.FAILED, None)),
        (Duration(5), "*", Duration(7), (Kind.FAILED, None)),
        (Time(5), "+", 7, (Kind.FAILED, None)),
    ]
    for left, symbol, right, (kind, number) in cases:
        found = compute(symbol, Values.constant(left), Values.constant(right))
        assert found.kind[0] == kind
        assert number is None or found.number[0] == number


@pytest.mark.parametrize(
    ("content", "condition", "outcome"),
    [
        ("[" * 100_000, 'ParseJSON(name)[0] == "x"', "failed"),
        ("[" * 400 + "]" * 400, 'IsMatch(ParseJSON(name), "x")', None),
        ("[" * 400 + "]" * 400, "ParseJSON(name) == ParseJSON(name)", None),
        ("[1e999]", "ParseJSON(name) != nil", "failed"),
        ("[NaN]", "ParseJSON(name) != nil", "failed"),
        ("[" + "9" * 5_000 + "]", "ParseJSON(name) != nil", "failed"),
        ("1", "ParseJSON(name) != nil", "failed"),
        ('{"a": [1]}', 'ParseJSON(name)["a"][0] == 1', "matched"),
        ("9" * 5_000, "Int(name) == nil", "matched"),
        ("9" * 5_000, "Double(name) > 0", "failed"),
        ("(" * 50_000, "IsMatch(name, name)", "failed"),
        ("a" * 50_000, 'IsMatch(name, "(a*)*b")', "none"),
        ("1" * 5_000 + "h", 'Duration(name) > Duration("1s")', "failed"),
        ("\U0001f600", "Substring(name, 0, 1) != nil", "matched"),
    ],
)
def test_hostile_texts(content, condition, outcome):
    """A received text can at worst make its own row fail."""
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for name in (content, "plain"):
        spans.add(trace_id=b"\1" * 16, span_id=b"\1" * 8, name=name)
    matched, failed = compile_conditions([condition], "span").mask(Traces.from_wire(message.SerializeToString()))
    if outcome is not None:
        assert [matched[0], failed[0]] == [outcome == "matched", outcome == "failed"]


def test_as_deep_as_is_allowed():
    """Sixty-four levels of parentheses are allowed around conditions and around numbers."""
    batch = traces(spans=3)
    text = "(" * 64 + "kind >= 0" + ")" * 64 + " and " + "-(" * 64 + "kind" + ")" * 64 + " == kind"
    assert compile_conditions([text], "span").mask(batch)[0].all()
