"""The actions on columns agree with the same actions on one Python dict per item."""

import base64
import hashlib
import math
import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from pydantic import ValidationError

from collector.model import EMPTY_CONTEXT, Context, Logs
from collector.ottl.attribute_actions import ActionConfig, AttributeActions

CONTEXT = Context(
    metadata=(("x-tenant", ("a", "b")), ("user-agent", ("sdk",))), claims=(("groups", "g"), ("sub", "me"))
)
KEYS = ("a", "b", "ab", "c.d", "x")


def to_any(value):
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if value is None:
        return AnyValue()
    return AnyValue(array_value={"values": [to_any(item) for item in value]})


def from_any(value):
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [from_any(item) for item in value.array_value.values]
    return getattr(value, kind)


def request(rows):
    message = ExportLogsServiceRequest()
    scope = message.resource_logs.add().scope_logs.add()
    for row in rows:
        record = scope.log_records.add(time_unix_nano=1)
        for key, value in row:
            record.attributes.add(key=key, value=to_any(value))
    return message.SerializeToString()


def read(batch):
    message = ExportLogsServiceRequest.FromString(batch.wire)
    records = [r for resource in message.resource_logs for scope in resource.scope_logs for r in scope.log_records]
    return [{pair.key: from_any(pair.value) for pair in record.attributes} for record in records]


def run(rows, *actions, where=None, context=EMPTY_CONTEXT):
    """A batch of items with these attributes, each given as a dict or as pairs with repeated keys."""
    pairs = [list(row.items()) if isinstance(row, dict) else row for row in rows]
    batch = Logs.from_wire(request(pairs), context)
    result = AttributeActions([ActionConfig.model_validate(action) for action in actions], "records").apply(
        batch, where
    )
    Logs.from_wire(result.wire)  # the result is valid
    return read(result)


# The slow reference: one dict per item, written from the Collector's documentation.


def ref_hash(value):
    if isinstance(value, str):
        data = value.encode()
    elif isinstance(value, bool):
        data = bytes([value])
    elif isinstance(value, int):
        data = struct.pack("<q", value)
    elif isinstance(value, float):
        data = struct.pack("<d", value)
    else:
        return ""
    return hashlib.sha256(data).hexdigest()


def ref_convert(value, to):
    if to == "string":
        return value if isinstance(value, str) else ref_text(value)
    if to == "int":
        if isinstance(value, bool):
            return int(value)
        if isinstance(value, float):
            return int(value) if math.isfinite(value) and -(2**63) <= value < 2**63 else value
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value, re.ASCII) and -(2**63) <= int(value) < 2**63:
            return int(value)
        return value
    if isinstance(value, bool | int):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value) if re.fullmatch(r"[-+0-9.eE]+", value) and math.isfinite(float(value)) else value
        except ValueError:
            return value
    return value


