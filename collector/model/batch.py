"""A batch: the bytes of one request with an index of them, and the operations that make other batches from it.

Batches are immutable: select, edit, split, partition and concat make new batches that share nothing writable. The
index is built on demand and carried over by these operations. What a request may contain is decided at the door
(``collector.wire.scan.check``); how a batch is read is in ``tables``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar

import numpy as np

from collector.model.attributes import AttributeTable
from collector.model.context import EMPTY_CONTEXT, Context
from collector.model.edit import Edit
from collector.model.index import Index
from collector.model.rewrite import remove_children
from collector.model.schema import ITEM
from collector.model.split import part_starts
from collector.model.tables import Tables
from collector.wire.errors import MalformedBatch
from collector.wire.scan import check as scan
from collector.wire.splice.relocate import OffsetMap, take_rows
from collector.wire.splice.rewrite import prune

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collector.model.arrays import Array, Mask

__all__ = ["Batch", "Checked"]

B = TypeVar("B", bound="Batch")

_PARTS_AT_ONCE: Final = 16
_FRAMED_TABLES: Final = 3  # resources, scopes, items: ``scan.frames`` does not reach deeper tables


@dataclass(slots=True)
class Checked(Generic[B]):
    """The part of a request that passed validation at the door.

    >>> checked = Traces.check(traces.wire)
    >>> checked.batch.item_count, checked.rejected_count, checked.message
    (3, 0, '')
    """

    batch: B | None
    """None when no item is left: the request was empty, or every item was rejected."""
    rejected_count: int
    """How many items were dropped for errors of their own (id length, no metric name): for ``partial_success``."""
    message: str
    """Why items were rejected; "" if none was."""
    repaired_count: int
    """How many strings had invalid UTF-8, which was replaced with U+FFFD."""


class Batch(Tables):
    """Spans, metric points or log records; the concrete classes are Traces, Metrics and Logs.

    The examples in this package use this batch:

    >>> import numpy as np
    >>> from collector.model import Traces, TracesBuilder
    >>> builder = TracesBuilder()
    >>> scope = builder.scope(builder.resource({"service.name": "shop"}), "example")
    >>> builder.spans(
    ...     scope,
    ...     names=["GET /users", "SELECT users", "GET /health"],
    ...     trace_ids=np.array([[0, 1], [0, 1], [0, 2]], np.uint64),
    ...     span_ids=[1, 2, 3],
    ...     parent_span_ids=[0, 1, 0],
    ...     start_times=[10, 20, 30],
    ...     end_times=[19, 25, 31],
    ...     kinds=[2, 3, 2],
    ...     attributes=[{"http.status": 200}, {"db.system": "mysql"}, {"http.status": 503}],
    ...     events=[[], [{"name": "exception", "time_unix_nano": 24}], []],
    ... )
    >>> traces = builder.build()
    >>> traces.item_count
    3
    """

    __slots__ = ()

    @classmethod
    def check(cls, wire: bytes, context: Context = EMPTY_CONTEXT) -> Checked[Self]:
        """Validates an untrusted request to full depth.

        >>> Traces.check(traces.wire).rejected_count
        0

        Raises:
            MalformedBatch: The structure of the request is broken; refuse it as a whole.
        """
        valid, tables, rejected_count, message, repaired_count = scan.check(cls.signal.value, wire)
        item_count = len(tables[-1])
        batch = (
            cls(valid, context, Index(dict(zip(cls.schema.path, tables, strict=True))), item_count)
            if item_count
            else None
        )
        return Checked(batch, rejected_count, message, repaired_count)

    @classmethod
    def check_joined(cls, wires: list[bytes], context: Context = EMPTY_CONTEXT) -> tuple[Self, list[int]] | None:
        """Validates several requests of one context at once and returns them as one batch, with the item count of each.

        Each request is validated within its own bytes. Returns None if any of them needs ``check``. The batch may
        have no items.
        """
        found = scan.check_joined(cls.signal.value, wires)
        if found is None:
            return None
        wire, tables, counts = found
        return cls(wire, context, Index(dict(zip(cls.schema.path, tables, strict=True))), len(tables[-1])), counts

    @classmethod
    def from_wire(cls, wire: bytes, context: Context = EMPTY_CONTEXT) -> Self:
        """Like ``check``, for requests in which every item must be valid.

        >>> Traces.from_wire(traces.wire).item_count
        3

        Raises:
            MalformedBatch: The structure of the request or one of its items is invalid.
        """
        checked = cls.check(wire, context)
        if checked.rejected_count:
            raise MalformedBatch(path="", offset=0, reason=checked.message)
        return cls(b"", context) if checked.batch is None else checked.batch

    def without_index(self) -> Self:
        """The same bytes without the index, as queues keep them. Only the number of items is kept."""
        bare = type(self)(self.wire, self.context, None, self._item_count)
        bare.request_count = self.request_count
        return bare

    def with_context(self, context: Context) -> Self:
        """The same data in another context."""
        moved = type(self)(self.wire, context, self.index, self._item_count)
        moved.request_count = self.request_count
        return moved

    def without_unknown_fields(self) -> Self:
        """The batch without the wire fields that OTLP does not define; the same object if it has none.

        Such fields pass every other operation, so that data of newer senders survives.

        >>> traces.without_unknown_fields() is traces
        True
        """
        wire = scan.without_unknown_fields(self.signal.value, self.wire) if self.wire else self.wire
        return self if wire is self.wire else self.with_wire(wire)

    def select(self, mask: Mask, table: str = ITEM) -> Self:
        """Keeps the rows of ``table`` where ``mask`` (bool[n]) is True; parents left without items are removed.

        Returns this batch if the mask is all True, and a batch of no bytes if nothing is left. Rows of tables below
        the items (events, links, exemplars) are removed without removing their items.

        >>> servers = traces.select(traces.field("kind") == 2)
        >>> servers.field("name").to_list()
        ['GET /users', 'GET /health']
        >>> traces.select(np.array([False]), "events").table("events").row_count
        0
        """
        table = self.table_name(table)
        mask = np.ascontiguousarray(mask, np.bool_)
        if mask.all() and len(mask) == (self.item_count if table == self.schema.item else len(self._rows(table))):
            return self
        if table not in self.schema.path:
            return remove_children(self, mask, table)
        return self._pruned(mask, table)

    def edit(self) -> Edit[Self]:
        """Starts collecting changes; ``Edit.apply`` makes the changed batch.

        >>> edited = traces.edit().set("team", "core").delete("db.system").apply()
        >>> edited.attribute("team").text.to_list()
        ['core', 'core', 'core']
        >>> "team" in traces.attributes().key.distinct  # the original is unchanged
        False
        """
        return Edit(self)

    def split(self, *, max_items: int = 0, max_bytes: int = 0) -> list[Self]:
        """Splits the batch in order into parts within the limits (0 = none).

        A single item larger than ``max_bytes`` is a part of its own.

        >>> [part.item_count for part in traces.split(max_items=2)]
        [2, 1]
        """
        if (not max_items or self.item_count <= max_items) and (not max_bytes or self.size_bytes <= max_bytes):
            return [self]
        starts = part_starts(self, max_items, max_bytes)
        if len(starts) <= 1:  # only resources and scopes without items make it too large: remove them
            return [self._pruned(np.ones(self.item_count, np.bool_), self.schema.item)]
        return _parts(self, [*starts, self.item_count])

    def partition(self, codes: Array, count: int) -> list[Self | None]:
        """One batch per code in [0, count), or None where no item has that code.

        ``codes`` is an integer per item; items with the code -1 are dropped. Meant for a handful of parts.

        >>> slow, fast, nothing = traces.partition(np.array([0, 1, 1]), 3)
        >>> slow.item_count, fast.item_count, nothing
        (1, 2, None)
        """
        present = np.bincount(codes[codes >= 0], minlength=count)
        return [self.select(codes == code) if present[code] else None for code in range(count)]

    @classmethod
    def concat(cls, batches: Sequence[Self]) -> Self:
        """Joins several batches, in order, into one.

        >>> Traces.concat([traces, traces]).item_count
        6

        Raises:
            ValueError: There is no batch, the contexts differ, or the result would reach 2 GiB.
        """
        if not batches:
            raise ValueError("concat needs at least one batch")
        first = batches[0]
        if any(batch.context != first.context for batch in batches):
            raise ValueError("cannot concatenate batches with different contexts")
        batches = [batch for batch in batches if batch.wire]
        if len(batches) < 2:
            return batches[0] if batches else first
        sizes = np.fromiter((len(batch.wire) for batch in batches), np.int64, len(batches))
        if sizes.sum() > np.iinfo(np.int32).max:
            raise ValueError(f"the batch would have {sizes.sum()} bytes; the limit is 2 GiB (32-bit offsets)")
        wire = b"".join([batch.wire for batch in batches])
        counts = [batch._item_count for batch in batches]  # noqa: SLF001 - item_count would index the bytes
        item_count = sum(counts) if min(counts) >= 0 else -1
        return cls(wire, first.context, Index.joined(cls.schema, [batch.index for batch in batches], sizes), item_count)

    def _pruned(self, mask: Mask, table: str) -> Self:
        path = self.schema.path
        is_indexed = self.index.rows(self.schema.item) is not None
        if is_indexed or len(path) > _FRAMED_TABLES:
            rows: Sequence[Array] = [self._rows(name) for name in path]
        else:  # the caller indexes the few items that are left, if at all
            rows = scan.frames(self.signal.value, self.wire)
        pruned = prune(self.wire, list(rows), path.index(table), mask.view(np.uint8))
        if pruned is None:
            return self
        wire, offset_map, maps = pruned
        if not wire:
            return type(self)(b"", self.context)
        if not is_indexed:
            return type(self)(
                wire, self.context, None, int(np.count_nonzero(mask)) if table == self.schema.item else -1
            )
        return type(self)(wire, self.context, self._pruned_index(wire, offset_map, dict(zip(path, maps, strict=True))))

    def _pruned_index(self, wire: bytes, offset_map: OffsetMap, maps: dict[str, Array]) -> Index:
        """The index without the rows that were cut.

        ``maps`` has the new row of each old row, -1 where it was cut, for the tables down to the items.
        """
        index = Index()
        for table, parent in self.schema.parents.items():
            known = self.index.rows(table)
            if known is not None:
                rows, maps[table] = take_rows(known, maps.get(table), maps[parent] if parent else None, offset_map)
                if table == "metrics" and "points" in maps:
                    kept = maps["points"] >= 0
                    rows["point_count"] = np.bincount(
                        maps["metrics"][self._rows("points")["parent"][kept]], minlength=len(rows)
                    )
                index.add_rows(table, rows)
        for table in self.index.attributed_tables():
            attributes = self.index.attributes(table, self.wire)
            if attributes is not None:
                rows = take_rows(attributes.rows, None, maps[table], offset_map)[0]
                index.add_attributes(table, AttributeTable(rows, wire, attributes.keys))
        return index


def _parts(batch: B, starts: Sequence[int]) -> list[B]:
    """The parts between neighbouring ``starts``.

    Many parts are cut in two steps, so that not every part walks the whole index.
    """
    count = len(starts) - 1
    first = starts[0]
    if count == 1:
        return [batch]
    step = 1 if count <= _PARTS_AT_ONCE else -(-count // _PARTS_AT_ONCE)
    places = np.arange(first, first + batch.item_count)
    parts: list[B] = []
    for low in range(0, count, step):
        high = min(low + step, count)
        parts.extend(_parts(batch.select((places >= starts[low]) & (places < starts[high])), starts[low : high + 1]))
    return parts
