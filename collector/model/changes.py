"""The changes an edit has collected, in the form the kernels take: a log of attributes and changed fields per table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.model.attributes import AttributeColumn, as_column, merge_columns
from collector.model.columns import StringColumn
from collector.wire.encode import encode_value
from collector.wire.splice.attribute_log import INSERT, UPDATE, UPSERT, AttributeLog

if TYPE_CHECKING:
    from collector.model.arrays import I32, U8, Array, Mask
    from collector.model.attributes import AttributeTable
    from collector.model.schema import FieldSpec
    from collector.model.values import AttributeValue

__all__ = [
    "MODES",
    "UNTOUCHED",
    "AttributeChange",
    "FieldChange",
    "NewValues",
    "TableChange",
    "as_mask",
    "as_mask_bytes",
]

UNTOUCHED: Final = -1
MODES: Final = {"upsert": UPSERT, "insert": INSERT, "update": UPDATE}
_DTYPES: Final = {
    "varint": np.int64,
    "fixed64": np.uint64,
    "fixed32": np.uint32,
    "flags": np.uint32,
    "span_id": np.uint64,
    "trace_id": np.uint64,
}


def as_mask(where: Mask | None, count: int) -> Mask:
    """A copy of the caller's mask; None stands for all rows.

    Raises:
        ValueError: The mask has another length.
    """
    if where is None:
        return np.ones(count, np.bool_)
    mask = np.array(where, np.bool_)
    if mask.shape != (count,):
        raise ValueError(f"expected a mask of {count} rows, got one of {len(mask)}")
    return mask


def as_mask_bytes(where: Mask | None, count: int) -> U8 | None:
    """A copy of the caller's mask with one byte per row, as the kernels take it; None stands for all rows.

    Raises:
        ValueError: The mask has another length.
    """
    return None if where is None else as_mask(where, count).view(np.uint8)


class NewValues:
    """Attribute values to set, one per row. Each distinct text or constant is encoded once, when it is written."""

    __slots__ = ("_column", "count", "encoding")

    def __init__(self, values: AttributeColumn | StringColumn | Array | AttributeValue, count: int) -> None:
        """Arrays are copied, so the caller may reuse them.

        Raises:
            TypeError: The values cannot be attribute values.
            ValueError: The column has another length.
        """
        self.count = count
        self.encoding: tuple[str, Any, Any]
        """The values as ``AttributeLog`` takes them."""
        self._column: AttributeColumn | None = None
        if isinstance(values, (AttributeColumn, StringColumn, np.ndarray)) and len(values) != count:
            raise ValueError(f"expected a column of {count} values, got {len(values)}")
        if isinstance(values, AttributeColumn):
            self.encoding, self._column = ("rows", np.ascontiguousarray(values.rows), values.source), values
        elif isinstance(values, StringColumn):
            self.encoding = ("texts", list(values.distinct_bytes), np.ascontiguousarray(values.codes))
        elif isinstance(values, np.ndarray):
            self.encoding = ("numbers", _numbers(values), None)
        else:
            value = values.item() if isinstance(values, np.generic) else values
            self.encoding = ("values", [encode_value(value)], None)

    @property
    def column(self) -> AttributeColumn:
        """The values as a column, for reads through the edit."""
        if self._column is None:
            form, values, codes = self.encoding
            if form == "texts":
                self._column = AttributeColumn.of_text(StringColumn.from_codes(codes, values))
            elif form == "numbers":
                numbers = values.view(np.bool_) if values.dtype == np.uint8 else values
                self._column = AttributeColumn.of_numbers(numbers)
            else:
                self._column = AttributeColumn.of_encoded(values[0], self.count)
        return self._column


def _numbers(values: Array) -> Array:
    kind = values.dtype.kind
    if kind == "f":
        return np.array(values, np.float64, ndmin=1)
    if kind == "b":
        return np.array(values, np.bool_).view(np.uint8)
    if kind not in "iu":
        raise TypeError(f"expected an array of integers, floats or bools, got dtype {values.dtype}")
    if values.dtype == np.uint64 and len(values) and values.max() > np.iinfo(np.int64).max:
        raise ValueError(f"integer attributes are signed 64-bit: {values.max()} is out of range")
    return np.array(values, np.int64)


@dataclass(slots=True)
class AttributeChange:
    """One change of one attribute key."""

    slot: int
    """The number of the key among the keys that the table's changes name."""
    mode: int
    """UPSERT, INSERT, UPDATE or DELETE."""
    where: U8 | None
    """One byte per row of the table; None = all rows."""
    values: NewValues | None = None
    """None for DELETE."""

    @property
    def arguments(self) -> tuple[int, int, U8 | None, tuple[str, Any, Any] | None]:
        """The change as ``AttributeLog`` takes it."""
        return self.slot, self.mode, self.where, None if self.values is None else self.values.encoding