def ref_text(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if value is None:
        return ""
    return str(value)


def reference(row, action, context):
    row = dict(row)
    key, kind = action.get("key", ""), action["action"]
    if kind in {"insert", "update", "upsert"}:
        if "from_attribute" in action:
            if action["from_attribute"] not in row:
                return row
            value = row[action["from_attribute"]]
        elif "from_context" in action:
            values = dict(context.metadata).get(action["from_context"].removeprefix("metadata."))
            if not values:
                return row
            value = ";".join(values)
        else:
            value = action["value"]
        if (kind == "insert" and key in row) or (kind == "update" and key not in row):
            return row
        row[key] = value
        return row
    if kind in {"delete", "hash"}:
        keys = [key] if key in row else []
        change = (
            (lambda name: row.pop(name, None))
            if kind == "delete"
            else (lambda name: row.update({name: ref_hash(row[name])}))
        )
        for name in keys:
            change(name)
        if "pattern" in action:
            for name in [name for name in row if re.search(action["pattern"], name)]:
                change(name)
        return row
    if kind == "extract":
        match = re.search(action["pattern"], row[key]) if isinstance(row.get(key), str) else None
        return {**row, **({} if match is None else match.groupdict(""))}
    if key in row:
        row[key] = ref_convert(row[key], action["converted_type"])
    return row


values = st.one_of(
    st.sampled_from(
        ["", "x", "12", "-7", "+3", "1.5", "1e3", "9223372036854775808", "v1/users", "v2/", "ü", " 1", "1_0"]
    ),
    st.text(max_size=5).filter(lambda t: t.isprintable() and not re.search("inf|nan|0x", t, re.IGNORECASE)),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False, width=16),
    st.booleans(),
    st.binary(max_size=3),
    st.none(),
)
keys = st.sampled_from(KEYS)
setting = st.one_of(
    st.fixed_dictionaries(
        {"value": st.one_of(st.text(max_size=3), st.integers(-5, 5), st.booleans(), st.floats(-1, 1))}
    ),
    st.fixed_dictionaries({"from_attribute": keys}),
    st.fixed_dictionaries({"from_context": st.sampled_from(["metadata.x-tenant", "user-agent", "metadata.none"])}),
)
actions = st.one_of(
    st.builds(
        lambda kind, key, source: {"action": kind, "key": key, **source},
        st.sampled_from(["insert", "update", "upsert"]),
        keys,
        setting,
    ),
    st.builds(lambda kind, key: {"action": kind, "key": key}, st.sampled_from(["delete", "hash"]), keys),
    st.builds(
        lambda kind, pattern: {"action": kind, "pattern": pattern},
        st.sampled_from(["delete", "hash"]),
        st.sampled_from(["^a", r"\.", "b$", "[xc]"]),
    ),
    st.builds(
        lambda key, pattern: {"action": "extract", "key": key, "pattern": pattern},
        keys,
        st.sampled_from([r"^(?P<b>v\d)/(?P<x>.*)", r"(?P<new>\d+)", r"(?P<a>z)?x"]),
    ),
    st.builds(
        lambda key, to: {"action": "convert", "key": key, "converted_type": to},
        keys,
        st.sampled_from(["int", "double"]),
    ),
)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.dictionaries(keys, values, max_size=4), max_size=6),
    chosen=st.lists(actions, min_size=1, max_size=4),
    mask=st.none() | st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_actions_agree_with_one_dict_an_item(rows, chosen, mask):
    """Any actions in sequence, on any values and rows, give the reference's result."""
    expected = []
    for number, row in enumerate(rows):
        result = dict(row)
        if mask is None or mask[number]:
            for action in chosen:
                result = reference(result, action, CONTEXT)
        expected.append(result)
    where = None if mask is None else np.array(mask[: len(rows)], np.bool_)
    found = run(rows, *chosen, where=where, context=CONTEXT)
    assert [{k: (type(v), v) for k, v in row.items()} for row in found] == [
        {k: (type(v), v) for k, v in row.items()} for row in expected
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (True, "true"),
        (False, "false"),
        (5, "5"),
        (1.0, "1"),
        (1.5, "1.5"),
        (b"\x01", "AQ=="),
        (None, ""),
        (["a", 1], '["a",1]'),
    ],
)
def test_convert_to_string(value, text):
    """Values of every kind are converted to the texts of the specification."""
    assert run([{"k": value}], {"action": "convert", "key": "k", "converted_type": "string"}) == [{"k": text}]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("1e400", "1e400"),
        ("0x1p4", 16.0),
        ("Inf", math.inf),
        ("-infinity", -math.inf),
        ("+nan", "+nan"),
        ("1_000", "1_000"),
        ("٣", "٣"),
        (".5", 0.5),
        ("5.", 5.0),
        (".", "."),
        (" 1", " 1"),
    ],
)
def test_convert_to_double_reads_what_go_reads(value, number):
    """Texts are converted as by strconv.ParseFloat; others remain texts."""
    assert run([{"k": value}], {"action": "convert", "key": "k", "converted_type": "double"}) == [{"k": number}]


