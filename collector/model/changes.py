"""What an edit has collected, as the kernels want it: a log of changes to the attributes of each table, and changes of its fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.model.attributes import AttributeColumn, as_column
from collector.model.columns import Array, StringColumn
from collector.wire.build import encode_value
from collector.wire.splice.attributes import DELETE, INSERT, UPDATE, UPSERT, AttributeLog

if TYPE_CHECKING:
    from collector.model.attributes import AttributeTable
    from collector.model.table import Field
    from collector.model.values import AttributeValue

__all__ = ["DELETED", "MODES", "UNTOUCHED", "AttributeChange", "FieldChange", "TableChange", "Values", "mask_of"]

UNTOUCHED: Final = -1
DELETED: Final = -2
MODES: Final = {"upsert": UPSERT, "insert": INSERT, "update": UPDATE}
_DTYPES: Final = {
    "varint": np.int64,
    "fixed64": np.uint64,
    "fixed32": np.uint32,
    "flags": np.uint32,
    "span_id": np.uint64,
    "trace_id": np.uint64,
}


def mask_of(where: Array | None, count: int) -> Array | None:
    """A mask of the caller's as one byte a row, copied; None = all.

    Raises:
        ValueError: a mask of another length.
    """
    if where is None:
        return None
    mask = np.array(where, np.bool_)
    if mask.shape != (count,):
        raise ValueError(f"a mask of {len(mask)} for {count} rows")
    return mask.view(np.uint8)


class Values:
    """Values to be set, one a row: encoded only when they are written, each distinct text or constant once."""

    __slots__ = ("_column", "count", "encoding")

    def __init__(self, given: AttributeColumn | StringColumn | Array | AttributeValue, count: int) -> None:
        """Arrays are copied: the caller may use them again.

        Raises:
            TypeError: no attribute value.
            ValueError: a column of another length.
        """
        self.count = count
        self.encoding: tuple[str, Any, Any]
        """As ``AttributeLog`` takes it."""
        self._column: AttributeColumn | None = None
        if isinstance(given, (AttributeColumn, StringColumn, np.ndarray)) and len(given) != count:
            raise ValueError(f"a column of {len(given)} values for {count} rows")
        if isinstance(given, AttributeColumn):
            self.encoding, self._column = ("rows", np.ascontiguousarray(given.rows), given.source), given
        elif isinstance(given, StringColumn):
            self.encoding = ("texts", list(given.distinct_bytes), np.ascontiguousarray(given.codes))
        elif isinstance(given, np.ndarray):
            self.encoding = ("numbers", _numbers(given), None)
        else:
            self.encoding = ("values", [encode_value(given.item() if isinstance(given, np.generic) else given)], None)

    @property
    def column(self) -> AttributeColumn:
        """The values as a column, for those who read through the edit."""
        if self._column is None:
            form, given, codes = self.encoding
            if form == "texts":
                self._column = AttributeColumn.of_text(StringColumn.from_codes(codes, given))
            elif form == "numbers":
                self._column = AttributeColumn.of_numbers(given.view(np.bool_) if given.dtype == np.uint8 else given)
            else:
                self._column = AttributeColumn.encoded(given[0], self.count)
        return self._column


def _numbers(given: Array) -> Array:
    kind = given.dtype.kind
    if kind == "f":
        return np.array(given, np.float64, ndmin=1)
    if kind == "b":
        return np.array(given, np.bool_).view(np.uint8)
    if kind not in "iu":
        raise TypeError(f"an array of {given.dtype} is no column of attribute values")
    if given.dtype == np.uint64 and len(given) and given.max() > np.iinfo(np.int64).max:
        raise ValueError("an attribute's ints are signed 64-bit")
    return np.array(given, np.int64)


@dataclass(slots=True)
class AttributeChange:
    """One change to the attributes of a table."""

    slot: int
    """Which of the keys named; -1 = the attributes of a mask."""
    mode: int
    where: Array | None
    """uint8: one a row of the table or, for a mask of attributes, one an attribute; None = all."""
    values: Values | None = None
    """None = delete."""

    @property
    def encoding(self) -> tuple[str, Any, Any] | None:
        """The values as ``AttributeLog`` takes them."""
        return None if self.values is None else self.values.encoding


@dataclass(slots=True)
class FieldChange:
    """Changes of one field."""

    known: Field
    winner: Array
    """int32[n]: the column each row takes its value from, or UNTOUCHED."""
    columns: list[StringColumn | AttributeColumn | Array] = field(default_factory=list)

    def column(
        self, values: AttributeValue | AttributeColumn | StringColumn | Array, count: int
    ) -> StringColumn | AttributeColumn | Array:
        """The values as this field's column of ``count`` rows."""
        form = self.known.form
        if form == "any":
            return as_column(values, count)
        if form == "text":
            column = StringColumn.constant(values, count) if isinstance(values, str) else values
            if not isinstance(column, StringColumn):
                raise TypeError(f"{type(values).__name__} is no text")
            if len(column) != count:
                raise ValueError(f"a column of {len(column)} values for {count} rows")
            return column
        if isinstance(values, str | StringColumn | AttributeColumn):
            raise TypeError(f"{type(values).__name__} is no number")
        shape = (count, 2) if form == "trace_id" else (count,)
        return np.ascontiguousarray(np.broadcast_to(np.asarray(values).astype(_DTYPES[form]), shape))


@dataclass(slots=True)
class TableChange:
    """All changes of one table."""

    row_count: int
    slots: dict[bytes, int] = field(default_factory=dict)
    """The keys that changes name, UTF-8, and their number."""
    log: list[AttributeChange] = field(default_factory=list)
    by_attribute: bool = False
    """Whether some change is by a mask of attributes."""
    fields: dict[str, FieldChange] = field(default_factory=dict)

    def add(self, key: str, mode: int, where: Array | None, values: Values | None) -> None:
        """Note a change of one key."""
        self.log.append(AttributeChange(self.slots.setdefault(_utf8(key), len(self.slots)), mode, where, values))

    def add_by_attribute(self, where: Array | None, values: Values | None) -> None:
        """Note a change of the attributes of a mask."""
        self.by_attribute = True
        self.log.append(AttributeChange(-1, UPSERT if values is not None else DELETE, where, values))

    def concerns(self, key: str) -> bool:
        """Whether a change may be one of this key."""
        return self.by_attribute or _utf8(key) in self.slots

    def of_key(self, key: str) -> list[AttributeChange]:
        """The changes that may be of this key, in order."""
        slot = self.slots.get(_utf8(key))
        return [change for change in self.log if change.slot in {-1, slot}]

    def read_log(self, rows: Array, every: AttributeTable, key: str, changes: list[AttributeChange]) -> AttributeLog:
        """The changes ``of_key`` alone; slot 0 is the key."""
        arguments = [(min(change.slot, 0), change.mode, change.where, change.encoding) for change in changes]
        return AttributeLog(rows, every.rows, every.keys, [_utf8(key)], arguments)

    def write_log(self, rows: Array, every: AttributeTable) -> AttributeLog:
        """All changes of attributes."""
        arguments = [(change.slot, change.mode, change.where, change.encoding) for change in self.log]
        return AttributeLog(rows, every.rows, every.keys, list(self.slots), arguments)


def _utf8(key: str) -> bytes:
    return key.encode("utf-8", "replace")