@dataclass(slots=True)
class FieldChange:
    """The changes of one field."""

    spec: FieldSpec
    winner: I32
    """I32[n]: the index in ``columns`` that each row takes its value from, or UNTOUCHED."""
    columns: list[StringColumn | AttributeColumn | Array] = field(default_factory=list)

    def column(
        self, values: AttributeValue | AttributeColumn | StringColumn | Array, count: int
    ) -> StringColumn | AttributeColumn | Array:
        """The values as a column of this field with ``count`` rows.

        Raises:
            TypeError: The values are not of the field's type.
            ValueError: The column has another length.
        """
        form = self.spec.form
        if form == "any":
            return values if isinstance(values, StringColumn) and len(values) == count else as_column(values, count)
        if form == "text":
            column = StringColumn.constant(values, count) if isinstance(values, str) else values
            if not isinstance(column, StringColumn):
                raise TypeError(f"expected text for this field, got {type(values).__name__}")
            if len(column) != count:
                raise ValueError(f"expected a column of {count} values, got {len(column)}")
            return column
        if isinstance(values, str | StringColumn | AttributeColumn):
            raise TypeError(f"expected numbers for this field, got {type(values).__name__}")
        shape = (count, 2) if form == "trace_id" else (count,)
        return np.ascontiguousarray(np.broadcast_to(np.asarray(values).astype(_DTYPES[form]), shape))

    def over(self, column: Any) -> Any:
        """The field with the changes, given the column before them."""
        if isinstance(column, AttributeColumn):
            parts = [(self.winner == UNTOUCHED, column)]
            parts += [(self.winner == number, as_column(new, len(column))) for number, new in enumerate(self.columns)]
            return merge_columns(len(column), parts)
        if isinstance(column, StringColumn):
            codes = np.full(len(column), -1, np.int32)
            texts: list[bytes] = []
            layers: list[tuple[int, Any]] = [(UNTOUCHED, column), *enumerate(self.columns)]
            for number, new in layers:
                rows = (self.winner == number) & (new.codes >= 0)
                # Only what is used: a new column may have been made from one that was read here.
                used, places = np.unique(new.codes[rows], return_inverse=True)
                codes[rows] = places + len(texts)
                known = new.distinct_bytes
                texts += [known[code] for code in used.tolist()]
            return StringColumn.from_codes(codes, texts)
        changed = column.copy()
        for number, new in enumerate(self.columns):
            rows = self.winner == number
            changed[rows] = new[rows]  # type: ignore[index]
        return changed


@dataclass(slots=True)
class TableChange:
    """All changes of one table."""

    row_count: int
    slots: dict[bytes, int] = field(default_factory=dict)
    """The attribute keys that changes name, as UTF-8, and their numbers."""
    log: list[AttributeChange] = field(default_factory=list)
    """The changes of attributes, in order."""
    fields: dict[str, FieldChange] = field(default_factory=dict)

    def add(self, key: str, mode: int, where: U8 | None, values: NewValues | None) -> None:
        """Records a change of one key."""
        self.log.append(AttributeChange(self.slots.setdefault(_utf8(key), len(self.slots)), mode, where, values))

    def changes_of(self, key: str) -> list[AttributeChange]:
        """The changes of one key, in order."""
        slot = self.slots.get(_utf8(key))
        return [] if slot is None else [change for change in self.log if change.slot == slot]

    def attribute_log(self, rows: Array, attributes: AttributeTable) -> AttributeLog:
        """The changes of all keys, as the kernel takes them."""
        return AttributeLog(
            rows, attributes.rows, attributes.keys, list(self.slots), [change.arguments for change in self.log]
        )

    def attribute_log_of(
        self, key: str, changes: list[AttributeChange], rows: Array, attributes: AttributeTable
    ) -> AttributeLog:
        """The changes of one key alone; in this log the key has the slot 0."""
        arguments = [(0, *change.arguments[1:]) for change in changes]
        return AttributeLog(rows, attributes.rows, attributes.keys, [_utf8(key)], arguments)


def _utf8(key: str) -> bytes:
    return key.encode("utf-8", "replace")