@pytest.mark.parametrize("value", [1e19, -1e19, math.inf, -math.inf])
def test_double_that_is_no_int_stays(value):
    """Doubles beyond int64 are not changed; the Collector's result for them is undefined."""
    assert run([{"k": value}], {"action": "convert", "key": "k", "converted_type": "int"}) == [{"k": value}]


def test_hash_is_the_collectors():
    """Hashes are those that the Collector 0.156 writes for the same values: an empty text has one, other types have not."""
    values = {"k": "", "l": "a", "m": True, "n": b"\x01", "o": [], "p": None}
    assert run([values], {"action": "hash", "pattern": "."}) == [
        {
            "k": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "l": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
            "m": "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a",
            "n": "",
            "o": "",
            "p": "",
        }
    ]


def test_repeated_key_counts_once_and_the_last_wins():
    """Of a repeated key the last value counts, as everywhere in Tailrace."""
    assert run([[("k", "a"), ("k", "b")]], {"action": "upsert", "key": "l", "from_attribute": "k"}) == [
        {"k": "b", "l": "b"}
    ]
    assert run([[("k", "a"), ("k", "b")]], {"action": "delete", "key": "k"}) == [{}]


def test_patterns_see_what_earlier_actions_made():
    """Actions on a key that no item has return the same batch."""
    made = {"action": "insert", "key": "new.key", "value": "v"}
    assert run([{"a": 1}], made, {"action": "delete", "pattern": "^new"}) == [{"a": 1}]
    assert run(
        [{"a": "v7"}],
        {"action": "extract", "key": "a", "pattern": r"v(?P<version>\d)"},
        {"action": "hash", "pattern": "ver"},
    ) == [{"a": "v7", "version": ref_hash("7")}]


@pytest.mark.parametrize("value", ["s", 5, 1.5, True, ["a", 1], {"m": "n"}])
def test_value_of_any_type(value):
    """Values of all types can be set, including lists and maps."""
    batch = Logs.from_wire(request([[("k", 1)]]))
    result = AttributeActions([ActionConfig(action="upsert", key="v", value=value)], "records").apply(batch)
    column = result.attribute("v")
    assert column.as_text().to_list() == [
        str(value).lower()
        if isinstance(value, bool)
        else '{"m":"n"}'
        if isinstance(value, dict)
        else '["a",1]'
        if isinstance(value, list)
        else str(value)
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("auth.sub", "me"),
        ("auth.claims.sub", "me"),
        ("auth.none", None),
        ("metadata.X-Tenant", "a;b"),
        ("x-tenant", "a;b"),
        ("metadata.none", None),
    ],
)
def test_from_context(name, value):
    """Values come from metadata and claims; an absent one does nothing."""
    expected = {} if value is None else {"k": value}
    assert run([{}], {"action": "insert", "key": "k", "from_context": name}, context=CONTEXT) == [expected]


def test_nothing_changed_is_the_same_batch():
    """Without matching rows the batch is the same object."""
    batch = Logs.from_wire(request([[("k", 1)]]))
    for action in (
        {"action": "delete", "key": "none"},
        {"action": "update", "key": "none", "value": 1},
        {"action": "hash", "pattern": "zzz"},
    ):
        assert AttributeActions([ActionConfig.model_validate(action)], "records").apply(batch) is batch
    assert (
        AttributeActions([ActionConfig(action="delete", key="k")], "records").apply(batch, np.zeros(1, np.bool_))
        is batch
    )


def test_one_regular_expression_a_distinct_value(monkeypatch):
    """A thousand rows with two values cause two searches, and the next batch with the same values causes none."""
    searched = []

    class Counting:
        groups, groupindex = 1, {"v": 1}

        def search(self, text):
            searched.append(text)
            return re.search(r"(?P<v>\d)", text)

    monkeypatch.setattr("collector.ottl.attribute_actions.compile_pattern", lambda pattern: Counting())
    actions = AttributeActions([ActionConfig(action="extract", key="k", pattern=r"(?P<v>\d)")], "records")
    batch = Logs.from_wire(request([[("k", f"v{n % 2}")] for n in range(1000)]))
    for _ in range(2):
        assert read(actions.apply(batch))[5] == {"k": "v1", "v": "1"}
    assert sorted(searched) == ["v0", "v1"]


