"""Attributes as columns: one key over one table (``AttributeColumn``), or all of a table (``AttributeTable``).

Ints, doubles, bools and text stand in columns of their own; arrays, maps and bytes stay encoded. A key that is repeated
on a row: the last wins. Rows are ``layout.ATTRIBUTE`` records whose slices point into a source: the batch's bytes or
bytes made here.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np

from collector.model.columns import Array, StringColumn, read_only
from collector.model.values import AttributeValue, any_value_text, double_text
from collector.wire import hash as wire_hash
from collector.wire.build import encode_value
from collector.wire.layout import (
    ATTRIBUTE,
    KIND_ABSENT,
    KIND_ARRAY,
    KIND_BOOL,
    KIND_BYTES,
    KIND_DOUBLE,
    KIND_EMPTY,
    KIND_INT,
    KIND_MAP,
    KIND_STRING,
)
from collector.wire.splice.values import compact, decimal, gather, overlay, read_values, varints

if TYPE_CHECKING:
    import builtins
    from collections.abc import Sequence

__all__ = ["AttributeColumn", "AttributeTable", "as_column", "merge_columns"]

_FIXED_TEXT = ("", "false", "true")
_ENCODED_KINDS = (KIND_ARRAY, KIND_MAP, KIND_BYTES)


class _Values:
    """Kinds and values of attribute rows over a source: what a column and a table of attributes share."""

    def __init__(self, rows: Array, source: bytes) -> None:
        self.rows = read_only(rows)
        """The record array (``layout.ATTRIBUTE``), for kernels."""
        self.source = source
        """What the rows' slices point into."""

    def __len__(self) -> builtins.int:
        return len(self.rows)

    @cached_property
    def kind(self) -> Array:
        """uint8[n]: KIND_*; KIND_ABSENT where there is no value."""
        return read_only(self.rows["kind"].astype(np.uint8))

    @cached_property
    def text(self) -> StringColumn:
        """The values that are text; absent on every other row."""
        starts = np.where(self.rows["kind"] == KIND_STRING, self.rows["value"], np.int32(-1))
        return StringColumn.from_slices(self.source, starts, self.rows["value_len"])

    @cached_property
    def int(self) -> Array:
        """int64[n]: the values that are ints, 0 elsewhere."""
        return read_only(np.where(self.kind == KIND_INT, self.rows["int_value"], 0))

    @cached_property
    def double(self) -> Array:
        """float64[n]: the values that are doubles, 0 elsewhere."""
        return read_only(np.where(self.kind == KIND_DOUBLE, self.rows["double_value"], 0.0))

    @cached_property
    def bool(self) -> Array:
        """bool[n]: the values that are bools, False elsewhere."""
        return read_only((self.kind == KIND_BOOL) & (self.rows["int_value"] != 0))

    def as_text(self) -> StringColumn:
        """Every kind as text: ``true``, ``42``, ``1.0`` → ``1``, arrays and maps as JSON, bytes in base64, an empty value as ``""``.

        Source: OpenTelemetry specification, common/README "AttributeValue to string".
        """
        return self._as_text

    @cached_property
    def _as_text(self) -> StringColumn:
        kind = self.kind
        used = set(np.flatnonzero(np.bincount(kind, minlength=256)).tolist()) - {KIND_ABSENT}
        if used <= {KIND_STRING}:
            return self.text
        parts: list[tuple[Array, StringColumn]] = []
        if KIND_STRING in used:
            parts.append((kind == KIND_STRING, self.text))
        if used & {KIND_BOOL, KIND_EMPTY}:
            codes = np.where(kind == KIND_BOOL, self.bool.astype(np.int32) + 1, np.int32(0))
            parts.append(((kind == KIND_BOOL) | (kind == KIND_EMPTY), StringColumn.from_codes(codes, _FIXED_TEXT)))
        if KIND_INT in used:
            parts.append((kind == KIND_INT, StringColumn.from_slices(*decimal(np.ascontiguousarray(self.int)))))
        if KIND_DOUBLE in used:
            distinct, codes = np.unique(self.double.view(np.int64), return_inverse=True)
            parts.append(
                (
                    kind == KIND_DOUBLE,
                    StringColumn.from_codes(
                        codes, [double_text(value) for value in distinct.view(np.float64).tolist()]
                    ),
                )
            )
        if used & set(_ENCODED_KINDS):
            encoded = np.isin(kind, _ENCODED_KINDS)
            values = StringColumn.from_slices(
                self.source, np.where(encoded, self.rows["any"], np.int32(-1)), self.rows["any_len"]
            )
            parts.append(
                (
                    encoded,
                    StringColumn.from_codes(values.codes, [any_value_text(value) for value in values.distinct_bytes]),
                )
            )
        return _overlay(len(kind), parts)

    @property
    def memory_bytes(self) -> builtins.int:
        """About what the columns made so far keep, without the source."""
        made = (value for name, value in vars(self).items() if name not in {"rows", "source"})
        return self.rows.nbytes + sum(
            value.nbytes if isinstance(value, np.ndarray) else value.memory_bytes
            for value in made
            if isinstance(value, np.ndarray | StringColumn)
        )


