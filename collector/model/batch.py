"""A batch: the bytes of one request and an index of them, built when asked for and carried along by every change.

Immutable: select, edit, split, concat make new batches, which share nothing that could be written. Rules of what may be
    inside are
the door's (``collector.wire.scan.check.check``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Literal, Self, TypeAlias, TypeVar, overload

import numpy as np

from collector.model import fields
from collector.model.attributes import AttributeColumn, AttributeTable
from collector.model.context import EMPTY_CONTEXT, Context
from collector.model.edit import Edit
from collector.model.index import Index
from collector.model.rewrite import without_children
from collector.model.table import ITEM, SCHEMAS, Schema, Table
from collector.wire.errors import MalformedBatch
from collector.wire.layout import ATTRIBUTE
from collector.wire.scan import check as scan
from collector.wire.scan import index as scan_index
from collector.wire.splice.rewrite import Shift, prune, take_rows
from collector.wire.splice.values import find_key, gather, overlay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collector.model.columns import Array, StringColumn
    from collector.model.signal import Signal

__all__ = ["Batch", "Checked"]

B = TypeVar("B", bound="Batch")
TextField: TypeAlias = Literal[
    "description",
    "event_name",
    "name",
    "schema_url",
    "severity_text",
    "status_message",
    "trace_state",
    "unit",
    "version",
]
"""The fields that are text, in whichever table."""


@dataclass(slots=True)
class Checked(Generic[B]):
    """What the door let in of one request."""

    batch: B | None
    """None when nothing is left: an empty request, or every item rejected."""
    rejected_count: int
    """Items dropped for item errors (id length, no metric name): for ``partial_success``."""
    message: str
    """Why; "" if nothing was rejected."""
    repaired_count: int
    """Strings whose invalid UTF-8 was repaired with U+FFFD."""


class Batch:
    """Abstract: Traces, Metrics, Logs."""

    __slots__ = ("__weakref__", "_item_count", "context", "index", "wire")

    signal: ClassVar[Signal]
    tables: ClassVar[tuple[str, ...]]
    schema: ClassVar[Schema]

    def __init_subclass__(cls) -> None:
        cls.schema = SCHEMAS[cls.signal]
        cls.tables = tuple(cls.schema.parents)

    def __init__(
        self, wire: bytes, context: Context = EMPTY_CONTEXT, index: Index | None = None, item_count: int = -1
    ) -> None:
        """``wire`` is trusted to be valid: from elsewhere, ``check`` or ``from_wire``. ``item_count`` -1 = not known yet."""
        self.wire = wire
        self.context = context
        self.index = index or Index()
        self._item_count = item_count

    @classmethod
    def check(cls, wire: bytes, context: Context = EMPTY_CONTEXT) -> Checked[Self]:
        """The door: validates a request to full depth.

        Raises:
            MalformedBatch: the request's structure is broken; refuse it as a whole.
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
        """Several requests of one context as one batch, and the items of each; None where one of them needs ``check``.

        The bytes are joined, each is validated to full depth within its own. A batch of no items is one, too.
        """
        found = scan.check_joined(cls.signal.value, wires)
        if found is None:
            return None
        wire, tables, counts = found
        return cls(wire, context, Index(dict(zip(cls.schema.path, tables, strict=True))), len(tables[-1])), counts

    @classmethod
    def from_wire(cls, wire: bytes, context: Context = EMPTY_CONTEXT) -> Self:
        """``check`` for bytes that must be whole.

        Raises:
            MalformedBatch: the structure is broken, or an item is.
        """
        checked = cls.check(wire, context)
        if checked.rejected_count:
            raise MalformedBatch(path="", offset=0, reason=checked.message)
        return cls(b"", context) if checked.batch is None else checked.batch

    @property
    def item_count(self) -> int:
        """Spans, points or records."""
        if self._item_count < 0:
            self._item_count = len(self._rows(self.schema.item))
        return self._item_count

    @property
    def size_bytes(self) -> int:
        """The request's length."""
        return len(self.wire)

    @property
    def memory_bytes(self) -> int:
        """The bytes and the index built so far."""
        return len(self.wire) + self.index.memory_bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.item_count} {self.schema.item}, {self.size_bytes} bytes)"

    def without_index(self) -> Self:
        """The same bytes, the index forgotten: what queues hold. Only the number of items is kept."""
        return type(self)(self.wire, self.context, None, self._item_count)

    def with_context(self, context: Context) -> Self:
        """The same data in another context."""
        return type(self)(self.wire, context, self.index, self._item_count)

    def table(self, name: str = ITEM) -> Table:
        """The rows of a table."""
        return Table(self._rows(self.table_name(name)))

    @overload
    def field(self, name: TextField, table: str = ITEM) -> StringColumn: ...
    @overload
    def field(self, name: Literal["body"], table: str = ITEM) -> AttributeColumn: ...
    @overload
    def field(self, name: str, table: str = ITEM) -> Any: ...
    def field(self, name: str, table: str = ITEM) -> Array | StringColumn | AttributeColumn:
        """One column of a table; which there are: ``table.FIELDS``. Texts and the body are columns, ids uint64, the rest numbers.

        Raises:
            KeyError: no such field or table.
        """
        table = self.table_name(table)
        column = self.index.columns.get((table, name))
        if column is None:
            column = self.index.columns[table, name] = fields.read(self.wire, self._rows(table), table, name)
        return column

    def attribute(self, key: str, table: str = ITEM, inherit: bool = False) -> AttributeColumn:
        """One attribute, one row a row of ``table``; ``inherit``: where absent, the scope's value, then the resource's."""
        table = self.table_name(table)
        name = _INHERITED if inherit else _OWN
        column = self.index.columns.get((table, name + key))
        if column is None:
            column = self._read_attribute(key, table, inherit)
            if len(self.index.columns) < _COLUMNS_MAX:
                self.index.columns[table, name + key] = column
        assert isinstance(column, AttributeColumn)
        return column

    def _read_attribute(self, key: str, table: str, inherit: bool) -> AttributeColumn:
        every = self.attributes(table)
        code, count = every.code_of(key), len(self._rows(table))
        rows = gather(every.rows, np.full(count, -1, np.int32) if code < 0 else find_key(every.rows, code, count))
        if inherit:
            for ancestor in self.tables_above(table):
                if ancestor in _INHERITABLE:
                    above = self.attributes(ancestor)
                    code = above.code_of(key)
                    if code >= 0:
                        found = find_key(above.rows, code, len(self._rows(ancestor)))
                        rows = overlay(rows, above.rows, found[self.ancestor(ancestor, table)])
        return AttributeColumn(rows, self.wire)

    def attributes(self, table: str = ITEM) -> AttributeTable:
        """All attributes of a table, in document order."""
        table = self.table_name(table)
        known = self.index.attributes(table, self.wire)
        if known is None:
            rows = self._rows(table)
            if table in {"metrics", "quantiles"}:
                found, keys = np.empty(0, ATTRIBUTE), list[bytes]()
            elif table == "points":
                found, keys = scan_index.index_attributes(
                    table, self.wire, rows, np.ascontiguousarray(self._rows("metrics")["type"][rows["parent"]])
                )
            else:
                found, keys = scan_index.index_attributes(table, self.wire, rows)
            known = AttributeTable(found, self.wire, keys)
            self.index.add_attributes(table, known)
        return known

    def ancestor(self, ancestor: str, table: str = ITEM) -> Array:
        """int32[n]: for each row of ``table`` the row of the table ``ancestor`` it stands below.

        Raises:
            KeyError: no table above ``table``.
        """
        table = self.table_name(table)
        if ancestor not in self.tables_above(table):
            raise KeyError(f"{ancestor} are not above {table}")
        rows = np.ascontiguousarray(self._rows(table)["parent"])
        while (table := self.schema.parents[table]) != ancestor:
            rows = self._rows(table)["parent"][rows]
        return rows

    def select(self, mask: Array, table: str = ITEM) -> Self:
        """The batch with the rows of ``mask`` (bool[n]) alone; parents left without an item vanish.

        All True: this batch. Nothing left: a batch of no bytes. Of tables below the items (events, links, exemplars)
        rows vanish and their items stay.
        """
        table = self.table_name(table)
        mask = np.ascontiguousarray(mask, np.bool_)
        if mask.all() and len(mask) == (self.item_count if table == self.schema.item else len(self._rows(table))):
            return self
        if table not in self.schema.path:
            return without_children(self, mask, table)
        return self._pruned(mask, table)

    def _pruned(self, mask: Array, table: str) -> Self:
        path = self.schema.path
        is_indexed = self.index.rows(self.schema.item) is not None
        if is_indexed or len(path) > _FRAMED:
            rows: Sequence[Array] = [self._rows(name) for name in path]
        else:  # whoever looks at the few that stay indexes these
            rows = scan.frames(self.signal.value, self.wire)
        pruned = prune(self.wire, list(rows), path.index(table), mask.view(np.uint8))
        if pruned is None:
            return self
        wire, shift, maps = pruned
        if not wire:
            return self.of(b"")
        if not is_indexed:
            return type(self)(
                wire, self.context, None, int(np.count_nonzero(mask)) if table == self.schema.item else -1
            )
        return type(self)(wire, self.context, self._carried(wire, shift, dict(zip(path, maps, strict=True))))

    def edit(self) -> Edit[Self]:
        """Collects changes; ``apply`` makes the changed batch."""
        return Edit(self)

    def split(self, *, max_items: int = 0, max_bytes: int = 0) -> list[Self]:
        """Parts in order, each within the limits (0 = none); a single item larger than ``max_bytes`` is a part of its own."""
        if (not max_items or self.item_count <= max_items) and (not max_bytes or self.size_bytes <= max_bytes):
            return [self]
        starts = fields.part_starts(self, max_items, max_bytes)
        if len(starts) <= 1:  # it is too large for resources and scopes without an item: they go
            return [self._pruned(np.ones(self.item_count, np.bool_), self.schema.item)]
        return _parts(self, [*starts, self.item_count])

    def partition(self, codes: Array, count: int) -> list[Self | None]:
        """One batch for each code in [0, count), None where no item has it. ``codes`` int[n] per item; -1 = dropped."""
        present = np.bincount(codes[codes >= 0], minlength=count)
        return [self.select(codes == code) if present[code] else None for code in range(count)]

    @classmethod
    def concat(cls, batches: Sequence[Self]) -> Self:
        """One batch of several, in order: their bytes joined.

        Raises:
            ValueError: no batch, contexts that differ, or 2 GiB and more.
        """
        if not batches:
            raise ValueError("no batch to concatenate")
        first = batches[0]
        if any(batch.context != first.context for batch in batches):
            raise ValueError("batches of different contexts do not merge")
        batches = [batch for batch in batches if batch.wire]
        if len(batches) < 2:
            return batches[0] if batches else first
        sizes = np.fromiter((len(batch.wire) for batch in batches), np.int64, len(batches))
        if sizes.sum() > np.iinfo(np.int32).max:
            raise ValueError(f"a batch of {sizes.sum()} bytes: the limit is 2 GiB (32-bit offsets)")
        wire = b"".join([batch.wire for batch in batches])
        counts = [batch._item_count for batch in batches]  # noqa: SLF001 - of this class: asking item_count would index the bytes
        item_count = sum(counts) if min(counts) >= 0 else -1
        return cls(wire, first.context, Index.joined(cls.schema, [batch.index for batch in batches], sizes), item_count)

    @classmethod
    def gather(cls, parts: Sequence[tuple[Self, Array]]) -> Self:
        """The masked items of several batches as one."""
        return cls.concat([batch.select(mask) for batch, mask in parts])

    def table_name(self, table: str) -> str:
        """The table's own name.

        Raises:
            KeyError: this signal has no such table.
        """
        if table == ITEM:
            return self.schema.item
        if table not in self.schema.parents:
            raise KeyError(f"{self.signal} have no table {table!r}: {', '.join(self.tables)}")
        return table

    def tables_above(self, table: str) -> list[str]:
        """The tables a table stands below, the nearest first."""
        above = []
        while table := self.schema.parents[table]:
            above.append(table)
        return above

    def edited(self, wire: bytes) -> Self:
        """Other bytes, valid, with the same items in the same context; nothing more is known of them yet."""
        return type(self)(wire, self.context, None, self._item_count)

    def of(self, wire: bytes) -> Self:
        """Other bytes, valid, in the same context; nothing is known of them yet."""
        return type(self)(wire, self.context)

    def _rows(self, table: str) -> Array:
        rows = self.index.rows(table)
        if rows is not None:
            return rows
        if not self.wire:
            rows = np.empty(0, self.schema.rows[table])
        elif table in self.schema.path:
            for name, found in zip(self.schema.path, scan.scan(self.signal.value, self.wire), strict=True):
                self.index.add_rows(name, found)
                if name == table:
                    rows = found
            assert rows is not None
            return rows
        else:
            rows = scan_index.index_children(table, self.wire, self._rows(self.schema.parents[table]))
        self.index.add_rows(table, rows)
        return rows

    def _carried(self, wire: bytes, shift: Shift, maps: dict[str, Array]) -> Index:
        """The index after rows were cut: ``maps`` has the new index of each row of the tables down to the items."""
        index = Index()
        for table, parent in self.schema.parents.items():
            known = self.index.rows(table)
            if known is not None:
                rows, maps[table] = take_rows(known, maps.get(table), maps[parent] if parent else None, shift)
                if table == "metrics" and "points" in maps:
                    kept = maps["points"] >= 0
                    rows["point_count"] = np.bincount(
                        maps["metrics"][self._rows("points")["parent"][kept]], minlength=len(rows)
                    )
                index.add_rows(table, rows)
        for table in self.index.attributed_tables():
            every = self.index.attributes(table, self.wire)
            if every is not None:
                index.add_attributes(
                    table, AttributeTable(take_rows(every.rows, None, maps[table], shift)[0], wire, every.keys)
                )
        return index


def _parts(batch: B, starts: Sequence[int]) -> list[B]:
    """The parts between neighbouring ``starts``: many of them in two steps, so that not each walks the whole index."""
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


_PARTS_AT_ONCE: Final = 16
_FRAMED: Final = 3  # resources, scopes, items: of deeper tables there are no frames alone
_INHERITABLE: Final = ("scopes", "resources")
_OWN: Final = "attribute:"  # before the key, among the index's columns: no field's name has a colon
_INHERITED: Final = "inherited attribute:"
_COLUMNS_MAX: Final = 64  # columns of attributes kept: keys may come from the data