ROWS = [{"b": "B"}, {}, {"b": None}]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (
            {"key": "a", "action": "upsert", "from_attribute": "b", "default_value": "x"},
            [{"b": "B", "a": "B"}, {"a": "x"}, {"b": None, "a": None}],
        ),
        (
            {"key": "a", "action": "insert", "from_attribute": "b", "default_value": [1]},
            [{"b": "B", "a": "B"}, {"a": [1]}, {"b": None, "a": None}],
        ),
        ({"key": "b", "action": "update", "from_attribute": "c", "default_value": ""}, [{"b": ""}, {}, {"b": ""}]),
        (
            {"key": "b", "action": "insert", "from_attribute": "c", "default_value": 5},
            [{"b": "B"}, {"b": 5}, {"b": None}],
        ),
        ({"key": "b", "action": "upsert", "from_context": "metadata.none", "default_value": 5}, [{"b": 5}] * 3),
        ({"key": "b", "action": "upsert", "from_context": "metadata.x-tenant", "default_value": 5}, [{"b": "a;b"}] * 3),
        ({"key": "b", "action": "upsert", "default_value": 5}, [{"b": 5}] * 3),
        ({"key": "b", "action": "upsert", "value": 6, "default_value": 5}, [{"b": 6}] * 3),
        ({"key": "b", "action": "delete", "default_value": 5}, [{}] * 3),
    ],
)
def test_the_default_value(action, expected):
    """It is set where the source has no value, as in the Collector (checked with otelcol 0.156)."""
    assert run(ROWS, action, context=CONTEXT) == expected


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"action": "insert", "key": "k"}, "needs exactly one of .* got none"),
        ({"action": "insert", "key": "k", "default_value": object()}, "default_value .* cannot be the value"),
        ({"action": "insert", "key": "k", "value": 1, "from_attribute": "b"}, "got value and from_attribute"),
        ({"action": "insert", "value": 1}, "needs 'key'"),
        ({"action": "insert", "key": "k", "value": 1, "pattern": "x"}, "does not use 'pattern'"),
        ({"action": "delete"}, "needs 'key', 'pattern' or both"),
        ({"action": "hash", "key": "k", "value": 1}, "does not use 'value'"),
        ({"action": "hash", "key": "k", "from_attribute": "b"}, "does not use 'from_attribute'"),
        ({"action": "delete", "pattern": "("}, "invalid pattern"),
        ({"action": "extract", "key": "k"}, "needs 'pattern'"),
        ({"action": "extract", "key": "k", "pattern": "(a)"}, "every group needs a name"),
        ({"action": "extract", "key": "k", "pattern": "a"}, "every group needs a name"),
        ({"action": "extract", "key": "k", "pattern": "(?P<n>a)", "value": 1}, "does not use 'value'"),
        ({"action": "convert", "key": "k"}, "needs 'converted_type'"),
        ({"action": "convert", "key": "k", "converted_type": "bool"}, "Input should be"),
        ({"action": "upsert", "key": "k", "value": 1, "converted_type": "int"}, "does not use 'converted_type'"),
        ({"action": "upsert", "key": "k", "from_context": "client.address"}, "client.address is not available"),
        ({"action": "replace", "key": "k"}, "Input should be"),
        ({"action": "insert", "key": "k", "value": 2**64}, "cannot be the value of an attribute"),
    ],
)
def test_mistakes_are_told(action, message):
    """Invalid configurations are refused as in the Collector."""
    with pytest.raises(ValidationError, match=message):
        ActionConfig.model_validate(action)


def test_action_in_any_case():
    """Actions may be written in upper case."""
    assert ActionConfig(action="UPSERT", key="k", value="").action == "upsert"
