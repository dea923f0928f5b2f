"""Attributes changed row by row, and fields that nobody knows removed."""

import numpy as np
import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from collector.model import Signal, StringColumn, batch_type
from collector.model.attribute_rows import change_attributes
from collector.testing.generate import logs_request, metrics_request, traces_request


def request(signal, items, seed=0):
    """A generated request as a message."""
    if signal is Signal.TRACES:
        return traces_request(spans=items, seed=seed)
    return (
        metrics_request(points=items, seed=seed) if signal is Signal.METRICS else logs_request(records=items, seed=seed)
    )


def messages(message):
    """The message and all messages within it."""
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for child in value if hasattr(value, "add") else [value]:
                yield from messages(child)


@given(st.sampled_from(list(Signal)), st.randoms(use_true_random=False))
def test_changes_are_those_of_a_slow_reference(signal, rng):
    """Of all tables at once: some attributes are deleted, some values replaced, some both."""
    message = request(signal, items=6, seed=rng.randrange(1000))
    batch = batch_type(signal).from_wire(message.SerializeToString())
    changes, expected = {}, {}
    for table in batch.tables:
        attributes = batch.attributes(table)
        count = attributes.row_count
        which = np.array(sorted(rng.sample(range(count), rng.randint(0, count))), np.int32)
        deleted = np.array([rng.random() < 0.3 for _ in which], np.bool_)
        texts = StringColumn.of([rng.choice([None, "", "new", "x" * 200]) for _ in which])
        changes[table] = which, deleted, texts
        rows = list(
            zip(attributes.owner.tolist(), attributes.key.to_list(), attributes.as_text().to_list(), strict=True)
        )
        for place, is_deleted, text in zip(which.tolist(), deleted.tolist(), texts.to_list(), strict=True):
            if is_deleted:
                rows[place] = None
            elif text is not None:
                rows[place] = (*rows[place][:2], text)
        expected[table] = [row for row in rows if row is not None]
    changed = change_attributes(batch, changes)
    again = batch_type(signal).from_wire(changed.wire)
    for table, rows in expected.items():
        for one in (changed, again):
            found = one.attributes(table)
            assert list(zip(found.owner.tolist(), found.key.to_list(), found.as_text().to_list(), strict=True)) == rows
        for name in changed.table(table).rows.dtype.names:
            values = changed.table(table).rows[name], again.table(table).rows[name]
            assert np.array_equal(*values, equal_nan=values[0].dtype.kind == "f"), (table, name)
    is_same = all(not (deleted.any() or texts.present.any()) for _, deleted, texts in changes.values())
    assert (changed is batch) == is_same


def test_columns_of_other_lengths_are_refused():
    """A caller that mixes up tables learns it."""
    batch = batch_type(Signal.LOGS).from_wire(request(Signal.LOGS, items=2).SerializeToString())
    with pytest.raises(ValueError, match="expected columns of 1 attributes"):
        change_attributes(batch, {"records": (np.zeros(1, np.int32), np.zeros(2, np.bool_), StringColumn.of(["x"]))})


@given(st.sampled_from(list(Signal)), st.randoms(use_true_random=False))
def test_unknown_fields_are_removed_at_every_depth(signal, rng):
    """What protobuf knows stays exactly as it is."""
    message = request(signal, items=4, seed=rng.randrange(1000))
    marked = type(message)()
    marked.CopyFrom(message)
    chosen = [one for one in messages(marked) if rng.random() < 0.2]
    for one in reversed(chosen):  # from the inside out, because the parse copies
        field = rng.choice([b"\xfa\x3e\x06secret", b"\xf8\x3e\x07", b"\xf9\x3e12345678", b"\xfd\x3e1234"])
        one.MergeFromString(field)
    wire = marked.SerializeToString()
    assert (wire != message.SerializeToString()) == bool(chosen)
    batch = batch_type(signal).from_wire(wire)
    cleaned = batch.without_unknown_fields()
    assert (cleaned is batch) == (not chosen)
    parsed = type(message).FromString(cleaned.wire)
    assert parsed == message
    assert not any(len(UnknownFieldSet(one)) for one in messages(parsed))
