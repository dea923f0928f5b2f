"""Reads one field of a table as a column. The fields of each table are listed in ``schema.FIELDS``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collector.model.attributes import AttributeColumn
from collector.model.columns import StringColumn, read_only
from collector.model.schema import FIELDS, FieldSpec
from collector.wire.layout import VALUE_INT
from collector.wire.splice.values import read_values

if TYPE_CHECKING:
    from collector.model.arrays import Array

__all__ = ["field_spec", "read_field"]


def field_spec(table: str, name: str) -> FieldSpec:
    """The description of a field.

    Raises:
        KeyError: The table has no such field.
    """
    try:
        return FIELDS[table][name]
    except KeyError:
        raise KeyError(f"table {table!r} has no field {name!r}; its fields are {', '.join(FIELDS[table])}") from None


def read_field(wire: bytes, rows: Array, table: str, name: str) -> Array | StringColumn | AttributeColumn:
    """The field as a column with one value per row of the table."""
    spec = field_spec(table, name)
    columns = spec.columns
    if spec.form == "text":
        return StringColumn.from_slices(wire, rows[columns[0]], rows[columns[1]])
    if spec.form == "any":
        return AttributeColumn(
            read_values(wire, np.ascontiguousarray(rows[columns[0]]), np.ascontiguousarray(rows[columns[1]])), wire
        )
    if spec.form == "trace_id":
        pair = np.empty((len(rows), 2), np.uint64)
        pair[:, 0] = rows[columns[0]]
        pair[:, 1] = rows[columns[1]]
        return read_only(pair)
    if spec.form == "value":
        ints, doubles, kind = (rows[column] for column in columns)
        return read_only(np.where(kind == VALUE_INT, ints.astype(np.float64), doubles))
    return read_only(np.ascontiguousarray(rows[columns[0]]))
