"""Edits against protobuf messages: equal changes give equal content, and the index carried over is right."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from collector.model import AttributeColumn, Logs, LogsBuilder, Metrics, StringColumn, Traces

PROPERTY = settings(max_examples=60, deadline=None)
VALUES = ("text", "", 7, -(2**63), 1.5, True, b"\x00", [1, "a"], {"k": {"n": 1.0}})
ATTRIBUTED = {
    Traces: ("resources", "scopes", "spans", "events", "links"),
    Metrics: ("resources", "scopes", "points", "exemplars"),
    Logs: ("resources", "scopes", "records"),
}


def holders(otlp, message, table):
    """The repeated attributes of each row of a table, in document order."""
    resources = getattr(message, message.DESCRIPTOR.fields[0].name)
    scopes = [scope for resource in resources for scope in getattr(resource, resource.DESCRIPTOR.fields[1].name)]
    if table == "resources":
        return [lambda resource=resource: resource.resource.attributes for resource in resources]
    if table == "scopes":
        return [lambda scope=scope: scope.scope.attributes for scope in scopes]
    items = otlp.items(message)
    if table in {"spans", "points", "records"}:
        return [lambda item=item: item.attributes for item in items]
    name = "filtered_attributes" if table == "exemplars" else "attributes"
    return [lambda child=child: getattr(child, name) for item in items for child in getattr(item, table, ())]


def any_value(value):
    message = AnyValue()
    if isinstance(value, str):
        message.string_value = value
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int):
        message.int_value = value
    elif isinstance(value, float):
        message.double_value = value
    elif isinstance(value, bytes):
        message.bytes_value = value
    elif isinstance(value, dict):
        message.kvlist_value.SetInParent()
        for key, item in value.items():
            message.kvlist_value.values.add(key=key).value.CopyFrom(any_value(item))
    else:
        message.array_value.SetInParent()
        for item in value:
            message.array_value.values.add().CopyFrom(any_value(item))
    return message


def set_one(attributes, key, value, mode="upsert"):
    found = [i for i, attribute in enumerate(attributes) if attribute.key == key]
    if (mode == "insert" and found) or (mode == "update" and not found):
        return
    if found:
        attributes[found[-1]].Clear()
        attributes[found[-1]].key = key
        attributes[found[-1]].value.CopyFrom(value)
        for i in reversed(found[:-1]):
            del attributes[i]
    else:
        attributes.add(key=key).value.CopyFrom(value)


def delete_one(attributes, key):
    for i in reversed(range(len(attributes))):
        if attributes[i].key == key:
            del attributes[i]


def in_order(otlp, message, tables):
    """The message with attributes sorted by key, because the position of a new one is not part of the contract."""
    for resource in getattr(message, message.DESCRIPTOR.fields[0].name):
        resource.resource.SetInParent()  # one that is not there and one that says nothing are the same
        for scope in getattr(resource, resource.DESCRIPTOR.fields[1].name):
            scope.scope.SetInParent()
    for table in tables:
        for attributes in holders(otlp, message, table):
            for attribute in attributes():
                attribute.value.SetInParent()  # here too
            if len(attributes()) > 1:
                attributes().sort(key=lambda attribute: attribute.key)
    return otlp.canonical(message)


def draw_mask(data, count):
    return np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), np.bool_)


@PROPERTY
@given(data=st.data())
def test_changes_of_attributes_are_those_of_the_message(otlp, data):
    """Any sequence of set and delete over any tables is applied in one pass, and reads through the edit see it."""
    batch = data.draw(otlp.batches(indexed=data.draw(st.booleans())))
    expected = otlp.parsed(batch)
    edit = batch.edit()
    for _ in range(data.draw(st.integers(1, 4))):
        table = data.draw(st.sampled_from(ATTRIBUTED[type(batch)]))
        rows = holders(otlp, expected, table)
        mask = draw_mask(data, len(rows))
        key = data.draw(st.sampled_from(otlp.KEYS))
        kind = data.draw(st.sampled_from(("set", "delete", "column")))
        if kind == "set":
            value, mode = data.draw(st.sampled_from(VALUES)), data.draw(st.sampled_from(("insert", "update", "upsert")))
            edit.set(key, value, mask, table=table, mode=mode)
            for row in np.flatnonzero(mask):
                set_one(rows[row](), key, any_value(value), mode)
        elif kind == "column":
            values = [data.draw(st.sampled_from((None, *VALUES))) for _ in rows]
            edit.set(key, AttributeColumn.of(values), table=table)
            for row, value in zip(rows, values, strict=True):
                if value is not None:
                    set_one(row(), key, any_value(value))
        else:
            edit.delete(key, mask, table=table)
            for row in np.flatnonzero(mask):
                delete_one(rows[row](), key)
        seen = [[attribute.value for attribute in row() if attribute.key == key] for row in rows]
        assert edit.attribute(key, table).present.tolist() == [bool(values) for values in seen]
    edited = edit.apply()
    tables = ATTRIBUTED[type(batch)]
    assert in_order(otlp, otlp.parsed(edited), tables) == in_order(otlp, expected, tables)
    otlp.assert_same_index(edited)
    assert edited.edit().apply() is edited


FIELDS = {
    "resources": {"schema_url": str},
    "scopes": {"schema_url": str, "name": str, "version": str},
    "spans": {
        **dict.fromkeys(("name", "trace_state", "status_message"), str),
        **dict.fromkeys(
            ("kind", "status_code", "flags", "start_time_unix_nano", "end_time_unix_nano", "span_id", "parent_span_id"),
            int,
        ),
        "trace_id": tuple,
    },
    "events": {"name": str, "time_unix_nano": int},
    "links": {"trace_state": str, "flags": int, "span_id": int, "trace_id": tuple},
    "metrics": {"name": str, "description": str, "unit": str},
    "points": {"time_unix_nano": int, "start_time_unix_nano": int, "flags": int},
    "records": {
        "severity_text": str,
        "event_name": str,
        "body": bytes,
        **dict.fromkeys(("severity_number", "flags", "time_unix_nano", "observed_time_unix_nano", "span_id"), int),
        "trace_id": tuple,
    },
}


@PROPERTY
@given(data=st.data())
def test_fields_are_set_as_in_the_message(otlp, data):
    """Every field of every table in its wire form; 0 unsets numbers and ids."""
    batch = data.draw(otlp.batches(indexed=data.draw(st.booleans())))
    expected = otlp.parsed(batch)
    edit = batch.edit()
    for _ in range(data.draw(st.integers(1, 3))):
        table = data.draw(st.sampled_from([table for table in batch.tables if table in FIELDS]))
        name = data.draw(st.sampled_from(sorted(FIELDS[table])))
        count = batch.table(table).row_count
        mask = draw_mask(data, count)
        messages = owners(otlp, expected, table)
        kind = FIELDS[table][name]
        if kind is str:
            choices = (
                (None, "other", "y" * 200) if table == "metrics" and name == "name" else (None, "", "other", "y" * 200)
            )
            # a metric without a name is no valid metric
            texts = [data.draw(st.sampled_from(choices)) for _ in range(count)]
            edit.set_field(name, StringColumn.of(texts), mask, table=table)
            for row in np.flatnonzero(mask):
                if texts[row] is not None:
                    target, field = holder(messages[row], table, name)
                    setattr(target, field, texts[row])
                    target.SetInParent()
        elif kind is bytes:
            values = [data.draw(st.sampled_from(VALUES)) for _ in range(count)]
            edit.set_field(name, AttributeColumn.of(values), mask, table=table)
            for row in np.flatnonzero(mask):
                messages[row].body.CopyFrom(any_value(values[row]))
        elif kind is tuple:
            ids = np.array([[0, data.draw(st.integers(0, 1)) * 9] for _ in range(count)], np.uint64).reshape(count, 2)
            edit.set_field(name, ids, mask, table=table)
            for row in np.flatnonzero(mask):
                setattr(messages[row], name, bytes(15) + b"\x09" if ids[row, 1] else b"")
        else:
            values = np.array([data.draw(st.sampled_from((0, 1, 5))) for _ in range(count)], np.int64)
            edit.set_field(name, values, mask, table=table)
            for row in np.flatnonzero(mask):
                target, field = holder(messages[row], table, name)
                value = int(values[row])
                setattr(
                    target, field, (value.to_bytes(8, "big") if value else b"") if name.endswith("span_id") else value
                )
                target.SetInParent()
    edited = edit.apply()
    assert otlp.canonical(otlp.parsed(edited)) == otlp.canonical(expected)
    otlp.assert_same_index(edited)


def owners(otlp, message, table):
    resources = list(getattr(message, message.DESCRIPTOR.fields[0].name))
    scopes = [scope for resource in resources for scope in getattr(resource, resource.DESCRIPTOR.fields[1].name)]
    if table == "resources":
        return resources
    if table == "scopes":
        return scopes
    if table == "metrics":
        return [metric for scope in scopes for metric in scope.metrics]
    items = otlp.items(message)
    return (
        items
        if table in {"spans", "points", "records"}
        else [child for item in items for child in getattr(item, table, ())]
    )


def holder(message, table, name):
    if table == "scopes" and name != "schema_url":
        return message.scope, name
    if name.startswith("status_"):
        return message.status, name.removeprefix("status_")
    return message, name


@pytest.fixture
def traces(otlp):
    request = otlp.REQUESTS[Traces]()
    scope = request.resource_spans.add().scope_spans.add()
    for i in range(4):
        span = scope.spans.add(name=f"op{i}")
        span.attributes.add(key="n").value.int_value = i
    return Traces.from_wire(request.SerializeToString())


def test_numpy_arrays_keep_their_kind(traces):
    """int → INT, float → DOUBLE, bool → BOOL."""
    edited = (
        traces.edit()
        .set("i", np.arange(4))
        .set("f", np.arange(4.0))
        .set("b", np.arange(4) > 1)
        .set("s", np.float32(0.5))
        .apply()
    )
    assert edited.attribute("i").int.tolist() == [0, 1, 2, 3]
    assert edited.attribute("f").double.tolist() == [0, 1, 2, 3]
    assert edited.attribute("b").bool.tolist() == [False, False, True, True]
    assert edited.attribute("s").double.tolist() == [0.5] * 4
    assert [set(edited.attribute(key).kind.tolist()) for key in "ifb"] == [{3}, {4}, {2}]


def test_absent_rows_of_a_column_are_left_alone(traces):
    """A column of one attribute can be written to another one; its absent rows change nothing."""
    edited = traces.edit().set("n", StringColumn.of(["a", None, "c", None])).apply()
    assert edited.attribute("n").as_text().to_list() == ["a", "1", "c", "3"]


def test_an_edit_that_changes_nothing_gives_the_same_batch(traces):
    """Callers can tell that nothing changed, and nothing is copied."""
    nobody = np.zeros(4, np.bool_)
    assert traces.edit().apply() is traces
    assert traces.edit().delete(["nope", "n"], nobody).set("n", 1, nobody).set("x", 1, mode="update").apply() is traces
    assert traces.edit().set("new", 1).delete("new").apply() is traces
    assert traces.edit().set_field("flags", 0).apply() is traces


def test_what_cannot_be_set_is_named(traces):
    """Errors name fields, tables and values that do not exist or do not fit."""
    edit = traces.edit()
    with pytest.raises(KeyError, match="no field 'nope'"):
        edit.set_field("nope", "x")
    with pytest.raises(TypeError, match="expected text"):
        edit.set_field("name", 3)
    with pytest.raises(TypeError, match="expected numbers"):
        edit.set_field("kind", "x")
    with pytest.raises(TypeError, match="cannot have a value of type object"):
        edit.set("k", object())
    with pytest.raises(ValueError, match="expected a column of 4 values, got 3"):
        edit.set("k", np.arange(3))
    with pytest.raises(ValueError, match="expected a mask of 4 rows, got one of 3"):
        edit.delete("k", np.zeros(3, np.bool_))
    with pytest.raises(KeyError, match="no table"):
        edit.set("k", 1, table="records")


def test_reads_through_an_edit_inherit_what_is_pending(traces):
    """A resource attribute set in the same edit is seen from the spans."""
    edit = traces.edit().set("service.name", "checkout", table="resources").delete("n", np.arange(4) < 2)
    assert edit.attribute("service.name", inherit=True).text.to_list() == ["checkout"] * 4
    assert edit.attribute("n").present.tolist() == [False, False, True, True]
    assert traces.attribute("n").present.all()


def test_attributes_are_written_in_the_order_in_which_they_were_added():
    """What is deleted and set again is new; what is set where it was keeps its place."""
    builder = LogsBuilder()
    scope = builder.scope(builder.resource({}), "")
    builder.records(scope, times=[1, 2], bodies=["x", "y"], attributes=[{"a": 1, "b": 2, "c": 3}, {"d": 4}])
    batch = builder.build()
    edit = batch.edit().set("z", 9).set("b", 5).delete("a").set("c", 7).set("a", 8).delete("z").set("z", 6)
    for each in (edit.apply(), Logs.from_wire(edit.apply().wire)):
        attributes = each.attributes()
        found = [(owner, key) for owner, key in zip(attributes.owner.tolist(), attributes.key.to_list(), strict=True)]
        assert found == [(0, "b"), (0, "c"), (0, "a"), (0, "z"), (1, "d"), (1, "b"), (1, "c"), (1, "a"), (1, "z")]
        assert attributes.int.tolist() == [5, 7, 8, 6, 4, 5, 7, 8, 6]
