"""The index of a batch: what is known of its bytes so far. Not the bytes, and not how they are read (``batch``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from collector.model.attributes import AttributeColumn, AttributeTable
from collector.model.columns import Array, StringColumn, read_only
from collector.wire.splice import join_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collector.model.table import Schema

__all__ = ["Index"]


class Index:
    """Only ever added to; one object per bytes, shared by batches that differ in their context alone.

    The index of joined bytes is made of those of the parts when first asked for: a batch that was only collected to be sent never pays.
    """

    __slots__ = ("_attributes", "_join", "_rows", "columns")

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._rows: dict[str, Array] = {}
        self._attributes: dict[str, AttributeTable] = {}
        self.columns: dict[tuple[str, str], Array | StringColumn | AttributeColumn] = {}
        """Fields read so far, by table and name."""
        self._join: _Join | None = None

    @classmethod
    def joined(cls, wire: bytes, schema: Schema, parts: Sequence[Index], sizes: Array) -> Self:
        """The index of ``wire``, the joined bytes of batches with these indexes: of the tables that all of them know."""
        index = cls()
        tables = [table for table in schema.parents if all(table in part.rows for part in parts)]
        attributed = [table for table in tables if all(table in part.attributes for part in parts)]
        index._join = _Join(
            wire,
            schema,
            np.cumsum(sizes) - sizes,
            {table: [part.rows[table] for part in parts] for table in tables},
            # Not the tables themselves: they hold the parts' bytes.
            {table: [(part.attributes[table].rows, part.attributes[table].keys) for part in parts] for table in attributed},
        )
        return index

    @property
    def rows(self) -> dict[str, Array]:
        """The rows of each table known."""
        if self._join is not None:
            self._settle(self._join)
        return self._rows

    @property
    def attributes(self) -> dict[str, AttributeTable]:
        """The attributes of each table whose attributes are known."""
        if self._join is not None:
            self._settle(self._join)
        return self._attributes

    @property
    def memory_bytes(self) -> int:
        """About what is held."""
        if self._join is not None:
            return self._join.memory_bytes
        held = sum(rows.nbytes for rows in self._rows.values()) + sum(table.memory_bytes for table in self._attributes.values())
        return held + sum(column.nbytes if isinstance(column, np.ndarray) else column.memory_bytes for column in self.columns.values())

    def _settle(self, join: _Join) -> None:
        self._join = None
        for table, parts in join.rows.items():
            parent = join.schema.parents[table]
            parents = _starts([len(rows) for rows in join.rows[parent]]) if parent else np.zeros(len(parts), np.int64)
            self._rows[table] = read_only(join_rows(parts, join.bases, parents))
        for table, attributes in join.attributes.items():
            keys, codes = _merged_keys([keys for _, keys in attributes])
            owners = _starts([len(rows) for rows in join.rows[table]])
            self._attributes[table] = AttributeTable(
                join_rows([rows for rows, _ in attributes], join.bases, owners, codes), join.wire, keys
            )


@dataclass(slots=True)
class _Join:
    """What the index of joined bytes is to be made of."""

    wire: bytes
    schema: Schema
    bases: Array
    """int64[parts]: where each part's bytes begin."""
    rows: dict[str, list[Array]]
    attributes: dict[str, list[tuple[Array, list[bytes]]]]

    @property
    def memory_bytes(self) -> int:
        held = sum(rows.nbytes for parts in self.rows.values() for rows in parts)
        return held + sum(rows.nbytes for parts in self.attributes.values() for rows, _ in parts)


def _starts(lengths: Sequence[int]) -> Array:
    ends = np.cumsum(lengths, dtype=np.int64)
    return ends - np.asarray(lengths, np.int64)


def _merged_keys(parts: Sequence[list[bytes]]) -> tuple[list[bytes], list[Array | None] | None]:
    """The keys of several tables as one list, and what each table's codes become in it (None = the same)."""
    if all(keys == parts[0] for keys in parts):
        return parts[0], None
    index: dict[bytes, int] = {}
    codes: list[Array | None] = [np.fromiter((index.setdefault(key, len(index)) for key in keys), np.int32, len(keys)) for keys in parts]
    return list(index), codes
