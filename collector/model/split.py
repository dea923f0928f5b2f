"""Finds where to split a batch so that each part keeps to a number of items or bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collector.model.arrays import I64, Array
    from collector.model.tables import Tables

__all__ = ["part_starts"]


def part_starts(batch: Tables, max_items: int, max_bytes: int) -> list[int]:
    """The first item of each part, in ascending order. Only a part of a single item exceeds the limits (0 = none)."""
    items = batch.table().rows
    count = len(items)
    # Bytes that each item adds: the item itself and, for the first item of a parent, what surrounds it.
    item_bytes = _sizes(items)
    # Bytes that a part repeats when it begins with this item: its resource, scope and metric without their contents.
    surrounding = np.zeros(count, np.int64)
    first_of_parent = np.zeros(count, np.int64)
    below = batch.schema.item
    while table := batch.schema.parents[below]:
        rows, children = batch.table(table).rows, batch.table(below).rows
        # bincount sums doubles, which are exact up to 2^53; a batch has fewer than 2^31 bytes.
        own = _sizes(rows) - np.bincount(children["parent"], _sizes(children), len(rows)).astype(np.int64)
        owner = batch.ancestor(table)
        surrounding += own[owner]
        first_of_parent += np.where(np.diff(owner, prepend=-1) != 0, own[owner], 0)
        below = table
    ends = np.cumsum(item_bytes + first_of_parent)
    starts = [0]
    while starts[-1] < count:
        start = starts[-1]
        end = count
        if max_bytes:
            # Around fewer items the length prefixes become shorter, never longer, so the sum is an upper bound.
            before = int(ends[start - 1]) if start else 0
            limit = max_bytes + before + int(first_of_parent[start] - surrounding[start])
            end = int(np.searchsorted(ends, limit, "right"))
        if max_items:
            end = min(end, start + max_items)
        starts.append(max(end, start + 1))
    return starts[:-1]


def _sizes(rows: Array) -> I64:
    sizes: I64 = rows["end"].astype(np.int64) - rows["start"]
    return sizes
