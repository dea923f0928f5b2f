"""Many attribute changes in one edit against a slow reference: all modes, masks, forms of values and lengths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.model import AttributeColumn, Logs, StringColumn, Traces

PROPERTY = settings(max_examples=60, deadline=None)
KEYS = ("a", "b", "service.name", "", "new", "long" * 40)
TEXTS = ("", "v", "grün", "y" * 120, "z" * 20_000)  # lengths of one, two and three bytes, also of what is around


def reference(rows, key, values, mask, mode):
    """The effect of one ``set`` on each row's list of (key, value); None = absent."""
    for row, value, wanted in zip(rows, values, mask, strict=True):
        found = [i for i, (name, _) in enumerate(row) if name == key]
        if not wanted or value is None or (mode == "insert" and found) or (mode == "update" and not found):
            continue
        if found:
            row[found[-1]] = (key, value)
            for i in reversed(found[:-1]):
                del row[i]
        else:
            row.append((key, value))


def delete(rows, key, mask):
    for row, wanted in zip(rows, mask, strict=True):
        if wanted:
            row[:] = [pair for pair in row if pair[0] != key]


def python(value):
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


def holders(message, table):
    spans = [
        (resource, scope, span)
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    if table == "resources":
        return [resource.resource for resource in message.resource_spans]
    if table == "scopes":
        return [scope.scope for resource in message.resource_spans for scope in resource.scope_spans]
    if table == "events":
        return [event for _, _, span in spans for event in span.events]
    return [span for _, _, span in spans]


def content(message, table):
    return [[(a.key, python(a.value)) for a in holder.attributes] for holder in holders(message, table)]


def draw_values(data, count):
    """(what is given to ``set``, the value of each row)."""
    form = data.draw(st.sampled_from(("constant", "texts", "ints", "doubles", "bools", "column")))
    if form == "constant":
        value = data.draw(st.sampled_from((*TEXTS, 3, -1, 0.5, True)))
        return value, [value] * count
    if form == "texts":
        codes = np.array([data.draw(st.integers(-1, 4)) for _ in range(count)], np.int32)
        return StringColumn.from_codes(codes, TEXTS), [None if code < 0 else TEXTS[code] for code in codes]
    if form == "ints":
        values = [data.draw(st.sampled_from((0, 127, 128, -1, 2**63 - 1, -(2**63)))) for _ in range(count)]
        return np.array(values, np.int64), values
    if form == "doubles":
        values = [data.draw(st.sampled_from((0.0, -1.5, float("inf")))) for _ in range(count)]
        return np.array(values, np.float64), values
    if form == "bools":
        values = [data.draw(st.booleans()) for _ in range(count)]
        return np.array(values, np.bool_), values
    values = [data.draw(st.sampled_from((None, "t", 7, 2.5, b"\x00\xff"))) for _ in range(count)]
    return AttributeColumn.of(values), values


@PROPERTY
@given(data=st.data())
def test_many_sets_in_one_edit_are_those_of_the_reference(otlp, data):
    """Up to 12 sets and deletes of few, also repeated keys over all tables: content, reads through the edit, index."""
    batch = data.draw(otlp.batches(kinds=(Traces,), indexed=data.draw(st.booleans())))
    before = otlp.parsed(batch)
    tables = ("resources", "scopes", "spans", "events")
    expected = {table: content(before, table) for table in tables}
    edit = batch.edit()
    for _ in range(data.draw(st.integers(1, 12))):
        table = data.draw(st.sampled_from(tables))
        rows = expected[table]
        mask = np.array([data.draw(st.booleans()) for _ in rows], np.bool_) if data.draw(st.booleans()) else None
        rows_mask = np.ones(len(rows), np.bool_) if mask is None else mask.copy()
        key = data.draw(st.sampled_from(KEYS))
        if data.draw(st.integers(0, 4)) == 0:
            edit.delete(key, mask, table=table)
            delete(rows, key, rows_mask)
        else:
            given_values, values = draw_values(data, len(rows))
            mode = data.draw(st.sampled_from(("insert", "update", "upsert")))
            edit.set(key, given_values, mask, table=table, mode=mode)
            reference(rows, key, values, rows_mask, mode)
            if isinstance(given_values, np.ndarray):
                given_values[:] = 0  # the caller may use its arrays again
        if mask is not None:
            mask[:] = False
        if data.draw(st.booleans()):
            assert edit.attribute(key, table).present.tolist() == [any(name == key for name, _ in row) for row in rows]
    edited = edit.apply()
    after = otlp.parsed(edited)
    for table in tables:
        found = [sorted(row, key=repr) for row in content(after, table)]
        assert found == [sorted(row, key=repr) for row in expected[table]], table
    otlp.assert_same_index(edited)
    again = edited.edit().set("again", 1).set("again", 2, table="resources").apply()  # an index carried twice
    otlp.assert_same_index(again)


@pytest.mark.parametrize("size", [0, 90, 100, 110, 120, 16_200, 16_300, 16_400, 2_097_100])
def test_lengths_around_grow_across_varint_boundaries(otlp, size):
    """Lengths of the span, the scope and the resource change, and the index of what follows moves."""
    request = otlp.REQUESTS[Traces]()
    for _ in range(2):
        scope = request.resource_spans.add().scope_spans.add()
        scope.spans.add(name="first").attributes.add(key="k").value.string_value = "x"
        scope.spans.add(name="second").events.add(name="e")
    batch = Traces.from_wire(request.SerializeToString())
    otlp.load(batch)
    edited = batch.edit().set("k", "y" * size).set("n", np.arange(4)).set("r", "z" * 20, table="resources").apply()
    spans = otlp.items(otlp.parsed(edited))
    assert [{a.key: python(a.value) for a in span.attributes} for span in spans] == [
        {"k": "y" * size, "n": i} for i in range(4)
    ]
    assert [span.name for span in spans] == ["first", "second"] * 2
    otlp.assert_same_index(edited)


@PROPERTY
@given(data=st.data())
def test_an_index_joined_of_edited_batches_is_that_of_the_bytes(otlp, data):
    """Batches are edited, partly indexed, concatenated, edited again and selected from."""
    kind = data.draw(st.sampled_from((Traces, Logs)))
    parts = []
    for number in range(data.draw(st.integers(2, 4))):
        batch = data.draw(otlp.batches(kinds=(kind,), indexed=True))
        edited = batch.edit().set("shared", "s").set(f"own {number}", np.arange(batch.item_count)).apply()
        if data.draw(st.booleans()):
            edited.attributes()
        parts.append(edited)
    joined = kind.concat(parts)
    assert joined.memory_bytes >= joined.size_bytes
    otlp.assert_same_index(joined)
    again = kind.concat(parts).edit().set("after", True, mode="insert").apply()
    otlp.assert_same_index(again)
    mask = np.arange(again.item_count) % 2 == 0
    if mask.any():
        otlp.assert_same_index(again.select(mask))


def test_columns_of_fields_outlive_an_edit_that_leaves_them(otlp):
    """Cached numbers and texts are kept, except the field that was set and columns that keep the old bytes alive."""
    request = otlp.REQUESTS[Traces]()
    request.resource_spans.add().scope_spans.add().spans.add(name="op", kind=2)
    batch = Traces.from_wire(request.SerializeToString())
    assert batch.field("kind").tolist() == [2]
    assert batch.field("name").to_list() == ["op"]
    names = batch.field("name")
    edited = batch.edit().set("k", 1).set_field("kind", 3).apply()
    assert edited.field("name") is names
    assert edited.field("kind").tolist() == [3]
    assert edited.attribute("k").int.tolist() == [1]
    assert edited.attribute("k") is edited.attribute("k")


def test_a_mask_of_another_length_is_refused(otlp):
    """A mask of one row is refused as well, although numpy would broadcast it."""
    request = otlp.REQUESTS[Traces]()
    scope = request.resource_spans.add().scope_spans.add()
    scope.spans.add(), scope.spans.add()
    edit = Traces.from_wire(request.SerializeToString()).edit()
    for method in (
        lambda mask: edit.set("k", 1, mask),
        lambda mask: edit.delete("k", mask),
        lambda mask: edit.set_field("kind", 1, mask),
    ):
        with pytest.raises(ValueError, match="expected a mask of 2 rows, got one of 1"):
            method(np.ones(1, np.bool_))
