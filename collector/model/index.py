"""The index of a batch: what is known of its bytes so far. Not the bytes, and not how they are read (``batch``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeAlias, TypeVar

import numpy as np

from collector.model.attributes import AttributeColumn, AttributeTable
from collector.model.columns import Array, StringColumn, read_only
from collector.wire.splice.rewrite import join_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collector.model.table import Schema

__all__ = ["Index", "Later", "now"]

T = TypeVar("T")


class Later(Generic[T]):
    """What an index can make when it is asked for: a batch that is only sent on never pays."""

    __slots__ = ("_held", "_made", "_make")

    def __init__(self, make: Callable[[], T], *held: _Sized | Later[Any]) -> None:
        """``held``: what ``make`` keeps until then."""
        self._make: Callable[[], T] | None = make
        self._made: T | None = None
        self._held = held

    def get(self) -> T:
        """Made at the first call."""
        if self._make is not None:
            self._made, self._make, self._held = self._make(), None, ()
        assert self._made is not None
        return self._made

    @property
    def nbytes(self) -> int:
        """About what is kept to make it."""
        return sum(held.nbytes for held in self._held)


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


_Rows: TypeAlias = "Array | Later[Array]"
_Attributes: TypeAlias = "tuple[Array, list[bytes]] | Later[tuple[Array, list[bytes]]]"
"""Attribute rows and what their key codes mean. Without the bytes: whoever keeps one of a part must not keep the part's bytes."""


class Index:
    """Only ever added to; one object per bytes, shared by batches that differ in their context alone."""

    __slots__ = ("_attributes", "_rows", "columns")

    def __init__(self, rows: dict[str, _Rows] | None = None) -> None:
        """``rows``: the read-only rows of tables that are known."""
        self._rows = {} if rows is None else rows
        self._attributes: dict[str, AttributeTable | Later[tuple[Array, list[bytes]]]] = {}
        self.columns: dict[tuple[str, str], Array | StringColumn | AttributeColumn] = {}
        """Columns read so far, by table and name: fields, and attributes (``batch``)."""

    @classmethod
    def joined(cls, schema: Schema, parts: Sequence[Index], sizes: Array) -> Self:
        """The index of the joined bytes of batches with these indexes: of the tables that all of them know."""
        index = cls()
        bases = np.cumsum(sizes) - sizes
        # What is known now, not the indexes themselves: tables of attributes keep their bytes.
        for table, parent in schema.parents.items():
            rows = [part._rows.get(table) for part in parts]  # noqa: SLF001
            if any(held is None for held in rows) or (parent and parent not in index._rows):
                continue
            index._rows[table] = _joined_rows(bases, rows, [part._rows[parent] for part in parts] if parent else [])  # noqa: SLF001
            if table in parts[0]._attributes:  # noqa: SLF001
                attributes = [part.held_attributes(table) for part in parts]
                if all(held is not None for held in attributes):
                    index._attributes[table] = _joined_attributes(bases, rows, attributes)
        return index

    def rows(self, table: str) -> Array | None:
        """The rows of a table; None = not known."""
        held = self._rows.get(table)
        if isinstance(held, Later):
            held = self._rows[table] = read_only(held.get())
        return held

    def add_rows(self, table: str, rows: _Rows) -> None:
        """Now the rows are known, or how to make them."""
        self._rows[table] = rows if isinstance(rows, Later) else read_only(rows)

    def held_rows(self, table: str) -> _Rows:
        """The rows of a table that is known, or what will make them."""
        return self._rows[table]

    def tables(self) -> list[str]:
        """The tables whose rows are known."""
        return list(self._rows)

    def attributes(self, table: str, wire: bytes) -> AttributeTable | None:
        """The attributes of a table, over the bytes this is the index of; None = not known."""
        held = self._attributes.get(table)
        if isinstance(held, Later):
            rows, keys = held.get()
            held = self._attributes[table] = AttributeTable(rows, wire, keys)
        return held

    def add_attributes(self, table: str, attributes: AttributeTable | Later[tuple[Array, list[bytes]]]) -> None:
        """Now the attributes are known, or how to make them."""
        self._attributes[table] = attributes

    def held_attributes(self, table: str) -> _Attributes | None:
        """The attributes of a table without the bytes, or what will make them; None = not known."""
        held = self._attributes.get(table)
        return (held.rows, held.keys) if isinstance(held, AttributeTable) else held

    def attributed_tables(self) -> list[str]:
        """The tables whose attributes are known."""
        return list(self._attributes)

    @property
    def memory_bytes(self) -> int:
        """About what is held."""
        held = 0
        for rows in self._rows.values():
            held += rows.nbytes
        for table in self._attributes.values():
            held += table.nbytes if isinstance(table, Later) else table.memory_bytes
        for column in self.columns.values():
            held += column.nbytes if isinstance(column, np.ndarray) else column.memory_bytes
        return held


def now(held: T | Later[T]) -> T:
    """What is known or will be."""
    return held.get() if isinstance(held, Later) else held


def _joined_rows(bases: Array, parts: Sequence[Any], parents: Sequence[_Rows]) -> Later[Array]:
    """The rows of one table over joined bytes; ``bases`` int64[parts]: where each part's bytes begin."""

    def make() -> Array:
        starts = _starts([len(now(rows)) for rows in parents]) if parents else np.zeros(len(parts), np.int64)
        return join_rows([now(rows) for rows in parts], bases, starts)

    return Later(make, *parts)


def _joined_attributes(bases: Array, owners: Sequence[Any], parts: Sequence[Any]) -> Later[tuple[Array, list[bytes]]]:
    """The attributes of one table over joined bytes."""

    def make() -> tuple[Array, list[bytes]]:
        known = [now(part) for part in parts]
        keys, codes = _merged_keys([keys for _, keys in known])
        return join_rows([rows for rows, _ in known], bases, _starts([len(now(rows)) for rows in owners]), codes), keys

    return Later(make, *(part if isinstance(part, Later) else part[0] for part in parts))


def _starts(lengths: Sequence[int]) -> Array:
    ends = np.cumsum(lengths, dtype=np.int64)
    return ends - np.asarray(lengths, np.int64)


def _merged_keys(parts: Sequence[list[bytes]]) -> tuple[list[bytes], list[Array | None] | None]:
    """The keys of several tables as one list, and what each table's codes become in it (None = the same)."""
    if all(keys == parts[0] for keys in parts):
        return parts[0], None
    index: dict[bytes, int] = {}
    codes: list[Array | None] = [
        np.fromiter((index.setdefault(key, len(index)) for key in keys), np.int32, len(keys)) for keys in parts
    ]
    return list(index), codes
