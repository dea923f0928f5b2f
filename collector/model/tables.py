"""A batch as it is read: the bytes of one request, and the tables, columns and attributes found in them.

``Tables`` is the base class of ``Batch``. It exists so that the imports of this package form no circle: the modules
that change a batch (``split``, ``changes``, ``patches``, ``rewrite``, ``edit``) need to read one and to make another
one of the same class (``with_wire``), but must not import ``batch``, which imports them. It is a plain base class, so
nothing is added to the cost of a call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self, TypeAlias, overload

import numpy as np

from collector.model.attributes import AttributeColumn, AttributeTable
from collector.model.columns import StringColumn, read_only
from collector.model.context import EMPTY_CONTEXT, Context
from collector.model.fields import read_field
from collector.model.index import Index
from collector.model.schema import ITEM, SCHEMAS, Schema
from collector.wire.layout import ATTRIBUTE
from collector.wire.scan import check as scan
from collector.wire.scan import index as scan_index
from collector.wire.splice.values import find_key, gather_rows, overlay_rows

if TYPE_CHECKING:
    from collector.model.arrays import I32, Array
    from collector.model.signal import Signal

__all__ = ["Table", "Tables"]

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
"""The text fields of all tables."""

_INHERITABLE: Final = ("scopes", "resources")
_OWN: Final = "attribute:"  # prefixes of keys in ``Index.columns``: no field name contains a colon
_INHERITED: Final = "inherited attribute:"
_COLUMNS_MAX: Final = 64  # cached attribute columns per batch: keys may come from the data


class Table:
    """The rows of one table.

    >>> traces.table("events").row_count, traces.table("events").parent.tolist()
    (1, [1])
    """

    __slots__ = ("rows",)

    def __init__(self, rows: Array) -> None:
        """``rows``: records of a ``collector.wire.layout`` dtype."""
        self.rows = rows

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    @property
    def parent(self) -> I32:
        """I32[n]: the parent row of each row, in the parent table."""
        return read_only(np.ascontiguousarray(self.rows["parent"]))


class Tables:
    """The read-only half of a batch."""

    __slots__ = ("__weakref__", "_item_count", "context", "index", "request_count", "wire")

    signal: ClassVar[Signal]
    tables: ClassVar[tuple[str, ...]]
    """The names of the tables, from the resources down."""
    schema: ClassVar[Schema]

    def __init_subclass__(cls) -> None:
        if hasattr(cls, "signal"):
            cls.schema = SCHEMAS[cls.signal]
            cls.tables = tuple(cls.schema.parents)

    def __init__(
        self, wire: bytes, context: Context = EMPTY_CONTEXT, index: Index | None = None, item_count: int = -1
    ) -> None:
        """``wire`` must be a valid request: use ``check`` or ``from_wire`` for untrusted bytes.

        Args:
            wire: The request.
            context: What is known about the request.
            index: What is already known about its tables.
            item_count: The number of items; -1 means not known yet.
        """
        self.wire = wire
        self.context = context
        self.index = index or Index()
        self.request_count = 1
        """How many requests of senders it carries. The door joins several, and the service carries the number through
        transforms; a batch made in any other way counts as one."""
        self._item_count = item_count

    @property
    def item_count(self) -> int:
        """The number of spans, points or records."""
        if self._item_count < 0:
            self._item_count = len(self._rows(self.schema.item))
        return self._item_count

    @property
    def size_bytes(self) -> int:
        """The length of the request."""
        return len(self.wire)

    @property
    def memory_bytes(self) -> int:
        """The size of the request and of the index built so far."""
        return len(self.wire) + self.index.memory_bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.item_count} {self.schema.item}, {self.size_bytes} bytes)"

    def table(self, name: str = ITEM) -> Table:
        """The rows of a table.

        >>> traces.tables
        ('resources', 'scopes', 'spans', 'events', 'links')
        >>> traces.table("events").row_count
        1
        >>> traces.table("spans").parent.tolist()  # the scope of each span
        [0, 0, 0]

        Raises:
            KeyError: This signal has no such table.
        """
        return Table(self._rows(self.table_name(name)))

    @overload
    def field(self, name: TextField, table: str = ITEM) -> StringColumn: ...
    @overload
    def field(self, name: Literal["body"], table: str = ITEM) -> AttributeColumn: ...
    @overload
    def field(self, name: str, table: str = ITEM) -> Any: ...
    def field(self, name: str, table: str = ITEM) -> Array | StringColumn | AttributeColumn:
        """One column of a table; ``schema.FIELDS`` lists the fields of each table.

        Text fields and the body are column objects, ids are uint64, everything else is an array of numbers.

        >>> traces.field("name").to_list()
        ['GET /users', 'SELECT users', 'GET /health']
        >>> traces.field("kind").tolist()
        [2, 3, 2]
        >>> traces.field("name", "events").to_list()
        ['exception']

        Raises:
            KeyError: There is no such field or table.
        """
        table = self.table_name(table)
        column = self.index.columns.get((table, name))
        if column is None:
            column = self.index.columns[table, name] = read_field(self.wire, self._rows(table), table, name)
        return column

    def attribute(self, key: str, table: str = ITEM, inherit: bool = False) -> AttributeColumn:
        """One attribute as a column with one value per row of ``table``.

        With ``inherit``, rows without the attribute get the value of their scope, or else of their resource.

        >>> traces.attribute("http.status").int.tolist()
        [200, 0, 503]
        >>> traces.attribute("http.status").present.tolist()
        [True, False, True]
        >>> traces.attribute("service.name", inherit=True).text.to_list()
        ['shop', 'shop', 'shop']
        """
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
        attributes = self.attributes(table)
        code, count = attributes.code_of(key), len(self._rows(table))
        found = np.full(count, -1, np.int32) if code < 0 else find_key(attributes.rows, code, count)
        rows = gather_rows(attributes.rows, found)
        if inherit:
            for ancestor in self.tables_above(table):
                if ancestor in _INHERITABLE:
                    above = self.attributes(ancestor)
                    code = above.code_of(key)
                    if code >= 0:
                        found = find_key(above.rows, code, len(self._rows(ancestor)))
                        rows = overlay_rows(rows, above.rows, found[self.ancestor(ancestor, table)])
        return AttributeColumn(rows, self.wire)

    def attributes(self, table: str = ITEM) -> AttributeTable:
        """All attributes of a table, in document order."""
        table = self.table_name(table)
        attributes = self.index.attributes(table, self.wire)
        if attributes is None:
            rows = self._rows(table)
            if table in {"metrics", "quantiles"}:
                found, keys = np.empty(0, ATTRIBUTE), list[bytes]()
            elif table == "points":
                found, keys = scan_index.index_attributes(
                    table, self.wire, rows, np.ascontiguousarray(self._rows("metrics")["type"][rows["parent"]])
                )
            else:
                found, keys = scan_index.index_attributes(table, self.wire, rows)
            attributes = AttributeTable(found, self.wire, keys)
            self.index.add_attributes(table, attributes)
        return attributes

    def ancestor(self, ancestor: str, table: str = ITEM) -> I32:
        """I32[n]: for each row of ``table``, its row in the table ``ancestor`` above it.

        Raises:
            KeyError: ``ancestor`` is not above ``table``.
        """
        table = self.table_name(table)
        if ancestor not in self.tables_above(table):
            raise KeyError(f"table {ancestor!r} is not above table {table!r}")
        rows: I32 = np.ascontiguousarray(self._rows(table)["parent"])
        while (table := self.schema.parents[table]) != ancestor:
            rows = self._rows(table)["parent"][rows]
        return rows

    def table_name(self, table: str) -> str:
        """The table's own name, which differs for ``ITEM``.

        Raises:
            KeyError: This signal has no such table.
        """
        if table == ITEM:
            return self.schema.item
        if table not in self.schema.parents:
            raise KeyError(f"{self.signal} have no table {table!r}; their tables are {', '.join(self.tables)}")
        return table

    def tables_above(self, table: str) -> list[str]:
        """The ancestors of a table, the nearest first."""
        above = []
        while table := self.schema.parents[table]:
            above.append(table)
        return above

    def with_wire(self, wire: bytes) -> Self:
        """A batch of other valid bytes with the same items and context; its index is still empty."""
        return type(self)(wire, self.context, None, self._item_count)

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