class AttributeColumn(_Values):
    """One attribute key over one table, one row a row of the table."""

    @cached_property
    def present(self) -> Array:
        """bool[n]: the row has the attribute."""
        return read_only(self.rows["kind"] != KIND_ABSENT)

    def numeric(self) -> Array:
        """float64[n]: ints and doubles; NaN elsewhere. Text is not parsed."""
        return np.where(
            self.kind == KIND_INT, self.int.astype(np.float64), np.where(self.kind == KIND_DOUBLE, self.double, np.nan)
        )

    def take(self, rows: Array) -> AttributeColumn:
        """The rows of a mask or of indices."""
        return AttributeColumn(self.rows[rows], self.source)

    def fill(self, other: AttributeColumn) -> AttributeColumn:
        """``other``'s value where there is none."""
        if not other.present.any() or self.present.all():
            return self
        if other.source is not self.source:
            return merge_columns(len(self), [(self.present, self), (~self.present & other.present, other)])
        return AttributeColumn(overlay(self.rows, other.rows, np.arange(len(self), dtype=np.int32)), self.source)

    @classmethod
    def of(cls, values: Sequence[AttributeValue | None]) -> Self:
        """A column of these values; None = absent."""
        contents = [b"" if value is None else encode_value(value) for value in values]
        lengths = np.fromiter(map(len, contents), np.int32, len(contents))
        starts = (np.cumsum(lengths, dtype=np.int64) - lengths).astype(np.int32)
        absent = np.fromiter((value is None for value in values), np.bool_, len(values))
        starts[absent] = -1
        source = b"".join(contents)
        return cls(read_values(source, starts, lengths), source)

    @classmethod
    def constant(cls, value: AttributeValue, row_count: builtins.int) -> Self:
        """The same value on every row."""
        return cls.encoded(encode_value(value), row_count)

    @classmethod
    def encoded(cls, source: bytes, row_count: builtins.int) -> Self:
        """The same value, an AnyValue's content, on every row."""
        row = read_values(source, np.zeros(1, np.int32), np.array([len(source)], np.int32))
        return cls(gather(row, np.zeros(row_count, np.int32)), source)

    @classmethod
    def of_text(cls, column: StringColumn) -> Self:
        """The texts of a column as attribute values."""
        contents = [encode_value(value.decode("utf-8", "replace")) for value in column.distinct_bytes]
        lengths = np.fromiter(map(len, contents), np.int32, len(contents))
        starts = (np.cumsum(lengths, dtype=np.int64) - lengths).astype(np.int32)
        source = b"".join(contents)
        codes = column.codes
        return cls(
            read_values(source, np.append(starts, np.int32(-1))[codes], np.append(lengths, np.int32(0))[codes]), source
        )

    @classmethod
    def of_numbers(cls, values: Array) -> Self:
        """Ints, doubles or bools, one a row.

        Raises:
            TypeError: an array of something else.
        """
        if values.dtype.kind not in "biuf":
            raise TypeError(f"an array of {values.dtype} is no column of attribute values")
        values = np.ascontiguousarray(values)
        if values.dtype.kind == "f":
            table = np.empty(len(values), np.dtype([("tag", "u1"), ("value", "<f8")]))
            table["tag"], table["value"] = 0x21, values
            return cls._fixed(table.tobytes(), len(values), 9)
        if values.dtype.kind == "b":
            table = np.empty(len(values), np.dtype([("tag", "u1"), ("value", "u1")]))
            table["tag"], table["value"] = 0x10, values
            return cls._fixed(table.tobytes(), len(values), 2)
        if values.dtype == np.uint64 and len(values) and values.max() > np.iinfo(np.int64).max:
            raise ValueError("an attribute's ints are signed 64-bit")
        source, starts, lengths = varints(b"\x18", values.astype(np.int64).view(np.uint64))
        return cls(read_values(source, starts.astype(np.int32), lengths.astype(np.int32)), source)

    @classmethod
    def _fixed(cls, source: bytes, count: builtins.int, width: builtins.int) -> Self:
        starts = np.arange(0, count * width, width, dtype=np.int32)
        return cls(read_values(source, starts, np.full(count, width, np.int32)), source)

    def __repr__(self) -> str:
        return f"AttributeColumn({len(self)} rows, {np.count_nonzero(self.present)} present)"


