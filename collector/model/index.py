"""The index of a batch: what is known of its bytes so far. The bytes and the reading of them are in ``tables``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeAlias, TypeVar

import numpy as np

from collector.model.arrays import I64, Array, starts_of
from collector.model.attributes import AttributeColumn, AttributeTable
from collector.model.columns import StringColumn, read_only
from collector.wire.splice.relocate import join_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collector.model.schema import Schema

__all__ = ["Index", "Lazy", "LazyAttributes", "LazyRows", "resolve"]

T = TypeVar("T")


class Sized(Protocol):
    """Something that knows its size in bytes."""

    @property
    def nbytes(self) -> int:
        """The size in bytes."""


class Lazy(Generic[T]):
    """A part of an index that is computed on first use: a batch that is only passed on never pays for it."""

    __slots__ = ("_inputs", "_make", "_value")

    def __init__(self, make: Callable[[], T], *inputs: Sized) -> None:
        """``inputs`` are the objects that ``make`` keeps alive, counted by ``nbytes``."""
        self._make: Callable[[], T] | None = make
        self._value: T | None = None
        self._inputs = inputs

    def get(self) -> T:
        """The value, computed by the first call."""
        if self._make is not None:
            self._value, self._make, self._inputs = self._make(), None, ()
        assert self._value is not None
        return self._value

    @property
    def nbytes(self) -> int:
        """The approximate size of what is kept to compute the value."""
        return sum(value.nbytes for value in self._inputs)


LazyRows: TypeAlias = "Array | Lazy[Array]"
LazyAttributes: TypeAlias = "tuple[Array, list[bytes]] | Lazy[tuple[Array, list[bytes]]]"
"""Attribute rows and their keys, without the request's bytes: an index made from them must not keep those alive."""


class Index:
    """The tables, attributes and columns known so far; entries are only ever added.

    There is one index per request; batches that differ only in their context share it.
    """

    __slots__ = ("_attributes", "_rows", "columns")

    def __init__(self, rows: dict[str, LazyRows] | None = None) -> None:
        """``rows``: the read-only rows of the tables that are known."""
        self._rows = {} if rows is None else rows
        self._attributes: dict[str, AttributeTable | Lazy[tuple[Array, list[bytes]]]] = {}
        self.columns: dict[tuple[str, str], Array | StringColumn | AttributeColumn] = {}
        """The columns read so far, by table and name: fields and, with a prefix, attributes (see ``tables``)."""

    @classmethod
    def joined(cls, schema: Schema, parts: Sequence[Index], sizes: I64) -> Self:
        """The index of several requests joined end to end; it has the tables that all ``parts`` have.

        Args:
            schema: The tables of the signal.
            parts: The index of each request.
            sizes: The length of each request.
        """
        index = cls()
        bases = starts_of(sizes)
        # Only what is known now is kept, not the parts themselves: their attribute tables keep the requests alive.
        for table, parent in schema.parents.items():
            rows = [part._rows.get(table) for part in parts]  # noqa: SLF001
            if any(known is None for known in rows) or (parent and parent not in index._rows):
                continue
            parents = [part._rows[parent] for part in parts] if parent else []  # noqa: SLF001
            index._rows[table] = _joined_rows(bases, rows, parents)
            if table in parts[0]._attributes:  # noqa: SLF001
                attributes = [part.lazy_attributes(table) for part in parts]
                if all(known is not None for known in attributes):
                    index._attributes[table] = _joined_attributes(bases, rows, attributes)
        return index

    def rows(self, table: str) -> Array | None:
        """The rows of a table, or None if they are not known."""
        rows = self._rows.get(table)
        if isinstance(rows, Lazy):
            rows = self._rows[table] = read_only(rows.get())
        return rows

    def add_rows(self, table: str, rows: LazyRows) -> None:
        """Adds the rows of a table."""
        self._rows[table] = rows if isinstance(rows, Lazy) else read_only(rows)

    def lazy_rows(self, table: str) -> LazyRows:
        """The rows of a known table, not yet computed if they were added so."""
        return self._rows[table]

    def tables(self) -> list[str]:
        """The tables whose rows are known."""
        return list(self._rows)

    def attributes(self, table: str, wire: bytes) -> AttributeTable | None:
        """The attributes of a table, or None if they are not known; ``wire`` is the request this is the index of."""
        attributes = self._attributes.get(table)
        if isinstance(attributes, Lazy):
            rows, keys = attributes.get()
            attributes = self._attributes[table] = AttributeTable(rows, wire, keys)
        return attributes

    def add_attributes(self, table: str, attributes: AttributeTable | Lazy[tuple[Array, list[bytes]]]) -> None:
        """Adds the attributes of a table."""
        self._attributes[table] = attributes

    def lazy_attributes(self, table: str) -> LazyAttributes | None:
        """The attributes of a table without the request's bytes, or None if they are not known."""
        attributes = self._attributes.get(table)
        return (attributes.rows, attributes.keys) if isinstance(attributes, AttributeTable) else attributes

    def attributed_tables(self) -> list[str]:
        """The tables whose attributes are known."""
        return list(self._attributes)

    @property
    def memory_bytes(self) -> int:
        """The approximate size of the index."""
        size = 0
        for rows in self._rows.values():
            size += rows.nbytes
        for table in self._attributes.values():
            size += table.nbytes if isinstance(table, Lazy) else table.memory_bytes
        for column in self.columns.values():
            size += column.nbytes if isinstance(column, np.ndarray) else column.memory_bytes
        return size


def resolve(value: T | Lazy[T]) -> T:
    """The value, computed now if it is lazy."""
    return value.get() if isinstance(value, Lazy) else value


def _joined_rows(bases: I64, parts: Sequence[Any], parents: Sequence[LazyRows]) -> Lazy[Array]:
    """The rows of one table over joined requests; ``bases`` is where each request begins."""

    def make() -> Array:
        first_parents = starts_of([len(resolve(rows)) for rows in parents] if parents else [0] * len(parts))
        return join_rows([resolve(rows) for rows in parts], bases, first_parents)

    return Lazy(make, *parts)


def _joined_attributes(bases: I64, owners: Sequence[Any], parts: Sequence[Any]) -> Lazy[tuple[Array, list[bytes]]]:
    """The attributes of one table over joined requests."""

    def make() -> tuple[Array, list[bytes]]:
        resolved = [resolve(part) for part in parts]
        keys, codes = _merged_keys([keys for _, keys in resolved])
        first_owners = starts_of([len(resolve(rows)) for rows in owners])
        return join_rows([rows for rows, _ in resolved], bases, first_owners, codes), keys

    return Lazy(make, *(part if isinstance(part, Lazy) else part[0] for part in parts))


def _merged_keys(parts: Sequence[list[bytes]]) -> tuple[list[bytes], list[Array | None] | None]:
    """The keys of several tables as one list, and the new code of each table's keys (None = unchanged)."""
    if all(keys == parts[0] for keys in parts):
        return parts[0], None
    index: dict[bytes, int] = {}
    codes: list[Array | None] = [
        np.fromiter((index.setdefault(key, len(index)) for key in keys), np.int32, len(keys)) for keys in parts
    ]
    return list(index), codes
