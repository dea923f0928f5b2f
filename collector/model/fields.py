"""Reads one field of a table as a column, and finds where to split a batch. Which fields there are: ``table.FIELDS``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collector.model.attributes import AttributeColumn
from collector.model.columns import Array, StringColumn, read_only
from collector.model.table import FIELDS, Field
from collector.wire.splice.values import read_values

if TYPE_CHECKING:
    from collector.model.batch import Batch

__all__ = ["field_of", "part_starts", "read"]


def field_of(table: str, name: str) -> Field:
    """The field.

    Raises:
        KeyError: the table has no such field.
    """
    try:
        return FIELDS[table][name]
    except KeyError:
        raise KeyError(f"{table} have no field {name!r}: {', '.join(FIELDS[table])}") from None


def read(wire: bytes, rows: Array, table: str, name: str) -> Array | StringColumn | AttributeColumn:
    """The field's column, one row a row of the table."""
    field = field_of(table, name)
    columns = field.columns
    if field.form == "text":
        return StringColumn.from_slices(wire, rows[columns[0]], rows[columns[1]])
    if field.form == "any":
        return AttributeColumn(
            read_values(wire, np.ascontiguousarray(rows[columns[0]]), np.ascontiguousarray(rows[columns[1]])), wire
        )
    if field.form == "trace_id":
        pair = np.empty((len(rows), 2), np.uint64)
        pair[:, 0] = rows[columns[0]]
        pair[:, 1] = rows[columns[1]]
        return read_only(pair)
    if field.form == "value":
        ints, doubles, kind = (rows[column] for column in columns)
        return read_only(np.where(kind == 1, ints.astype(np.float64), doubles))
    return read_only(np.ascontiguousarray(rows[columns[0]]))


def part_starts(batch: Batch, max_items: int, max_bytes: int) -> list[int]:
    """The first item of each part, ascending from 0, so that each part keeps the limits (0 = none) unless it is one item."""
    items = batch.table().rows
    count = len(items)
    added = _sizes(items)  # by each item: itself and, where it is their first, what stands around it
    around = np.zeros(count, np.int64)  # of each item: what a part that begins with it repeats
    first = np.zeros(count, np.int64)
    below = batch.schema.item
    while table := batch.schema.parents[below]:
        rows, children = batch.table(table).rows, batch.table(below).rows
        # Weights are doubles: exact to 2^53, and a batch has less than 2^31 bytes.
        own = _sizes(rows) - np.bincount(children["parent"], _sizes(children), len(rows)).astype(np.int64)
        owner = batch.ancestor(table)
        around += own[owner]
        first += np.where(np.diff(owner, prepend=-1) != 0, own[owner], 0)
        below = table
    ends = np.cumsum(added + first)
    starts = [0]
    while starts[-1] < count:
        start = starts[-1]
        end = count
        if max_bytes:
            # Lengths are written shorter, never longer, around fewer items: the sum is an upper bound.
            before = int(ends[start - 1]) if start else 0
            end = int(np.searchsorted(ends, max_bytes + before + int(first[start] - around[start]), "right"))
        if max_items:
            end = min(end, start + max_items)
        starts.append(max(end, start + 1))
    return starts[:-1]


def _sizes(rows: Array) -> Array:
    sizes: Array = rows["end"].astype(np.int64) - rows["start"]
    return sizes
