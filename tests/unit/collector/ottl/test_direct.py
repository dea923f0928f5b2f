"""Conditions evaluated row by row give what the evaluation by columns gives, and say when they cannot."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ottl_data import logs_data, metrics_data, traces_data

from collector.model import Logs, LogsBuilder, Metrics, Traces
from collector.ottl import compile_conditions
from collector.ottl.direct import direct_condition
from collector.ottl.draft import Draft
from collector.ottl.parser import parse
from collector.ottl.row_conditions import RowCondition
from collector.ottl.view import View
from collector.text.patterns import compile_pattern
from collector.text.simple_patterns import literal_pattern

TEXTS = st.sampled_from(["", "a", "ab", "b.c", "äb", "health", "x" * 300])
NUMBERS = st.sampled_from([-1, 0, 1, 5, 2**53 + 1, 2**63 - 1, -(2**63)])
DOUBLES = st.sampled_from([0.0, -1.5, 5.0, 2.0**53, float("nan"), float("inf")])
PLAIN = st.one_of(TEXTS, NUMBERS, DOUBLES, st.booleans())
VALUES = st.one_of(st.none(), PLAIN, st.just(b""), st.just(b"a"), st.just([1]), st.just({"a": 1}))
OPERATORS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
PATTERNS = ["^a", "b$", "^ab$", "b[.]c", "b\\\\.c", "a|health", "ä", "", "^$", "h.+h", "(?i)HEAL"]


def literal(value):
    if value is None or isinstance(value, bool):
        return {None: "nil", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, float):
        return "1.5" if not np.isfinite(value) else repr(value)
    return "1" if value == -(2**63) else str(value)


LITERALS = st.one_of(st.none(), PLAIN).map(literal).filter(lambda text: not text.startswith("-"))
PATHS = st.sampled_from([
    'attributes["k"]', 'attributes["l"]', 'attributes["none"]', 'resource.attributes["k"]', 'scope.attributes["k"]',
    "body", "severity_text", "severity_number", "time_unix_nano", "scope.name", "event_name",
])  # fmt: skip
ATOMS = st.one_of(
    st.builds("{} {} {}".format, PATHS, OPERATORS, LITERALS),
    st.builds("{} {} {}".format, LITERALS, OPERATORS, PATHS),
    st.builds('IsMatch({}, "{}")'.format, PATHS, st.sampled_from(PATTERNS)),
    st.builds('time - observed_time {} Duration("{}")'.format, OPERATORS, st.sampled_from(["0s", "1ns", "1h"])),
    st.sampled_from(["true", "false", "SEVERITY_NUMBER_WARN == severity_number"]),
).filter(lambda text: not ("severity_number" in text or "time_unix" in text) or "IsMatch" not in text)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("({}) and ({})".format, inner, inner),
        st.builds("({}) or ({})".format, inner, inner),
        st.builds("not ({})".format, inner),
    ),
    max_leaves=5,
)
ROWS = st.lists(
    st.tuples(VALUES, VALUES, VALUES, st.integers(0, 24), TEXTS, st.integers(0, 2), st.integers(0, 2)), max_size=6
)


def records(rows, resource, scope):
    """Records of a resource with the attribute k, and as many of another one without it."""
    builder = LogsBuilder()
    for above in ({"k": resource, "z": 1}, {}):
        below = builder.scope(builder.resource(above), "lib", attributes={"k": scope} if above else {})
        builder.records(
            below,
            times=[row[5] for row in rows],
            observed_times=[row[6] for row in rows],
            bodies=[row[0] for row in rows],
            severity_numbers=[row[3] for row in rows],
            severity_texts=[row[4] for row in rows],
            attributes=[
                {key: value for key, value in (("l", row[1]), ("k", row[2])) if value is not None} for row in rows
            ],
        )
    return builder.build()


@given(rows=ROWS, above=st.tuples(PLAIN, PLAIN), texts=st.lists(CONDITIONS, min_size=1, max_size=3))
def test_rows_agree_with_columns(rows, above, texts):
    """Whatever the types of the values are; what the kernel cannot evaluate is left to the columns."""
    batch = records(rows, *above)
    direct = direct_condition([parse(text) for text in texts], "log")
    assert direct is not None
    columns = [compile_conditions([text], "log") for text in texts]
    expected = np.zeros(batch.item_count, np.bool_)
    has_failed = np.zeros(batch.item_count, np.bool_)
    for condition in columns:
        condition._direct = None
        matched, failed = condition.mask(batch)
        expected |= matched
        has_failed |= failed
    for each in (batch, Logs.from_wire(batch.wire)):  # with an index of the attributes, and without
        found = direct.mask(each)
        if found is not None:
            assert not has_failed.any()
            assert found[0].tolist() == expected.tolist()
            assert found[1] == np.count_nonzero(expected)


@pytest.mark.parametrize(
    ("batch", "context", "condition"),
    [
        (Traces.from_wire(traces_data().SerializeToString()), "span", 'name == "GET /a" or status.message == "boom"'),
        (Traces.from_wire(traces_data().SerializeToString()), "span", "kind == SPAN_KIND_SERVER and not flags == 1"),
        (Traces.from_wire(traces_data().SerializeToString()), "span", 'scope.attributes["level"] > 2'),
        (Traces.from_wire(traces_data().SerializeToString()), "spanevent", 'span.name != "x" and name == "exception"'),
        (Traces.from_wire(traces_data().SerializeToString()), "resource", 'attributes["service.name"] == "front"'),
        (Metrics.from_wire(metrics_data().SerializeToString()), "datapoint", 'metric.name == "g" and flags == 0'),
        (Metrics.from_wire(metrics_data().SerializeToString()), "metric", "type == METRIC_DATA_TYPE_SUM"),
        (Metrics.from_wire(metrics_data().SerializeToString()), "datapoint", 'resource.attributes["n"] == nil'),
        (Logs.from_wire(logs_data().SerializeToString()), "scope", 'name == "front" or version == "1.2"'),
    ],
)
def test_every_context_can_be_evaluated_by_rows(batch, context, condition):
    """Also with the tables above, and both ways find some rows."""
    conditions = compile_conditions([condition], context)
    direct = conditions._direct.mask(batch)
    by_columns = conditions._mask_by_columns(View(batch, context))[0]
    assert direct[0].tolist() == by_columns.tolist()


def test_changes_are_seen():
    """A condition on what earlier statements of a draft changed is evaluated by columns."""
    batch = records([("x", 1, "a", 9, "INFO", 0, 0)], 1, 1)
    draft = Draft(batch)
    conditions = compile_conditions(['attributes["k"] == "a"', "severity_number == 1"], "log")
    assert conditions.mask_of(View(draft, "log"))[0].tolist() == [True, True]
    draft.set("k", "b", np.array([True, False]), "records")
    assert conditions.mask_of(View(draft, "log"))[0].tolist() == [False, True]
    draft.set_field("severity_number", 1, np.array([True, False]), "records")
    assert conditions.mask_of(View(draft, "log"))[0].tolist() == [True, True]


def test_values_that_rows_cannot_evaluate_are_left_to_columns():
    """A pattern on a number, lists, and times before 1970 or after 2262."""
    number = records([("x", 1, 5, 9, "INFO", 0, 0)], 1, 1)
    for text in ('IsMatch(attributes["k"], "5")', 'IsMatch(resource.attributes["k"], "1")'):
        assert direct_condition([parse(text)], "log").mask(number) is None
        assert compile_conditions([text], "log").mask(number)[0].any()
    far = records([("x", 1, 5, 9, "INFO", 2**63, 0)], 1, 1)
    assert direct_condition([parse('time - observed_time > Duration("1h")')], "log").mask(far) is None


@pytest.mark.parametrize("pattern", [*PATTERNS, "a.b", "^", "$", "a$b", "a\\.", "\\d", "^a\\$$", "\\"])
@given(text=TEXTS)
def test_literal_patterns_match_as_in_re2(pattern, text):
    """A pattern that is a text, perhaps anchored, is compared as a text."""
    found = literal_pattern(pattern)
    if found is None:
        return
    form, part = found
    matches = {"contains": part in text, "prefix": text.startswith(part), "suffix": text.endswith(part)}
    assert {**matches, "equals": text == part}[form] == (compile_pattern(pattern).search(text) is not None)


def test_attributes_are_read_from_the_bytes_if_they_are_not_indexed():
    """The last of a repeated key counts; a key-value pair in another order is left to the columns."""
    request = logs_data()
    record = request.resource_logs[0].scope_logs[0].log_records[0]
    del record.attributes[:]
    for value in ("first", "last"):
        record.attributes.add(key="twice").value.string_value = value
    record.attributes.add(key="nothing")
    wire = request.SerializeToString()
    for text, holds in (
        ('attributes["twice"] == "last"', True),
        ('attributes["twice"] == "first"', False),
        ('attributes["nothing"] == nil', True),
    ):
        batch = Logs.from_wire(wire)
        assert direct_condition([parse(text)], "log").mask(batch)[0][0] == holds
        assert batch.index.lazy_attributes("records") is None
    swapped = wire.replace(b"\x0a\x05twice\x12\x06\x0a\x04last", b"\x12\x06\x0a\x04last\x0a\x05twice")
    assert swapped != wire
    batch = Logs.from_wire(swapped)
    text = 'attributes["twice"] == "last"'
    assert direct_condition([parse(text)], "log").mask(batch) is None
    assert compile_conditions([text], "log").mask(batch)[0][0]


def test_what_is_not_a_condition_is_refused():
    """Nodes, levels and tables that do not fit raise instead of being read."""
    with pytest.raises(ValueError, match="does not come after it"):
        RowCondition([("or", [0])])
    with pytest.raises(ValueError, match="no operand"):
        RowCondition([("or", [])])
    with pytest.raises(ValueError, match="level"):
        RowCondition([("equals", ("text", 9, 0), b"")])
    condition = RowCondition([("equals", ("attribute", 0, b"k"), b"a")])
    batch = records([("x", 1, "a", 9, "INFO", 0, 0)] * 2, 1, 1)
    rows, attributes = batch.table("records").rows, batch.attributes("records")
    with pytest.raises(ValueError, match="expected 1 tables"):
        condition.mask(batch.wire, [])
    with pytest.raises(TypeError):
        condition.mask(batch.wire, [(rows, attributes.rows["owner"], attributes.keys)])
    assert condition.mask(batch.wire, [(rows, attributes.rows[:1].copy(), attributes.keys)]) is None
    assert condition.mask(b"", [(rows, attributes.rows, attributes.keys)]) is None
    tag = 6 << 3 | 2
    assert condition.mask(batch.wire, [(rows, None, tag)])[0].all()
    assert condition.mask(batch.wire[:-30], [(rows, None, tag)]) is None
    for seed in range(200):
        random = np.random.default_rng(seed)
        noise = bytes(random.choice(np.frombuffer(batch.wire, np.uint8), len(batch.wire)))
        condition.mask(noise, [(rows, None, tag)])
