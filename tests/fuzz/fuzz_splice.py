"""Fuzz target: any accepted request can be cut, changed, split and joined, and the result passes the door again.

The first byte is the signal, the next eight decide what is done, and the rest is the request.
"""

import random
import sys
from typing import Final

import numpy as np

from collector.model import Batch, Logs, MalformedBatch, Metrics, Traces

KINDS: Final = (Traces, Metrics, Logs)
TABLES: Final = {
    Traces: ("resources", "scopes", "spans", "events", "links"),
    Metrics: ("resources", "scopes", "points", "exemplars"),
    Logs: ("resources", "scopes", "records"),
}


def same(batch: Batch) -> None:
    """The door accepts the batch unchanged, and finds the same rows as its index."""
    if not batch.wire:
        assert batch.item_count == 0
        return
    checked = type(batch).check(batch.wire)
    assert checked.rejected_count == checked.repaired_count == 0
    if checked.batch is None:
        assert batch.item_count == 0
        return
    assert checked.batch.wire == batch.wire
    for table in batch.tables:
        rows, expected = batch.table(table).rows, checked.batch.table(table).rows
        assert len(rows) == len(expected)
        for column in rows.dtype.names or ():
            assert rows[column].tobytes() == expected[column].tobytes(), (table, column)


def test_one_input(data: bytes) -> None:
    """Runs the target once; raises if a property does not hold."""
    if len(data) < 9:
        return
    kind, chance = KINDS[data[0] % 3], random.Random(data[1:9])
    try:
        batch = kind.check(data[9:]).batch
    except MalformedBatch:
        return
    if batch is None:
        return
    if chance.random() < 0.5:
        for table in batch.tables:
            batch.attributes(table)
    mask = np.array([chance.random() < 0.5 for _ in range(batch.item_count)], np.bool_)
    selected = batch.select(mask)
    assert selected.item_count == mask.sum()
    same(selected)
    for part in batch.split(max_items=chance.randrange(4), max_bytes=chance.randrange(200)):
        same(part)
    same(kind.concat([selected, batch, selected]))
    table = chance.choice(TABLES[kind])
    where = np.array([chance.random() < 0.5 for _ in range(batch.table(table).row_count)], np.bool_)
    attributes = batch.attributes(table)
    edit = batch.edit()
    for key in attributes.key.distinct[2:4]:
        edit.set(key, batch.attribute(key, table).as_text(), table=table).delete(key, ~where, table=table)
    for key in (*attributes.key.distinct[:2], "new"):
        edit.set(key, chance.choice(("value", 7, 1.5, True, b"x" * 200, [1, {"k": 2}])), where, table=table)
    edit.set("inner", 1, table="scopes").set("inner", 1, table="resources").set_field(
        "schema_url", "url" * 50, table="scopes"
    )
    if kind is Traces:
        edit.set_field("status_message", "m").set_field("name", "n", mask).set_field(
            "trace_id", np.zeros((len(mask), 2), np.uint64)
        )
    elif kind is Logs:
        edit.set_field("body", attributes.as_text() if len(mask) == attributes.row_count else "body", mask)
    edited = edit.apply()
    same(edited)
    assert edited.item_count == batch.item_count
    assert edited.attribute("new", table).present.tolist() == where.tolist()


def main() -> None:
    import atheris

    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