class AttributeTable(_Values):
    """All attributes of one table, in document order: m of them."""

    def __init__(self, rows: Array, source: bytes, keys: list[bytes]) -> None:
        """``keys``: what the rows' key codes mean."""
        super().__init__(rows, source)
        self.keys = keys
        """The keys as UTF-8, by code; some may be unused."""

    @property
    def row_count(self) -> builtins.int:
        """How many attributes there are."""
        return len(self.rows)

    @cached_property
    def owner(self) -> Array:
        """int32[m]: the row of the table the attribute is on."""
        return read_only(np.ascontiguousarray(self.rows["owner"]))

    @cached_property
    def key(self) -> StringColumn:
        """[m]; its ``distinct`` are the keys of the batch's table."""
        return StringColumn.from_codes(self.rows["key_code"], self.keys)

    def code_of(self, key: str) -> builtins.int:
        """The key's code; -1 = no row can have it."""
        try:
            return self.keys.index(key.encode("utf-8", "replace"))
        except ValueError:
            return -1

    def hash(self) -> Array:
        """uint64[m,2]: keyed hash of (key, kind, value); its sum mod 2^128 over a row is the row's attribute identity."""
        return wire_hash.hash_attributes(self.source, self.rows)


def as_column(values: AttributeColumn | StringColumn | Array | AttributeValue, row_count: int) -> AttributeColumn:
    """Anything that can be set as attribute values, as a column of ``row_count`` rows.

    Raises:
        TypeError: no attribute value.
        ValueError: a column of another length.
    """
    if isinstance(values, AttributeColumn):
        column = values
    elif isinstance(values, StringColumn):
        column = AttributeColumn.of_text(values)
    elif isinstance(values, np.ndarray):
        column = AttributeColumn.of_numbers(values)
    elif isinstance(values, np.generic):
        return AttributeColumn.constant(values.item(), row_count)
    else:
        return AttributeColumn.constant(values, row_count)
    if len(column) != row_count:
        raise ValueError(f"a column of {len(column)} values for {row_count} rows")
    return column


def merge_columns(row_count: int, parts: Sequence[tuple[Array, AttributeColumn]]) -> AttributeColumn:
    """One column of several: each part's rows (bool[n], disjoint) from its own column; absent elsewhere."""
    rows = gather(np.empty(0, ATTRIBUTE), np.full(row_count, -1, np.int32))
    sources: list[bytes] = []
    size = 0
    for mask, column in parts:
        source, moved = compact(column.rows[mask], column.source, size)
        rows[mask] = moved
        sources.append(source)
        size += len(source)
    return AttributeColumn(rows, b"".join(sources))


def _overlay(row_count: int, parts: Sequence[tuple[Array, StringColumn]]) -> StringColumn:
    """One text column of several, each for its own rows; equal texts get one code."""
    index: dict[bytes, int] = {}
    codes = np.full(row_count, -1, np.int32)
    for mask, column in parts:
        lookup = np.fromiter(
            (index.setdefault(value, len(index)) for value in column.distinct_bytes), np.int32, column.distinct_count
        )
        codes[mask] = lookup[column.codes[mask]]
    return StringColumn.from_codes(codes, list(index))
